"""Every Python block of the README and of the documentation runs, and every page is complete.

The blocks of a file run in order, in one namespace, as a reader would type them.
"""

from __future__ import annotations

import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import trinas

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
PYTHON = {"python", "py", "python3", "pycon"}
# Attributes that change how a block looks. Anything else ("no-run", "skip") is refused.
LOOKS = re.compile(r'\s*((title|hl_lines|linenums)="[^"]*"\s*)*')
FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,}|~{3,}) *(?P<language>[\w.+-]*)(?P<rest>.*)")


def python_blocks(text: str, page: str) -> Iterator[tuple[int, str]]:
    """Line number of the first line, and source without indent, of every Python block."""
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        opening = FENCE.fullmatch(line)
        if opening is None:
            continue
        indent, ticks = opening["indent"], opening["ticks"]
        closing = re.compile(rf" *{ticks[0]}{{{len(ticks)},}} *")
        body = []
        for _, inner in lines:
            if closing.fullmatch(inner):
                break
            body.append(inner.removeprefix(indent))
        else:
            raise AssertionError(f"{page}:{number}: this block is never closed")
        if opening["language"].lower() not in PYTHON:
            continue
        if opening["language"] == "pycon" or not LOOKS.fullmatch(opening["rest"]):
            raise AssertionError(f"{page}:{number}: only plain ```python blocks; all of them run")
        yield number + 1, "\n".join(body)


def run_page(path: Path, page: str) -> None:
    """Run the blocks of one page.

    Raises:
        AssertionError: one failed; the text starts with page and line.
    """
    namespace = {"__name__": "__main__"}
    for first, source in python_blocks(path.read_text(encoding="utf-8"), page):
        try:
            # Empty lines in front make the line numbers of the page those of the code.
            exec(compile("\n" * (first - 1) + source, str(path), "exec"), namespace)  # noqa: S102  # our own pages
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            inside = [frame.lineno for frame in frames if frame.filename == str(path)]
            failed = error.lineno if isinstance(error, SyntaxError) else inside[-1]
            raise AssertionError(
                f"{page}:{failed}: in the block from line {first}: {type(error).__name__}: {error}"
            ) from error


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_python_block_runs(path, tmp_path, monkeypatch):
    """The blocks of a page do what the page says, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        run_page(path, path.relative_to(ROOT).as_posix())


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "page.md"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words\n```python\na = 1\nassert a == 2\n```\n", r"^page.md:4: .* line 3: AssertionError"),
        ("```python\na = 1\n```\n\n```python\na = b\n```\n", r"^page.md:6: .* line 6: NameError"),
        ("```python\na = (\n```\n", r"^page.md:2: .* line 2: SyntaxError"),
        ("1. one\n\n    ```python\n    1 / 0\n    ```\n", r"^page.md:4: .* ZeroDivisionError"),
        ("```python no-run\na = 1\n```\n", r"^page.md:1: only plain"),
        ("```pycon\n>>> 1\n1\n```\n", r"^page.md:1: only plain"),
        ("```text\n", r"^page.md:1: this block is never closed"),
    ],
)
def test_a_bad_block_is_found(tmp_path, text, message):
    """The check above can fail, and says where."""
    with pytest.raises(AssertionError, match=message):
        run_page(written(tmp_path, text), "page.md")


def test_blocks_share_a_namespace_and_other_languages_are_left_alone(tmp_path):
    """Later blocks see what earlier ones defined; an example of Markdown is not run."""
    text = "```python\na = 1\n```\n```sh\nexit 1\n```\n````md\n```python\n1 / 0\n```\n````\n"

    run_page(written(tmp_path, text + '```python title="x.py"\nassert a == 1\n```\n'), "page.md")


def test_every_public_name_has_a_place_in_the_reference():
    """A name that trinas or a package of it exports is on a page of docs/api.

    Packages are shown whole, but for functions named like the module they are in: the
    documentation takes trinas.graph.lower for the module, so they need lines of their own.
    """
    pages = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("docs/api/*.md"))
    shown = set(re.findall(r"^::: (trinas\.[\w.]+)$", pages, re.MULTILINE))
    by_itself = {path.rpartition(".")[2] for path in shown}
    things = [pkgutil.resolve_name(path) for path in sorted(shown)]
    packages = [thing for thing in things if isinstance(thing, ModuleType)]
    with_package = {
        name
        for package in packages
        for name in vars(package)
        if f"{package.__name__}.{name}" not in sys.modules
    }

    public = {
        name
        for package in [trinas, *packages]
        for name, value in vars(package).items()
        if not name.startswith("_") and not (package in packages and isinstance(value, ModuleType))
    }
    missing = sorted(public - by_itself - with_package)
    assert missing == [], "add ::: trinas.package.module.name to a page in docs/api"
