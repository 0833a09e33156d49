"""The weighted sum behind every choice, with a backward pass of few kernels.

Legend: K inputs, N batch, C channels, H W height and width.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def weighted_sum(weights: Sequence[Tensor], xs: Sequence[Tensor]) -> Tensor:
    """``sum_k weights[k] * xs[k]``.

    Written with torch's operators, backward would write the K products of the gradient
    and the inputs to memory only to add each up to one number; here they are inner
    products, which read and do not write.

    Args:
        weights: K tensors of no dimensions.
        xs: K tensors of one shape.
    """
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in xs))
    weights = [w.to(dtype) for w in weights]
    xs = [x.to(dtype) for x in xs]
    if torch.is_grad_enabled() and any(w.requires_grad for w in weights):
        return _WeightedSum.apply(len(xs), *weights, *xs)
    return _plain(weights, xs)


def unit_product(weight: Tensor, x: Tensor) -> Tensor:
    """``weight * x`` for a weight that is 1: `x` as it is, with both gradients of a product."""
    return _UnitProduct.apply(weight, x)


class _UnitProduct(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = _dense(grads[0])
        weight, x = ctx.saved_tensors
        for_weight = _inner(grad, x).to(weight.dtype) if ctx.needs_input_grad[0] else None
        for_x = None
        if ctx.needs_input_grad[1]:
            # As a product only where the weight is differentiated once more.
            for_x = grad * weight.to(grad.dtype) if torch.is_grad_enabled() else grad
        return for_weight, for_x


def _plain(weights: Sequence[Tensor], xs: Sequence[Tensor]) -> Tensor:
    total = xs[0] * weights[0]
    for weight, x in zip(weights[1:], xs[1:]):
        total = torch.addcmul(total, x, weight)
    return total


class _WeightedSum(torch.autograd.Function):
    """The sum, and its gradients; they are differentiable again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> Tensor:
        return _plain(tensors[:count], tensors[count:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.count = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = _dense(grads[0])
        saved = ctx.saved_tensors  # once: a checkpoint computes them when asked
        weights, xs = saved[: ctx.count], saved[ctx.count :]
        needed = ctx.needs_input_grad[1:]
        for_weights = [
            _inner(grad, x) if need else None for x, need in zip(xs, needed[: ctx.count])
        ]
        for_xs = [grad * w if need else None for w, need in zip(weights, needed[ctx.count :])]
        return None, *for_weights, *for_xs


def concatenated(xs: Sequence[Tensor]) -> Tensor:
    """``torch.cat(xs, dim=1)``, whose gradients are tensors of their own.

    Torch's are views into the gradient of the result. Channels last, a piece of the channels
    lies scattered, and every reader would gather it for itself.
    """
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in xs):
        return torch.cat(list(xs), dim=1)
    return _Concatenation.apply(*xs)


class _Concatenation(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*xs: Tensor) -> Tensor:
        return torch.cat(xs, dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.channels = [x.shape[1] for x in inputs]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parts = grads[0].split(ctx.channels, dim=1)
        return tuple(_dense(g) if need else None for g, need in zip(parts, ctx.needs_input_grad))


def _dense(x: Tensor) -> Tensor:
    """The same numbers without gaps in memory, channels last where they were so."""
    last = x.dim() == 4 and x.stride(1) == 1 and not x.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of two tensors of one shape, as a tensor of no dimensions."""
    if torch.is_grad_enabled() or a.dtype not in (torch.float32, torch.float64):
        # Differentiable again; and in low precision, added up in float32.
        return (a * b).sum()
    if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        # What lies in memory as N H W C is flat, without a copy, in that order.
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))
