"""Settings of a search and of a training: frozen, complete, without side effects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from trinas._core.errors import TrinasError
from trinas.cost import Metric
from trinas.supernet import Widths

Batches: TypeAlias = Callable[[int], tuple[Tensor, Tensor]]
"""Input and target of a step: a pure function of its number, so that a run can resume."""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Prediction and target to a tensor of no dimensions."""


class ConfigError(TrinasError):
    """Settings that contradict each other or are out of range."""


def _positive(_: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{attribute.name} is greater than 0", got=value)


def _not_negative(_: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ConfigError(f"{attribute.name} is at least 0", got=value)


def _one_or_two(_: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    if value not in (1, 2):
        raise ConfigError(f"{attribute.name} is 1 or 2", got=value, fix="2 unrolls a weight step.")


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

    final: float = 0.01
    warmup: float = 0.0

    def __call__(self, progress: float) -> float:
        """The factor at this share of the steps, in [0, 1]."""
        if progress < self.warmup:
            return max(progress, 1e-3) / self.warmup
        share = (progress - self.warmup) / (1 - self.warmup)
        wave = 0.5 + 0.5 * math.cos(math.pi * share)
        return self.final + (1 - self.final) * wave


LrSchedule: TypeAlias = Callable[[float], float]


@attrs.frozen(kw_only=True)
class CostControl:
    """A term that pulls the expected cost towards a target, and its controller.

    Attributes:
        target: cost on budget, in the unit of the metric; the term is normalised by it.
        metric: ``macs`` or ``params``.
        weight: omega, the weight of the term at the start.
        share_structure: share of the weight on operations and paths (widths held at the
            widest); the rest is on widths (operations and paths held uniform).
        band: at every check, the weight is doubled if the derived network costs more than
            ``band[1] * target``, halved if it costs less than ``band[0] * target``.
        every: steps between checks; never where None.
    """

    target: float = attrs.field(validator=_positive)
    metric: Metric = "macs"
    weight: float = attrs.field(default=0.1, validator=_not_negative)
    share_structure: float = 2 / 7
    band: tuple[float, float] = (0.9, 1.1)
    every: int | None = None


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
        autocast: dtype for automatic mixed precision, or None.
        seed: of everything the search draws; data have their own.

    Source: Trilevel NAS, Algorithm 1 and Appendix A.1.
    """

    pretrain_steps: int = attrs.field(default=0, validator=_not_negative)
    search_steps: int = attrs.field(default=1000, validator=_positive)
    weight_lr: float = attrs.field(default=1e-4, validator=_positive)
    weight_schedule: LrSchedule = Halving()
    arch_lr: float = attrs.field(default=3e-4, validator=_positive)
    arch_betas: tuple[float, float] = (0.5, 0.999)
    clip: float = attrs.field(default=5.0, validator=_positive)
    pretrain_passes: tuple[Widths, ...] = ("widest", "narrowest", "random", "random")
    search_passes: tuple[Widths, ...] = ("sampled", "widest", "narrowest")
    order: Literal[1, 2] = attrs.field(default=1, validator=_one_or_two)
    unroll_lr: float | None = None
    cost: CostControl | None = None
    order_penalty: float = 0.0
    autocast: torch.dtype | None = None
    seed: int = 0

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
        autocast: dtype for automatic mixed precision, or None.
    """

    steps: int = attrs.field(validator=_positive)
    lr: float = attrs.field(default=1e-4, validator=_positive)
    schedule: LrSchedule = Halving()
    clip: float | None = 5.0
    autocast: torch.dtype | None = None
