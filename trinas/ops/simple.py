"""Operations without kernels: activations, normalisation, pooling, reshaping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs
import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from trinas._core.errors import ShapeError, SpaceError
from trinas.ops.spec import Cut, Operation, leaf, operation, require_image
from trinas.space.nodes import Op
from trinas.space.shape import Shape
from trinas.space.values import Value, exact_quotient

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


@attrs.frozen
class Activation(Operation):
    """An elementwise function without weights."""

    function: str
    registered = "activation"

    @property
    def kind(self) -> str:
        """The name of the function."""
        return self.function

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]  # per function here
        """All but the sigmoid map zero to zero."""
        return self.function != "sigmoid"

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """The torch module of that function."""
        return _ACTIVATIONS[self.function]()

    def __str__(self) -> str:
        return self.function


@attrs.frozen
class BatchNorm(Operation):
    """Batch normalisation of feature maps; its statistics are cut with the width."""

    affine: bool = True
    momentum: float = 0.1
    registered = "batch_norm"

    def out_shape(self, x: Shape) -> Shape:
        """The shape stays."""
        require_image(x, "batch_norm")
        return x

    def weights(self, x: Shape, y: Shape) -> Mapping[str, tuple[int | str, ...]]:
        """``weight`` and ``bias``, one value per channel, if affine."""
        return {"weight": ("out",), "bias": ("out",)} if self.affine else {}

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.BatchNorm2d``."""
        return nn.BatchNorm2d(x.numbers()[0], momentum=self.momentum, affine=self.affine)

    def run(self, module: nn.Module, x: Tensor, at: Cut) -> Tensor:
        """Normalise with the statistics and weights of the channels that are there."""
        if not isinstance(module, nn.BatchNorm2d) or at.outs is None:
            return module(x)
        mean, variance = module.running_mean, module.running_var
        if mean is None or variance is None:
            raise SpaceError("a searched width needs running statistics", got=module)
        if module.training and module.num_batches_tracked is not None:
            module.num_batches_tracked.add_(1)
        cut_mean, cut_variance = at.weight(mean, ("out",)), at.weight(variance, ("out",))
        affine = module.weight is not None
        result = F.batch_norm(
            x, cut_mean, cut_variance,
            at.weight(module.weight, ("out",)) if affine else None,
            at.weight(module.bias, ("out",)) if affine else None,
            module.training, module.momentum or 0.0, module.eps,
        )
        if module.training and isinstance(at.outs, Tensor):
            # An indexed cut is a copy, so the statistics go back by hand.
            mean.index_copy_(0, at.outs, cut_mean)
            variance.index_copy_(0, at.outs, cut_variance)
        return result


@attrs.frozen
class Pool(Operation):
    """Average or maximum over a window, padded so that stride 1 keeps the size."""

    mode: Literal["avg", "max"]
    kernel: int
    stride: int = 1
    registered = "pool"
    keeps_zero = True

    @property
    def kind(self) -> str:
        """``avg_pool`` or ``max_pool``."""
        return f"{self.mode}_pool"

    def out_shape(self, x: Shape) -> Shape:
        """``(C, H / stride, W / stride)``."""
        pad = (self.kernel - 1) // 2
        size = [
            (n + 2 * pad - self.kernel) // self.stride + 1 for n in require_image(x, self.kind)
        ]
        if min(size) < 1:
            raise ShapeError(f"{self.kind} leaves at least one position", got=x)
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
    keeps_zero = True

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
    keeps_zero = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C * H * W,)``."""
        return Shape(tuple(segment * x.positions for segment in x.segments))

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """An einops layer."""
        return Rearrange("n ... -> n (...)") if len(x.size) != 2 else Rearrange(
            "n c h w -> n (c h w)"
        )


@attrs.frozen
class PixelShuffle(Operation):
    """Channels to positions: ``(C r^2, H, W)`` becomes ``(C, r H, r W)``."""

    factor: int
    registered = "pixel_shuffle"
    keeps_zero = True

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

    factor: int
    mode: Literal["nearest", "bilinear", "bicubic"] = "nearest"
    registered = "upsample"
    keeps_zero = True

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

    top: int
    left: int
    registered = "crop"
    keeps_zero = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C, H - top, W - left)``."""
        height, width = require_image(x, "crop")
        if height <= self.top or width <= self.left:
            raise ShapeError("a crop leaves at least one position", got=x)
        return x.with_size(height - self.top, width - self.left)

    def forward(self, x: Tensor) -> Tensor:
        """The rest."""
        return x[..., self.top :, self.left :]


