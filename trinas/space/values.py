"""Numbers that a search has not decided yet.

A channel count in a space is an `int` or an expression: a whole-number combination of
searched widths, such as ``width * 4`` or ``stem + width // 2``. Expressions are kept in
one normal form, so that two of them can be compared: that is how trinas knows, before
any tensor exists, that what two branches add up has the same number of channels.

Only growing functions of the widths can be written (positive factors, integer division,
sums), so that the largest and the smallest value are those at the ends of the ranges.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, Union

import attrs

from trinas._core.declared import declared_at
from trinas._core.errors import SpaceError

Value: TypeAlias = Union[int, "Symbolic"]

_serial = itertools.count()
# Two expressions of the same few widths are compared value by value up to this many cases.
_JOINT_LIMIT = 4096


class Symbolic:
    """A count that is not decided yet: a symbol, or an expression of symbols.

    The arithmetic is that of growing functions: sums, whole multiples, division with `//`.
    """

    __slots__ = ()

    def __mul__(self, factor: int) -> Value:
        _require_int("a width is multiplied by a whole number of at least 1", factor, 1)
        left = _expr(self)
        return _normal(left.const * factor, [(s, c * factor) for s, c in left.terms])

    __rmul__ = __mul__

    def __add__(self, other: Value) -> Value:
        left, right = _expr(self), _expr(other)
        return _normal(left.const + right.const, [*left.terms, *right.terms])

    __radd__ = __add__

    def __sub__(self, other: int) -> Value:
        _require_int("only a whole number can be taken from a width", other, 0)
        left = _expr(self)
        return _normal(left.const - other, left.terms)

    def __rsub__(self, other: int) -> Value:
        raise SpaceError(
            "a channel count grows with its widths, so no width is taken away",
            got=f"{other} - {self}",
            at=declared_at(),
            fix="Declare the difference as a width of its own.",
        )

    def __floordiv__(self, divisor: int) -> Value:
        _require_int("a width is divided by a whole number of at least 1", divisor, 1)
        left = _expr(self)
        # Whole multiples of the divisor come out of the quotient, so that equal functions
        # of the widths are written equally.
        whole = _normal(left.const // divisor, [(s, c // divisor) for s, c in left.terms])
        rest = [(s, c % divisor) for s, c in left.terms if c % divisor]
        return whole + _quotient(left.const % divisor, rest, divisor) if rest else whole

    def __truediv__(self, divisor: object) -> Value:
        raise SpaceError(
            "a channel count is a whole number",
            got=f"{self} / {divisor}",
            at=declared_at(),
            fix="Divide with //, which rounds down.",
        )


class Symbol(Symbolic):
    """Anything an expression can be built from."""

    __slots__ = ()

    def sort_key(self) -> str:
        """A text that orders the symbols of one expression."""
        raise NotImplementedError


@attrs.frozen(eq=False)
class Width(Symbol):
    """A searched number of channels, as `trinas.width` declares it.

    A width is a variable: it equals itself only. Wherever the same object is used, the
    same number is meant.
    """

    values: tuple[int, ...]
    name: str | None = None
    serial: int = attrs.field(factory=lambda: next(_serial), repr=False)

    def sort_key(self) -> str:
        """Widths are ordered by the time of their making."""
        return f"width{self.serial:012d}"

    def __str__(self) -> str:
        return self.name or f"width{list(self.values)}"


@attrs.frozen
class Var(Symbol):
    """A width at its place in a lowered space: `path` names the decision."""

    path: str
    values: tuple[int, ...] = attrs.field(repr=False, hash=False)  # a path is hash enough

    def sort_key(self) -> str:
        """Variables are ordered by path."""
        return self.path

    def __str__(self) -> str:
        return self.path


@attrs.frozen
class _In(Symbol):
    def sort_key(self) -> str:
        return ""

    def __str__(self) -> str:
        return "IN"


# Symbols that are no expression themselves.
_Plain = (Width, Var, _In)

IN = _In()
"""The number of channels that enter the operation in which it is written."""


@attrs.frozen
class _Quotient(Symbol):
    """The whole part of ``numerator / divisor``; made by `_quotient` only."""

    numerator: Expr
    divisor: int

    def sort_key(self) -> str:
        inside = "+".join(f"{c}*{s.sort_key()}" for s, c in self.numerator.terms)
        return f"({inside}+{self.numerator.const})//{self.divisor}"

    def __str__(self) -> str:
        text = str(self.numerator)
        return f"({f'({text})' if ' + ' in text else text} // {self.divisor})"


@attrs.frozen(repr=False)
class Expr(Symbolic):
    """`const` plus a sum of whole multiples of symbols, in normal form."""

    const: int
    terms: tuple[tuple[Symbol, int], ...]

    def __str__(self) -> str:
        text = " + ".join(str(s) if c == 1 else f"{c}*{s}" for s, c in self.terms)
        if not self.const:
            return text or "0"
        if not text:
            return str(self.const)
        return f"{text} {'-' if self.const < 0 else '+'} {abs(self.const)}"

    __repr__ = __str__


def _require_int(rule: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SpaceError(rule, got=value, at=declared_at(), fix=f"Use an int >= {least}.")


def _expr(value: object) -> Expr:
    if isinstance(value, Expr):
        return value
    if isinstance(value, Symbol):
        return Expr(0, ((value, 1),))
    if isinstance(value, int) and not isinstance(value, bool):
        return Expr(value, ())
    raise SpaceError(
        "a channel count is an int, a width, or an expression of widths",
        got=value,
        at=declared_at(),
        fix="Use trinas.width(...) for a searched count.",
    )


def _normal(const: int, terms: Sequence[tuple[Symbol, int]]) -> Value:
    merged: dict[Symbol, int] = {}
    for symbol, factor in terms:
        merged[symbol] = merged.get(symbol, 0) + factor
    kept = [(s, c) for s, c in merged.items() if c]
    if not kept:
        return const
    if const == 0 and kept[0][1] == 1 and len(kept) == 1:
        return kept[0][0]
    return Expr(const, tuple(sorted(kept, key=lambda term: term[0].sort_key())))


def _quotient(const: int, terms: Sequence[tuple[Symbol, int]], divisor: int) -> Value:
    """``(const + terms) // divisor`` in normal form; no factor reaches the divisor."""
    common = math.gcd(divisor, *(c for _, c in terms))
    # What is left of the constant is below the common factor and cannot carry over.
    const, divisor = const // common, divisor // common
    terms = [(s, c // common) for s, c in terms]
    if len(terms) == 1 and isinstance(terms[0][0], _Quotient) and terms[0][1] == 1:
        inner = terms[0][0]
        return (inner.numerator + const * inner.divisor) // (inner.divisor * divisor)
    numerator = _expr(_normal(const, terms))
    if IN not in symbols(numerator):
        least, most = smallest(numerator) // divisor, largest(numerator) // divisor
        if least == most:
            return least
    return _Quotient(numerator, divisor)


def check_value(value: Value) -> Value:
    """Return `value` if it is a usable channel count.

    Raises:
        SpaceError: not a number or expression, or it can fall below 1.
    """
    if type(value) is int and value >= 1:
        return value
    expr = _expr(value)
    if IN not in symbols(expr) and smallest(expr) < 1:
        raise SpaceError(
            "a channel count is at least 1",
            got=str(expr),
            at=declared_at(),
            fix="Give at least 1; a width counts with its smallest value.",
        )
    return value


def symbols(value: Value) -> tuple[Symbol, ...]:
    """The symbols that decide `value`, each once, in order of first use."""
    if isinstance(value, int):
        return ()
    if isinstance(value, _Plain):
        return (value,)
    found: dict[Symbol, None] = {}
    for symbol, _ in _expr(value).terms:
        if isinstance(symbol, _Quotient):
            found.update(dict.fromkeys(symbols(symbol.numerator)))
        else:
            found[symbol] = None
    return tuple(found)


def substitute(value: Value, mapping: Mapping[Symbol, Value]) -> Value:
    """Replace symbols by values; what is not in `mapping` stays."""
    if isinstance(value, int):
        return value
    if isinstance(value, _Plain):
        return mapping.get(value, value)
    expr = _expr(value)
    parts: list[Value] = [expr.const]
    for symbol, factor in expr.terms:
        if isinstance(symbol, _Quotient):
            part = substitute(symbol.numerator, mapping) // symbol.divisor
        else:
            part = mapping.get(symbol, symbol)
        parts.append(part * factor)
    return add_up(parts)


def add_up(values: Sequence[Value]) -> Value:
    """The sum, with all terms put in order once."""
    const, terms = 0, []
    for value in values:
        if isinstance(value, int):
            const += value
        else:
            expr = _expr(value)
            const += expr.const
            terms.extend(expr.terms)
    return _normal(const, terms) if terms else const


def _extreme(value: Value, pick: int) -> int:
    ends = {s: _range(s)[pick] for s in symbols(value)}
    return _expr(substitute(value, ends)).const


def _range(symbol: Symbol) -> tuple[int, int]:
    if isinstance(symbol, Width | Var):
        return min(symbol.values), max(symbol.values)
    raise SpaceError("IN is known only inside an operation", fix="Lower the space first.")


def smallest(value: Value) -> int:
    """The least number `value` can come to."""
    return value if isinstance(value, int) else _extreme(value, 0)


def largest(value: Value) -> int:
    """The greatest number `value` can come to."""
    return value if isinstance(value, int) else _extreme(value, 1)


def assignments(variables: Sequence[Symbol]) -> Iterator[dict[Symbol, Value]]:
    """Every joint assignment of the widths in `variables`."""
    searched = [v for v in variables if isinstance(v, Width | Var)]
    for combination in itertools.product(*(v.values for v in searched)):
        yield dict(zip(searched, combination))


def joint_size(variables: Sequence[Symbol]) -> int:
    """How many joint assignments `variables` have."""
    size = 1
    for variable in variables:
        size *= len(variable.values) if isinstance(variable, Width | Var) else 1
    return size


def same(left: Value, right: Value) -> bool:
    """Whether two counts agree whatever the search decides.

    >>> w = Width((8, 16))
    >>> same(w * 2, w + w), same(w, 16)
    (True, False)
    """
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    if _expr(left) == _expr(right):
        return True
    variables = tuple(dict.fromkeys(symbols(left) + symbols(right)))
    if joint_size(variables) > _JOINT_LIMIT:
        return False
    return all(substitute(left, a) == substitute(right, a) for a in assignments(variables))


def exact_quotient(value: Value, divisor: int) -> Value | None:
    """`value / divisor` where that is whole whatever the search decides, else None.

    >>> exact_quotient(Width((8, 16)) * 3, 4) is None
    False
    >>> exact_quotient(6, 4) is None
    True
    """
    if isinstance(value, int):
        return value // divisor if value % divisor == 0 else None
    expr = _expr(value)
    whole = expr.const % divisor == 0 and all(c % divisor == 0 for _, c in expr.terms)
    if not whole:
        variables = symbols(expr)
        if joint_size(variables) > _JOINT_LIMIT:
            return None
        for assignment in assignments(variables):
            number = substitute(expr, assignment)
            if not isinstance(number, int) or number % divisor:
                return None
    return expr // divisor
