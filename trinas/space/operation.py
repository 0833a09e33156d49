"""What an operation has to say about itself. No torch here: building comes later."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import attrs

from trinas._core.errors import SpaceError
from trinas.space.shape import Shape
from trinas.space.values import Symbol, Symbolic, Value, largest, substitute, symbols


@attrs.frozen
class OperationSpec:
    """One layer of a network, described once.

    Subclasses are frozen attrs classes whose fields are the settings of the operation.
    They state the shape that comes out and the weights they hold; parameters, slicing to
    a narrower width and the transfer of weights all follow from that statement.

    How it is built and run is the business of `trinas.Operation`, the subclass of this
    class that knows torch and that operations are written against.

    How it meets soft widths, where a supernet runs at full width and weighs every channel by
    the odds that it is there, is said by the two attributes. Saying neither is always right:
    the operation then runs once for each joint setting of the widths around it.

    Attributes:
        channelwise: every channel of the result follows from the same channel of the input
            alone (or from the same of equal blocks of channels, as in a flatten), so that
            what is in the others does not matter and a width passes through undecided.
        adds_channels: the result is a sum over the channels of the input, as that of a
            convolution, so that a channel of zeros is one that is not there; and no channel of
            the result depends on how many there are of it.
    """

    registered: ClassVar[str] = "operation"
    channelwise: ClassVar[bool] = False
    adds_channels: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """The name the operation is registered under; nodes and paths are named after it."""
        return self.registered

    def out_shape(self, x: Shape) -> Shape:
        """The shape of the result for an input of shape `x`; the same by default.

        Raises:
            ShapeError: the input does not suit the operation.
        """
        return x

    def weights(self, x: Shape, y: Shape) -> Mapping[str, tuple[int | str, ...]]:
        """The weights by name, each with its dimensions: a number, ``"in"`` or ``"out"``.

        ``"in"`` and ``"out"`` stand for the channels of the input and of the result, and
        are what a narrower width cuts. Where `x` or `y` is searched, this is the superkernel.
        """
        return {}

    def macs(self, x: Shape, y: Shape) -> int:
        """Multiply-adds for one input; by default one for each weight.

        This is the convention of torchinfo: a convolution spends all its weights, the
        bias included, at every output position (the convolutions here say so), anything
        else spends each weight once.
        """
        return self.params(x, y)

    def bias_adds(self, x: Shape, y: Shape) -> int:
        """How many of the `macs` are plain additions of a bias; none by default.

        Some papers leave them out of their counts.
        """
        return 0

    def params(self, x: Shape, y: Shape) -> int:
        """How many numbers are trained, for input `x` and result `y` in numbers."""
        total = 0
        for dimensions in self.weights(x, y).values():
            count = 1
            for length in dimensions:
                count *= resolve_dimension(length, x, y)
            total += count
        return total

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The widths used in the settings."""
        searched = [v for n in _names(type(self)) if isinstance(v := getattr(self, n), Symbolic)]
        return tuple(dict.fromkeys(s for v in searched for s in symbols(v))) if searched else ()

    def bind(self, mapping: Mapping[Symbol, Value]) -> OperationSpec:
        """The same operation with symbols in its settings replaced."""
        changed = {
            argument: substitute(value, mapping)
            for name, argument in _settings(type(self))
            if isinstance(value := getattr(self, name), Symbolic)
        }
        return attrs.evolve(self, **changed) if changed else self

    def __str__(self) -> str:
        fields = attrs.fields(type(self))
        parts = [
            f"{f.name}={value}"
            for f in fields
            if (value := getattr(self, f.name)) != f.default or f.default is attrs.NOTHING
        ]
        return f"{self.kind}({', '.join(parts)})"


@cache
def _names(kind: type[OperationSpec]) -> tuple[str, ...]:
    """The settings of a kind of operation, by attribute."""
    return tuple(name for name, _ in _settings(kind))


@cache
def _settings(kind: type[OperationSpec]) -> tuple[tuple[str, str], ...]:
    """The settings of a kind of operation: attribute, and argument that sets it."""
    return tuple((field.name, field.alias or field.name) for field in attrs.fields(kind))


def resolve_dimension(length: int | str, x: Shape, y: Shape) -> int:
    """The number behind one declared dimension of a weight, at the largest widths."""
    if isinstance(length, int):
        return length
    if length not in ("in", "out"):
        raise SpaceError(
            'a dimension of a weight is an int, "in" or "out"',
            got=repr(length),
            at=f"the weights of an operation from {x} to {y}",
            fix="A searched count has to be that of the input or of the result.",
        )
    return largest((x if length == "in" else y).channels)
