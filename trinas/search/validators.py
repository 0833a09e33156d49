"""What settings are checked with: attrs validators that name the setting, its rule and its value.

Raises:
    ConfigError: all of them, for a value outside the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import attrs
import torch

from trinas._core.errors import ConfigError
from trinas.cost import Metric


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def positive(owner: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    """Greater than 0."""
    if not _number(value) or not value > 0:
        raise ConfigError(f"{attribute.name} is greater than 0", got=value, at=type(owner).__name__)


def not_negative(owner: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    """At least 0, and finite."""
    if not _number(value) or not 0 <= value < math.inf:
        raise ConfigError(f"{attribute.name} is at least 0", got=value, at=type(owner).__name__)


def finite(owner: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    """Any finite number."""
    if not _number(value) or not math.isfinite(value):
        raise ConfigError(
            f"{attribute.name} is a finite number", got=value, at=type(owner).__name__
        )


def share(owner: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    """In [0, 1]."""
    if not _number(value) or not 0 <= value <= 1:
        raise ConfigError(
            f"{attribute.name} is a share, in [0, 1]", got=value, at=type(owner).__name__
        )


def below_1(owner: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    """In [0, 1)."""
    if not _number(value) or not 0 <= value < 1:
        raise ConfigError(f"{attribute.name} lies in [0, 1)", got=value, at=type(owner).__name__)


def whole(owner: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    """An integer, and no bool."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{attribute.name} is a whole number", got=value, at=type(owner).__name__)


def one_or_two(owner: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    """1 or 2."""
    if value not in (1, 2):
        raise ConfigError(
            f"{attribute.name} is 1 or 2",
            got=value,
            at=type(owner).__name__,
            fix="2 unrolls a weight step.",
        )


def one_of(*words: str) -> Callable[[Any, attrs.Attribute[Any], object], None]:
    """A validator: one of some words."""

    def check(owner: Any, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in words:
            raise ConfigError(
                f"{attribute.name} is one of {', '.join(words)}",
                got=repr(value),
                at=type(owner).__name__,
            )

    return check


def seed(owner: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    """From 0 to 2**63 - 1."""
    if not 0 <= value < 2**63:
        raise ConfigError(
            f"{attribute.name} is at least 0 and below 2**63", got=value, at=type(owner).__name__
        )


def metric(owner: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    """A word of `Metric`."""
    if value not in get_args(Metric):
        known = ", ".join(get_args(Metric))
        raise ConfigError(
            f"{attribute.name} is one of {known}", got=repr(value), at=type(owner).__name__
        )


def band(owner: Any, attribute: attrs.Attribute[Any], value: tuple[float, float]) -> None:
    """Two shares, the lower one first."""
    if len(value) != 2 or not 0 <= value[0] <= value[1]:
        raise ConfigError(
            f"{attribute.name} is a pair, the lower end first",
            got=value,
            at=type(owner).__name__,
            fix="Both are shares of the target, such as (0.9, 1.1).",
        )


def betas(owner: Any, attribute: attrs.Attribute[Any], value: tuple[float, float]) -> None:
    """Two numbers in [0, 1)."""
    if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
        raise ConfigError(
            f"{attribute.name} are two numbers in [0, 1)", got=value, at=type(owner).__name__
        )


PASS_NAMES = ("sampled", "widest", "narrowest", "random", "soft", "path", "network")
"""What a pass may run, by name; see `trinas.search.setting.PASSES`."""


def passes(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Names of passes, or functions, at least one."""
    given = value if isinstance(value, tuple) else ()
    if not given or any(p not in PASS_NAMES and not callable(p) for p in given):
        raise ConfigError(
            f"{attribute.name} are names of passes, at least one",
            got=repr(value),
            at=type(owner).__name__,
            fix=f"Give a tuple of {', '.join(PASS_NAMES)}, or of functions of a mixture.",
        )


TOLD = ("lr", "loss", "arch_loss", "cost", "cost_weight", "spread")
"""What reports tell by names of their own."""


def fact(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """A name for what a part tells."""
    if not isinstance(value, str) or value in TOLD:
        raise ConfigError(
            f"{attribute.name} is a string that is none of {', '.join(TOLD)}",
            got=repr(value),
            at=type(owner).__name__,
            fix="Those are in every report; take another name.",
        )


def mixed_passes(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """No pass of one network or path alone."""
    for alone in ("network", "path"):
        if alone in value:
            raise ConfigError(
                f"{attribute.name} of an architecture mix its options",
                got=repr(value),
                at=type(owner).__name__,
                fix=f'Leave "{alone}" to the weights: what it draws evenly does not learn from it.',
            )


def autocast(owner: Any, attribute: attrs.Attribute[Any], value: torch.dtype | None) -> None:
    """``torch.bfloat16``, ``torch.float16`` or None."""
    if value not in (None, torch.bfloat16, torch.float16):
        raise ConfigError(
            f"{attribute.name} is torch.bfloat16, torch.float16 or None",
            got=value,
            at=type(owner).__name__,
        )


def at_least_2(owner: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    """Two or more."""
    if value < 2:
        raise ConfigError(
            f"{attribute.name} is at least 2",
            got=value,
            at=type(owner).__name__,
            fix="A loss is compared with others.",
        )


def function(owner: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    """Something that can be called."""
    if not callable(value):
        raise ConfigError(
            f"{attribute.name} can be called", got=repr(value)[:80], at=type(owner).__name__
        )


def shown(value: object) -> str:
    """How a setting prints that a user gave: functions and classes by their names alone."""
    if attrs.has(type(value)) or value is None:
        return repr(value)
    return f"<{getattr(value, '__name__', type(value).__name__)}>"


optional = attrs.validators.optional
"""What another validator says, or None."""
