"""The tables of the documentation, made from the committed results.

    python -m benchmarks.tables

Between ``<!-- results: NAME -->`` and ``<!-- end -->`` stands what `markdown` makes of
``benchmarks/results/NAME.json``; behind ``NAME/STUDY`` only what is of that study, by `compared`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, judged

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("performance", "search")]
RESULTS = ROOT / "benchmarks" / "results"
_PLACE = re.compile(r"(<!-- results: (\w+)(?:/(\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite the tables of the pages."""
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """The page with the tables of the present results."""

    def put(match: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{match[2]}.json").read_text(encoding="utf-8"))
        text = compared(result, match[3]) if match[3] else markdown(result)
        return f"{match[1]}{text}{match[4]}"

    return _PLACE.sub(put, page)


def markdown(result: dict[str, Any]) -> str:
    """A table, and below it where its numbers come from."""
    rows = [_shown(row) for row in result["rows"]]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["", _line(key.replace("_", " ") for key in keys), _line("---" for _ in keys)]
    lines += [_line(_text(row.get(key)) for key in keys) for row in rows]
    return "\n".join([*lines, *_origin(result)])


STUDIES = {
    "operations": "{bias:.2f} / {spread_at_cost:.1f}",
    "widths": "{bias:.2f} / {spread_at_cost:.1f}",
    "search": "{odds_at_whole_cost:.2f} ({seeds_found} of {seeds})",
}
"""By the first word of a study what is said of an estimator on a task."""


def compared(result: dict[str, Any], study: str) -> str:
    """A row for each estimator, a column for each task of one study.

    Args:
        result: with a study, an estimator, a task and its passes in each row.
        study: a key of `STUDIES`.
    """
    rows = [row for row in result["rows"] if str(row["study"]).startswith(study)]
    cells = {(row["estimator"], _task(row)): STUDIES[study].format(**row) for row in rows}
    passes = {row["estimator"]: f"{row['passes']:g}" for row in rows}
    tasks = list(dict.fromkeys(map(_task, rows)))
    lines = ["", _line(("estimator", "passes", *tasks)), _line("---" for _ in [*tasks, 1, 2])]
    for name, cost in passes.items():
        lines.append(_line((name, cost, *(cells.get((name, task), "") for task in tasks))))
    return "\n".join([*lines, *_origin(result)])


def _task(row: Row) -> str:
    """The task of a row, with the rate of the architecture where it was searched."""
    return f"{row['task']}, rate {row['rate']:g}" if "rate" in row else str(row["task"])


def _origin(result: dict[str, Any]) -> list[str]:
    machine, versions = result["machine"], result["versions"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    where = machine["gpu"] or f"{machine['processor']}, {threads}"
    command = f"`{result['command']}`, {result['date']}, {where}, torch {versions['torch']}."
    return ["", command, "", ""]


def _shown(row: Row) -> Row:
    """A row with its goal as one entry."""
    goal = {"at_most": "≤", "at_least": "≥"}
    kept = {key: value for key, value in row.items() if key not in goal and value is not None}
    for key, sign in goal.items():
        if row.get(key) is not None:
            verdict = "" if judged(row) == "ok" else " (missed)"
            kept["goal"] = f"{sign} {row[key]:g}{verdict}"
    return kept


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
