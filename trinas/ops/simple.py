"""Operations that keep the size: activations, normalisation, and small helpers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trinas._core.declared import declared_at
from trinas._core.errors import SpaceError
from trinas.ops.spec import (
    Cut,
    Operation,
    at_least,
    finite,
    leaf,
    operation,
    require_image,
    require_known,
    true_or_false,
)
from trinas.space.nodes import Op
from trinas.space.shape import Shape

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def _rate(_: object, __: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise SpaceError(
            "the rate of dropout is a number from 0, and below 1",
            got=value,
            at=declared_at(),
            fix="It is the share of values that are set to zero.",
        )


@attrs.frozen
class Activation(Operation):
    """An elementwise function without weights."""

    function: str
    registered = "activation"
    channelwise = True
    pure = True

    def __attrs_post_init__(self) -> None:
        require_known("activation", self.function, _ACTIVATIONS)

    @property
    def kind(self) -> str:
        """The name of the function."""
        return self.function

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """The torch module of that function."""
        return _ACTIVATIONS[self.function]()

    def __str__(self) -> str:
        return self.function


@attrs.frozen
class BatchNorm(Operation):
    """Batch normalisation of feature maps; its statistics are cut with the width."""

    affine: bool = attrs.field(default=True, validator=true_or_false)
    momentum: float = attrs.field(default=0.1, validator=finite)
    registered = "batch_norm"
    channelwise = True

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
            x,
            cut_mean,
            cut_variance,
            at.weight(module.weight, ("out",)) if affine else None,
            at.weight(module.bias, ("out",)) if affine else None,
            module.training,
            _share(module),
            module.eps,
        )
        if module.training and isinstance(at.outs, Tensor):
            # An indexed cut is a copy, so the statistics go back by hand.
            mean.index_copy_(0, at.outs, cut_mean)
            variance.index_copy_(0, at.outs, cut_variance)
        return result


def _share(module: nn.BatchNorm2d) -> float:
    """The share of this batch in the running statistics; without a momentum they are its mean."""
    if module.momentum is not None:
        return module.momentum
    number = module.num_batches_tracked
    return 1.0 / float(number) if module.training and number is not None else 0.0


@attrs.frozen
class Affine(Operation):
    """``scale * x + shift`` with two fixed numbers, such as tanh mapped to [0, 1]."""

    scale: float = attrs.field(default=1.0, validator=finite)
    shift: float = attrs.field(default=0.0, validator=finite)
    registered = "affine"
    channelwise = True
    pure = True

    def forward(self, x: Tensor) -> Tensor:
        """The mapped input."""
        return torch.add(x * self.scale, self.shift) if self.shift else x * self.scale


@attrs.frozen
class Zero(Operation):
    """Zeros in the shape of a (strided) input: the ``none`` of cell spaces."""

    stride: int = attrs.field(default=1, validator=at_least(1))
    registered = "zero"
    channelwise = True
    pure = True
    always_zero = True

    def out_shape(self, x: Shape) -> Shape:
        """``(C, H / stride, W / stride)``, rounded up."""
        return x.with_size(*(-(-n // self.stride) for n in x.size))

    def forward(self, x: Tensor) -> Tensor:
        """Fresh zeros, laid out in memory as `x` is: no gradient reaches `x`."""
        step = (slice(None, None, self.stride),) * (x.dim() - 2)
        return torch.zeros_like(x[(..., *step)])


@attrs.frozen
class Dropout(Operation):
    """Dropout of single values while training."""

    rate: float = attrs.field(default=0.5, validator=_rate)
    registered = "dropout"
    channelwise = True

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A ``torch.nn.Dropout``."""
        return nn.Dropout(self.rate)


@operation("activation")
def activation(function: str, *, name: str | None = None) -> Op:
    """An elementwise function by name.

    Known are relu, leaky_relu (slope 0.2), gelu, silu, hardswish, sigmoid and tanh.

    Raises:
        SpaceError: another function.
    """
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
