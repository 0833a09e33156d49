"""Where a supernet step spends its time, now and at an earlier commit, in turn.

    git worktree add /tmp/before COMMIT
    python -m benchmarks.before --checkout /tmp/before --out benchmarks/results

A step is forward and backward to weights and architecture, every option alive. Each version
runs in processes of its own, which alternate; shares are of the time in operators of
`torch.profiler`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.measure import Row, save, table

KINDS = {
    "convolution": ("convolution",),
    "pooling": ("pool",),
    "normalisation": ("norm",),
    "activation": ("relu", "clamp", "threshold", "tanh", "sigmoid"),
    "sums and weights": ("mul", "add", "sum", "dot", "fill", "zero"),
    "copies": ("copy", "cat", "clone"),
}
CASES = ("sr 64 channels", "sr 16 channels", "darts", "nas-bench-201")


def make_step(case: str) -> Callable[[], None]:
    """One step of a supernet; with the trinas that is on the path."""
    import trinas as tn
    from examples.cell_spaces import darts, nas_bench_201
    from examples.sr_trilevel.space import backbone_b
    from trinas.supernet.architecture import GREEK

    torch.manual_seed(0)
    if case.startswith("sr"):
        features = int(case.split()[1])
        space = backbone_b(features, slots=5 if features > 16 else 3, cells=3, convs=1)
        batch, target = torch.rand(3, 3, 32, 32), torch.rand(3, 3, 128, 128)
    else:
        space = darts(16, 8) if case == "darts" else nas_bench_201(16, 5)
        batch, target = torch.rand(16, 3, 32, 32), torch.randint(0, 10, (16,))
    relax: dict[str, Any] = {"operation": tn.relax.Softmax(), "path": tn.relax.Softmax()}
    if "inputs" in GREEK:  # earlier versions knew no other way
        relax["inputs"] = "strongest"
    net = tn.compile_supernet(tn.lower(space, tuple(batch.shape[1:])), relax)
    loss = F.l1_loss if case.startswith("sr") else F.cross_entropy

    def step() -> None:
        net.zero_grad()
        mixture = net.mixture(widths="widest") if case.startswith("sr") else net.mixture()
        loss(net(batch, at=mixture), target).backward()

    return step


def probe() -> None:
    """Print seconds of a step, and shares of it, for every case, as JSON."""
    torch.set_num_threads(2)
    found = {}
    for case in CASES:
        step = make_step(case)
        step()
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        with torch.profiler.profile() as profile:
            step()
        events = {e.key: e.self_cpu_time_total for e in profile.key_averages()}
        total = sum(events.values())
        shares = {kind: 0.0 for kind in (*KINDS, "other")}
        for key, spent in events.items():
            named = (k for k, words in KINDS.items() if any(w in key for w in words))
            shares[next(named, "other")] += spent / total
        found[case] = {"seconds": min(seconds), "shares": shares}
    print(json.dumps(found))


def compare(before: Path, runs: int) -> list[Row]:
    """Both versions in alternating processes; a row for each case and version."""
    here = Path(__file__).resolve().parents[1]
    results: dict[str, list[dict[str, Row]]] = {"before": [], "now": []}
    for _ in range(runs):
        for name, root in (("before", before), ("now", here)):
            # This file serves both: what it measures is the trinas on the path.
            paths = os.pathsep.join([str(root), str(here)])
            command = [sys.executable, "-P", str(Path(__file__)), "--probe"]
            done = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": paths},
                cwd=root,
                check=True,
                capture_output=True,
                text=True,
            )
            results[name].append(json.loads(done.stdout))
    rows = []
    for case in CASES:
        for name, found in results.items():
            ratios = [
                now[case]["seconds"] / was[case]["seconds"]
                for was, now in zip(results["before"], found)
            ]
            shares = {
                kind: statistics.median(f[case]["shares"][kind] for f in found)
                for kind in found[0][case]["shares"]
            }
            rows.append(
                {
                    "case": case,
                    "version": name,
                    "seconds": statistics.median(f[case]["seconds"] for f in found),
                    "ratio": statistics.median(ratios),
                    **{kind: f"{share:.0%}" for kind, share in shares.items()},
                }
            )
    return rows


def main() -> None:
    """Compare, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before")
    parser.add_argument("--checkout", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe:
        return probe()
    if given.checkout is None:
        parser.error("--checkout names a checkout to compare with")
    rows = compare(given.checkout.resolve(), given.runs)
    print(table(rows))
    if given.out:
        command = (
            "git worktree add /tmp/before {}; python -m benchmarks.before --checkout /tmp/before"
        )
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=given.checkout,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        save(given.out, "before", command.format(shlex.quote(commit)), rows)
    return None


if __name__ == "__main__":
    main()
