"""Speed and memory, measured.

    python -m benchmarks                         all of them, tables only
    python -m benchmarks relaxations steps       some
    python -m benchmarks --out benchmarks/results

Each is a module of this package with a function ``measure(options)`` that returns rows.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from pathlib import Path

import torch

from benchmarks.measure import Options, save, table

BENCHMARKS = (
    "relaxations",
    "spaces",
    "steps",
    "searches",
    "sparsity",
    "memory",
    "merging",
    "accelerator",
    "compilation",
    "paths",
    "signals",
)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--out", type=Path, help="folder for one JSON file each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it all work?")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    torch.set_num_threads(given.threads)
    options = Options(device=given.device, quick=given.quick, runs=given.runs, peers=given.peers)
    for name in given.names or BENCHMARKS:
        rows = importlib.import_module(f"benchmarks.{name}").measure(options)
        print(f"\n{name}\n{table(rows)}", flush=True)
        if given.out:
            command = shlex.join(["python", "-m", "benchmarks", *(arguments or sys.argv[1:])])
            save(given.out, name, command, rows)


if __name__ == "__main__":
    main()
