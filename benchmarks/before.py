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
SPACES = ("SR, 64 channels", "SR, 16 channels", "DARTS", "NAS-Bench-201")
PASSES = {
    "SR": ("widest widths", "sampled widths", "one network"),
    "DARTS": ("all alive", "one network"),
    "NAS-Bench-201": ("all alive", "one network"),
}
CASES = tuple(f"{space}, {what}" for space in SPACES for what in PASSES[space.split(",")[0]])
"""What `python -m benchmarks steps` measures."""


def make_steps(space: str) -> dict[str, Callable[[], None]]:
    """The steps of a supernet by case; with the trinas that is on the path."""
    import trinas as tn
    from examples.cell_spaces import darts, nas_bench_201
    from examples.sr_trilevel.space import backbone_b
    from trinas.supernet.architecture import GREEK

    torch.manual_seed(0)
    tree = space.startswith("SR")
    if tree:
        wide = space == "SR, 64 channels"
        node = backbone_b(64, cells=4, convs=1) if wide else backbone_b(16)
        batch, target = torch.rand(3, 3, 32, 32), torch.rand(3, 3, 128, 128)
    else:
        node = darts(16, 8) if space == "DARTS" else nas_bench_201(16, 5)
        batch, target = torch.rand(16, 3, 32, 32), torch.randint(0, 10, (16,))
    relax: dict[str, Any] = {"operation": tn.relax.Softmax(), "path": tn.relax.Softmax()}
    if "inputs" in GREEK:  # earlier versions knew no other way
        relax["inputs"] = "strongest"
    graph = tn.lower(node, tuple(batch.shape[1:]))
    net = tn.compile_supernet(graph, relax)
    loss = F.l1_loss if tree else F.cross_entropy
    networks = [tn.sample(graph, seed) for seed in range(100)]
    longest = max(networks, key=lambda one: str(one.get("trunk")).count("-"))

    def step(at: Callable[[], Any]) -> Callable[[], None]:
        def work() -> None:
            net.zero_grad()
            loss(net(batch, at=at()), target).backward()

        return work

    makers: dict[str, Callable[[], Any]] = {
        "widest widths": lambda: net.mixture(widths="widest"),
        "sampled widths": lambda: net.mixture(generator=torch.Generator().manual_seed(1)),
        "all alive": net.mixture,
        "one network": lambda: longest,
    }
    return {f"{space}, {what}": step(makers[what]) for what in PASSES[space.split(",")[0]]}


def timed(step: Callable[[], None]) -> dict[str, Any]:
    """Seconds of a step, the least of some, and shares of it."""
    step()
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < 2 and len(seconds) < 10):
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
    return {"seconds": min(seconds), "shares": shares}


def probe() -> None:
    """Print seconds of a step, and shares of it, for every case, as JSON."""
    torch.set_num_threads(2)
    found: dict[str, dict[str, Any]] = {}
    for space in SPACES:
        found |= {case: timed(step) for case, step in make_steps(space).items()}
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
