"""Settings of a search and of a training: frozen, complete, without side effects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from trinas.cost import Metric
from trinas.search import validators as check
from trinas.supernet import Widths

Batches: TypeAlias = Callable[[int], tuple[Tensor, Any]]
"""Input and target of a step: a pure function of its number, so that a run can resume.

A target of floating point numbers has the shape of the prediction. Class numbers, and
targets that are no tensor, are left to the loss.
"""

Loss: TypeAlias = Callable[[Tensor, Any], Tensor]
"""Prediction and target to a tensor of no dimensions."""


@attrs.frozen
class Halving:
    """A learning rate that is halved whenever a share of the steps has passed.

    >>> Halving((0.25, 0.5))(0.3)
    0.5
    """

    at: tuple[float, ...] = (0.25, 0.5, 0.75)

    def __call__(self, progress: float) -> float:
        """The factor at this share of the steps, in [0, 1]."""
        return 0.5 ** sum(progress >= share for share in self.at)


@attrs.frozen
class CosineDecay:
    """A learning rate that follows half a cosine down to a share of its start.

    >>> CosineDecay(0.0)(0.5)
    0.5
    """

    final: float = attrs.field(default=0.01, validator=check.share)
    warmup: float = attrs.field(default=0.0, validator=check.below_1)

    def __call__(self, progress: float) -> float:
        """The factor at this share of the steps, in [0, 1]."""
        if progress < self.warmup:
            # Not from 0, or the first step would be none.
            return min(1.0, max(progress, 1e-3) / self.warmup)
        share = (progress - self.warmup) / (1 - self.warmup)
        wave = 0.5 + 0.5 * math.cos(math.pi * share)
        return self.final + (1 - self.final) * wave


LrSchedule: TypeAlias = Callable[[float], float]


@attrs.frozen(kw_only=True)
class CostControl:
    """A penalty on the expected cost, and a controller of its weight.

    The term is ``weight * expected cost / target``: it always pushes towards cheaper
    networks, and `target` is the unit it is measured in. The controller (`every`) is what
    aims at the target: it doubles the weight while the derived network costs too much and
    halves it while it costs too little.

    Attributes:
        target: cost on budget, in the unit of the metric.
        metric: ``macs`` or ``params``.
        weight: omega, the weight of the term at the start.
        share_structure: share of the weight on operations and paths (widths held at the
            widest); the rest is on widths (operations and paths held uniform).
        band: at every check, the weight is doubled if the derived network costs more than
            ``band[1] * target``, halved if it costs less than ``band[0] * target``.
        every: steps between checks; never where None.

    Raises:
        ConfigError: a setting is out of its range.
    """

    target: float = attrs.field(validator=check.positive)
    metric: Metric = attrs.field(default="macs", validator=check.metric)
    weight: float = attrs.field(default=0.1, validator=check.not_negative)
    share_structure: float = attrs.field(default=2 / 7, validator=check.share)
    band: tuple[float, float] = attrs.field(default=(0.9, 1.1), validator=check.band)
    every: int | None = attrs.field(
        default=None, validator=check.optional([check.whole, check.positive])
    )


@attrs.frozen(kw_only=True)
class SearchConfig:
    """How to search; the defaults are those of the reference paper where it gives them.

    Attributes:
        pretrain_steps: weights only, operations and paths mixed as they start.
        search_steps: weights and architecture in turn, radius growing to its end.
        weight_lr: Adam's learning rate for weights, following `weight_schedule` in each of
            the two phases.
        weight_schedule: share of the phase to factor.
        arch_lr: Adam's learning rate for the architecture parameters.
        arch_betas: Adam's betas for them.
        clip: largest norm of the gradients of the weights (and of the architecture).
        pretrain_passes: widths that every pretraining step runs (sandwich rule).
        search_passes: widths that every search step runs.
        order: 1, or 2 for the unrolled gradient of DARTS (Eq. 7 there, exact by double
            backward; inner step plain gradient descent with `unroll_lr`).
        unroll_lr: step of the unrolled update; the learning rate of the weights if None.
        cost: a cost term, or None.
        order_penalty: weight of the paper's order term on the path logits (loss form).
        prune_after: steps in a row at weight zero after which an option is dropped for good
            (`Supernet.prune`): memory follows the search down. None keeps all: an option
            at zero costs no time as it is, and comes back where the others fall.
        autocast: ``torch.bfloat16`` for automatic mixed precision, or None.
        seed: of everything the search draws; data have their own.

    Raises:
        ConfigError: a setting is out of its range.

    Source: Trilevel NAS, Algorithm 1 and Appendix A.1.
    """

    pretrain_steps: int = attrs.field(default=0, validator=[check.whole, check.not_negative])
    search_steps: int = attrs.field(default=1000, validator=[check.whole, check.positive])
    weight_lr: float = attrs.field(default=1e-4, validator=check.positive)
    weight_schedule: LrSchedule = Halving()
    arch_lr: float = attrs.field(default=3e-4, validator=check.positive)
    arch_betas: tuple[float, float] = attrs.field(default=(0.5, 0.999), validator=check.betas)
    clip: float = attrs.field(default=5.0, validator=check.positive)
    pretrain_passes: tuple[Widths, ...] = attrs.field(
        default=("widest", "narrowest", "random", "random"), validator=check.passes
    )
    search_passes: tuple[Widths, ...] = attrs.field(
        default=("sampled", "widest", "narrowest"), validator=check.passes
    )
    order: Literal[1, 2] = attrs.field(default=1, validator=check.one_or_two)
    unroll_lr: float | None = attrs.field(default=None, validator=check.optional(check.positive))
    cost: CostControl | None = None
    order_penalty: float = attrs.field(default=0.0, validator=check.not_negative)
    prune_after: int | None = attrs.field(
        default=None, validator=check.optional([check.whole, check.positive])
    )
    autocast: torch.dtype | None = attrs.field(default=None, validator=check.autocast)
    seed: int = attrs.field(default=0, validator=[check.whole, check.not_negative])

    @property
    def total_steps(self) -> int:
        """Steps of both phases together."""
        return self.pretrain_steps + self.search_steps


@attrs.frozen(kw_only=True)
class TrainConfig:
    """How to train a plain network.

    Attributes:
        steps: how many.
        lr: Adam's learning rate, following `schedule`.
        schedule: share of the steps to factor.
        clip: largest norm of the gradients, or None.
        autocast: ``torch.bfloat16`` for automatic mixed precision, or None.
        seed: of what layers draw (dropout); data have their own.

    Raises:
        ConfigError: a setting is out of its range.
    """

    steps: int = attrs.field(validator=[check.whole, check.positive])
    lr: float = attrs.field(default=1e-4, validator=check.positive)
    schedule: LrSchedule = Halving()
    clip: float | None = attrs.field(default=5.0, validator=check.optional(check.positive))
    autocast: torch.dtype | None = attrs.field(default=None, validator=check.autocast)
    seed: int = attrs.field(default=0, validator=[check.whole, check.not_negative])
