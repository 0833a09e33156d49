"""Straight-through Gumbel-softmax on operations: the bias of its gradient, against enumeration.

A net of two decisions, each among three operations, in plain torch: what GDAS does to an option
that was not drawn cannot be said in a supernet. The weights are trained by single paths drawn
evenly, then frozen.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks import estimators as e
from benchmarks.measure import Row
from trinas.relax import gumbel_softmax, reinmax

Mix: TypeAlias = Callable[[Sequence[nn.Module], Tensor, Tensor], Tensor]
"""The sum of options on one input under straight-through weights."""

Relax: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""Hard weights drawn from logits, (2, K) both."""

OPTIONS = 3
CHANNELS = 4
BOTH = list(itertools.product(range(OPTIONS), repeat=2))


def drawn_only(options: Sequence[nn.Module], x: Tensor, weights: Tensor) -> Tensor:
    """Only the drawn option, times its weight; others take no gradient."""
    k = int(weights.detach().argmax())
    return weights[k] * options[k](x)


def as_gdas(options: Sequence[nn.Module], x: Tensor, weights: Tensor) -> Tensor:
    """The drawn option times its weight, plus the other weights as mere numbers.

    Source: the sum in the published code of Dong & Yang, CVPR 2019 ("GDAS").
    """
    k = int(weights.detach().argmax())
    others = weights.sum() - weights[k]
    return drawn_only(options, x, weights) + others


def all_run(options: Sequence[nn.Module], x: Tensor, weights: Tensor) -> Tensor:
    """Every option times its weight, 0 or 1: the straight-through estimator proper."""
    return torch.stack([w * option(x) for w, option in zip(weights, options)]).sum(0)


DRAWN, GDAS, ALL = "only the drawn option runs", "others as numbers (GDAS)", "all options run"
MIXES: dict[str, tuple[Mix, int]] = {
    DRAWN: (drawn_only, 3),
    GDAS: (as_gdas, 3),
    ALL: (all_run, 3 * OPTIONS),
}
"""Each with its cost in forward passes of one path; forward and backward count as 3."""


def gumbel(temperature: float) -> Relax:
    """Gumbel-softmax at one temperature. GDAS anneals from 10 to 0.1."""
    return lambda logits, generator: gumbel_softmax(logits, temperature, generator=generator)


def _reinmax(logits: Tensor, generator: torch.Generator) -> Tensor:
    return reinmax(logits, generator=generator)


STRAIGHT: tuple[tuple[str, Relax, str], ...] = (
    *(("Gumbel", gumbel(1.0), name) for name in MIXES),
    *((f"Gumbel at {t:g}", gumbel(t), GDAS) for t in (10.0, 0.1)),
    ("Gumbel at 0.1", gumbel(0.1), ALL),
    ("ReinMax", _reinmax, ALL),
)
"""Names, draws of hard weights, and what is done with them. ReinMax needs all options."""


