"""Depthwise convolutions whose backward pass on the CPU is made of fast kernels.

Backward through a dilated depthwise convolution takes torch ten times the forward pass and
more, on the CPU. Both gradients can be had from kernels that are fast, exactly:

- the gradient of the input is a depthwise convolution of the result's gradient with the
  kernel turned by half a circle;
- a stride is zeros between the values of the result's gradient;
- a dilation d is d x d convolutions without, one for every phase of the positions.

Legend: N batch, C channels, H W height and width, K kernel, D dilation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trinas._core.signature import signed
from trinas.ops.opaque import conv2d


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, dilation: int
) -> Tensor:
    """A depthwise convolution, padded to keep the size at stride 1 (K odd).

    Args:
        x: (N, C, H, W).
        weight: (C, 1, K, K).
        bias: (C,), or None.
        stride: of both axes.
        dilation: of both axes.

    Returns:
        Tensor of shape (N, C, ceil(H / stride), ceil(W / stride)) for odd K.
    """
    kernel = weight.shape[-1]
    if not _helps(x, weight, kernel, dilation):
        padding = dilation * (kernel - 1) // 2
        return conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])
    y = _Depthwise.apply(x, weight, stride, dilation)
    return y if bias is None else y + bias[:, None, None]


def _helps(x: Tensor, weight: Tensor, kernel: int, dilation: int) -> bool:
    return (
        dilation > 1
        and kernel % 2 == 1
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class DepthwiseConv2d(nn.Conv2d):
    """A `torch.nn.Conv2d` with as many groups as channels, that runs as `depthwise_conv2d`."""

    def forward(self, input: Tensor) -> Tensor:  # as the base class calls it
        """Convolve every channel by itself."""
        return depthwise_conv2d(input, self.weight, self.bias, self.stride[0], self.dilation[0])


class _Depthwise(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    @signed
    def forward(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        padding = dilation * (weight.shape[-1] - 1) // 2
        return torch.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.stride, ctx.dilation = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # differentiated again: torch knows how
            both = _by_torch(grads[0], x, weight, ctx.stride, ctx.dilation, of_x=True)
            return *both, None, None
        grad = _spread(grads[0], x, ctx.stride)
        for_x = _turned(grad, weight, ctx.dilation) if ctx.needs_input_grad[0] else None
        for_weight = None
        if ctx.needs_input_grad[1]:
            phased = _phases(grad, ctx.dilation), _phases(x, ctx.dilation)
            for_weight = _of_weight(*phased, weight)
        return for_x, for_weight, None, None


def _by_torch(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, *, of_x: bool
) -> tuple[Tensor | None, Tensor]:
    """The gradient of the input, where it is asked for, and that of the weight."""
    padding = dilation * (weight.shape[-1] - 1) // 2
    for_x, for_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        [stride] * 2,
        [padding] * 2,
        [dilation] * 2,
        False,
        [0, 0],
        x.shape[1],
        [of_x, True, False],
    )
    return for_x, for_weight


def _spread(grad: Tensor, x: Tensor, stride: int) -> Tensor:
    """The gradient of a strided result as one without stride: the skipped values had none."""
    if stride == 1:
        return grad
    full = torch.zeros_like(x)
    full[:, :, ::stride, ::stride] = grad
    return full


def _turned(grad: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] - 1) // 2
    return torch.conv2d(grad, weight.flip(2, 3), None, 1, padding, dilation, grad.shape[1])


def _phases(x: Tensor, dilation: int) -> Tensor:
    """(N, C, H, W) as (N D D, C, H/D, W/D): positions equal modulo D become an image."""
    if dilation == 1:
        return x
    n, c, h, w = x.shape
    if h % dilation or w % dilation:
        x = F.pad(x, (0, -w % dilation, 0, -h % dilation))
    h, w = x.shape[2] // dilation, x.shape[3] // dilation
    x = x.permute(0, 2, 3, 1).reshape(n, h, dilation, w, dilation, c)
    x = x.permute(0, 2, 4, 1, 3, 5).reshape(n * dilation**2, h, w, c)
    return x.permute(0, 3, 1, 2)  # channels last


def _of_weight(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a weight at stride 1 and dilation 1."""
    return _by_torch(grad, x, weight, 1, 1, of_x=False)[1]
