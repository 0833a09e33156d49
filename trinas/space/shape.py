"""Shapes of tensors that carry a searched number of channels.

Legend: C channels (a value of the space), then the rest of the sizes (H, W for images).
The batch dimension is never part of a shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from trinas.space.values import Symbol, Value, add_up, largest, substitute, symbols


def _merge_fixed(segments: tuple[Value, ...]) -> tuple[Value, ...]:
    """Neighbouring pieces of fixed size are one piece: nothing will be cut between them."""
    if len(segments) == 1:
        return segments
    merged: list[Value] = []
    for segment in segments:
        if merged and isinstance(segment, int) and isinstance(merged[-1], int):
            merged[-1] += segment
        else:
            merged.append(segment)
    return tuple(merged)


@attrs.frozen(repr=False)
class Shape:
    """The shape of one feature map.

    Attributes:
        segments: the channel dimension, in the pieces that a concatenation joined. A
            tensor that no concatenation made has one. They matter where widths are
            searched: each piece is cut at its own width.
        size: the other dimensions, plain numbers; ``(H, W)`` for images, ``()`` for vectors.

    >>> Shape.of(3, 32, 32).channels
    3
    >>> print(Shape((16, 8), (4, 4)))
    24x4x4
    """

    segments: tuple[Value, ...] = attrs.field(converter=_merge_fixed)
    size: tuple[int, ...] = ()

    @classmethod
    def of(cls, channels: Value, *size: int) -> Shape:
        """A shape of one segment."""
        return cls((channels,), size)

    @property
    def channels(self) -> Value:
        """All channels together: an int where nothing is searched."""
        return self.segments[0] if len(self.segments) == 1 else add_up(self.segments)

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The widths that decide this shape."""
        found: dict[Symbol, None] = {}
        for part in self.segments:
            if not isinstance(part, int):
                found.update(dict.fromkeys(symbols(part)))
        return tuple(found)

    def with_channels(self, channels: Value) -> Shape:
        """The same size with other channels, in one segment."""
        return Shape((channels,), self.size)

    def with_size(self, *size: int) -> Shape:
        """The same channels at another size."""
        return Shape(self.segments, size)

    def at(self, assignment: Mapping[Symbol, Value]) -> Shape:
        """This shape with widths replaced by what `assignment` says."""
        return Shape(tuple(substitute(s, assignment) for s in self.segments), self.size)

    @property
    def widest(self) -> Shape:
        """This shape with every width at its largest."""
        return Shape(tuple(largest(s) for s in self.segments), self.size)

    def numbers(self) -> tuple[int, ...]:
        """``(C, *size)`` with every width at its largest."""
        return (sum(largest(s) for s in self.segments), *self.size)

    @property
    def positions(self) -> int:
        """How many spatial positions there are: H * W for images, 1 for vectors."""
        count = 1
        for length in self.size:
            count *= length
        return count

    def __str__(self) -> str:
        channels = str(self.channels)
        if " " in channels:
            channels = f"({channels})"
        return "x".join([channels, *map(str, self.size)])

    __repr__ = __str__
