"""Convolutions and linear layers: the superkernels.

One weight of the full width serves every narrower width: a convolution with ``c_in``
inputs and ``c_out`` outputs uses the first ``c_out`` kernels and their first ``c_in``
planes (AGD, Section 3.2, and Trilevel NAS, Section 3.2, call it a superkernel).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trinas._core.errors import ShapeError
from trinas.ops.depthwise import DepthwiseConv2d, depthwise_conv2d
from trinas.ops.opaque import conv2d
from trinas.ops.spec import (
    Cut,
    Operation,
    at_least,
    leaf,
    operation,
    require_fixed_channels,
    require_image,
    true_or_false,
)
from trinas.space.nodes import Op
from trinas.space.shape import Shape
from trinas.space.values import Value, check_value, same, symbols


def _usable(instance: object, attribute: attrs.Attribute[Value], value: Value) -> None:
    check_value(value)


def _out_length(length: int, kernel: int, stride: int, dilation: int) -> int:
    padding = dilation * (kernel - 1) // 2
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@attrs.frozen
class _Convolution(Operation):
    """What the convolutions have in common: a kernel, and a weight cut by channels."""

    kernel: int = attrs.field(validator=at_least(1))

    def _resize(self, x: Shape, stride: int, dilation: int) -> tuple[int, int]:
        height, width = require_image(x, f"a {self.kind}")
        size = tuple(_out_length(n, self.kernel, stride, dilation) for n in (height, width))
        if min(size) < 1:
            raise ShapeError(
                f"a {self.kind} leaves at least one position",
                got=x,
                fix="Use a larger input or a smaller kernel.",
            )
        return size[0], size[1]

    def macs(self, x: Shape, y: Shape) -> int:
        """Every weight, the bias included, once per output position."""
        return self.params(x, y) * y.positions

    def bias_adds(self, x: Shape, y: Shape) -> int:
        """One per output value where there is a bias."""
        return y.numbers()[0] * y.positions if "bias" in self.weights(x, y) else 0


@attrs.frozen
class Conv(_Convolution):
    """A 2d convolution, padded so that stride 1 keeps the size (kernel odd)."""

    channels: Value = attrs.field(validator=_usable)
    stride: int = attrs.field(default=1, validator=at_least(1))
    bias: bool = attrs.field(default=True, validator=true_or_false)
    dilation: int = attrs.field(default=1, validator=at_least(1))
    groups: int = attrs.field(default=1, validator=at_least(1))
    registered = "conv"
    adds_channels = True

    def out_shape(self, x: Shape) -> Shape:
        """``(channels, H / stride, W / stride)``."""
        if self.groups > 1:
            if symbols(self.channels):
                raise ShapeError(
                    "a grouped convolution has a fixed number of channels",
                    got=str(self.channels),
                    fix="Search its width with dwconv, or without groups.",
                )
            c_in = require_fixed_channels(x, "a grouped convolution")
            if c_in % self.groups or self.channels % self.groups:  # type: ignore[operator]  # no symbols: an int
                raise ShapeError(
                    "groups divide the channels on both sides",
                    got=f"groups={self.groups}, {c_in} -> {self.channels}",
                    fix="Choose a common divisor for groups.",
                )
        return Shape.of(self.channels, *self._resize(x, self.stride, self.dilation))

    def weights(self, x: Shape, y: Shape) -> Mapping[str, tuple[int | str, ...]]:
        """``weight`` (out, in / groups, kernel, kernel), and ``bias`` (out) if asked."""
        planes: int | str = "in"
        if self.groups > 1:
            planes = require_fixed_channels(x, "a grouped convolution") // self.groups
        weight = {"weight": ("out", planes, self.kernel, self.kernel)}
        return {**weight, "bias": ("out",)} if self.bias else weight

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.Conv2d``."""
        return nn.Conv2d(
            x.numbers()[0],
            y.numbers()[0],
            self.kernel,
            self.stride,
            self.dilation * (self.kernel - 1) // 2,
            self.dilation,
            self.groups,
            self.bias,
        )

    def run(self, module: nn.Module, x: Tensor, at: Cut) -> Tensor:
        """Convolve with the cut weight."""
        whole = at.whole and not torch.compiler.is_compiling()
        if not isinstance(module, nn.Conv2d) or whole:
            return module(at.masked(x))
        weight = at.weight(module.weight, ("out", "in"))
        bias = None if module.bias is None else at.weight(module.bias, ("out",))
        padding = self.dilation * (self.kernel - 1) // 2
        return conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


@attrs.frozen
class DepthwiseConv(_Convolution):
    """A 2d convolution of every channel by itself."""

    stride: int = attrs.field(default=1, validator=at_least(1))
    bias: bool = attrs.field(default=True, validator=true_or_false)
    dilation: int = attrs.field(default=1, validator=at_least(1))
    registered = "dwconv"
    channelwise = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C, H / stride, W / stride)``."""
        return x.with_size(*self._resize(x, self.stride, self.dilation))

    def weights(self, x: Shape, y: Shape) -> Mapping[str, tuple[int | str, ...]]:
        """``weight`` (out, 1, kernel, kernel), and ``bias`` (out) if asked."""
        weight = {"weight": ("out", 1, self.kernel, self.kernel)}
        return {**weight, "bias": ("out",)} if self.bias else weight

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.Conv2d`` with as many groups as channels, faster where dilated."""
        channels = x.numbers()[0]
        return DepthwiseConv2d(
            channels,
            channels,
            self.kernel,
            self.stride,
            self.dilation * (self.kernel - 1) // 2,
            self.dilation,
            channels,
            self.bias,
        )

    def run(self, module: nn.Module, x: Tensor, at: Cut) -> Tensor:
        """Convolve the channels that are there."""
        whole = at.outs is None and not torch.compiler.is_compiling()
        if not isinstance(module, nn.Conv2d) or whole:
            return module(x)
        weight = at.weight(module.weight, ("out",))
        bias = None if module.bias is None else at.weight(module.bias, ("out",))
        return depthwise_conv2d(x, weight, bias, self.stride, self.dilation)


