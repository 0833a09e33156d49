"""Gradients of drawn decisions from differences of losses."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from trinas.search import validators as check
from trinas.search.setting import Setting
from trinas.search.signal import Estimate
from trinas.search.step import Step
from trinas.space.decision import Option
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


@attrs.frozen
class Differences:
    """See `differences`."""

    draws: int = attrs.field(default=4, validator=[check.whole, check.at_least_2])

    def start(self) -> DifferencesAtWork:
        """Put it to work."""
        return DifferencesAtWork(self.draws)


def differences(draws: int = 4) -> Differences:
    """Losses of some draws, each compared with the mean of the others.

    Of ``p = softmax(z)`` it is ``d E[L] / dz = E[(L - b) (onehot(k) - p)]``: without bias,
    whatever stands behind a decision, and without a backward pass. All draws see one batch.

    Args:
        draws: how many a step, at least 2; a network that is drawn again is run once.

    Raises:
        ConfigError: fewer draws.

    Source: the score function with a leave-one-out baseline, Kool, van Hoof and Welling, *Buy 4
    REINFORCE samples, get a baseline for free*, 2019.
    """
    return Differences(draws)


class DifferencesAtWork:
    """A `Differences` at work."""

    def __init__(self, draws: int) -> None:
        self._draws = draws

    def __call__(self, step: Step) -> Estimate:
        """Estimate at the mixture of the step."""
        detached = step.setting.detached()
        rows: list[list[list[float]]] = [[] for _ in detached.nets]
        losses: list[Tensor] = []
        known: dict[object, Tensor] = {}
        with torch.no_grad(), batch_statistics(step.task.model):
            for number in range(self._draws):
                mixtures = []
                for net, mixture, own in zip(detached.nets, detached.mixtures, rows):
                    picked = draw(net, mixture, step.rng)
                    mixtures.append(mixture.picking(picked))
                    own.append(score(net, mixtures[-1], mixture, picked))
                # What has one score runs one network, so it is run once.
                key = tuple(tuple(own[-1]) for own in rows)
                if key not in known:
                    one = Setting(detached.nets, tuple(mixtures))
                    at = f"{step.place}, draw {number + 1}"
                    known[key] = step.task.loss_at(step.valid, one, at=at)
                losses.append(known[key])
        values = torch.stack(losses)
        others = (values.sum() - values) / (self._draws - 1)
        advantages = (values - others) / self._draws
        return Estimate(
            [advantages @ torch.tensor(own).to(advantages) for own in rows], values.mean()
        )

    def memory(self) -> Mapping[str, Any]:
        """Nothing: every step stands alone."""
        return {}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Nothing."""


def draw(net: Supernet, mixture: Mixture, rng: random.Random) -> dict[str, Option]:
    """One option of every drawn decision, with the probabilities of the mixture's odds."""
    picked: dict[str, Option] = {}
    for decision in net.architecture.drawn:
        start = net.graph.offsets[decision.path]
        odds = mixture.host_odds[start : start + len(decision.options)]
        picked[decision.path] = rng.choices(decision.options, odds)[0]
    return picked


def score(
    net: Supernet, drawn: Mixture, mixture: Mixture, picked: Mapping[str, Option]
) -> list[float]:
    """The gradient of the logarithm of a draw's probability, by the odds of all options.

    What the draw does not run (widths in a branch that is out) says nothing.
    """
    row = [0.0] * net.graph.slots
    active = net.network.active(drawn)
    for path, option in picked.items():
        if path in active:
            slot = net.graph.offsets[path] + net.graph.decisions[path].index(option)
            row[slot] = 1.0 / mixture.host_odds[slot]
    return row
