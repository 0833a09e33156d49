"""Random small spaces for hypothesis, with every kind of node in them.

    @given(spaces())
    def test_something(space):
        graph = tn.lower(space, IN_SHAPE)

All parts of such a space keep the height, the width and the number of channels of what
they get, so they fit wherever they are put, and the output is as large as the input.
Inside, widths are searched, sizes are halved and doubled, and channels are joined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

import trinas as tn
from trinas.space.values import Value, smallest

CHANNELS = 4
IN_SHAPE = (CHANNELS, 8, 8)
"""The input that the spaces of `spaces` are made for, and the shape that comes out."""

_NAMES = st.sampled_from([None, None, "left", "right"])
_WIDTH_NAMES = st.sampled_from([None, None, "thin"])


@st.composite
def spaces(
    draw: st.DrawFn,
    *,
    max_depth: int = 3,
    channels: int = CHANNELS,
    most: int | None = None,
) -> tn.Node:
    """A space from ``(channels, 8, 8)`` to the same shape.

    Args:
        max_depth: how deeply choices, residuals, cells and so on are nested.
        channels: channels that come in and go out.
        most: spaces of more networks than this are thrown away.
    """
    space = _Maker(draw).part(max_depth, channels, 8)
    if most is not None:
        assume(tn.cardinality(space) <= most)
    return space


def small_spaces(most: int = 200, **settings: Any) -> st.SearchStrategy[tn.Node]:
    """Spaces that can be enumerated: at most `most` networks."""
    return spaces(most=most, **settings)


def widths() -> st.SearchStrategy[Any]:
    """A width of one to three candidates, all divisible by 2."""
    candidates = st.lists(st.sampled_from([2, 4, 6]), min_size=1, max_size=3, unique=True)
    return st.builds(
        lambda values, name: tn.width(values=values, name=name), candidates, _WIDTH_NAMES
    )


class _Maker:
    """Draws parts that keep `channels` and `size`."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._keys = 0

    def part(self, depth: int, channels: Value, size: int) -> Any:
        """One part, at most `depth` levels deep."""
        if depth == 0:
            return self._leaf(channels)
        makers: list[Callable[[int, Value, int], Any]] = [
            self._leaf_or_block,
            self._seq,
            self._choice,
            self._residual,
            self._repeat,
            self._parallel,
            self._product,
            self._concat,
            self._width,
            self._share,
            self._cell,
            self._stack,
            self._tree,
            self._trellis,
        ]
        if size % 4 == 0:
            makers += [self._smaller, self._larger]
        return self._one_of(makers)(depth - 1, channels, size)

    def _one_of(self, things: list[Any]) -> Any:
        return self._draw(st.sampled_from(things))

    def _parts(self, depth: int, channels: Value, size: int, most: int = 3) -> list[Any]:
        count = self._draw(st.integers(1, most))
        return [self.part(depth, channels, size) for _ in range(count)]

    def _leaf(self, channels: Value) -> Any:
        return self._one_of(
            [
                tn.seq(),
                tn.relu(),
                tn.sigmoid(),
                tn.conv(3, channels),
                tn.conv(1, channels, bias=False),
                tn.conv(3, channels, dilation=2, bias=False),
                tn.dwconv(3),
                tn.batch_norm(),
                tn.avg_pool(3),
                tn.max_pool(3),
                tn.affine(0.5, 0.25),
                tn.activation("gelu"),
                tn.shortcut(channels),
            ]
        )

    def _leaf_or_block(self, depth: int, channels: Value, size: int) -> Any:
        blocks = [
            self._leaf(channels),
            tn.conv_relu(3, channels),
            tn.resblock(channels),
            tn.dwsblock(channels, expand=2),
            tn.sep_conv(3, channels),
            tn.dil_conv(3, channels),
            tn.inverted_residual(channels, expand=2),
            tn.conv_bn_relu(3, channels),
            tn.relu_conv_bn(1, channels),
        ]
        if smallest(channels) >= 2:
            blocks.append(tn.squeeze_excite(channels, reduction=2))
        return self._one_of(blocks)

    def _seq(self, depth: int, channels: Value, size: int) -> tn.Node:
        return tn.seq(*self._parts(depth, channels, size), name=self._draw(_NAMES))

    def _options(self, depth: int, channels: Value, size: int) -> dict[str, Any]:
        return dict(zip("abc", self._parts(depth, channels, size)))

    def _choice(self, depth: int, channels: Value, size: int) -> tn.Node:
        options = self._options(depth, channels, size)
        hidden = self._draw(st.booleans())
        if hidden:
            options["none"] = tn.zero()
        return tn.choice(options, name=self._draw(_NAMES), search_only=("none",) if hidden else ())

    def _residual(self, depth: int, channels: Value, size: int) -> tn.Node:
        skip = self.part(0, channels, size) if self._draw(st.booleans()) else None
        scale = self._one_of([1.0, 0.2])
        return tn.residual(self.part(depth, channels, size), scale=scale, skip=skip)

    def _repeat(self, depth: int, channels: Value, size: int) -> tn.Node:
        counts = self._one_of([1, 2, (0, 1), (1, 2), (1, 3)])
        return tn.repeat(self.part(depth, channels, size), counts)

    def _parallel(self, depth: int, channels: Value, size: int) -> tn.Node:
        merge = self._one_of(["sum", "mean"])
        return tn.parallel(*self._parts(depth, channels, size), merge=merge)

    def _product(self, depth: int, channels: Value, size: int) -> tn.Node:
        gate = tn.seq(self.part(depth, channels, size), tn.global_avg_pool(), tn.sigmoid())
        body = self.part(depth, channels, size)
        other = self._one_of([gate, tn.sigmoid()])
        return tn.parallel(body, other, merge="product")

    def _concat(self, depth: int, channels: Value, size: int) -> tn.Node:
        joined = tn.concat(self.part(depth, channels, size), self.part(depth, channels, size))
        keeps_pieces = [
            tn.seq(),
            tn.batch_norm(),
            tn.dwconv(3),
            tn.residual(tn.dwconv(3)),
            tn.choice(a=tn.relu(), b=tn.sigmoid()),
        ]
        return tn.seq(joined, self._one_of(keeps_pieces), tn.conv(1, channels, bias=False))

    def _width(self, depth: int, channels: Value, size: int) -> tn.Node:
        width = self._draw(widths())
        inner = self._one_of([width, width * 2, width // 2 + 1])
        return tn.seq(
            tn.conv(self._one_of([1, 3]), inner),
            self.part(depth, inner, size),
            self._one_of([tn.conv(1, channels), tn.shortcut(channels)]),
        )

    def _share(self, depth: int, channels: Value, size: int) -> tn.Node:
        self._keys += 1
        key = f"key{self._keys}"
        # Weights can be shared only where a width is the same for all: not between copies.
        weights = isinstance(channels, int) and self._draw(st.booleans())
        part = self.part(depth, channels, size)
        shared = tn.share(key, part, weights=weights)
        return tn.seq(shared, tn.relu(), shared)

    def _cell(self, depth: int, channels: Value, size: int) -> tn.Node:
        steps = self._one_of([1, 2])
        edges = [self.part(depth, channels, size) for _ in range(2)]
        merge = self._one_of(["concat", "sum", "last"])
        inputs = self._one_of([(None,), (None, None), (tn.conv(1, channels), None)])
        cell = tn.cell(
            steps,
            lambda i, j: edges[(i + j) % 2],
            inputs=inputs,
            keep=self._one_of([None, 1, 2]),
            merge=merge,
        )
        return tn.seq(cell, tn.conv(1, channels)) if merge == "concat" else cell

    def _stack(self, depth: int, channels: Value, size: int) -> tn.Node:
        parts = [self._cell(0, channels, size), *self._parts(depth, channels, size, 2)]
        return tn.stack(*parts, self._cell(0, channels, size))

    def _limits(self, labels: list[str]) -> dict[str, Any]:
        at_most = {label: self._draw(st.integers(1, 2)) for label in labels}
        exits = {label: n for label, n in at_most.items() if self._draw(st.booleans())}
        return {
            "at_most": at_most,
            "first": self._one_of([None, labels[0]]),
            "exit_at": self._one_of([None, exits]),
        }

    def _tree(self, depth: int, channels: Value, size: int) -> tn.Node:
        options = dict(zip("ab", self._parts(depth, channels, size, 2)))
        return tn.tree(options, **self._limits(list(options)))

    def _trellis(self, depth: int, channels: Value, size: int) -> tn.Node:
        options = dict(zip("ab", self._parts(depth, channels, size, 2)))
        return tn.trellis(options, **self._limits(list(options)))

    def _smaller(self, depth: int, channels: Value, size: int) -> tn.Node:
        return tn.seq(
            self._one_of([tn.conv(3, channels, stride=2), tn.max_pool(2, stride=2)]),
            self.part(depth, channels, size // 2),
            tn.upsample(2),
        )

    def _larger(self, depth: int, channels: Value, size: int) -> tn.Node:
        return tn.seq(
            tn.conv(1, channels * 4),
            tn.pixel_shuffle(2),
            self.part(0, channels, size * 2),
            tn.avg_pool(2, stride=2),
        )
