"""Blocks of today's efficient networks: blueprint convolutions, distillation and attention.

They are those of BSRN (Li et al. 2022, arXiv 2205.05996) and of what it grew from. Each is a
registered operation, so that spaces write it by name too; `efficient` makes a space of them.

Shapes: feature maps `N C H W`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import attrs
import torch.nn.functional as F
from torch import Tensor, nn

import trinas as tn

# The wide view halves the picture without padding, then takes the maximum of 7 x 7.
_LEAST_SIDE = 15


# --- operations -----------------------------------------------------------------------------------


@tn.operation("take")
@attrs.frozen
class Take(tn.Operation):
    """`count` channels from the `first` one on, of a fixed number of channels."""

    first: int
    count: int
    registered = "take"
    pure = True

    def out_shape(self, x: tn.Shape) -> tn.Shape:
        """``(count, H, W)``.

        Raises:
            ShapeError: `x` has a searched number of channels, or too few.
        """
        channels = _fixed(x, "take")
        if not 0 <= self.first < self.first + self.count <= channels:
            raise tn.errors.ShapeError(
                "take stays within the channels of its input",
                got=f"{self.first} to {self.first + self.count} of {channels}",
                fix="Take fewer channels, or earlier ones.",
            )
        return x.with_channels(self.count)

    def forward(self, x: Tensor) -> Tensor:
        """A view of `x`."""
        return x.narrow(1, self.first, self.count)


@tn.operation("shift")
@attrs.frozen
class Shift(tn.Operation):
    """A number added to every channel, trained, and zero at the start."""

    registered = "shift"
    channelwise = True

    def weights(self, x: tn.Shape, y: tn.Shape) -> Mapping[str, tuple[int | str, ...]]:
        """``bias``, one value per channel."""
        return {"bias": ("out",)}

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """``x + bias``."""
        return x + bias[:, None, None]


@tn.operation("contrast_pool")
@attrs.frozen
class ContrastPool(tn.Operation):
    """Mean plus standard deviation over all positions, a feature map of size 1 x 1.

    Source: IMDN (Hui et al. 2019, arXiv 1909.11856), contrast-aware channel attention.
    """

    registered = "contrast_pool"
    channelwise = True
    pure = True

    def out_shape(self, x: tn.Shape) -> tn.Shape:
        """``(C, 1, 1)``.

        Raises:
            ShapeError: `x` is no feature map.
        """
        _sides(x, "contrast_pool")
        return x.with_size(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One value a channel, shape ``(N, C, 1, 1)``."""
        return x.mean((2, 3), keepdim=True) + x.std((2, 3), keepdim=True, correction=0)


@tn.operation("wide_view")
@attrs.frozen
class WideView(tn.Operation):
    """What lies around every position, from afar: the coarse branch of spatial attention.

    A strided blueprint convolution and a maximum of 7 x 7 shrink the picture to about a sixth;
    three blueprint convolutions look around there; bilinear interpolation brings the result back
    to the size of the input, whatever that is. The number of channels is fixed.

    Source: RFANet (Liu et al. 2020), in the form that BSRN gives it.
    """

    registered = "wide_view"

    def out_shape(self, x: tn.Shape) -> tn.Shape:
        """That of `x`.

        Raises:
            ShapeError: a side of `x` is below 15, or its number of channels is searched.
        """
        _fixed(x, "wide_view")
        _check_sides(_sides(x, "wide_view"), x)
        return x

    def weights(self, x: tn.Shape, y: tn.Shape) -> Mapping[str, tuple[int | str, ...]]:
        """A pointwise and a depthwise weight, and a bias, of four blueprint convolutions."""
        channels = _fixed(x, "wide_view")
        blueprint = {
            "pw.weight": (channels, channels, 1, 1),
            "dw.weight": (channels, 1, 3, 3),
            "dw.bias": (channels,),
        }
        layers = ("shrink", "look.0", "look.2", "look.4")
        return {f"{layer}.{name}": size for layer in layers for name, size in blueprint.items()}

    def macs(self, x: tn.Shape, y: tn.Shape) -> int:
        """Every weight once per position of its layer, biases included."""
        channels = _fixed(x, "wide_view")
        halved, pooled = _shrunk(*x.size)
        depthwise = 10 * channels
        return (
            channels**2 * x.positions + depthwise * halved + 3 * (channels**2 + depthwise) * pooled
        )

    def bias_adds(self, x: tn.Shape, y: tn.Shape) -> int:
        """One per output value of a depthwise convolution."""
        halved, pooled = _shrunk(*x.size)
        return _fixed(x, "wide_view") * (halved + 3 * pooled)

    def build(self, x: tn.Shape, y: tn.Shape) -> nn.Module:
        """A module for pictures of any size from 15 x 15 on."""
        return _Wide(_fixed(x, "wide_view"))


