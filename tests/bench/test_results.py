"""What the committed records say, and that the docs page says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from trinas.bench import planted
from trinas.bench.describe import RESULTS
from trinas.bench.planting import PLANTED
from trinas.bench.report import grouped
from trinas.bench.runner import read

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECORDS = read(DOCS / "results" / "bench")
GROUPS = grouped(RECORDS)

# A narrower network learns more slowly than the wide one it is a part of, so the shared weights
# of these steps misjudge a small cost: the page says so.
OPEN = {"width-4-cost"}


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in OPEN])
def test_the_search_finds_what_was_planted_in_nine_of_ten_seeds(name):
    runs = GROUPS[f"planted/{name}"]["search", ""]
    sure = [r for r in runs.values() if r.right and (r.facts["confidence"] or 0) >= 0.9]

    assert sorted(runs) == [*range(10)]
    assert len(sure) >= 9


def test_records_are_scored_by_the_tables_that_are_here():
    for record in RECORDS:
        if record.benchmark.startswith("planted/"):
            benchmark = planted(record.benchmark.removeprefix("planted/"))
            assert record.regret == pytest.approx(benchmark.regret(record.genotype))
            assert record.right == benchmark.accepts(record.genotype)


@pytest.mark.parametrize("part", RESULTS)
def test_the_page_says_what_the_records_say(part):
    """To renew it: ``python -m trinas.bench describe --page PAGE --records FOLDER``."""
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")

    assert f"<!-- {part} -->\n\n{RESULTS[part](RECORDS)}\n\n<!-- / -->" in text


def test_no_record_tells_where_it_was_made():
    for record in RECORDS:
        assert "/" not in record.origin["command"].replace("planted/", "").replace("-201/", "")
