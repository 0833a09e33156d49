"""Where the architecture's gradient comes from.

Decisions that a relaxation mixes take a gradient through their weights: `gradient` (first order)
or `unrolled` (second order); with `exits`, paths and depths take theirs from the losses at each of
their options. Decisions of which one option is drawn, searched widths above all, have no such
gradient: scaling a result by the weight of its width says how the loss changes with the scale,
not with the width. Their signal comes from losses: `differences`. The older `straight_through` is
there by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from trinas._core.errors import ConfigError
from trinas.search import validators as check
from trinas.search.estimators import differences as differences
from trinas.search.estimators import straight_through as straight_through
from trinas.search.exits import Exits
from trinas.search.setting import Pass
from trinas.search.step import Step


@attrs.frozen
class Gradient:
    """See `gradient`."""

    def __call__(self, step: Step, passes: Sequence[Pass]) -> Tensor:
        """One backward for each pass, to the architecture alone."""
        task = step.task
        # Only the architecture is asked for: gradients of the weights would be computed for
        # nothing. What else of a loss depends on it (a term of the user's) comes along.
        arch = list(task.arch.values())
        losses = [
            task.descend(step.valid, one, at=step.place, inputs=[*one.setting.weights, *arch])
            for one in passes
        ]
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
            loss_at(weights, step.train),
            list(weights.values()),
            create_graph=True,
            allow_unused=True,
        )
        rate = step.facts.get("lr") if self.rate is None else self.rate
        if rate is None:
            raise ConfigError(
                "an unrolled step has a rate",
                got="none of the weights",
                at="signals.unrolled",
                fix="Give unrolled(rate), or call before(step) of the weights first.",
            )
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


def exits(most: int = 4) -> Exits:
    """First order, of the expected loss over paths and depths in the place of their mixture's.

    With ``L_k`` the loss where such a decision stands at option k and ``q`` its weights, it is
    the gradient of ``sum_k q_k L_k``: by ``q_k`` it is ``L_k``, exactly; other mixed decisions
    are mixed in every ``L_k`` and take their gradient from there. In a supernet by itself all
    ``L_k`` come from one pass of what stands before the decision and a tail for each option
    (`Network.outputs_at_exits`); inside of a larger model, from one pass for each option. Where
    no path or depth is left to decide, it is `gradient`.

    Of several such decisions each has its turn in every step, the others drawn by their weights:
    without bias. The weights of the network are to know single exits: see `exits` of
    `trinas.weights`.

    Args:
        most: decisions that have their turn in a step. Of more, so many are drawn in each step,
            and their gradients count for the others'.

    Raises:
        ConfigError: `most` is not a positive whole number.

    Source: Trilevel NAS, Eq. 1, with the expectation over losses instead of features.

    >>> exits()
    Exits(most=4)
    """
    return Exits(most)
