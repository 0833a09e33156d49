"""Checks that the nodes, words and operations of a space have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from trinas._core.declared import declared_at
from trinas._core.errors import SpaceError

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_label(label: str) -> str:
    """Return `label` if it can be part of a path.

    Raises:
        SpaceError: not made of letters, digits and underscores.
    """
    if not isinstance(label, str) or not _LABEL.match(label):
        raise SpaceError(
            "a name in a space is made of letters, digits and underscores",
            got=repr(label),
            at=declared_at(),
            fix="It becomes part of a path such as trunk/a/slot[1].",
        )
    return label


def optional_label(_: Any, __: attrs.Attribute[Any], value: str | None) -> None:
    """Validate a name that may be left out."""
    if value is not None:
        check_label(value)


def not_empty(what: str) -> Callable[[Any, Any, Any], None]:
    """A validator for collections with at least one member; `what` names them."""

    def check(_: Any, __: attrs.Attribute[Any], value: tuple[Any, ...]) -> None:
        if not value:
            raise SpaceError(
                f"{what} has at least one member", got=value, at=declared_at(), fix="Give it one."
            )

    return check


def whole(value: object, least: int) -> bool:
    """Whether `value` is a whole number of at least `least` (True and False are not)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def finite_factor(value: object) -> float:
    """Convert the scale of a residual to a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpaceError(
            "the scale of a residual is a finite number",
            got=value,
            at=declared_at(),
            fix="A scale that is learned belongs into an operation.",
        )
    return float(value)


def as_tuple(what: str, value: Any) -> tuple[Any, ...]:
    """The members of `value`, where it is a collection; `what` names it in the message."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SpaceError(
            f"{what} come as a sequence",
            got=value,
            at=declared_at(),
            fix="Put it in parentheses or brackets: (value,).",
        )
    return tuple(value)


def as_items(what: str, value: Any) -> tuple[tuple[Any, Any], ...]:
    """The pairs of `value`, where it is a mapping; `what` names it in the message."""
    if isinstance(value, Mapping):
        return tuple(value.items())
    if isinstance(value, tuple) and all(isinstance(v, tuple) and len(v) == 2 for v in value):
        return value
    raise SpaceError(
        f"{what} come as a mapping",
        got=value,
        at=declared_at(),
        fix="Write {label: value}, or keywords where they are taken.",
    )
