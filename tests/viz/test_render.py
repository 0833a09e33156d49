"""From text to pictures: formats, missing software, escaping, size on a page."""

from __future__ import annotations

import builtins
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from viz.dot_reader import read
from viz.drawn_spaces import bench_space, darts_space, paper_graph, small_space, table_9, weighed

import trinas as tn
from trinas.viz import Drawing
from trinas.viz.dot import markup, quote

needs_dot = pytest.mark.skipif(
    shutil.which("dot") is None, reason="the program dot of Graphviz is not installed"
)
GOLDEN = Path(__file__).parents[1] / "golden" / "viz"


@pytest.fixture
def drawing() -> Drawing:
    return tn.draw(small_space(), title="small")


# ------------------------------------------------------------ files


@needs_dot
@pytest.mark.parametrize(
    ("suffix", "start"),
    [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")],
)
def test_the_suffix_is_the_format(drawing, tmp_path, suffix, start):
    path = drawing.render(str(tmp_path / f"small.{suffix}"))

    assert path == tmp_path / f"small.{suffix}"
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize("suffix", ["dot", "gv"])
def test_the_text_needs_no_software(drawing, tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("PATH", "")
    path = drawing.render(tmp_path / f"small.{suffix}")

    assert path.read_text(encoding="utf-8") == drawing.dot


@pytest.mark.parametrize("name", ["small.jpg", "small"])
def test_an_unknown_suffix_is_named(drawing, tmp_path, name):
    with pytest.raises(tn.TrinasError) as raised:
        drawing.render(tmp_path / name)

    assert f"got '{name}'. Known: .svg, .png, .pdf, .dot, .gv." in str(raised.value)


def test_a_missing_program_is_explained(drawing, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(tn.TrinasError) as raised:
        drawing.render(tmp_path / "small.svg")

    for part in ("dot of Graphviz", "apt install", "brew install", "conda", "trinas[viz]"):
        assert part in str(raised.value)
    assert "attribute dot" in str(raised.value)
    assert drawing._repr_svg_() is None


def test_a_missing_package_is_explained(drawing, tmp_path, monkeypatch):
    real = builtins.__import__

    def without_graphviz(name, *args, **kwargs):
        if name == "graphviz":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_graphviz)

    with pytest.raises(tn.TrinasError, match=r"Python package graphviz.*pip install trinas\[viz\]"):
        drawing.render(tmp_path / "small.svg")


@needs_dot
def test_text_that_is_no_dot_is_reported(tmp_path):
    with pytest.raises(tn.TrinasError, match="Graphviz draws the text"):
        Drawing("digraph {{{").render(tmp_path / "broken.svg")


@needs_dot
def test_notebooks_get_a_picture(drawing):
    assert "<svg" in (drawing._repr_svg_() or "")


# ------------------------------------------------------------ escaping


@given(st.text())
def test_any_text_can_be_quoted(text):
    """What is quoted comes back, apart from what DOT cannot hold."""
    kept = "".join(c if c == "\n" or c.isprintable() else " " for c in text)
    found = read(f"digraph trinas {{ {quote(text)}; }}")

    assert list(found.nodes) == [kept]


@given(st.text())
def test_any_text_can_be_a_label(text):
    kept = "".join(c if c == "\n" or c.isprintable() else " " for c in text)
    found = read(f'digraph trinas {{ "a" [label=<{markup(text)}>]; }}')

    assert found.labels()["a"] == kept.replace("\n", "|")


@needs_dot
@pytest.mark.parametrize("title", ['a "b" \\n <c> & d', "<B>", "x\ny", "é–×", "&lt;", "\\"])
def test_titles_come_out_as_they_are(title, tmp_path):
    picture = tn.draw(tn.conv(3, 4), title=title)

    assert read(picture.dot).graph["label"] == title.replace("\n", "|")
    svg = picture.render(tmp_path / "title.svg").read_text(encoding="utf-8")
    for line in title.splitlines():
        shown = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert shown.replace('"', "&quot;") in svg


def test_settings_of_operations_are_escaped():
    @tn.operation("drawn_with_a_text")
    class Texty(tn.Operation):
        what: str = ""

    drawn = read(tn.draw(tn.lower(Texty('<"a&b">'), (3, 4, 4))).dot)

    assert drawn.labels()["drawn_with_a_text"] == 'drawn with a text what <"a&b">|3 → 3'


# ------------------------------------------------------------ the same every time


def golden() -> dict[str, Drawing]:
    """The drawings that files under tests/golden/viz hold."""
    small, bench = tn.lower(small_space(), (3, 8, 8)), tn.lower(bench_space(), (3, 8, 8))
    darts = tn.lower(darts_space(), (3, 8, 8))
    return {
        "space": tn.draw(small_space(), title="space"),
        "graph": tn.draw(small),
        "genotype": tn.draw(tn.Genotype.of(small, {"residual/slot": "conv3"}), direction="LR"),
        "operations": tn.draw(small, detail="operations"),
        "weights": tn.draw(weighed(bench, alive=2)),
        "cell": tn.draw(tn.sample(darts, 0)),
    }


@pytest.mark.parametrize("name", ["space", "graph", "genotype", "operations", "weights", "cell"])
def test_drawings_stay_as_they_are(name):
    """After a change that is meant, run this file as a program to write them anew."""
    assert golden()[name].dot == (GOLDEN / f"{name}.dot").read_text(encoding="utf-8")


def test_all_golden_drawings_are_compared():
    assert {path.stem for path in GOLDEN.glob("*.dot")} == set(golden())


# ------------------------------------------------------------ on a page

# A4 without its margins, in points.
PAGE = (780.0, 540.0)


def page_scale(drawing: Drawing, folder: Path) -> float:
    """How large a drawing can be printed on A4, upright or on its side."""
    svg = drawing.render(folder / "page.svg").read_text(encoding="utf-8")
    match = re.search(r'<svg width="(\d+)pt" height="(\d+)pt"', svg)
    assert match, svg[:400]
    short, long = sorted(map(float, match.groups()))
    return min(PAGE[0] / long, PAGE[1] / short)


@needs_dot
@pytest.mark.parametrize("direction", ["TB", "LR"])
def test_a_derived_network_fits_a_page(tmp_path, direction):
    picture = tn.draw(table_9(paper_graph()), direction=direction)

    assert page_scale(picture, tmp_path) > 0.65


@needs_dot
@pytest.mark.parametrize("alive", [3, 99])
def test_the_supernet_of_the_paper_fits_a_page(tmp_path, alive):
    """Whether few blocks have weight, and are drawn with their options, or all of them."""
    assert page_scale(tn.draw(weighed(paper_graph(), alive=alive)), tmp_path) > 0.55


@needs_dot
def test_cells_fit_a_page(tmp_path):
    graph = tn.lower(darts_space(), (3, 8, 8))

    assert page_scale(tn.draw(tn.sample(graph, 0)), tmp_path) > 0.65
    assert page_scale(tn.draw(weighed(graph, alive=4)), tmp_path) > 0.55


if __name__ == "__main__":
    for name, picture in golden().items():
        picture.render(GOLDEN / f"{name}.dot")