class _Wide(nn.Module):
    """The module of `WideView`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shrink = _blueprint(channels, stride=2, padding=0)
        self.look = nn.Sequential(
            _blueprint(channels), nn.GELU(), _blueprint(channels), nn.GELU(), _blueprint(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        _check_sides(x.shape[-2:], tuple(x.shape))
        wide = self.look(F.max_pool2d(self.shrink(x), 7, stride=3))
        return F.interpolate(wide, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _blueprint(channels: int, *, stride: int = 1, padding: int = 1) -> nn.Sequential:
    pointwise = nn.Conv2d(channels, channels, 1, bias=False)
    depthwise = nn.Conv2d(channels, channels, 3, stride, padding, groups=channels)
    return nn.Sequential(OrderedDict(pw=pointwise, dw=depthwise))


def _shrunk(height: int, width: int) -> tuple[int, int]:
    """Positions behind the strided convolution, and behind the maximum."""
    rows, columns = (height - 3) // 2 + 1, (width - 3) // 2 + 1
    return rows * columns, ((rows - 7) // 3 + 1) * ((columns - 7) // 3 + 1)


def _sides(x: tn.Shape, what: str) -> tuple[int, ...]:
    if len(x.size) != 2:
        raise tn.errors.ShapeError(
            f"{what} takes a feature map (C, H, W)", got=x, fix="Does a flatten stand before it?"
        )
    return x.size


def _fixed(x: tn.Shape, what: str) -> int:
    if not isinstance(x.channels, int):
        raise tn.errors.ShapeError(
            f"{what} needs a fixed number of channels", got=x, fix="Use a plain int before it."
        )
    return x.channels


def _check_sides(sides: Sequence[int], shown: object) -> None:
    if min(sides) < _LEAST_SIDE:
        raise tn.errors.ShapeError(
            f"wide_view takes sides of at least {_LEAST_SIDE}",
            got=shown,
            fix="Give larger patches, or leave spatial attention out.",
        )


# --- blocks ---------------------------------------------------------------------------------------


@tn.operation("bsconv")
def bsconv(kernel: int, channels: tn.Value, *, bias: bool = True) -> tn.Node:
    """A blueprint separable convolution: pointwise, then every channel by itself.

    At 48 channels a seventh of a dense 3 x 3 convolution. Source: Haase and Amthor 2020 (BSConv-U,
    arXiv 2003.13549).

    >>> graph = tn.lower(bsconv(3, 48), (48, 10, 10))
    >>> tn.cost.params(graph), 48 * 48 + 48 * 9 + 48
    (2784, 2784)
    """
    return tn.seq(
        tn.conv(1, channels, bias=False, name="point"), tn.dwconv(kernel, bias=bias, name="depth")
    )


@tn.operation("channel_attention")
def channel_attention(channels: tn.Value, *, reduction: int = 16) -> tn.Node:
    """Channels weighted by a gate of their mean and contrast (as in IMDN).

    Args:
        channels: those of the input.
        reduction: how many times fewer there are inside the gate.
    """
    gate = tn.seq(
        ContrastPool(),
        tn.conv(1, channels // reduction, name="reduce"),
        tn.relu(),
        tn.conv(1, channels, name="expand"),
        tn.sigmoid(),
        name="gate",
    )
    return tn.parallel(tn.seq(), gate, merge="product")


@tn.operation("spatial_attention")
def spatial_attention(channels: tn.Value, *, inner: int = 16) -> tn.Node:
    """Positions weighted by a gate of what lies around them (as in BSRN).

    Both sides of the input must be at least 15.

    Args:
        channels: those of the input.
        inner: channels inside the gate.
    """
    gate = tn.seq(
        tn.conv(1, inner, name="reduce"),
        tn.parallel(tn.conv(1, inner, name="near"), tn.op("wide_view", name="far"), name="view"),
        tn.conv(1, channels, name="expand"),
        tn.sigmoid(),
        name="gate",
    )
    return tn.parallel(tn.seq(), gate, merge="product")


@tn.operation("refinement")
def refinement(body: tn.Node) -> tn.Node:
    """``gelu(x + body(x))``."""
    return tn.seq(tn.residual(body), tn.activation("gelu"))


def _blueprint_to(channels: tn.Value) -> tn.Node:
    return bsconv(3, channels)


@tn.operation("distillation")
def distillation(
    channels: tn.Value,
    *,
    aside: Sequence[tn.Value],
    refine: tn.Node | None = None,
    last: Callable[[tn.Value], tn.Node] = _blueprint_to,
) -> tn.Node:
    """Step by step some channels are put aside and the rest is refined; then all are fused.

    Args:
        channels: of the result.
        aside: how many channels every step puts aside by a pointwise convolution; the last
            number is that of `last`, behind all refinements.
        refine: keeps the number of channels; a `refinement` by a `bsconv` where None.
        last: makes the node behind all refinements from its number of channels.

    Raises:
        SpaceError: `aside` is empty.

    Source: IMDN; by pointwise convolutions as here since RFDN (Liu et al. 2020, arXiv 2009.11551).
    """
    if not aside:
        raise tn.errors.SpaceError(
            "a distillation puts something aside",
            got=tuple(aside),
            fix="Give a number of channels for each step, at least one.",
        )
    if refine is None:
        refine = refinement(bsconv(3, tn.IN))
    body: tn.Node = tn.seq(last(aside[-1]), tn.activation("gelu"))
    for step, count in reversed(tuple(enumerate(aside[:-1]))):
        kept = tn.seq(tn.conv(1, count), tn.activation("gelu"), name="aside")
        body = tn.concat(kept, tn.seq(refine, body, name="rest"), name=f"step{step}")
    return tn.seq(body, tn.conv(1, channels, name="fuse"))
