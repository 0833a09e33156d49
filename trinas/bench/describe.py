"""What the tables that come with trinas say, as Markdown: the numbers of the docs page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trinas.bench import report
from trinas.bench.benchmark import Benchmark
from trinas.bench.catalogue import DATA
from trinas.bench.noisy_digits import digits
from trinas.bench.planting import PLANTED, planted
from trinas.bench.runner import Record
from trinas.bench.signals import spearman
from trinas.bench.table import Table
from trinas.space.decision import Decision


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def planted_tasks() -> str:
    """Every planted task: its answer, and how far the next best and the worst are from it."""
    rows = []
    for name in PLANTED:
        benchmark = planted(name)
        wrong = [benchmark.regret(g) for g in benchmark.networks if not benchmark.accepts(g)]
        rows.append(
            [
                f"`{name}`",
                benchmark.about,
                str(len(benchmark.networks)),
                str(len(benchmark.networks) - len(wrong)),
                f"{min(wrong):.3f}" if wrong else "",
                f"{max(wrong):.3f}" if wrong else "",
            ]
        )
    return markdown(("task", "what is planted", "networks", "right", "next", "worst"), rows)


def digits_table() -> str:
    """Accuracies of the networks on digits, and how much of them is the seed."""
    benchmark = digits()
    scores = benchmark.truth.ascending
    at = {f"{s} %": scores[round(s / 100 * (len(scores) - 1))] for s in (0, 5, 50, 95, 99, 100)}
    head = ["networks better than", *at]
    return markdown(
        head, [["test accuracy, mean of three seeds", *(f"{v:.2f}" for v in at.values())]]
    )


def digits_spread() -> str:
    """Deviations between networks and between trainings of one, and validation against test."""
    truth = digits().truth
    tests = digits_columns("test")
    within = math.fsum(_variance(row) for row in tests) / len(tests)
    between = _variance(truth.scores) - within / len(tests[0])
    rank = spearman([row[0] for row in truth.singles], truth.scores)
    return (
        f"Networks differ by a standard deviation of {math.sqrt(between):.2f} %, trainings of one "
        f"network by {math.sqrt(within):.2f} %. One training on the validation images ranks\n"
        f"networks as their scores do with Spearman's correlation {rank:.2f}."
    )


def digits_decisions() -> str:
    """The mean accuracy of all networks with each outcome of each decision."""
    benchmark = digits()
    rows = []
    for path, decision in benchmark.graph.decisions.items():
        told = [f"{name}: {mean:.2f}" for name, mean in _means(benchmark, path, decision)]
        rows.append([f"`{path}`", decision.kind, ", ".join(told)])
    return markdown(("decision", "kind", "mean test accuracy of all networks with it"), rows)


def digits_columns(name: str) -> tuple[tuple[float, ...], ...]:
    """A column of the table of the digits."""
    return Table.load(DATA / "digits.json").columns[name]


def _means(benchmark: Benchmark, path: str, decision: Decision) -> Iterator[tuple[Any, float]]:
    for option in decision.options:
        value = (option,) if decision.kind == "inputs" else option
        scores = [benchmark.score(g) for g in benchmark.networks if g.get(path) == value]
        yield option, math.fsum(scores) / len(scores)


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)


def fill_page(text: str, records: Sequence[Record] = ()) -> str:
    """A page with every part written anew between its marks ``<!-- name -->`` and ``<!-- / -->``.

    Args:
        text: the page.
        records: of the parts that say what methods found; without any these stay as they are.

    >>> fill_page("no marks")
    'no marks'
    """

    def filled(mark: re.Match[str]) -> str:
        if mark[1] in RESULTS and not records:
            return mark[0]
        part = PARTS[mark[1]]() if mark[1] in PARTS else RESULTS[mark[1]](records)
        return f"<!-- {mark[1]} -->\n\n{part}\n\n<!-- / -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- / -->", filled, text, flags=re.DOTALL)


PARTS: dict[str, Callable[[], str]] = {
    "planted": planted_tasks,
    "digits": digits_table,
    "spread": digits_spread,
    "decisions": digits_decisions,
}
"""Everything there is to say, by name."""


def _of(records: Sequence[Record], start: str) -> list[Record]:
    return [record for record in records if record.benchmark.startswith(start)]


def _table(records: Sequence[Record], start: str) -> str:
    return "\n\n".join(report.table(g) for g in report.grouped(_of(records, start)).values())


RESULTS: dict[str, Callable[[Sequence[Record]], str]] = {
    "found_planted": lambda records: report.summary(
        _of(records, "planted/"), "search", "random-shared"
    ),
    "found_digits": lambda records: _table(records, "digits"),
    "found_bench": lambda records: _table(records, "nas-bench-201"),
}
"""What methods found, by name."""
