"""All benchmarks by name, and what makes their tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trinas._core.errors import UnknownNameError
from trinas._core.hints import did_you_mean
from trinas.bench.benchmark import Benchmark
from trinas.bench.nats import NAS_BENCH_201, nas_bench_201
from trinas.bench.noisy_digits import digits, digits_problem
from trinas.bench.planting import PLANTED, planted, planted_problem, table_name
from trinas.bench.problem import Problem

DATA = Path(__file__).parent / "data"
"""The tables that come with trinas."""


def names() -> tuple[str, ...]:
    """Every benchmark."""
    return ("digits", *(f"planted/{name}" for name in PLANTED), *NAS_BENCH_201)


def load(name: str, data: Path | None = None) -> Benchmark:
    """A benchmark by name.

    Args:
        name: one of `names`.
        data: the file of NAS-Bench-201's table; by default as in `nas_bench_201`.

    Raises:
        UnknownNameError: no such benchmark.
        DataError: a table that cannot be read.
    """
    if name == "digits":
        return digits()
    if name in NAS_BENCH_201:
        return nas_bench_201(data, dataset=NAS_BENCH_201[name])
    kind, _, task = name.partition("/")
    if kind == "planted":
        return planted(task)
    raise _unknown(name, names())


def tables() -> Iterator[tuple[str, Problem]]:
    """Every table that trinas makes itself, with its problem."""
    yield "digits", digits_problem()
    for name in PLANTED:
        if table_name(name) == f"planted-{name}" or name.removesuffix("-cost") not in PLANTED:
            yield table_name(name), planted_problem(name)


def table_problem(table: str) -> Problem:
    """The problem of a table.

    Raises:
        UnknownNameError: no such table.
    """
    for name, problem in tables():
        if name == table:
            return problem
    raise _unknown(table, [name for name, _ in tables()])


def _unknown(name: str, known: tuple[str, ...] | list[str]) -> UnknownNameError:
    fix = did_you_mean(name, known, then=f"Known: {', '.join(known)}.", most=3)
    return UnknownNameError("unknown benchmark", got=repr(name), fix=fix)
