"""A whole step of a search against the same passes and updates in a loop written by hand.

Both work on supernets of the same space with equal weights; what is compared is the engine
around them: parts, reports, batches, what it keeps so that a step can be taken back.

    python -m benchmarks searches --out benchmarks/results
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

import trinas as tn
from benchmarks.cases import TREES, Case, darts_case, sr_case
from benchmarks.measure import Options, Row, Work, interleaved

PASSES = ("sampled", "widest", "narrowest")
DRAWS = 4
MANY = 10**6


def measure(options: Options) -> list[Row]:
    """One row for DARTS, one for the paper's method."""
    trees = sr_case(list(TREES)[-1], options)
    return [
        _row("DARTS, first order", darts_case(options), tn.methods.darts(1), darts_loop, options),
        _row("Trilevel NAS", trees, trilevel(), trilevel_loop, options),
    ]


def engine(case: Case, method: tn.Chain, net: tn.Supernet) -> Work:
    """A step of the engine."""
    batch = case.x, case.y
    return tn.run(method, net, case.loss, lambda _: batch, lambda _: batch, steps=MANY).advance


def _row(
    name: str,
    case: Case,
    method: tn.Chain,
    loop: Callable[[Case, tn.Supernet], Work],
    options: Options,
) -> Row:
    ours, by_hand = copy.deepcopy(case.net), copy.deepcopy(case.net)
    works: dict[str, Work] = {"trinas": engine(case, method, ours), "loop": loop(case, by_hand)}
    samples = interleaved(works, options, warmup=1)
    return {
        "method": name,
        "case": case.name,
        "milliseconds": 1e3 * samples.median("trinas"),
        "loop_milliseconds": 1e3 * samples.median("loop"),
        "ratio": samples.ratio("trinas", "loop"),
        "at_most": 1.05,
    }


def trilevel() -> tn.Chain:
    """Weights and architecture of Algorithm 1, without its terms."""
    return tn.chain(
        tn.weights(tn.adam(1e-4), passes=PASSES, clip=5.0),
        tn.architecture(
            tn.adam(3e-4, betas=(0.5, 0.999)),
            sampled=tn.signals.differences(DRAWS),
            passes=PASSES,
            clip=5.0,
        ),
    )


def _step(optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    nn.utils.clip_grad_norm_(parameters, 5.0)
    optimiser.step()


def darts_loop(case: Case, net: tn.Supernet) -> Work:
    """What published code does in a step, on the supernet of trinas."""
    weights, arch = net.weight_parameters(), list(net.arch_parameters().values())
    outer = torch.optim.SGD(weights, lr=0.025, momentum=0.9, weight_decay=3e-4)
    inner = torch.optim.Adam(arch, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3, fused=True)

    def step() -> None:
        net.train()
        mixture = net.mixture()
        outer.zero_grad()
        loss = case.loss(net(case.x, at=mixture.detached()), case.y)
        loss.backward()
        _step(outer, weights)
        inner.zero_grad()
        case.loss(net(case.x, at=mixture), case.y).backward(inputs=arch)
        inner.step()
        loss.item()

    return step


def trilevel_loop(case: Case, net: tn.Supernet) -> Work:
    """The same of Algorithm 1, with differences of losses for the widths."""
    weights, arch = net.weight_parameters(), list(net.arch_parameters().values())
    outer = torch.optim.Adam(weights, lr=1e-4, fused=True)
    inner = torch.optim.Adam(arch, lr=3e-4, betas=(0.5, 0.999), fused=True)
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)

    def step() -> None:
        net.train()
        mixture = net.mixture(generator=generator)
        outer.zero_grad()
        for widths in PASSES:
            at = mixture.detached().with_widths(widths)
            case.loss(net(case.x, at=at), case.y).backward()
        _step(outer, weights)
        inner.zero_grad()
        leaf = mixture.leaf()
        for widths in PASSES:
            at = leaf.with_widths(widths)
            case.loss(net(case.x, at=at), case.y).backward(inputs=[leaf.weights])
        odds = differences(case.loss, net, mixture, case.x, case.y, rng)
        gradient = leaf.weights.grad
        assert gradient is not None
        ((mixture.weights * gradient).sum() + (mixture.odds * odds).sum()).backward()
        _step(inner, arch)

    return step


def differences(
    loss: Callable[[Tensor, Tensor], Tensor],
    net: tn.Supernet,
    mixture: tn.Mixture,
    x: Tensor,
    y: Tensor,
    rng: random.Random,
) -> Tensor:
    """The gradient of drawn widths by their odds, as plain as can be."""
    graph = net.graph
    rows, losses = [], []
    with torch.no_grad():
        for _ in range(DRAWS):
            row, picked = [0.0] * graph.slots, {}
            for path, decision in graph.decisions.items():
                if decision.kind == "width":
                    start = graph.offsets[path]
                    odds = mixture.host_odds[start : start + len(decision.options)]
                    k = rng.choices(range(len(odds)), odds)[0]
                    picked[path] = decision.options[k]
                    row[start + k] = 1 / odds[k]
            losses.append(loss(net(x, at=mixture.detached().picking(picked)), y))
            rows.append(row)
    values = torch.stack(losses)
    return (values - values.mean()) @ torch.tensor(rows) / (DRAWS - 1)
