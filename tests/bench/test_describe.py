"""The docs page has the numbers of the tables, and those only."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from trinas.bench import digits, planted
from trinas.bench.describe import PARTS, digits_columns, fill_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


@pytest.mark.parametrize("part", PARTS)
def test_the_page_says_what_the_tables_say(part):
    """To renew it: ``python -m trinas.bench describe --page docs/benchmarks.md``."""
    text = PAGE.read_text(encoding="utf-8")

    assert f"<!-- {part} -->\n\n{PARTS[part]()}\n\n<!-- / -->" in text


def test_a_page_is_filled_between_its_marks():
    page = "a\n<!-- planted -->\nold\nlines\n<!-- / -->\nb\n"

    assert fill_page(page) == f"a\n<!-- planted -->\n\n{PARTS['planted']()}\n\n<!-- / -->\nb\n"


def test_the_next_best_is_the_best_wrong_one():
    row = next(line for line in PARTS["planted"]().splitlines() if line.startswith("| `width` "))
    benchmark = planted("width")

    assert row.split(" | ")[2:] == [
        "4",
        "1",
        f"{benchmark.regret({'conv[0]/width': 4}):.3f}",
        f"{benchmark.regret({'conv[0]/width': 1}):.3f} |",
    ]


def test_the_spread_is_that_of_the_columns():
    rows = digits_columns("test")
    within = statistics.mean(map(statistics.variance, rows))
    between = statistics.variance(digits().truth.scores) - within / 3
    numbers = [float(n) for n in re.findall(r"(\d+\.\d+) %", PARTS["spread"]())]

    assert numbers == pytest.approx([between**0.5, within**0.5], abs=0.006)