@attrs.frozen
class Shortcut(Operation):
    """A skip connection: nothing where the channels agree, else a 1x1 convolution.

    With searched widths that depends on what is decided, so a supernet holds the
    convolution and uses it only where the widths in force differ.
    """

    channels: Value = attrs.field(validator=_usable)
    registered = "shortcut"
    adds_channels = True

    def out_shape(self, x: Shape) -> Shape:
        """``(channels, H, W)``."""
        require_image(x, "a shortcut")
        if len(x.segments) > 1 and not same(x.channels, self.channels):
            # Whether it is the identity hangs on the widths, and where it is, the pieces
            # would have to become one.
            raise ShapeError(
                "a shortcut to another width follows a tensor in one piece",
                got=f"pieces {', '.join(map(str, x.segments))}",
                fix="Put a 1x1 convolution behind the concatenation of searched widths.",
            )
        return x if same(x.channels, self.channels) else x.with_channels(self.channels)

    def weights(self, x: Shape, y: Shape) -> Mapping[str, tuple[int | str, ...]]:
        """``weight`` (out, in, 1, 1) where the channels differ."""
        return {} if same(x.channels, y.channels) else {"weight": ("out", "in", 1, 1)}

    def macs(self, x: Shape, y: Shape) -> int:
        """Those of the 1x1 convolution, if there is one."""
        return self.params(x, y) * y.positions

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """An identity or a ``torch.nn.Conv2d``."""
        if same(x.channels, y.channels):
            return nn.Identity()
        return nn.Conv2d(x.numbers()[0], y.numbers()[0], 1, bias=False)

    def run(self, module: nn.Module, x: Tensor, at: Cut) -> Tensor:
        """Pass `x` on where the widths agree; mix by the odds where they are soft."""
        if not isinstance(module, nn.Conv2d) or at.same is True:
            return x
        if at.whole and not torch.compiler.is_compiling():
            mapped = module(x)
        else:
            mapped = conv2d(x, at.weight(module.weight, ("out", "in")))
        if isinstance(at.same, bool):
            return mapped
        # Full-width tensors here; who reads the result masks what is not there.
        kept = F.pad(x, (0, 0, 0, 0, 0, mapped.shape[1] - x.shape[1]))
        same = at.same.to(mapped.dtype).reshape(-1, 1, 1)
        return same * kept + (1 - same) * mapped


@attrs.frozen
class Linear(Operation):
    """A fully connected layer on vectors."""

    features: Value = attrs.field(validator=_usable)
    bias: bool = attrs.field(default=True, validator=true_or_false)
    registered = "linear"
    adds_channels = True

    def out_shape(self, x: Shape) -> Shape:
        """``(features,)``."""
        if x.size:
            raise ShapeError("a linear layer takes a vector", got=x, fix="Put a flatten before it.")
        return Shape.of(self.features)

    def weights(self, x: Shape, y: Shape) -> Mapping[str, tuple[int | str, ...]]:
        """``weight`` (out, in), and ``bias`` (out) if asked."""
        weight = {"weight": ("out", "in")}
        return {**weight, "bias": ("out",)} if self.bias else weight

    def bias_adds(self, x: Shape, y: Shape) -> int:
        """One per feature where there is a bias."""
        return y.numbers()[0] if self.bias else 0

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.Linear``."""
        return nn.Linear(x.numbers()[0], y.numbers()[0], self.bias)

    def run(self, module: nn.Module, x: Tensor, at: Cut) -> Tensor:
        """Multiply by the cut weight."""
        if not isinstance(module, nn.Linear) or at.whole:
            return module(at.masked(x))
        bias = None if module.bias is None else at.weight(module.bias, ("out",))
        return F.linear(x, at.weight(module.weight, ("out", "in")), bias)


@operation("conv")
def conv(
    kernel: int,
    channels: Value,
    *,
    stride: int = 1,
    bias: bool = True,
    dilation: int = 1,
    groups: int = 1,
    name: str | None = None,
) -> Op:
    """A 2d convolution to `channels` channels; odd kernels keep the size at stride 1."""
    return leaf(Conv(kernel, channels, stride, bias, dilation, groups), name)


@operation("dwconv")
def dwconv(
    kernel: int,
    *,
    stride: int = 1,
    bias: bool = True,
    dilation: int = 1,
    name: str | None = None,
) -> Op:
    """A depthwise 2d convolution: every channel by itself."""
    return leaf(DepthwiseConv(kernel, stride, bias, dilation), name)


@operation("shortcut")
def shortcut(channels: Value, *, name: str | None = None) -> Op:
    """The identity where the input has `channels` channels, else a 1x1 convolution."""
    return leaf(Shortcut(channels), name)


@operation("linear")
def linear(features: Value, *, bias: bool = True, name: str | None = None) -> Op:
    """A fully connected layer to `features` features."""
    return leaf(Linear(features, bias), name)


__all__ = ["conv", "dwconv", "linear", "operation", "shortcut"]
