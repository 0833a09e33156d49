"""Operations that change the size: pooling, reshaping, up and down."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import attrs
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from trinas._core.errors import ShapeError
from trinas.ops.spec import Operation, at_least, leaf, operation, require_image, require_known
from trinas.space.nodes import Op
from trinas.space.shape import Shape
from trinas.space.values import Value, exact_quotient

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic"]
_INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)


@attrs.frozen
class Pool(Operation):
    """Average or maximum over a window, padded so that stride 1 keeps the size."""

    mode: Literal["avg", "max"]
    kernel: int = attrs.field(validator=at_least(1))
    stride: int = attrs.field(default=1, validator=at_least(1))
    registered = "pool"
    channelwise = True
    pure = True

    @property
    def kind(self) -> str:
        """``avg_pool`` or ``max_pool``."""
        return f"{self.mode}_pool"

    def out_shape(self, x: Shape) -> Shape:
        """``(C, H / stride, W / stride)``."""
        pad = (self.kernel - 1) // 2
        size = [(n + 2 * pad - self.kernel) // self.stride + 1 for n in require_image(x, self.kind)]
        if min(size) < 1:
            raise ShapeError(
                f"{self.kind} leaves at least one position",
                got=x,
                fix="Use a larger input or a smaller kernel.",
            )
        return x.with_size(*size)

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A torch pooling layer; averages leave the padding out."""
        pad = (self.kernel - 1) // 2
        if self.mode == "max":
            return nn.MaxPool2d(self.kernel, self.stride, pad)
        return nn.AvgPool2d(self.kernel, self.stride, pad, count_include_pad=False)


@attrs.frozen
class GlobalPool(Operation):
    """The average over all positions, a feature map of size 1 x 1."""

    registered = "global_avg_pool"
    channelwise = True
    pure = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C, 1, 1)``."""
        require_image(x, "global_avg_pool")
        return x.with_size(1, 1)

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.AdaptiveAvgPool2d``."""
        return nn.AdaptiveAvgPool2d(1)


@attrs.frozen
class Flatten(Operation):
    """A feature map as one vector, channel by channel."""

    registered = "flatten"
    channelwise = True
    pure = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C * H * W,)``."""
        return Shape(tuple(segment * x.positions for segment in x.segments))

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """An einops layer."""
        return (
            Rearrange("n ... -> n (...)") if len(x.size) != 2 else Rearrange("n c h w -> n (c h w)")
        )


@attrs.frozen
class PixelShuffle(Operation):
    """Channels to positions: ``(C r^2, H, W)`` becomes ``(C, r H, r W)``."""

    factor: int = attrs.field(validator=at_least(1))
    registered = "pixel_shuffle"
    channelwise = True
    pure = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C / factor^2, H * factor, W * factor)``."""
        height, width = require_image(x, "pixel_shuffle")
        parts: list[Value] = []
        for segment in x.segments:
            part = exact_quotient(segment, self.factor**2)
            if part is None:
                raise ShapeError(
                    "pixel_shuffle takes a multiple of factor^2 channels",
                    got=f"{segment} channels, factor {self.factor}",
                    fix=f"Give the layer before it {self.factor**2} times what should come out.",
                )
            parts.append(part)
        return Shape(tuple(parts), (height * self.factor, width * self.factor))

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.PixelShuffle``."""
        return nn.PixelShuffle(self.factor)


@attrs.frozen
class Upsample(Operation):
    """Interpolation to a multiple of the size."""

    factor: int = attrs.field(validator=at_least(1))
    mode: Interpolation = "nearest"
    registered = "upsample"
    channelwise = True
    pure = True

    def __attrs_post_init__(self) -> None:
        require_known("mode of upsample", self.mode, _INTERPOLATIONS)

    def out_shape(self, x: Shape) -> Shape:
        """``(C, H * factor, W * factor)``."""
        height, width = require_image(x, "upsample")
        return x.with_size(height * self.factor, width * self.factor)

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.Upsample``."""
        corners = None if self.mode == "nearest" else False
        return nn.Upsample(scale_factor=self.factor, mode=self.mode, align_corners=corners)


@attrs.frozen
class Crop(Operation):
    """A feature map without its first rows and columns."""

    top: int = attrs.field(validator=at_least(0))
    left: int = attrs.field(validator=at_least(0))
    registered = "crop"
    channelwise = True
    pure = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C, H - top, W - left)``."""
        height, width = require_image(x, "crop")
        if height <= self.top or width <= self.left:
            raise ShapeError(
                "a crop leaves at least one position",
                got=x,
                fix="Use a larger input, or crop less.",
            )
        return x.with_size(height - self.top, width - self.left)

    def forward(self, x: Tensor) -> Tensor:
        """The rest."""
        return x[..., self.top :, self.left :]


@operation("avg_pool")
def avg_pool(kernel: int, *, stride: int = 1, name: str | None = None) -> Op:
    """Average pooling of ``kernel x kernel``; the padding is left out of the averages.

    Args:
        kernel: its side.
        stride: 1 as in cells, not the kernel as in torch: ``avg_pool(2, stride=2)`` halves.
        name: of the node.
    """
    return leaf(Pool("avg", kernel, stride), name)


@operation("max_pool")
def max_pool(kernel: int, *, stride: int = 1, name: str | None = None) -> Op:
    """Maximum pooling of ``kernel x kernel``.

    Args:
        kernel: its side.
        stride: 1 as in cells, not the kernel as in torch: ``max_pool(2, stride=2)`` halves.
        name: of the node.
    """
    return leaf(Pool("max", kernel, stride), name)


@operation("global_avg_pool")
def global_avg_pool(*, name: str | None = None) -> Op:
    """The average over all positions, size 1 x 1."""
    return leaf(GlobalPool(), name)


@operation("flatten")
def flatten(*, name: str | None = None) -> Op:
    """A feature map as a vector."""
    return leaf(Flatten(), name)


@operation("pixel_shuffle")
def pixel_shuffle(factor: int, *, name: str | None = None) -> Op:
    """Channels to positions, `factor` times the height and width."""
    return leaf(PixelShuffle(factor), name)


@operation("upsample")
def upsample(
    factor: int,
    *,
    mode: Interpolation = "nearest",
    name: str | None = None,
) -> Op:
    """Interpolation to `factor` times the height and width."""
    return leaf(Upsample(factor, mode), name)


@operation("crop")
def crop(top: int, left: int, *, name: str | None = None) -> Op:
    """A feature map without its first `top` rows and `left` columns."""
    return leaf(Crop(top, left), name)
