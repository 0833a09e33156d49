"""The numbers of the documentation are those of the committed results."""

import json

from benchmarks import tables


def test_the_page_holds_the_present_results():
    page = tables.PAGE.read_text(encoding="utf-8")

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
