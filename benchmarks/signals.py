"""Which estimator of the gradient of sampled decisions learns fastest at equal cost.

Three studies, told apart by the column `study`.

- *operations, frozen weights*: straight-through Gumbel-softmax (see `straight_through`).
- *widths, frozen weights*: two widths that interact; bias and spread against enumeration.
- *search*: planted answers of 1, 5 and 25 widths, found while the weights learn.

Cost is counted in forward passes, a pass forwards and backwards as three. Draws that fall
together count each, though one pass serves them.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

import trinas as tn
from benchmarks import estimators as e
from benchmarks import sampled, straight_through
from benchmarks.measure import Options, Row
from benchmarks.sampled import Settings, Signal, Step, Task
from benchmarks.straight_through import spread
from trinas.search.additive import Additive

Draws: TypeAlias = Callable[[e.Odds, int, random.Random], list[e.Draw]]

Estimate: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Losses, one-hot draws and odds to a gradient."""

FIRST = 7000
"""Number of the first batch at frozen weights."""

DEFAULT = Settings()
QUICK = Settings(pretrain=3, steps=6)
COST = 520
"""Forward passes for the widths after which signals are compared: two a step for 260 steps."""
WEIGHTS = 9
"""Forward passes that a step spends on the weights: three, forwards and backwards."""


# -- signals -----------------------------------------------------------------------------


def straight(step: Step) -> Tensor:
    """AGD: the drawn width's unit weight on what it produces."""
    return step.straight_through()


def side_by_side(number: int, step: Step) -> Tensor:
    """All candidates of one decision, in turn, the others drawn once; D times its gradient."""
    d = number % len(step.odds)
    (draw,) = e.independent(step.odds, 1, step.rng)
    start, own = sum(map(len, step.odds[:d])), len(step.odds[d])
    losses = step.losses([(*draw[:d], k, *draw[d + 1 :]) for k in range(own)])
    gradient = torch.zeros_like(step.p)
    rows = slice(start, start + own)
    gradient[rows] = len(step.odds) * e.conditional(losses, step.p[rows])
    return gradient


def in_turn() -> Signal:
    """`side_by_side` for the first decision, then the second, and so on."""
    numbers = itertools.count()
    return lambda step: side_by_side(next(numbers), step)


def compared(draw: Draws, estimate: Estimate, n: int) -> Signal:
    """N draws of a kind, each with a baseline from the others."""

    def signal(step: Step) -> Tensor:
        draws = draw(step.odds, n, step.rng)
        losses = step.losses(draws)
        return estimate(losses, e.one_hot(step.odds, draws, losses), step.p)

    return signal


class Running:
    """Draws against a baseline from earlier steps: their decayed mean loss."""

    def __init__(self, draw: Draws, n: int, keep: float = 0.9) -> None:
        self._draw, self._n, self._keep = draw, n, keep
        self._baseline: Tensor | None = None

    def __call__(self, step: Step) -> Tensor | None:
        """The gradient; none in the first step, which has no earlier one."""
        draws = self._draw(step.odds, self._n, step.rng)
        losses = step.losses(draws)
        baseline, mean = self._baseline, losses.mean()
        if baseline is None:
            self._baseline = mean
            return None
        self._baseline = self._keep * baseline + (1 - self._keep) * mean
        return e.reinforce(losses, e.one_hot(step.odds, draws, losses), step.p, baseline)


class Modelled:
    """The additive model of `trinas.signals.differences`, fed with losses of earlier steps.

    Args:
        n: draws a step.
        corrected: by what it leaves of the present losses, which makes it unbiased; else the
            model's own gradient with the present losses in it, which lags behind.
    """

    def __init__(self, n: int, *, corrected: bool = True) -> None:
        self._n, self._corrected = n, corrected
        self._model: Additive | None = None

    def __call__(self, step: Step) -> Tensor:
        """The gradient, from 2 draws on."""
        draws = e.independent(step.odds, self._n, step.rng)
        losses = step.losses(draws)
        hot = e.one_hot(step.odds, draws, losses)
        earlier = self._model or Additive.empty(len(step.p), losses)
        self._model = earlier.seen(hot, losses)
        if self._corrected:
            return e.with_model(losses, hot, step.p, earlier.value, step.blocks)
        return e.model_gradient(self._model.value, step.p, step.blocks)


Make: TypeAlias = Callable[[], Signal]

