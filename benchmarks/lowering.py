"""How long lowering takes against the size of the space.

    python -m benchmarks.lowering [--out benchmarks/results/lowering.json]

Ratios are what to look at: time per choice should not grow with the number of choices.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import trinas as tn
from examples.sr_trilevel.space import backbone_b

SIZES = (100, 1_000, 10_000, 100_000)


def many_choices(count: int) -> tn.Node:
    """`count` choices in a row, each between a convolution and nothing."""
    choices = (tn.choice(a=tn.conv(3, 8), b=tn.seq(), name="c") for _ in range(count))
    return tn.seq(*choices)


def median_seconds(work: Callable[[], object], runs: int) -> float:
    """Median time of `runs` runs after one that does not count."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure() -> list[dict[str, object]]:
    """One row per space."""
    rows: list[dict[str, object]] = []
    for count in SIZES:
        space = many_choices(count)
        seconds = median_seconds(lambda s=space: tn.lower(s, (8, 8, 8)), 5 if count < 1e5 else 3)
        rows.append(
            {
                "space": f"{count} choices",
                "choices": count,
                "seconds": seconds,
                "microseconds_per_choice": 1e6 * seconds / count,
            }
        )
    paper = backbone_b()
    graph = tn.lower(paper, (3, 32, 32))
    seconds = median_seconds(lambda: tn.lower(paper, (3, 32, 32)), 5)
    rows.append(
        {
            "space": "paper, backbone B",
            "choices": len(graph.decisions),
            "nodes": len(graph),
            "seconds": seconds,
            "microseconds_per_choice": 1e6 * seconds / len(graph.decisions),
        }
    )
    return rows


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measure()
    for row in rows:
        print(
            f"{row['space']:>20}  {row['seconds']:8.3f} s  "
            f"{row['microseconds_per_choice']:7.1f} us per choice"
        )
    if options.out:
        facts = {
            "command": "python -m benchmarks.lowering",
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "machine": f"{platform.machine()}, {platform.system()}",
            "rows": rows,
        }
        options.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
