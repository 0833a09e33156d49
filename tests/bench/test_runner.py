"""Records: made once, resumed, and told in a table and a picture."""

from __future__ import annotations

import json
from itertools import islice
from xml.etree import ElementTree

import attrs
import pytest

from trinas._core.errors import DataError, UnknownNameError
from trinas.bench import METHODS, Allowance, Found, planted, runner
from trinas.bench.command import main
from trinas.bench.picture import svg
from trinas.bench.report import compared, grouped, tables

ORIGIN = {"command": "none", "date": "2026-01-01", "hardware": "any"}
BENCHMARK = planted("operation")


@pytest.fixture
def quick():
    """A method that finds by seed: right where it is even; and how often it ran."""
    ran = []

    @METHODS.register("test-quick")
    def method(benchmark, allowance, seed):
        ran.append(seed)
        genotype = benchmark.networks[1 if seed % 2 == 0 else 0]
        return Found(genotype=genotype, passes=900.0, seconds=1.0, facts={"gap": float("nan")})

    yield ran
    del METHODS._items["test-quick"]


def go(path, seeds=(0, 1), allowance=None, methods=("test-quick",)):
    return runner.run(
        BENCHMARK,
        path,
        methods=methods,
        baselines=("alone-passes", "one-random"),
        seeds=seeds,
        allowance=allowance or Allowance(),
        origin=ORIGIN,
    )


def test_every_run_has_one_record(tmp_path, quick):
    records = list(go(tmp_path / "r.jsonl"))

    assert [(r.method, r.against, r.seed) for r in records] == [
        (method, against, seed)
        for seed in (0, 1)
        for method, against in (
            ("test-quick", ""),
            ("alone-passes", "test-quick"),
            ("one-random", "test-quick"),
        )
    ]
    assert [r.right for r in records if not r.against] == [True, False]
    assert records[0].regret == 0
    assert records[0].percentile == 100
    assert records[0].facts == {"gap": None}
    assert runner.read(tmp_path) == records


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_stopped_run_goes_on(tmp_path, quick, stop):
    whole = list(go(tmp_path / "whole.jsonl"))
    path = tmp_path / "parts.jsonl"
    first = list(islice(go(path), stop))
    rest = list(go(path))

    assert first + rest == whole == runner.read(path)
    assert list(go(path)) == []
    assert sorted(quick) == [0, 0, 1, 1]


def test_a_baseline_by_passes_runs_once_for_methods_of_equal_cost(tmp_path, quick):
    @METHODS.register("test-same")
    def same(benchmark, allowance, seed):
        return Found(genotype=benchmark.networks[2], passes=900.0, seconds=5.0)

    records = list(go(tmp_path / "r.jsonl", seeds=(0,), methods=("test-quick", "test-same")))
    del METHODS._items["test-same"]
    by_key = {(r.method, r.against): r for r in records}
    one, two = by_key["alone-passes", "test-quick"], by_key["alone-passes", "test-same"]

    assert attrs.evolve(one, against="test-same") == two


def test_records_of_other_steps_are_not_mixed(tmp_path, quick):
    list(go(tmp_path / "r.jsonl"))

    with pytest.raises(DataError, match="have the same steps"):
        list(go(tmp_path / "r.jsonl", allowance=Allowance(search_steps=5)))


def test_half_a_line_is_named(tmp_path, quick):
    path = tmp_path / "r.jsonl"
    list(go(path, seeds=(0,)))
    path.write_text(path.read_text() + '{"benchmark": "opera')

    with pytest.raises(DataError, match=r"r\.jsonl:4"):
        runner.read(path)


def test_an_unknown_method_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown method"):
        list(go(tmp_path / "r.jsonl", methods=("none",)))


def test_a_method_is_compared_seed_by_seed(tmp_path, quick):
    records = list(go(tmp_path / "r.jsonl", seeds=range(6)))
    groups = grouped(records)["planted/operation"]
    mine, theirs = groups["test-quick", ""], groups["one-random", "test-quick"]
    result = compared(mine, theirs)
    differences = [theirs[s].regret - mine[s].regret for s in range(6)]

    assert result is not None
    assert result[0] == sum((d > 0) + (d == 0) / 2 for d in differences) / 6
    assert result[1].mean == pytest.approx(sum(differences) / 6)
    assert compared(mine, {}) is None


def test_the_table_has_a_row_for_all_that_ran(tmp_path, quick):
    text = tables(list(go(tmp_path / "r.jsonl")))
    rows = [line for line in text.splitlines() if line.startswith("|")]

    assert "### planted/operation" in text
    assert len(rows) == 2 + 3
    assert rows[2].startswith("| test-quick | 2 | 900 | 1.0 |")
    assert "| 1 of 2 |" in rows[2]
    assert len({row.count("|") for row in rows}) == 1


def test_the_picture_has_a_point_for_all_that_ran(tmp_path, quick):
    groups = grouped(list(go(tmp_path / "r.jsonl")))["planted/operation"]
    root = ElementTree.fromstring(svg("a < b", groups))
    name = "{http://www.w3.org/2000/svg}"
    circles, texts = root.findall(f"{name}circle"), root.findall(f"{name}text")

    assert len(circles) == 3 + 3  # points, and their colours in the legend
    assert texts[0].text == "a < b"
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= 640
        assert 0 <= float(circle.attrib["cy"]) <= 360


def test_the_command_runs_and_tells(tmp_path, capsys):
    run = ["run", "planted/operation", "--methods", "search", "--seeds", "1"]
    main([*run, "--steps", "3", "--pretrain", "1", "--out", str(tmp_path)])
    main(["table", "--out", str(tmp_path), "--pictures", str(tmp_path / "pictures")])
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "planted-operation.jsonl").read_text().splitlines()[0])

    assert record["origin"]["command"].startswith("python -m trinas.bench run planted/operation")
    assert "planted/operation, seed 0: search: regret" in said
    assert "| random-shared, at its cost |" in said
    assert (tmp_path / "pictures" / "planted-operation.svg").exists()


def test_the_command_lists_and_builds(tmp_path, capsys, monkeypatch):
    main(["list"])
    said = capsys.readouterr().out
    assert "nas-bench-201/cifar10" in said
    assert "planted-width" in said
    with pytest.raises(UnknownNameError, match="Did you mean 'planted-width'"):
        main(["build", "planted-widht", "--out", str(tmp_path)])


def test_a_plugin_brings_a_method(tmp_path, monkeypatch, capsys):
    (tmp_path / "brings_one.py").write_text(
        "from trinas import bench\n"
        "@bench.METHODS.register('test-brought')\n"
        "def method(benchmark, allowance, seed):\n"
        "    return bench.Found(genotype=benchmark.networks[0], passes=9.0, seconds=1.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = ["run", "planted/operation", "--plugin", "brings_one", "--seeds", "1"]
    main([*run, "--methods", "test-brought", "--baselines", "--out", str(tmp_path)])
    del METHODS._items["test-brought"]

    assert [r.method for r in runner.read(tmp_path)] == ["test-brought"]
