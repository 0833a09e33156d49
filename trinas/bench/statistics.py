"""Means and differences over seeds, with Student's intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean and half the width of its 95 % interval; infinite from a single value."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean of some values and its interval by Student's distribution.

    >>> interval([1.0, 2.0, 3.0])
    Interval(mean=2.0, half=2.484...)
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.inf)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    return Interval(mean, quantile((1 + level) / 2, n - 1) * math.sqrt(variance / n))


def beats(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """How often the one regret is smaller than the other of the same seed; equal counts half.

    >>> beats([0.0, 1.0], [1.0, 1.0])
    0.75
    """
    return math.fsum((a < b) + (a == b) / 2 for a, b in zip(mine, theirs)) / len(mine)


def quantile(share: float, freedom: int) -> float:
    """The quantile of Student's distribution with whole degrees of freedom.

    By bisection of its distribution function; `share` in [0.5, 1).
    """
    low, high = 0.0, 1.0
    while distribution(high, freedom) < share:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if distribution(middle, freedom) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def distribution(t: float, freedom: int) -> float:
    """Student's distribution function at `t` for whole degrees of freedom.

    The finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4.

    >>> round(distribution(2.0, 2), 4)
    0.9082
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (cosine, cosine) if freedom % 2 else (1.0, 1.0)
    if freedom == 1:
        total = 0.0
    for k in range(3 if freedom % 2 else 2, freedom, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total
    return (1 + inside) / 2
