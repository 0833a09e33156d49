"""Equality, hash and text of nested values, however deep.

What attrs generates calls itself for every level and so ends at the recursion limit of
Python; it also goes through a part as often as it is used, which is exponential where parts
that are used twice hold parts that are used twice. Here every object is looked at once
(`repr` must write it down each time).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import attrs

_HOLE = object()


class Nested:
    """Base of frozen attrs classes that hold each other, also within tuples.

    Subclasses are made with ``eq=False, repr=False``, or attrs would put its own methods
    in. As there, fields with ``eq=False`` or ``repr=False`` are left out.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        seen: set[tuple[int, int]] = set()
        pending: list[tuple[Any, Any]] = [(self, other)]
        while pending:
            left, right = pending.pop()
            if left is right or (id(left), id(right)) in seen:
                continue
            seen.add((id(left), id(right)))
            (own, parts), (other_own, other_parts) = _taken_apart(left), _taken_apart(right)
            if own != other_own:
                return False
            pending.extend(zip(parts, other_parts))
        return True

    def __hash__(self) -> int:
        known: dict[int, int] = {}
        # A value comes by once before its parts, and once more, taken apart, after them.
        pending: list[Nested | tuple[Nested, list[Any], list[Nested]]] = [self]
        while pending:
            top = pending.pop()
            if isinstance(top, tuple):
                value, own, parts = top
                known[id(value)] = hash((*own, *[known[id(part)] for part in parts]))
            elif id(top) not in known:
                own, parts = _taken_apart(top)
                pending.append((top, own, parts))
                pending.extend(parts)
        return known[id(self)]

    def __repr__(self) -> str:
        text: list[str] = []
        # Pieces of text, and (in tuples of one) values still to be written, last one first.
        pending: list[str | tuple[Any]] = [(self,)]
        while pending:
            piece = pending.pop()
            if isinstance(piece, str):
                text.append(piece)
            else:
                pending.extend(reversed(_written(piece[0])))
        return "".join(text)


def _taken_apart(value: Nested) -> tuple[list[Any], list[Nested]]:
    """What a value itself says, its type included, with holes for its parts; and the parts."""
    own: list[Any] = [type(value)]
    parts: list[Nested] = []

    fields = [getattr(value, name) for name in _compared(type(value))]
    fields.reverse()
    while fields:
        field = fields.pop()
        if isinstance(field, Nested):
            own.append(_HOLE)
            parts.append(field)
        elif type(field) is tuple:
            own.append((len(field),))
            fields.extend(reversed(field))
        else:
            own.append(field)
    return own, parts


@cache
def _compared(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind) if field.eq)


@cache
def _shown(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind) if field.repr)


def _written(value: Any) -> list[str | tuple[Any]]:
    """A value as pieces of text and the values within it."""
    pieces: list[str | tuple[Any]] = []
    if isinstance(value, Nested):
        for name in _shown(type(value)):
            pieces += [", " if pieces else "", f"{name}=", (getattr(value, name),)]
        return [f"{type(value).__name__}(", *pieces, ")"]
    if type(value) is tuple:
        for member in value:
            pieces += [", " if pieces else "", (member,)]
        return ["(", *pieces, ",)" if len(value) == 1 else ")"]
    return [repr(value)]
