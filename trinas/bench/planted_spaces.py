"""The spaces of the planted tasks, by name, with the shape of their inputs."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from torch import Tensor

from trinas._core.errors import ShapeError
from trinas.ops import (
    Operation,
    avg_pool,
    batch_norm,
    conv,
    operation,
    relu,
)
from trinas.space import (
    Node,
    Shape,
    cell,
    choice,
    parallel,
    repeat,
    residual,
    seq,
    tree,
    width,
)


@operation("bench_take")
@attrs.frozen
class Take(Operation):
    """Some channels of many, so that inputs of a cell can carry different things.

    Attributes:
        start: the first channel.
        stop: the first one behind.
    """

    start: int
    stop: int

    def out_shape(self, x: Shape) -> Shape:
        """``(stop - start, H, W)``."""
        if not 0 <= self.start < self.stop <= x.numbers()[0]:
            raise ShapeError("bench_take takes channels that are there", got=x, at=str(self))
        return x.with_channels(self.stop - self.start)

    def forward(self, x: Tensor) -> Tensor:
        """The channels."""
        return x[:, self.start : self.stop]


def _group(number: int) -> Node:
    """One of the groups of two channels that an input consists of."""
    return seq(Take(2 * number, 2 * number + 2))


def _operation() -> Node:
    kernels = choice(
        conv_1x1=conv(1, 8),
        conv_3x3=conv(3, 8),
        dilated=conv(3, 8, dilation=2),
        pooled=seq(avg_pool(3), conv(1, 8)),
        name="operation",
    )
    return seq(kernels, relu(), conv(1, 3))


def _width(norm: bool) -> Node:
    layers = (batch_norm(),) if norm else ()
    return seq(conv(3, width(values=(1, 2, 4, 8)), bias=False), *layers, relu(), conv(3, 3))


def _widths(norm: bool) -> Node:
    def layer(name: str) -> Node:
        layers = (batch_norm(),) if norm else ()
        return seq(conv(3, width(values=(1, 2, 4, 8), name=name), bias=False), *layers, relu())

    return seq(layer("first"), layer("second"), conv(3, 3))


def _block() -> Node:
    return residual(seq(relu(), conv(3, 4)))


def _depth() -> Node:
    return repeat(_block(), (1, 2, 3, 4), name="depth")


def _path() -> Node:
    return tree(block=_block(), at_most={"block": 4}, name="path")


def _edges_1of3() -> Node:
    edge = choice(conv_1x1=conv(1, 4), conv_3x3=conv(3, 4))
    inputs = [_group(number) for number in range(3)]
    return seq(cell(1, edge, inputs=inputs, keep=1), relu(), conv(1, 3))


def _edges_2of4() -> Node:
    inputs = [_group(number) for number in range(4)]
    return seq(cell(1, conv(3, 4), inputs=inputs, keep=2), relu(), conv(1, 3))


def _operation_width() -> Node:
    channels = width(values=(1, 2, 4, 8))
    kernels = choice(conv_1x1=conv(1, channels), conv_3x3=conv(3, channels), name="operation")
    return seq(kernels, relu(), conv(1, 3))


def _pair() -> Node:
    def side(name: str, first: int) -> Node:
        options = {
            label: seq(_group(number), conv(3, 3))
            for label, number in (("first", first), ("second", first + 1))
        }
        return choice(options, name=name)

    return parallel(side("left", 0), side("right", 2), merge="product")


SPACES: dict[str, tuple[Callable[[], Node], tuple[int, int, int]]] = {
    "operation": (_operation, (3, 8, 8)),
    "width": (lambda: _width(False), (3, 8, 8)),
    "width-norm": (lambda: _width(True), (3, 8, 8)),
    "widths": (lambda: _widths(False), (3, 8, 8)),
    "widths-norm": (lambda: _widths(True), (3, 8, 8)),
    "depth": (_depth, (4, 8, 8)),
    "path": (_path, (4, 8, 8)),
    "edges-1of3": (_edges_1of3, (6, 8, 8)),
    "edges-2of4": (_edges_2of4, (8, 8, 8)),
    "operation-width": (_operation_width, (3, 8, 8)),
    "pair": (_pair, (8, 8, 8)),
}
"""What makes each space, and the shape of its inputs."""