@attrs.frozen
class Affine(Operation):
    """``scale * x + shift`` with two fixed numbers, such as tanh mapped to [0, 1]."""

    scale: float = 1.0
    shift: float = 0.0
    registered = "affine"

    def forward(self, x: Tensor) -> Tensor:
        """The mapped input."""
        return torch.add(x * self.scale, self.shift) if self.shift else x * self.scale


@attrs.frozen
class Zero(Operation):
    """Zeros in the shape of a (strided) input: the ``none`` of cell spaces."""

    stride: int = 1
    registered = "zero"
    keeps_zero = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C, H / stride, W / stride)``, rounded up."""
        return x.with_size(*(-(-n // self.stride) for n in x.size))

    def forward(self, x: Tensor) -> Tensor:
        """Fresh zeros: no gradient reaches `x`."""
        size = [-(-n // self.stride) for n in x.shape[2:]]
        return x.new_zeros([*x.shape[:2], *size])


@attrs.frozen
class Dropout(Operation):
    """Dropout of single values while training."""

    rate: float = 0.5
    registered = "dropout"
    keeps_zero = True

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.Dropout``."""
        return nn.Dropout(self.rate)


@operation("activation")
def activation(function: str, *, name: str | None = None) -> Op:
    """An elementwise function by name: relu, leaky_relu, gelu, silu, hardswish, ...

    Raises:
        SpaceError: an unknown function; the known ones are listed.
    """
    if function not in _ACTIVATIONS:
        raise SpaceError(
            "unknown activation", got=function, fix=f"Known: {', '.join(_ACTIVATIONS)}."
        )
    return leaf(Activation(function), name)


@operation("relu")
def relu(*, name: str | None = None) -> Op:
    """``max(x, 0)``."""
    return leaf(Activation("relu"), name)


@operation("sigmoid")
def sigmoid(*, name: str | None = None) -> Op:
    """``1 / (1 + exp(-x))``."""
    return leaf(Activation("sigmoid"), name)


@operation("tanh")
def tanh(*, name: str | None = None) -> Op:
    """The hyperbolic tangent."""
    return leaf(Activation("tanh"), name)


@operation("batch_norm")
def batch_norm(*, affine: bool = True, momentum: float = 0.1, name: str | None = None) -> Op:
    """Batch normalisation."""
    return leaf(BatchNorm(affine, momentum), name)


@operation("avg_pool")
def avg_pool(kernel: int, *, stride: int = 1, name: str | None = None) -> Op:
    """Average pooling; the padding is left out of the averages."""
    return leaf(Pool("avg", kernel, stride), name)


@operation("max_pool")
def max_pool(kernel: int, *, stride: int = 1, name: str | None = None) -> Op:
    """Maximum pooling."""
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
    mode: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    name: str | None = None,
) -> Op:
    """Interpolation to `factor` times the height and width."""
    return leaf(Upsample(factor, mode), name)


@operation("crop")
def crop(top: int, left: int, *, name: str | None = None) -> Op:
    """A feature map without its first `top` rows and `left` columns."""
    return leaf(Crop(top, left), name)


@operation("affine")
def affine(scale: float = 1.0, shift: float = 0.0, *, name: str | None = None) -> Op:
    """``scale * x + shift`` with fixed numbers."""
    return leaf(Affine(scale, shift), name)


@operation("zero")
def zero(*, stride: int = 1, name: str | None = None) -> Op:
    """Zeros in the shape of the input: the option that cuts a connection."""
    return leaf(Zero(stride), name)


@operation("dropout")
def dropout(rate: float = 0.5, *, name: str | None = None) -> Op:
    """Dropout while training."""
    return leaf(Dropout(rate), name)
