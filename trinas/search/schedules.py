"""Learning rates as functions of the share of a phase that is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import attrs

from trinas.search import validators as check

LrSchedule: TypeAlias = Callable[[float], float]
"""Share of the steps of a phase, in [0, 1], to a factor on every learning rate."""


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


def constant(progress: float) -> float:
    """No change of the learning rate.

    >>> constant(0.7)
    1.0
    """
    return 1.0
