"""What records say: one table a benchmark, and a picture of regret against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trinas.bench.runner import Record
from trinas.bench.statistics import Interval, beats, interval

HEAD = (
    "method",
    "seeds",
    "passes",
    "seconds",
    "regret",
    "percentile",
    "right",
    "correlation",
    "gap",
    "method beats it",
    "its regret minus the method's",
)

Group = tuple[str, str]  # method, and what it is a baseline of


def grouped(records: Sequence[Record]) -> dict[str, dict[Group, dict[int, Record]]]:
    """Records by benchmark, by method and what it is compared with, by seed."""
    found: dict[str, dict[Group, dict[int, Record]]] = {}
    for record in records:
        of = found.setdefault(record.benchmark, {})
        of.setdefault((record.method, record.against), {})[record.seed] = record
    return found


def tables(records: Sequence[Record]) -> str:
    """A Markdown table for every benchmark: each method, then the baselines at its cost."""
    parts = [f"### {name}\n\n{table(groups)}" for name, groups in grouped(records).items()]
    return "\n\n".join(parts) + "\n"


def table(groups: Mapping[Group, dict[int, Record]]) -> str:
    """The table of one benchmark."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for method in [name for name, against in groups if not against]:
        mine = groups[method, ""]
        lines.append(_line(_row(method, mine, mine)))
        lines += [
            _line(_row(f"{name}, at its cost", of, mine))
            for (name, against), of in groups.items()
            if against == method
        ]
    return "\n".join(lines)


def summary(records: Sequence[Record], method: str, baseline: str) -> str:
    """One line a benchmark: how often a method and a baseline at its cost are right."""
    head = (
        "benchmark",
        f"`{method}` right",
        "least probability",
        "regret",
        f"`{baseline}` right",
        "its regret",
        "difference",
    )
    lines = [_line(head), _line(["---"] * len(head))]
    for name, groups in grouped(records).items():
        mine, theirs = groups.get((method, ""), {}), groups.get((baseline, method), {})
        against = compared(mine, theirs)
        if against is None:
            continue
        sure = [v for r in mine.values() if (v := r.facts.get("confidence")) is not None]
        cells = [f"`{name}`", _right(mine), f"{min(sure):.2f}" if sure else ""]
        cells += [_interval(interval([r.regret for r in mine.values()])), _right(theirs)]
        cells += [_interval(interval([r.regret for r in theirs.values()])), _interval(against[1])]
        lines.append(_line(cells))
    return "\n".join(lines)


def compared(mine: dict[int, Record], theirs: dict[int, Record]) -> tuple[float, Interval] | None:
    """How often a method has less regret than a baseline of the same seed, and by how much.

    Returns:
        The share of seeds (equal regrets count half), and the mean of the baseline's regret
        minus the method's with its 95 % interval; None without a common seed.
    """
    seeds = sorted(set(mine) & set(theirs))
    if not seeds:
        return None
    a, b = [mine[s].regret for s in seeds], [theirs[s].regret for s in seeds]
    return beats(a, b), interval([y - x for x, y in zip(a, b)])


def _row(name: str, of: dict[int, Record], method: dict[int, Record]) -> list[str]:
    records = list(of.values())
    against = None if of is method else compared(method, of)
    return [
        name,
        str(len(records)),
        f"{_mean([r.passes for r in records]):,.0f}",
        f"{_mean([r.seconds for r in records]):.1f}",
        _interval(interval([r.regret for r in records])),
        f"{_mean([r.percentile for r in records]):.1f}",
        _right(of),
        _fact(records, "correlation"),
        _fact(records, "gap"),
        "" if against is None else f"{100 * against[0]:.0f} %",
        "" if against is None else _interval(against[1]),
    ]


def _right(of: Mapping[int, Record]) -> str:
    return f"{sum(r.right for r in of.values())} of {len(of)}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _fact(records: Sequence[Record], name: str) -> str:
    known = [v for r in records if (v := r.facts.get(name)) is not None]
    return f"{_mean(known):.3f}" if known else ""


def _interval(value: Interval) -> str:
    return f"{value.mean:.3f} ± {value.half:.3f}" if value.half < math.inf else f"{value.mean:.3f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
