"""Gradients of drawn decisions from differences of losses."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from trinas.search import validators as check
from trinas.search.additive import Additive
from trinas.search.setting import Setting
from trinas.search.signal import Estimate
from trinas.search.step import Step
from trinas.space.decision import Decision, Option
from trinas.supernet import Mixture, Supernet, batch_statistics


@attrs.frozen
class StraightThrough:
    """See `straight_through`."""

    def start(self) -> None:
        """Nothing: the passes of the other signal do the work."""
        return


def straight_through() -> StraightThrough:
    """A result is multiplied by the weight (of value 1) of the option that was drawn.

    That weight's gradient is taken for that of the option. As only what was drawn runs, it is no
    estimate of a difference between options (see the guide); it is what AGD and GDAS have, for
    comparison with them.

    Source: Fu et al., *AutoGAN-Distiller*, Section 3.2; Dong and Yang, *GDAS*, Section 3.2.
    """
    return StraightThrough()


Baseline = Literal["additive", "leave_one_out"]


@attrs.frozen
class Differences:
    """See `differences`."""

    draws: int = attrs.field(default=4, validator=[check.whole, check.at_least_2])
    baseline: Baseline = attrs.field(
        default="additive", validator=check.one_of("additive", "leave_one_out")
    )

    def start(self) -> DifferencesAtWork:
        """Put it to work."""
        return DifferencesAtWork(self)


def differences(draws: int = 4, baseline: Baseline = "additive") -> Differences:
    """Losses of some draws, each compared with the mean of the others.

    Of ``p = softmax(z)`` it is ``d E[L] / dz = E[(L - b) (onehot(k) - p)]``: without bias,
    whatever stands behind a decision, and without a backward pass. All draws see one batch.

    With many widths most of a difference comes from other widths than the one that learns from
    it. ``additive`` takes off what an `Additive` model, learned from earlier steps, says of each
    draw, and adds the exact gradient of what it says of all of them: still without bias, and the
    better the model, the less is left to chance.

    Args:
        draws: how many a step, at least 2; a network that is drawn again is run once.
        baseline: ``additive``, or ``leave_one_out`` for the differences alone. Drawn operations
            and paths have the latter.

    Raises:
        ConfigError: fewer draws, another baseline.

    Source: the score function with a leave-one-out baseline, Kool, van Hoof and Welling, *Buy 4
    REINFORCE samples, get a baseline for free*, 2019. The model is a control variate: Williams,
    *Simple statistical gradient-following algorithms*, 1992, Section 5; Owen, *Monte Carlo theory,
    methods and examples*, Section 8.9.

    >>> differences(2).baseline
    'additive'
    """
    return Differences(draws, baseline)


class DifferencesAtWork:
    """A `Differences` at work."""

    def __init__(self, settings: Differences) -> None:
        self._settings = settings
        self._model: Additive | None = None

    def __call__(self, step: Step) -> Estimate:
        """Estimate at the mixture of the step."""
        detached = step.setting.detached()
        scores: list[list[list[float]]] = [[] for _ in detached.nets]
        found: list[list[tuple[Mapping[str, Option], frozenset[str]]]] = []
        losses: list[Tensor] = []
        known: dict[object, Tensor] = {}
        with torch.no_grad(), batch_statistics(step.task.model):
            for number in range(self._settings.draws):
                mixtures: list[Mixture] = []
                widths: list[tuple[Mapping[str, Option], frozenset[str]]] = []
                for net, mixture, own in zip(detached.nets, detached.mixtures, scores):
                    picked = draw(net, mixture, step.rng)
                    mixtures.append(mixture.picking(picked))
                    active = net.network.active(mixtures[-1])
                    own.append(score(net, mixture, picked, active))
                    widths.append((picked, active))
                found.append(widths)
                # What has one score runs one network, so it is run once.
                key = tuple(tuple(own[-1]) for own in scores)
                if key not in known:
                    one = Setting(detached.nets, tuple(mixtures))
                    at = f"{step.place}, draw {number + 1}"
                    known[key] = step.task.loss_at(step.valid, one, at=at)
                losses.append(known[key])
        values = torch.stack(losses)
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        rows = [torch.tensor(own).to(values) for own in scores]
        gradients = [leave_one_out(values) @ own for own in rows]
        if self._settings.baseline == "additive":
            self._improve(step, values, found, rows, gradients)
        return Estimate(gradients, values.mean())

    def _improve(
        self, step: Step, losses: Tensor, found: Picks, rows: list[Tensor], gradients: list[Tensor]
    ) -> None:
        """Replace the gradients of widths by those with the model."""
        nets = step.setting.nets
        columns = [width_slots(net) for net in nets]
        if not any(columns):
            return
        hot, active = (rows_of(nets, found, chosen).to(losses) for chosen in (True, False))
        model = (self._model or Additive.empty(hot.shape[1], losses)).on(losses.device)
        # The draws of a decision's own step stay out of the model until all gradients are made.
        step.commit(functools.partial(self._learn, model, hot, losses))
        advantages = leave_one_out(losses - hot @ model.value)
        expected = (active.mean(0) * model.value).split([len(own) for own in columns])
        for own, row, gradient, exact in zip(columns, rows, gradients, expected):
            if own:
                places = torch.tensor(own, device=losses.device)
                gradient[places] = advantages @ row[:, places] + exact

    def _learn(self, model: Additive, hot: Tensor, losses: Tensor) -> None:
        self._model = model.seen(hot, losses)

    def memory(self) -> Mapping[str, Any]:
        """What the model knows."""
        return {} if self._model is None else self._model.memory()

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take that up."""
        self._model = Additive.remembering(memory) if memory else None


