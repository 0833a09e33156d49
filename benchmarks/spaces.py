"""What a space costs as it grows: lowering, compiling, sampling, counting; and the import.

Time per choice should not grow with the number of choices. Works run with the garbage
collector on, as they do for users: what it does is part of what a large space costs.
"""

from __future__ import annotations

import functools
import gc
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import attrs

import trinas as tn
from benchmarks.measure import Options, Row, Samples, Work, interleaved
from examples.sr_trilevel.space import backbone_b

SIZES = (100, 1_000, 10_000, 100_000)
BASE = 1_000
"""Choices that the time per choice is compared with; in smaller spaces a call's own cost shows."""

GROWTH = 2.0
LOWER_SECONDS = 10.0
IMPORT_SECONDS = 0.3


@attrs.frozen(eq=False)
class Case:
    """A space, its graph, and one of its networks.

    Attributes:
        name: for the tables.
        space: the space.
        in_shape: what it is lowered for.
        graph: the graph.
        genotype: a network of the space.
    """

    name: str
    space: tn.Node
    in_shape: tuple[int, ...]
    graph: tn.Graph
    genotype: tn.Genotype

    @property
    def choices(self) -> int:
        """How many decisions there are."""
        return len(self.graph.decisions)


Job: TypeAlias = Callable[[Case], object]

JOBS: dict[str, Job] = {
    "lower": lambda case: tn.lower(case.space, case.in_shape),
    "compile": lambda case: tn.compile_supernet(case.graph),
    "sample": lambda case: tn.sample(case.graph, 0),
    "macs": lambda case: tn.cost.macs(case.graph, case.genotype),
    "cardinality": lambda case: tn.cardinality(case.space),
}
BOUNDED = ("lower", "compile", "sample")


def measure(options: Options) -> list[Row]:
    """Rows for every job on every space, then one for the import."""
    sizes = [size for size in SIZES if size <= BASE] if options.quick else SIZES
    cases = {size: _case(f"{size} choices", many_choices(size), (8, 8, 8)) for size in sizes}
    paper = _case("the paper's tree, backbone B", backbone_b(), (3, 32, 32))
    rows = [row for job in JOBS for row in _growth(job, cases, paper, options)]
    return [*rows, _import_time(options)]


def many_choices(count: int) -> tn.Node:
    """`count` choices in a row, each between a convolution and nothing."""
    choices = (tn.choice(a=tn.conv(3, 8), b=tn.seq(), name="c") for _ in range(count))
    return tn.seq(*choices)


def _case(name: str, space: tn.Node, in_shape: tuple[int, ...]) -> Case:
    graph = tn.lower(space, in_shape)
    return Case(name, space, in_shape, graph, tn.sample(graph, 0))


def _growth(job: str, cases: Mapping[int, Case], paper: Case, options: Options) -> list[Row]:
    works = {case.name: _collected(JOBS[job], case) for case in (*cases.values(), paper)}
    largest = max(cases)
    if job == "compile" and largest > BASE * 10:
        # Modules by the hundred thousand: once is enough.
        last = works.pop(cases[largest].name)
        samples = interleaved(works, options)
        pair = {cases[BASE].name: works[cases[BASE].name], cases[largest].name: last}
        once = interleaved(pair, attrs.evolve(options, runs=1), warmup=0)
    else:
        samples = once = interleaved(works, options)
    rows = []
    for case in (*cases.values(), paper):
        taken = once if case is cases[largest] else samples
        seconds = taken.median(case.name)
        row: Row = {
            "case": f"{job}, {case.name}",
            "choices": case.choices,
            "nodes": len(case.graph),
            "seconds": seconds,
            "microseconds_per_choice": 1e6 * seconds / case.choices,
        }
        if case is not paper and case.choices > BASE:
            row["ratio"] = _per_choice(taken, case, cases[BASE])
            row["at_most"] = GROWTH if job in BOUNDED and case is cases[largest] else None
        rows.append(row)
        if job == "lower" and case.choices == SIZES[-1]:
            rows.append(
                {
                    "case": f"lower, {case.name}, as a share of {LOWER_SECONDS:g} s",
                    "seconds": seconds,
                    "ratio": seconds / LOWER_SECONDS,
                    "at_most": 1.0,
                }
            )
    return rows


def _collected(job: Job, case: Case) -> Work:
    """The job with the garbage collector on, which the harness switches off."""

    def work() -> object:
        gc.enable()
        try:
            return job(case)
        finally:
            gc.disable()

    return work


def _per_choice(samples: Samples, case: Case, base: Case) -> float:
    """Time per choice as a multiple of that in a smaller space, turn by turn."""
    return samples.ratio(case.name, base.name) * base.choices / case.choices


_FRESH = """
import time
start = time.perf_counter()
import torch
between = time.perf_counter()
import trinas
print(between - start, time.perf_counter() - between)
"""


def _import_time(options: Options) -> Row:
    """Seconds that trinas takes to import after torch, in fresh processes."""
    here = Path(__file__).resolve().parent.parent
    fresh = functools.partial(
        subprocess.run, [sys.executable, "-c", _FRESH], cwd=here, capture_output=True, check=True
    )
    fresh()  # writes the compiled modules where there are none yet
    seconds = [[float(s) for s in fresh().stdout.split()] for _ in range(options.samples)]
    torch_seconds, extra = (statistics.median(column) for column in zip(*seconds))
    return {
        "case": f"import trinas after torch, as a share of {IMPORT_SECONDS:g} s",
        "torch_seconds": torch_seconds,
        "extra_seconds": extra,
        "ratio": extra / IMPORT_SECONDS,
        "at_most": 1.0,
    }
