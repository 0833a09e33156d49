"""The numbers of the documentation are those of the committed results."""

import json

import pytest

from benchmarks import tables


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.stem)
def test_the_page_holds_the_present_results(path):
    """To renew it: ``python -m benchmarks.tables``."""
    page = path.read_text(encoding="utf-8")

    assert tables.filled(page) == page
    assert page.count("<!-- results:") == page.count("<!-- end -->") > 0


def test_every_result_says_where_it_comes_from():
    for path in tables.RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))

        assert result["command"].startswith(("python -m benchmarks", "git worktree"))
        assert result["rows"]
        assert {"processor", "threads", "gpu"} <= set(result["machine"])
        assert {"python", "torch"} <= set(result["versions"])


def test_a_goal_that_was_missed_is_marked():
    row = {"case": "a", "ratio": 1.234, "at_most": 1.0}
    result = {
        "command": "python -m benchmarks a",
        "date": "2026-01-01",
        "machine": {"gpu": None, "processor": "p", "threads": 2},
        "versions": {"torch": "2"},
        "rows": [row, {**row, "ratio": 0.5}, {"case": "b", "ratio": 7.0, "at_least": 6.0}],
    }
    text = tables.markdown(result)

    assert "| a | 1.23 | ≤ 1 (missed) |" in text
    assert "| a | 0.5 | ≤ 1 |" in text
    assert "| b | 7 | ≥ 6 |" in text
    assert "`python -m benchmarks a`, 2026-01-01, p, 2 threads, torch 2." in text


def test_estimators_are_compared_by_task():
    def row(study, task, estimator, **values):
        return {"study": study, "task": task, "estimator": estimator, "passes": 4.0, **values}

    found = {"odds_at_whole_cost": 0.5, "seeds_found": 2, "seeds": 5, "rate": 0.02}
    result = {
        "command": "python -m benchmarks signals",
        "date": "2026-01-01",
        "machine": {"gpu": None, "processor": "p", "threads": 1},
        "versions": {"torch": "2"},
        "rows": [
            row("widths, frozen weights", "one", "a", bias=0.123, spread_at_cost=4.56),
            row("widths, frozen weights", "two", "a", bias=0.2, spread_at_cost=9.0),
            row("search", "one", "b", **found),
        ],
    }

    widths = tables.compared(result, "widths").splitlines()
    assert widths[1] == "| estimator | passes | one | two |"
    assert widths[3] == "| a | 4 | 0.12 / 4.6 | 0.20 / 9.0 |"
    search = tables.compared(result, "search").splitlines()
    assert search[1] == "| estimator | passes | one, rate 0.02 |"
    assert search[3] == "| b | 4 | 0.50 (2 of 5) |"
    assert search[5] == "`python -m benchmarks signals`, 2026-01-01, p, 1 thread, torch 2."


@pytest.fixture(scope="module")
def signals():
    rows = json.loads((tables.RESULTS / "signals.json").read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if row["study"] != "search"], [r for r in rows if "rate" in r]


def test_what_the_guide_says_of_bias(signals):
    frozen, _ = signals
    unbiased = [r for r in frozen if r["estimator"].startswith(("differences", "leave", "addit"))]
    unbiased = [r for r in unbiased if "alone" not in r["estimator"]]
    operations = {(r["task"], r["estimator"]): r for r in frozen if "operations" in r["study"]}

    assert len(unbiased) > 20
    assert all(row["bias"] < 4 * row["bias_error"] for row in unbiased)
    for task in {task for task, _ in operations}:
        reinmax = operations[task, "ReinMax, all options run"]
        differences = operations[task, "differences of 4 losses"]
        assert differences["bias"] < reinmax["bias"]
        assert differences["spread_at_cost"] < reinmax["spread_at_cost"]
        for kind in ("Gumbel", "Gumbel at 0.1"):
            assert reinmax["bias"] < operations[task, f"{kind}, all options run"]["bias"]
            gdas = operations[task, f"{kind}, others as numbers (GDAS)"]
            assert gdas["bias"] > 0.9


def test_what_the_guide_says_of_searches(signals):
    _, searches = signals
    at_default = {(r["task"], r["estimator"]): r for r in searches if r["rate"] == 0.02}
    best = "additive model, 4 draws"

    for task in ("5 widths", "25 widths"):
        ours = at_default[task, best]["odds_at_whole_cost"]
        others = [r["odds_at_whole_cost"] for (t, name), r in at_default.items()
                  if t == task and not name.startswith("additive")]  # fmt: skip
        assert ours > max(others)
