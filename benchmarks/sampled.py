"""Searches over widths whose answer is planted, with the signal of the widths left open.

The weights learn as in `trinas.Search`: passes at sampled, widest and narrowest widths, summed,
on Adam. The widths learn from whatever a `Signal` makes of losses on other batches.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import trinas as tn
from benchmarks import estimators as e
from trinas.search import Halving

Batch: TypeAlias = tuple[Tensor, Tensor]

WIDTHS = (1, 2, 4, 8)
CHANNELS = 8
PRICE = 0.004
"""Of a channel of a chain. A channel that is needed is worth about three times as much."""


@attrs.frozen(eq=False)
class Task:
    """A space of widths, data, and the widths that are right.

    Attributes:
        graph: the space; each decision is one of `WIDTHS`.
        right: the number of the right width of each decision.
        prices: what each option costs, in the unit of the loss, (S,).
        batch: input and target, by number.
        loss: of input, prediction and target.
        seed: of data and weights.
    """

    graph: tn.Graph
    right: tuple[int, ...]
    prices: Tensor
    batch: Callable[[int], Batch]
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    seed: int

    @property
    def paths(self) -> list[str]:
        """The decisions."""
        return list(self.graph.decisions)

    def supernet(self) -> tn.Supernet:
        """A fresh supernet, its weights a function of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            generator = torch.Generator().manual_seed(self.seed)
            return tn.compile_supernet(self.graph, generator=generator)


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_000 * (seed + 1) + number)


