"""Numbers that change during a search: functions of the share of it that is done.

A schedule is any callable from progress in [0, 1] to a number. Those here are frozen values:
comparable, printable, picklable. They also take progress as a tensor `[]` and then return one,
so that a compiled training step need not be compiled anew, nor a captured one captured, as
the search goes on.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, TypeAlias, overload

import attrs
import torch
from torch import Tensor

from trinas._core.errors import RelaxationError
from trinas.relax._rows import known

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


def check_progress(progress: float | Tensor) -> None:
    """Refuse what is no share of the search, where that may be read.

    Raises:
        RelaxationError: it is not in [0, 1].

    >>> check_progress(0.5)
    """
    value = known(progress)
    if value is not None and not 0 <= value <= 1:
        raise RelaxationError(
            "progress is the share of the search that is done, in [0, 1]",
            got=value,
            fix="Divide the step by the number of steps.",
        )


class _Rule(abc.ABC):
    """What is called with progress, a number or a tensor."""

    @overload
    def __call__(self, progress: float) -> float: ...

    @overload
    def __call__(self, progress: Tensor) -> float | Tensor: ...

    def __call__(self, progress: Any) -> Any:
        """Return the value at `progress` in [0, 1]."""
        check_progress(progress)
        return self._at(progress)

    @abc.abstractmethod
    def _at(self, progress: Any) -> Any:
        """Return the value at a valid `progress`."""


@attrs.frozen
class Constant(_Rule):
    """The same value throughout.

    >>> Constant(0.5)(0.9)
    0.5
    """

    value: float = attrs.field(validator=_finite)

    def _at(self, progress: Any) -> Any:
        return self.value


@attrs.frozen
class Linear(_Rule):
    """From `start` to `end` in a straight line, waiting at `start` for the share `warmup`.

    Exactly `end` at 1.

    >>> rule = Linear(0.0, 1.0, warmup=0.5)
    >>> rule(0.4), rule(0.75), rule(1.0)
    (0.0, 0.5, 1.0)
    """

    start: float = attrs.field(validator=_finite)
    end: float = attrs.field(validator=_finite)
    warmup: float = attrs.field(default=0.0, validator=_fraction)

    def _at(self, progress: Any) -> Any:
        begun = progress - self.warmup
        begun = begun.clamp_min(0.0) if isinstance(begun, Tensor) else max(0.0, begun)
        share = begun / (1 - self.warmup)
        return self.start * (1 - share) + self.end * share


@attrs.frozen
class Exponential(_Rule):
    """From `start` to `end` by a constant factor per step; both positive.

    >>> Exponential(4.0, 1.0)(0.5)
    2.0
    """

    start: float = attrs.field(validator=_positive)
    end: float = attrs.field(validator=_positive)

    def _at(self, progress: Any) -> Any:
        return self.start ** (1 - progress) * self.end**progress


@attrs.frozen
class Cosine(_Rule):
    """From `start` to `end` along half a cosine: slow at both ends, fastest in the middle.

    >>> Cosine(1.0, 0.0)(0.0), Cosine(1.0, 0.0)(1.0)
    (1.0, 0.0)
    """

    start: float = attrs.field(validator=_finite)
    end: float = attrs.field(validator=_finite)

    def _at(self, progress: Any) -> Any:
        cos = torch.cos if isinstance(progress, Tensor) else math.cos
        share = (1 - cos(math.pi * progress)) / 2
        return self.start * (1 - share) + self.end * share


def value_at(schedule: Schedule, progress: float | Tensor) -> float | Tensor:
    """Return the value of a schedule, which has to take a tensor only if it is given one.

    >>> value_at(Linear(0.0, 2.0), 0.5), value_at(Linear(0.0, 2.0), torch.tensor(0.5))
    (1.0, tensor(1.))
    """
    call: Callable[[Any], Any] = schedule
    return call(progress)


def as_schedule(value: float | Schedule) -> Schedule:
    """Return `value` itself if it can be called, else a schedule that stays there.

    >>> as_schedule(2.0)
    Constant(value=2.0)
    """
    return value if callable(value) else Constant(value)
