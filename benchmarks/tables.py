"""The tables of `docs/performance.md`, made from the committed results.

    python -m benchmarks.tables

Between ``<!-- results: NAME -->`` and ``<!-- end -->`` stands what `markdown` makes of
``benchmarks/results/NAME.json``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, judged

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
_PLACE = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite the tables of the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """The page with the tables of the present results."""

    def put(match: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{match[2]}.json").read_text(encoding="utf-8"))
        return f"{match[1]}{markdown(result)}{match[3]}"

    return _PLACE.sub(put, page)


def markdown(result: dict[str, Any]) -> str:
    """A table, and below it where its numbers come from."""
    rows = [_shown(row) for row in result["rows"]]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["", _line(key.replace("_", " ") for key in keys), _line("---" for _ in keys)]
    lines += [_line(_text(row.get(key)) for key in keys) for row in rows]
    machine, versions = result["machine"], result["versions"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    lines += [
        "",
        f"`{result['command']}`, {result['date']}, {where}, torch {versions['torch']}.",
        "",
        "",
    ]
    return "\n".join(lines)


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