class Net(nn.Module):
    """Operation, ReLU, operation, convolution."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.places = nn.ModuleList(nn.ModuleList(_options(norm)) for _ in range(2))
        self.tail = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, weights: Tensor, mix: Mix = drawn_only) -> Tensor:
        """The result under hard weights, (2, K)."""
        first, second = self.places
        return self.tail(mix(second, mix(first, x, weights[0]).relu(), weights[1]))  # type: ignore[arg-type]  # lists of modules


def _options(norm: bool) -> list[nn.Module]:
    found = []
    for option in (_conv(3), _conv(1), nn.AvgPool2d(3, 1, 1)):
        found.append(nn.Sequential(option, nn.BatchNorm2d(CHANNELS)) if norm else option)
    return found


def _conv(kernel: int) -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2)


class Frozen:
    """A trained net, one batch, and the loss of every pair of options on it."""

    def __init__(self, norm: bool, steps: int, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = Net(norm)
            self._teacher = nn.Sequential(_conv(3), nn.ReLU(), _conv(3), _conv(3))
        optimiser = torch.optim.Adam(self.net.parameters(), 1e-2)
        rng = random.Random(seed)
        for _ in range(steps):
            x, y = self._batch()
            optimiser.zero_grad()
            mse_loss(self.net(x, _hard(rng.choice(BOTH))), y).backward()
            optimiser.step()
        self.net.requires_grad_(False)
        self.logits = torch.tensor([[0.4, 0.0, -0.3], [-0.2, 0.5, 0.0]])
        self.x, self.y = self._batch()
        self.losses = torch.stack([self.loss(_hard(draw)) for draw in BOTH])

    def _batch(self) -> tuple[Tensor, Tensor]:
        x = torch.randn(16, CHANNELS, 8, 8, generator=self._generator)
        with torch.no_grad():
            return x, 3.0 * self._teacher(x)

    def loss(self, weights: Tensor, mix: Mix = drawn_only) -> Tensor:
        """The loss on the batch under hard weights, (2, K)."""
        return mse_loss(self.net(self.x, weights, mix), self.y)

    def exact(self) -> Tensor:
        """The gradient of the expected loss by the logits, (2, K), from all pairs."""
        logits = self.logits.clone().requires_grad_()
        p = logits.softmax(-1)
        expected = (p[0, :, None] * p[1, None, :] * self.losses.view(OPTIONS, OPTIONS)).sum()
        return torch.autograd.grad(expected, logits)[0]


def _hard(draw: tuple[int, ...]) -> Tensor:
    return torch.eye(OPTIONS)[list(draw)]


def gradients(frozen: Frozen, draws: int) -> dict[str, tuple[Tensor, int]]:
    """For each estimator, so many estimates, (draws, 2, K), and what one costs in passes."""
    found = {}
    for relaxation, relax, name in STRAIGHT:
        mix, cost = MIXES[name]
        generator = torch.Generator().manual_seed(0)
        rows = []
        for _ in range(draws):
            logits = frozen.logits.clone().requires_grad_()
            loss = frozen.loss(relax(logits, generator), mix)
            rows.append(torch.autograd.grad(loss, logits)[0])
        found[f"{relaxation}, {name}"] = torch.stack(rows), cost
    for n in (2, 4):
        found[f"differences of {n} losses"] = _differences(frozen, n, draws), n
    return found


def _differences(frozen: Frozen, n: int, draws: int) -> Tensor:
    odds = frozen.logits.softmax(-1).tolist()
    p, rng, rows = e.flat(odds, frozen.x), random.Random(0), []
    for _ in range(draws):
        drawn = e.independent(odds, n, rng)
        losses = frozen.losses[[BOTH.index(draw) for draw in drawn]]
        rows.append(e.leave_one_out(losses, e.one_hot(odds, drawn, p), p))
    return torch.stack(rows).view(draws, 2, OPTIONS)


def measure(quick: bool) -> list[Row]:
    """Bias and spread of each estimator, with and without batch norm behind the options."""
    rows: list[Row] = []
    for norm in (False, True):
        frozen = Frozen(norm, steps=20 if quick else 600)
        exact = frozen.exact()
        for name, (sample, cost) in gradients(frozen, 20 if quick else 2000).items():
            rows.append(
                {
                    "study": "operations, frozen weights",
                    "task": "two operations" + (", batch norm" if norm else ""),
                    "estimator": name,
                    **spread(sample.flatten(1), exact.flatten(), cost),
                }
            )
    return rows


def spread(sample: Tensor, exact: Tensor, cost: float) -> Row:
    """Bias and spread of estimates, (draws, S), as multiples of the norm of the truth, (S,)."""
    size, mean = exact.norm(), sample.mean(0)
    total = sample.var(0).sum()
    return {
        "passes": cost,
        "cosine": float(torch.cosine_similarity(mean, exact, dim=0)),
        "slope": float(mean @ exact / size**2),
        "bias": float((mean - exact).norm() / size),
        "bias_error": float((total / len(sample)).sqrt() / size),
        "spread_at_cost": float((total * cost).sqrt() / size),
    }
