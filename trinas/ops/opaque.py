"""A convolution that compilers call and do not look into.

Inductor fixes the channels of every convolution that it sees, though it leaves the work to
the same kernels as without compiling; a searched width would compile anew at every value. As
an operator of its own a convolution keeps its channels open, and what is around it (sums,
activations, normalisation, gates) is compiled once for all widths.

Legend: N batch, C channels, H W height and width, K kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, as an operator of its own where it is compiled.

    Args:
        x: (N, C_in, H, W).
        weight: (C_out, C_in / groups, K, K).
        bias: (C_out,), or None.
        stride: of both axes.
        padding: of both axes.
        dilation: of both axes.
        groups: as many parts do not see each other.

    Returns:
        Tensor of shape (N, C_out, H', W').
    """
    # Where a network is exported its operators must be everybody's.
    if not torch.compiler.is_dynamo_compiling() or torch.compiler.is_exporting():
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = (t if t.dtype == torch.float64 else t.to(dtype) for t in (x, weight))
        bias = bias if bias is None or bias.dtype == torch.float64 else bias.to(dtype)
    return _conv2d(x, weight, bias, [stride] * 2, [padding] * 2, [dilation] * 2, groups)


@torch.library.custom_op(
    "trinas::conv2d",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding,"
    " int[] dilation, int groups) -> Tensor",
)
def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    y = torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    # In the layout that was announced.
    return y.contiguous(memory_format=_layout(x))


@_conv2d.register_fake
def _announced(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    height, width = (
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i]
        + 1
        for i in range(2)
    )
    y = x.new_empty(x.shape[0], weight.shape[0], height, width)
    return y.contiguous(memory_format=_layout(x))


def _layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


@torch.library.custom_op(
    "trinas::conv2d_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor weight, int[] stride, int[] padding,"
    " int[] dilation, int groups, bool[] needed) -> (Tensor, Tensor, Tensor)",
)
def _conv2d_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    needed: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    channels = [weight.shape[0]]
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, channels, stride, padding, dilation, False, [0, 0], groups, list(needed)
    )
    for_x, for_weight, for_bias = (x.new_empty(0) if g is None else g for g in found)
    return (
        for_x.contiguous(memory_format=_layout(x)) if needed[0] else for_x,
        for_weight.contiguous(),
        for_bias.contiguous(),
    )


@_conv2d_backward.register_fake
def _backward_announced(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    needed: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    nothing = x.new_empty(0)
    for_x = x.new_empty(x.shape).contiguous(memory_format=_layout(x))
    return (
        for_x if needed[0] else nothing,
        x.new_empty(weight.shape) if needed[1] else nothing.clone(),
        x.new_empty(weight.shape[0]) if needed[2] else nothing.clone(),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, *ctx.settings = inputs
    ctx.biased = bias is not None
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    needed = [*ctx.needs_input_grad[:2], ctx.biased and ctx.needs_input_grad[2]]
    found = _conv2d_backward(grad, x, weight, *ctx.settings, needed)
    return *(g if need else None for g, need in zip(found, needed)), *[None] * 4


_conv2d.register_autograd(_gradients, setup_context=_keep)