def leave_one_out(losses: Tensor) -> Tensor:
    """The difference of each loss and the mean of the others, over their number, (N,)."""
    # With the mean of all of them: L - mean of others = N / (N - 1) (L - mean).
    return (losses - losses.mean()) / (len(losses) - 1)


Picks: TypeAlias = Sequence[Sequence[tuple[Mapping[str, Option], frozenset[str]]]]
"""Of every draw and supernet: what was picked, and which decisions were in use."""


def draw(net: Supernet, mixture: Mixture, rng: random.Random) -> dict[str, Option]:
    """One option of every drawn decision, with the probabilities of the mixture's odds."""
    picked: dict[str, Option] = {}
    for decision in net.architecture.drawn:
        start = net.graph.offsets[decision.path]
        odds = mixture.host_odds[start : start + len(decision.options)]
        picked[decision.path] = rng.choices(decision.options, odds)[0]
    return picked


def score(
    net: Supernet, mixture: Mixture, picked: Mapping[str, Option], active: frozenset[str]
) -> list[float]:
    """The gradient of the logarithm of a draw's probability, by the odds of all options.

    What the draw does not run (widths in a branch that is out) says nothing.
    """
    row = [0.0] * net.graph.slots
    for path, option in picked.items():
        if path in active:
            slot = net.graph.offsets[path] + net.graph.decisions[path].index(option)
            row[slot] = 1.0 / mixture.host_odds[slot]
    return row


def _widths(net: Supernet) -> list[Decision]:
    return [decision for decision in net.architecture.drawn if decision.kind == "width"]


def width_slots(net: Supernet) -> list[int]:
    """Where the options of drawn widths are in the flat vector.

    Only widths: whether a width is in use depends on drawn operations, but nothing depends on it.
    So what a model says of other widths is independent of its draw.
    """
    starts = [(net.graph.offsets[d.path], len(d.options)) for d in _widths(net)]
    return [slot for start, many in starts for slot in range(start, start + many)]


def rows_of(nets: Sequence[Supernet], found: Picks, chosen: bool) -> Tensor:
    """A row for each draw, of all options of drawn widths: 1 where chosen, or all that are in use.

    A width that is not in use is 0 throughout.
    """
    rows = []
    for picks in found:
        row: list[float] = []
        for net, (picked, active) in zip(nets, picks):
            for d in _widths(net):
                row += [
                    float(d.path in active and (not chosen or option == picked[d.path]))
                    for option in d.options
                ]
        rows.append(row)
    return torch.tensor(rows)
