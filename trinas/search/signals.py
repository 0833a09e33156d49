"""Where the architecture's gradient comes from.

Decisions that a relaxation mixes take a gradient through their weights: `gradient` (first order)
or `unrolled` (second order). Decisions of which one option is drawn, searched widths above all,
have no such gradient: scaling a result by the weight of its width says how the loss changes with
the scale, not with the width. Their signal comes from losses: `differences`. The older
`straight_through` is there by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import attrs
import torch
from torch import Tensor

from trinas.search import validators as check
from trinas.search.setting import Pass
from trinas.search.step import Step


class Signal(Protocol):
    """The gradient of decisions that are mixed."""

    def __call__(self, step: Step, passes: Sequence[Pass]) -> Tensor:
        """Add gradients to the weights of the passes' setting (`Setting.leaf`); their loss."""
        ...


@attrs.frozen
class Gradient:
    """See `gradient`."""

    def __call__(self, step: Step, passes: Sequence[Pass]) -> Tensor:
        """One backward for each pass, to the architecture alone."""
        task = step.task
        losses = []
        for one in passes:
            # Only the architecture is asked for: gradients of the weights would be computed for
            # nothing. What else of a loss depends on it (a term of the user's) comes along.
            asked = [*one.setting.weights, *task.arch.values()]
            loss = task.loss_at(step.valid, one.setting, at=f"{step.place}, {one.name}")
            losses.append(task.backward(one.times * loss, inputs=asked))
        return torch.stack(losses).sum()


def gradient() -> Gradient:
    """First order: the gradient of the loss at the weights as they are (DARTS, Section 2.3)."""
    return Gradient()


@attrs.frozen
class Unrolled:
    """See `unrolled`."""

    rate: float | None = attrs.field(default=None, validator=check.optional(check.positive))

    def __call__(self, step: Step, passes: Sequence[Pass]) -> Tensor:
        """The loss after one weight step, differentiated through that step."""
        task = step.task
        weights: Mapping[str, Tensor] = task.weights

        def loss_at(moved: Mapping[str, Tensor], batch: Any) -> Tensor:
            at = step.place
            return torch.stack(
                [one.times * task.loss_with(moved, batch, one.setting, at=at) for one in passes]
            ).sum()

        inner = torch.autograd.grad(
            loss_at(weights, step.train), list(weights.values()), create_graph=True,
            allow_unused=True,
        )
        rate = step.facts["lr"] if self.rate is None else self.rate
        moved = {
            name: w if g is None else w - rate * g for (name, w), g in zip(weights.items(), inner)
        }
        asked = [*passes[0].setting.weights, *task.arch.values()]
        return task.backward(loss_at(moved, step.valid), inputs=asked)


def unrolled(rate: float | None = None) -> Unrolled:
    """Second order: through one plain step of gradient descent of the weights (DARTS, Eq. 7).

    The weights stay as they are. It is exact (double backward), so that the graphs of all passes
    are in memory at once.

    Args:
        rate: size of that step; the learning rate of the weights where None.

    Raises:
        ConfigError: the rate is not positive.
    """
    return Unrolled(rate)


class Estimate(NamedTuple):
    """What an estimator of drawn decisions found.

    Args:
        gradients: for each supernet a flat vector: the loss's gradient by the odds.
        loss: the mean loss of the draws.
    """

    gradients: list[Tensor]
    loss: Tensor


class Estimator(Protocol):
    """The gradient of decisions that are drawn."""

    def start(self) -> EstimatorAtWork | None:
        """Put it to work; None where the passes of the other signal do its work."""
        ...


class EstimatorAtWork(Protocol):
    """An estimator with its memory."""

    def __call__(self, step: Step) -> Estimate:
        """Estimate at the mixture of the step."""
        ...

    def memory(self) -> Mapping[str, Any]:
        """What it knows from earlier steps."""
        ...

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take that up."""
        ...