SIGNALS: dict[str, Make] = {
    "straight-through (AGD)": lambda: straight,
    "one decision at a time": in_turn,
    "leave one out, 2 draws": lambda: compared(e.independent, e.leave_one_out, 2),
    "leave one out, 4 draws": lambda: compared(e.independent, e.leave_one_out, 4),
    "leave one out, 8 draws": lambda: compared(e.independent, e.leave_one_out, 8),
    "antithetic, 4 draws": lambda: compared(e.antithetic, e.leave_pair_out, 4),
    "stratified, running baseline, 4 draws": lambda: Running(e.stratified, 4),
    "additive model, 2 draws": lambda: Modelled(2),
    "additive model, 4 draws": lambda: Modelled(4),
    "additive model, 8 draws": lambda: Modelled(8),
    "additive model alone, 4 draws": lambda: Modelled(4, corrected=False),
}


# -- bias and spread at frozen weights ---------------------------------------------------


def interacting(norm: bool = False, shared: bool = False) -> Task:
    """Two widths, one behind the other; or one of them in two places, with the same weights."""
    norms = (tn.batch_norm(),) if norm else ()
    middle = tn.seq(
        tn.conv(3, tn.width(values=sampled.WIDTHS), bias=False), *norms, tn.relu(), tn.conv(1, 8)
    )
    if shared:
        middle = tn.seq(*(tn.share("middle", middle, weights=True) for _ in range(2)))
    first = tn.conv(3, tn.width(values=sampled.WIDTHS), bias=False)
    between = (tn.conv(1, 8),) if shared else ()
    space = tn.seq(first, *norms, tn.relu(), *between, middle, tn.conv(3, 3))
    own = torch.Generator().manual_seed(3)
    kernels = [torch.randn(*shape, generator=own) for shape in ((8, 3, 3, 3), (3, 8, 3, 3))]

    def batch(number: int) -> sampled.Batch:
        x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(number))
        hidden = torch.conv2d(x, kernels[0], padding=1).relu()
        return x, 0.3 * torch.conv2d(hidden, kernels[1], padding=1)

    def loss(_: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        return mse_loss(prediction, target)

    return Task(tn.lower(space, (3, 8, 8)), (3, 3), torch.zeros(8), batch, loss, 0)


class Table(Step):
    """A step at frozen weights: losses are looked up, and which batch it is, is drawn.

    Args:
        task: of two decisions.
        net: trained.
        batches: how many there are.
    """

    def __init__(self, task: Task, net: tn.Supernet, batches: int) -> None:
        mixture = net.mixture(generator=torch.Generator().manual_seed(0))
        super().__init__(task, net, mixture, task.batch(0), random.Random(0))
        self._draws = list(itertools.product(*(range(len(row)) for row in self.odds)))
        rows = []
        for number in range(batches):
            step = Step(task, net, mixture, task.batch(FIRST + number), self.rng)
            rows.append(step.losses(self._draws))
        self.table = torch.stack(rows)
        self._row = 0

    def _move(self) -> None:
        """To another batch, and another draw of the mixture."""
        self._row = self.rng.randrange(len(self.table))
        generator = torch.Generator().manual_seed(self.rng.getrandbits(40))
        self._mixture = self._net.mixture(generator=generator)
        self._batch = self._task.batch(FIRST + self._row)

    def losses(self, draws: Sequence[e.Draw]) -> Tensor:
        """The losses of draws, from the table."""
        self.passes += len(draws)
        return self.table[self._row, [self._draws.index(draw) for draw in draws]]

    def exact(self) -> Tensor:
        """``p_k (E[L | k] - E[L])``, from all draws and batches, (S,)."""
        hot = e.one_hot(self.odds, self._draws, self.p)
        odds = torch.exp(hot @ self.p.log())
        return (odds * self.table.mean(0)) @ (hot - self.p)

    def estimates(self, signal: Signal, many: int) -> Tensor:
        """So many gradients, one after the other, (many, S)."""
        found = []
        while len(found) < many:
            self._move()
            gradient = signal(self)
            if gradient is not None:
                found.append(gradient)
        return torch.stack(found)


def frozen_rows(options: Options) -> list[Row]:
    """Bias and spread for two widths; logits as they start, and some way on."""
    rows: list[Row] = []
    settings = QUICK if options.quick else Settings(pretrain=300)
    many, slow, batches = (20, 5, 3) if options.quick else (1000, 300, 40)
    kinds = {
        "two widths": interacting(),
        "two widths, batch norm": interacting(norm=True),
        "two widths, one shared by two places": interacting(shared=True),
    }
    for name, task in kinds.items():
        net = task.supernet().train()
        net.load_state_dict(sampled.pretrained(task, settings)[0])
        with torch.no_grad():
            for parameter in net.arch_parameters().values():
                parameter.copy_(torch.tensor([0.3, 0.0, 0.2, -0.4]).expand_as(parameter))
        table = Table(task, net, batches)
        soft = {label: _through(task, net, relax) for label, relax in SOFT.items()}
        for label, make in {**SIGNALS, **soft}.items():
            table.passes = 0
            sample = table.estimates(make(), slow if label in (AGD, *SOFT) else many)
            cost = round(table.passes / len(sample))
            row = {"study": "widths, frozen weights", "task": name, "estimator": label}
            rows.append({**row, **spread(sample, table.exact(), cost)})
    return rows


SOFT: dict[str, tn.relax.Relaxation] = {
    "Gumbel, all options run": tn.relax.GumbelSoftmax(1.0, all_options=True),
    "ReinMax, all options run": tn.relax.ReinMax(),
    "softmax, all options mixed": tn.relax.Softmax(),
}
"""Relaxations whose widths stand behind masks: a gradient through all of them in one pass."""


def _through(task: Task, trained: tn.Supernet, relax: tn.relax.Relaxation) -> Make:
    """The gradient through a relaxation of the widths of a trained supernet."""
    net = tn.compile_supernet(task.graph, {"width": relax}).train()
    net.load_state_dict(trained.state_dict())
    return lambda: lambda step: step.relaxed(net)


# -- searches ----------------------------------------------------------------------------


@attrs.frozen
class Search:
    """Some signals on a kind of task.

    Attributes:
        name: of the task.
        make: the task of a seed.
        signals: keys of `SIGNALS`.
        settings: steps and rates.
        seeds: how many.
    """

    name: str
    make: Callable[[int], Task]
    signals: Sequence[str]
    settings: Settings = DEFAULT
    seeds: int = 5

    def rows(self, options: Options) -> list[Row]:
        """One row a signal."""
        settings = self.settings
        if options.quick:
            settings = attrs.evolve(settings, pretrain=QUICK.pretrain, steps=QUICK.steps)
        seeds = 1 if options.quick else self.seeds
        return [self._row(label, settings, seeds) for label in self.signals]

    def _row(self, label: str, settings: Settings, seeds: int) -> Row:
        runs, agreed = [], []
        for seed in range(seeds):
            task = self.make(seed)
            net, states = sampled.search(task, SIGNALS[label](), settings)
            runs.append(states)
            agreed.append(sampled.confirmed(task, net))
        ends = [states[-1] for states in runs]
        passes = ends[0].passes / settings.steps
        equal = [next((s for s in states if s.passes >= COST), states[-1]) for states in runs]
        # As many passes in all as two draws a step take.
        steps = round((COST + WEIGHTS * settings.steps) / (WEIGHTS + passes))
        whole = [states[min(steps, len(states)) - 1] for states in runs]
        return {
            "study": "search",
            "task": self.name,
            "estimator": label,
            "rate": settings.arch_lr,
            "betas": str(settings.betas),
            "seeds": seeds,
            "passes": passes,
            "right_at_cost": _mean([s.right for s in equal]),
            "odds_at_cost": _mean([s.odds for s in equal]),
            "right_at_whole_cost": _mean([s.right for s in whole]),
            "odds_at_whole_cost": _mean([s.odds for s in whole]),
            "right": _mean([s.right for s in ends]),
            "odds": _mean([s.odds for s in ends]),
            "lost": _mean([s.lost for s in ends]),
            "seeds_found": sum(s.right == 1.0 and s.odds >= 0.9 for s in ends),
            "confirmed": _mean(agreed),
        }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


AGD, DRAWS, MODEL = "straight-through (AGD)", "leave one out, 4 draws", "additive model, 4 draws"
ONE = tuple(label for label in SIGNALS if "8 draws" not in label)
FIVE = tuple(SIGNALS)
MANY = tuple(
    label for label in SIGNALS if not any(no in label for no in ("antithetic", "running", "alone"))
)
FAST = Settings(arch_lr=5e-2, betas=(0.5, 0.95))
NORM = functools.partial(sampled.one_width, norm=True)
CHAINS = {many: functools.partial(sampled.chain, many) for many in (3, 5, 25)}

SEARCHES = (
    Search("1 width", sampled.one_width, ONE),
    Search("1 width, batch norm", NORM, (AGD, DRAWS, MODEL)),
    Search("5 widths", CHAINS[5], FIVE),
    Search("5 widths", CHAINS[5], (DRAWS, MODEL), FAST),
    Search("25 widths", CHAINS[25], MANY, seeds=3),
    Search("25 widths", CHAINS[25], (DRAWS, MODEL), FAST, seeds=3),
)
QUICK_SEARCHES = (Search("3 widths", CHAINS[3], ONE),)


def measure(options: Options) -> list[Row]:
    """One row for each study, task and estimator."""
    rows = straight_through.measure(options.quick) + frozen_rows(options)
    for one in QUICK_SEARCHES if options.quick else SEARCHES:
        rows += one.rows(options)
    return rows
