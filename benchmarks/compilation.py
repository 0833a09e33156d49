"""Compiled parts: seconds until warm, compilations afterwards, and time of a warm step.

A search samples other widths at each step and its live branches change. What would be
compiled anew for that is counted over steps with random widths and random options.
"""

from __future__ import annotations

import copy
import time

import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F

import trinas as tn
from benchmarks.measure import Options, Row, interleaved
from examples.sr_trilevel.space import backbone_b

STEPS = 20


def measure(options: Options) -> list[Row]:
    """One row for the supernet of the reference example, narrow and small."""
    torch.manual_seed(0)
    features, side = (16, 8) if options.quick else (32, 32)
    space = backbone_b(features, slots=2, cells=2, convs=1)
    graph = tn.lower(space, (3, side, side))
    eager = tn.compile_supernet(graph, tn.relax.GumbelSoftmax()).to(options.device)
    compiled = copy.deepcopy(eager)
    backend = {"backend": "eager"} if options.quick else {}
    compiled.compile(**backend)
    x = torch.rand(3, 3, side, side, device=options.device)
    y = torch.rand(3, 3, 4 * side, 4 * side, device=options.device)

    def step(net: tn.Supernet, mixture: tn.Mixture) -> None:
        F.l1_loss(net(x, at=mixture), y).backward()
        net.zero_grad()

    everything = tn.Mixture.from_weights(graph, *[torch.full((graph.slots,), 0.5)] * 2)
    started = time.perf_counter()
    for seed in range(3 if options.quick else 12):
        torch.manual_seed(seed)
        step(compiled, everything.with_widths("random"))
    for widths in ("widest", "narrowest"):
        step(compiled, everything.with_widths(widths))
    seconds = time.perf_counter() - started
    before = counters["stats"]["unique_graphs"]
    for seed in range(STEPS):
        drawn = eager.mixture(generator=torch.Generator(options.device).manual_seed(seed))
        step(compiled, drawn.with_widths("random").detached())
    anew = counters["stats"]["unique_graphs"] - before
    widest = everything.with_widths("widest")
    works = {
        "eager": lambda: step(eager, widest),
        "compiled": lambda: step(compiled, widest),
    }
    samples = interleaved(works, options)
    return [
        {
            "case": f"SR, {features} channels, compiled against eager",
            "seconds until warm": seconds,
            "compiled parts": before,
            f"compiled anew in {STEPS} steps": anew,
            "eager ms": 1e3 * samples.median("eager"),
            "compiled ms": 1e3 * samples.median("compiled"),
            "ratio": samples.ratio("compiled", "eager"),
        }
    ]