@functools.cache
def one_width(seed: int, norm: bool = False) -> Task:
    """One width between two convolutions; the target is made by 8 kernels; no cost."""
    norms = (tn.batch_norm(),) if norm else ()
    first = tn.conv(3, tn.width(values=WIDTHS), bias=False)
    space = tn.seq(first, *norms, tn.relu(), tn.conv(3, 3))
    own = _generator(seed, -1)
    kernels = [torch.randn(*shape, generator=own) for shape in ((8, 3, 3, 3), (3, 8, 3, 3))]

    def batch(number: int) -> Batch:
        x = torch.randn(8, 3, 10, 10, generator=_generator(seed, number))
        hidden = torch.conv2d(x, kernels[0], padding=1).relu()
        return x, 0.3 * torch.conv2d(hidden, kernels[1], padding=1)

    def loss(_: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        return mse_loss(prediction, target)

    return Task(tn.lower(space, (3, 10, 10)), (3,), torch.zeros(4), batch, loss, seed)


@functools.cache
def chain(many: int, seed: int) -> Task:
    """Residual blocks in a chain, each with a hidden width of its own.

    Block d adds a matrix of rank r_d, its singular values all equal, times the tanh of what comes
    in: with fewer hidden channels than r_d a block loses as many directions of equal worth, with
    more it gains nothing and pays their price. All blocks' results are compared with the
    target's, so that no block can do what another should.
    """
    rng, own = random.Random(seed), _generator(seed, -1)
    right = tuple(rng.randrange(len(WIDTHS)) for _ in range(many))
    matrices = []
    for option in right:
        u, v = (torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=own))[0] for _ in "uv")
        rank = WIDTHS[option]
        matrices.append((0.5 * u[:, :rank] @ v[:, :rank].T).view(CHANNELS, CHANNELS, 1, 1))

    def batch(number: int) -> Batch:
        x = y = torch.randn(8, CHANNELS, 6, 6, generator=_generator(seed, number))
        added = []
        for matrix in matrices:
            added.append(torch.conv2d(y.tanh(), matrix))
            y = y + added[-1]
        return x, torch.cat(added, 1)

    def loss(x: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        before = torch.cat([x, prediction[:, :-CHANNELS]], 1)
        return mse_loss(prediction - before, target)

    prices = torch.tensor([PRICE * width / many for _ in range(many) for width in WIDTHS])
    return Task(tn.lower(_blocks(many), (CHANNELS, 6, 6)), right, prices, batch, loss, seed)


def _blocks(many: int) -> tn.Node:
    """Blocks in a chain; the channels that come out are those of all blocks."""
    hidden = tn.conv(1, tn.width(values=WIDTHS), bias=False)
    block = tn.residual(tn.seq(tn.tanh(), hidden, tn.conv(1, CHANNELS, bias=False)))
    if many == 1:
        return block
    return tn.seq(block, tn.concat(tn.shortcut(CHANNELS), _blocks(many - 1)))


# -- a search ----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Settings:
    """Steps and rates of a search."""

    pretrain: int = 80
    steps: int = 260
    weight_lr: float = 1e-2
    arch_lr: float = 2e-2
    betas: tuple[float, float] = (0.5, 0.999)


class Step:
    """What a signal may look at in one step, and what it has cost.

    Attributes:
        odds: of every decision.
        p: the same as one vector, (S,).
        blocks: which options belong to which decision, (D, S).
        rng: where draws come from.
        passes: forward passes so far; one forwards and backwards counts as three.
    """

    def __init__(
        self, task: Task, net: tn.Supernet, mixture: tn.Mixture, batch: Batch, rng: random.Random
    ) -> None:
        self._task, self._net, self._mixture, self._batch = task, net, mixture, batch
        odds = mixture.odds_by_path()
        self.odds = [odds[path] for path in task.paths]
        self.p = e.flat(self.odds, task.prices)
        self.blocks = e.blocks_of(self.odds, task.prices)
        self.rng = rng
        self.passes = 0

    @torch.no_grad()
    def losses(self, draws: Sequence[e.Draw]) -> Tensor:
        """The loss of each draw, (N,), all on one batch."""
        found: dict[e.Draw, Tensor] = {}
        mixture = self._mixture.detached()
        with _statistics_kept(self._net):
            for draw in dict.fromkeys(draws):
                found[draw] = self._loss(_at(self._task, mixture, draw))
        self.passes += len(draws)
        return torch.stack([found[draw] for draw in draws])

    def straight_through(self) -> Tensor:
        """What AGD's unit weight on the drawn width sends back to the logits, (S,)."""
        architecture = self._net.architecture
        parameters = list(self._net.arch_parameters().values())
        with _statistics_kept(self._net):
            loss = self._loss(self._mixture.with_widths("sampled"))
        gradients = dict(zip(self._net.arch_parameters(), torch.autograd.grad(loss, parameters)))
        self.passes += 3
        rows = [architecture.row(path) for path in self._task.paths]
        return torch.cat([gradients[name][row] for name, row in rows])

    def relaxed(self, net: tn.Supernet) -> Tensor:
        """The gradient through the weights of a supernet whose widths are soft, (S,)."""
        generator = torch.Generator().manual_seed(self.rng.getrandbits(40))
        parameters = list(net.arch_parameters().values())
        x, y = self._batch
        with _statistics_kept(net):
            prediction = net(x, at=net.mixture(generator=generator))
        gradients = torch.autograd.grad(self._task.loss(x, prediction, y), parameters)
        self.passes += 3
        found = dict(zip(net.arch_parameters(), gradients))
        rows = [net.architecture.row(path) for path in self._task.paths]
        return torch.cat([found[name][row] for name, row in rows])

    def _loss(self, mixture: tn.Mixture) -> Tensor:
        x, y = self._batch
        return self._task.loss(x, self._net(x, at=mixture), y)


class Signal(Protocol):
    """Makes the gradient of the expected loss by the logits, (S,); None for no update."""

    def __call__(self, step: Step) -> Tensor | None:
        """The gradient in one step."""
        ...


def _at(task: Task, mixture: tn.Mixture, draw: e.Draw) -> tn.Mixture:
    widths = {path: WIDTHS[option] for path, option in zip(task.paths, draw)}
    return attrs.evolve(mixture, widths=widths, scored=frozenset())


@contextmanager
def _statistics_kept(net: nn.Module) -> Iterator[None]:
    """Passes in training mode that leave no trace in running statistics."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, kept):
            norm.momentum = momentum


def _train(
    task: Task,
    net: tn.Supernet,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    passes: Sequence[tn.Mixture],
) -> None:
    optimiser.zero_grad(set_to_none=True)
    for mixture in passes:
        task.loss(batch[0], net(batch[0], at=mixture), batch[1]).backward()
    nn.utils.clip_grad_norm_(net.weight_parameters(), 5.0)
    optimiser.step()


@functools.cache
def pretrained(task: Task, settings: Settings) -> tuple[dict, dict]:
    """States of a supernet and of the optimiser of its weights after pretraining.

    The same for all signals, so it is done once.
    """
    net = task.supernet().train()
    optimiser = torch.optim.Adam(net.weight_parameters(), settings.weight_lr)
    rng, schedule = random.Random(task.seed), Halving()
    mixture = net.mixture(generator=_generator(task.seed, -2)).detached()
    for number in range(settings.pretrain):
        optimiser.param_groups[0]["lr"] = settings.weight_lr * schedule(number / settings.pretrain)
        kinds = ("widest", "narrowest", "random", "random")
        passes = [mixture.with_widths(kind, rng=rng) for kind in kinds]
        _train(task, net, optimiser, task.batch(number), passes)
    return net.state_dict(), optimiser.state_dict()


@attrs.frozen
class State:
    """Where a search stands after some steps.

    Attributes:
        passes: forward passes for the widths so far.
        right: share of decisions whose likeliest option is the right one.
        odds: mean odds of the right options.
        lost: share of decisions in which a wrong option has odds of 0.9.
    """

    passes: int
    right: float
    odds: float
    lost: float


def search(task: Task, signal: Signal, settings: Settings) -> tuple[tn.Supernet, list[State]]:
    """Search with a signal; the supernet at its end, and a state for each step."""
    net_state, optimiser_state = pretrained(task, settings)
    net = task.supernet().train()
    net.load_state_dict(net_state)
    optimiser = torch.optim.Adam(net.weight_parameters(), settings.weight_lr)
    optimiser.load_state_dict(optimiser_state)
    architecture = list(net.arch_parameters().values())
    arch_optimiser = torch.optim.Adam(architecture, settings.arch_lr, settings.betas)
    rng, generator = random.Random(task.seed), _generator(task.seed, -3)
    states, passes, schedule = [], 0, Halving()
    for number in range(settings.steps):
        share = number / settings.steps
        optimiser.param_groups[0]["lr"] = settings.weight_lr * schedule(share)
        mixture = net.mixture(generator=generator)
        kinds = ("sampled", "widest", "narrowest")
        settled = [mixture.detached().with_widths(kind, rng=rng) for kind in kinds]
        _train(task, net, optimiser, task.batch(1000 + number), settled)
        step = Step(task, net, mixture, task.batch(5000 + number), rng)
        gradient = signal(step)
        if gradient is not None:
            _descend(task, net, arch_optimiser, gradient + _of_prices(task, step))
        passes += step.passes
        net.progress = (number + 1) / settings.steps
        states.append(_state(task, net, passes))
    return net, states


def _of_prices(task: Task, step: Step) -> Tensor:
    """The gradient of the expected price, exactly."""
    p, prices = step.p, task.prices
    return p * (prices - (step.blocks @ (p * prices)) @ step.blocks)


def _descend(
    task: Task, net: tn.Supernet, optimiser: torch.optim.Optimizer, gradient: Tensor
) -> None:
    parts = gradient.split(len(WIDTHS))
    for parameter in net.arch_parameters().values():
        parameter.grad = torch.zeros_like(parameter)
    for path, part in zip(task.paths, parts):
        name, row = net.architecture.row(path)
        grad = net.arch_parameters()[name].grad
        assert grad is not None
        grad[row] = part
    optimiser.step()


def _state(task: Task, net: tn.Supernet, passes: int) -> State:
    odds = net.odds()
    rows = [(odds[path], right) for path, right in zip(task.paths, task.right)]
    found = [row.index(max(row)) == right for row, right in rows]
    lost = [max(row) >= 0.9 and not hit for (row, _), hit in zip(rows, found)]
    mean = sum(row[right] for row, right in rows) / len(rows)
    return State(passes, sum(found) / len(rows), mean, sum(lost) / len(rows))


def confirmed(task: Task, net: tn.Supernet, batches: int = 4) -> float:
    """Share of decisions in which no single change of the planted answer lowers loss plus price."""
    rng, mixture = random.Random(0), net.mixture(generator=_generator(0, 0))
    totals = torch.zeros(len(task.right), len(WIDTHS))
    for number in range(batches):
        step = Step(task, net, mixture, task.batch(90_000 + number), rng)
        for d, row in enumerate(totals):
            before, behind = task.right[:d], task.right[d + 1 :]
            row += step.losses([(*before, k, *behind) for k in range(len(WIDTHS))])
    totals = totals / batches + task.prices.view(len(task.right), -1)
    return float((totals.argmin(1) == torch.tensor(task.right)).double().mean())
