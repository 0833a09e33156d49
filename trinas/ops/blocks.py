"""Blocks: operations that are made of operations.

A block is a plain function from settings to nodes, so everything else (shapes, counts,
slicing to a width, building) follows from its parts. ``IN`` is the number of channels
that enter the operation where it is written.
"""

from __future__ import annotations

from trinas.ops.conv import conv, dwconv, shortcut
from trinas.ops.resize import avg_pool, crop, global_avg_pool
from trinas.ops.simple import activation, batch_norm, relu, sigmoid
from trinas.ops.spec import operation
from trinas.space.nodes import Node
from trinas.space.values import IN, Value
from trinas.space.words import concat, parallel, residual, seq


@operation("conv_relu")
def conv_relu(kernel: int, channels: Value, *, bias: bool = False) -> Node:
    """A convolution and a ReLU: ``conv1x1`` and ``conv3x3`` of Trilevel NAS, Section 3.2."""
    return seq(conv(kernel, channels, bias=bias), relu())


@operation("resblock")
def resblock(channels: Value, *, kernel: int = 3, bias: bool = False) -> Node:
    """Two convolutions with a ReLU between, a skip, a ReLU (Trilevel NAS, Section 3.2).

    The skip is a 1x1 convolution where the channels differ.
    """
    body = seq(
        conv(kernel, channels, bias=bias, name="conv1"),
        relu(),
        conv(kernel, channels, bias=bias, name="conv2"),
    )
    return seq(residual(body, skip=shortcut(channels)), relu())


@operation("dwsblock")
def dwsblock(channels: Value, *, kernel: int = 3, expand: int = 4, bias: bool = False) -> Node:
    """1x1 to `expand` times the input, depthwise, 1x1, a skip (Trilevel NAS, Section 3.2).

    ReLUs stand between the three and behind the sum; the skip is a 1x1 convolution where
    the channels differ.
    """
    body = seq(
        conv(1, IN * expand, bias=bias, name="expand"),
        relu(name="relu1"),
        dwconv(kernel, bias=bias),
        relu(name="relu2"),
        conv(1, channels, bias=bias, name="project"),
    )
    return seq(residual(body, skip=shortcut(channels)), relu())


@operation("conv_bn_relu")
def conv_bn_relu(
    kernel: int, channels: Value, *, stride: int = 1, groups: int = 1, function: str = "relu"
) -> Node:
    """Convolution, batch normalisation, activation."""
    return seq(
        conv(kernel, channels, stride=stride, groups=groups, bias=False),
        batch_norm(),
        activation(function),
    )


@operation("relu_conv_bn")
def relu_conv_bn(kernel: int, channels: Value, *, stride: int = 1) -> Node:
    """ReLU, convolution, batch normalisation: the order of cell search spaces."""
    return seq(relu(), conv(kernel, channels, stride=stride, bias=False), batch_norm())


@operation("sep_conv")
def sep_conv(kernel: int, channels: Value, *, stride: int = 1) -> Node:
    """Depthwise separable convolution, applied twice (DARTS, Section 3.1.1)."""
    return seq(
        relu(name="relu1"),
        dwconv(kernel, stride=stride, bias=False, name="depth1"),
        conv(1, IN, bias=False, name="point1"),
        batch_norm(name="bn1"),
        relu(name="relu2"),
        dwconv(kernel, bias=False, name="depth2"),
        conv(1, channels, bias=False, name="point2"),
        batch_norm(name="bn2"),
    )


@operation("dil_conv")
def dil_conv(kernel: int, channels: Value, *, stride: int = 1, dilation: int = 2) -> Node:
    """Dilated depthwise separable convolution (DARTS, Section 3.1.1)."""
    return seq(
        relu(),
        dwconv(kernel, stride=stride, dilation=dilation, bias=False, name="depth"),
        conv(1, channels, bias=False, name="point"),
        batch_norm(),
    )


@operation("factorized_reduce")
def factorized_reduce(channels: int) -> Node:
    """Half the size without losing positions: two strided 1x1 convolutions, one shifted.

    The height and the width of the input are even (DARTS, Section 3.1.1).
    """
    first = conv(1, channels // 2, stride=2, bias=False)
    second = seq(crop(1, 1), conv(1, channels - channels // 2, stride=2, bias=False))
    return seq(relu(), concat(first, second, name="halves"), batch_norm())


@operation("basic_block")
def basic_block(channels: int, *, stride: int = 1) -> Node:
    """The residual block of NAS-Bench-201: two ReLU-conv-BN, an averaging skip if strided."""
    body = seq(
        relu_conv_bn(3, channels, stride=stride).named("a"),
        relu_conv_bn(3, channels).named("b"),
    )
    if stride == 1:
        return residual(body)
    down = seq(avg_pool(2, stride=stride), conv(1, channels, bias=False))
    return residual(body, skip=down)


@operation("inverted_residual")
def inverted_residual(
    channels: Value, *, kernel: int = 3, expand: int = 6, function: str = "relu"
) -> Node:
    """The block of MobileNetV2 at stride 1, with a skip that fits any width."""
    body = seq(
        conv_bn_relu(1, IN * expand, function=function),
        dwconv(kernel, bias=False),
        batch_norm(),
        activation(function),
        conv(1, channels, bias=False),
        batch_norm(),
    )
    return residual(body, skip=shortcut(channels))


@operation("squeeze_excite")
def squeeze_excite(channels: Value, *, reduction: int = 4) -> Node:
    """Channels weighted by a gate of their averages (Squeeze-and-Excitation, Section 3)."""
    gate = seq(
        global_avg_pool(),
        conv(1, channels // reduction),
        relu(),
        conv(1, channels),
        sigmoid(),
    )
    return parallel(seq(), gate, merge="product")
