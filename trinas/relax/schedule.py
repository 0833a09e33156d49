"""Numbers that change during a search: functions of the share of it that is done.

A schedule is any callable from progress in [0, 1] to a number. Those here are frozen values:
comparable, printable, picklable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import attrs

from trinas._core.errors import RelaxationError

Schedule: TypeAlias = Callable[[float], float]


def _finite(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not math.isfinite(value):
        raise RelaxationError(
            "a schedule runs over finite numbers",
            got=value,
            at=f"{type(instance).__name__}({attribute.name}=...)",
        )


def _positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < math.inf:
        raise RelaxationError(
            "an exponential schedule runs between positive numbers",
            got=value,
            at=f"{type(instance).__name__}({attribute.name}=...)",
            fix="Use Linear to reach 0.",
        )


def _fraction(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value < 1:
        raise RelaxationError(
            "a warm-up is a share of the search, at least 0 and below 1",
            got=value,
            at=f"{type(instance).__name__}({attribute.name}=...)",
        )


def check_progress(progress: float) -> float:
    """Return `progress` if it is a share of the search.

    Raises:
        RelaxationError: it is not in [0, 1].

    >>> check_progress(0.5)
    0.5
    """
    if not 0 <= progress <= 1:
        raise RelaxationError(
            "progress is the share of the search that is done, in [0, 1]",
            got=progress,
            fix="Divide the step by the number of steps.",
        )
    return progress


@attrs.frozen
class Constant:
    """The same value throughout.

    >>> Constant(0.5)(0.9)
    0.5
    """

    value: float = attrs.field(validator=_finite)

    def __call__(self, progress: float) -> float:
        """Return the value at `progress` in [0, 1]."""
        check_progress(progress)
        return self.value


@attrs.frozen
class Linear:
    """From `start` to `end` in a straight line, waiting at `start` for the share `warmup`.

    >>> rule = Linear(0.0, 1.0, warmup=0.5)
    >>> rule(0.4), rule(0.75), rule(1.0)
    (0.0, 0.5, 1.0)
    """

    start: float = attrs.field(validator=_finite)
    end: float = attrs.field(validator=_finite)
    warmup: float = attrs.field(default=0.0, validator=_fraction)

    def __call__(self, progress: float) -> float:
        """Return the value at `progress` in [0, 1]; exactly `end` at 1."""
        share = max(0.0, check_progress(progress) - self.warmup) / (1 - self.warmup)
        return self.start * (1 - share) + self.end * share


@attrs.frozen
class Exponential:
    """From `start` to `end` by a constant factor per step; both positive.

    >>> Exponential(4.0, 1.0)(0.5)
    2.0
    """

    start: float = attrs.field(validator=_positive)
    end: float = attrs.field(validator=_positive)

    def __call__(self, progress: float) -> float:
        """Return the value at `progress` in [0, 1]."""
        share = check_progress(progress)
        return self.start ** (1 - share) * self.end**share


@attrs.frozen
class Cosine:
    """From `start` to `end` along half a cosine: slow at both ends, fastest in the middle.

    >>> Cosine(1.0, 0.0)(0.0), Cosine(1.0, 0.0)(1.0)
    (1.0, 0.0)
    """

    start: float = attrs.field(validator=_finite)
    end: float = attrs.field(validator=_finite)

    def __call__(self, progress: float) -> float:
        """Return the value at `progress` in [0, 1]."""
        share = (1 - math.cos(math.pi * check_progress(progress))) / 2
        return self.start * (1 - share) + self.end * share


def as_schedule(value: float | Schedule) -> Schedule:
    """Return `value` itself if it can be called, else a schedule that stays there.

    >>> as_schedule(2.0)
    Constant(value=2.0)
    """
    return value if callable(value) else Constant(value)
