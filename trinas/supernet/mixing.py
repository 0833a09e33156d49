"""The weighted sum behind every choice, with a backward pass of few kernels.

Legend: K inputs, N batch, C channels, H W height and width.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trinas._core.signature import signed


def weighted_sum(weights: Sequence[Tensor], xs: Sequence[Tensor]) -> Tensor:
    """``sum_k weights[k] * xs[k]``.

    Written with torch's operators, backward would write the K products of the gradient
    and the inputs to memory only to add each up to one number; here they are inner
    products, which read and do not write.

    Args:
        weights: K tensors of no dimensions.
        xs: K tensors of one shape.
    """
    xs = _of_one_dtype(xs)
    weights = [w.to(xs[0].dtype) for w in weights]
    if torch.is_grad_enabled() and any(w.requires_grad for w in weights):
        return _WeightedSum.apply(len(xs), *weights, *xs)
    return _plain(weights, xs)


def joint_sum(
    xs: Sequence[Tensor],
    factors: Sequence[float],
    weights: Sequence[Tensor | None],
    values: Sequence[float],
) -> Tensor:
    """``sum_k factors[k] * weights[k] * xs[k]``, in which a weight of 1 costs nothing.

    Args:
        xs: K tensors of one shape.
        factors: K numbers.
        weights: K tensors of no dimensions, or None for a weight that takes no gradient.
        values: what the weights are, as numbers on the host.

    Returns:
        Tensor of that shape, in the widest dtype of `xs`.
    """
    xs = _of_one_dtype(xs)
    weighted = [k for k, weight in enumerate(weights) if weight is not None]
    tensors = [w.to(xs[0].dtype) for w in weights if w is not None]
    if torch.is_grad_enabled() and any(w.requires_grad for w in tensors):
        given = tuple(factors), tuple(values), tuple(weighted)
        return _JointSum.apply(*given, *tensors, *xs)
    return scaled_sum(xs, [f * v for f, v in zip(factors, values)])


def _of_one_dtype(xs: Sequence[Tensor]) -> list[Tensor]:
    """All in the widest dtype among them."""
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in xs))
    return [x.to(dtype) for x in xs]


def scaled_sum(xs: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """``sum_k scales[k] * xs[k]``, with one rounding for supernets and plain networks."""
    total = xs[0] if scales[0] == 1.0 else xs[0] * scales[0]
    for x, scale in zip(xs[1:], scales[1:]):
        total = torch.add(total, x, alpha=scale)
    return total


class _JointSum(torch.autograd.Function):
    """The sum, and its gradients; they are differentiable again."""

    generate_vmap_rule = True

    @staticmethod
    @signed
    def forward(
        factors: tuple[float, ...],
        values: tuple[float, ...],
        weighted: tuple[int, ...],
        *tensors: Tensor,
    ) -> Tensor:
        xs = tensors[len(weighted) :]
        total = scaled_sum(xs, [f * v for f, v in zip(factors, values)])
        return total.view_as(total) if total is xs[0] else total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.factors, ctx.values, ctx.weighted = inputs[:3]
        many = len(ctx.weighted)
        xs = inputs[3 + many :]
        # What is not weighted backward does not read.
        ctx.save_for_backward(*inputs[3 : 3 + many], *(xs[k] for k in ctx.weighted))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = _dense(grads[0])
        saved = ctx.saved_tensors  # once: a checkpoint computes them when asked
        weights, xs = saved[: len(ctx.weighted)], saved[len(ctx.weighted) :]
        needed = ctx.needs_input_grad[3:]
        of_weights, of_xs = needed[: len(weights)], needed[len(weights) :]
        for_weights = [
            _times(_inner(grad, x), ctx.factors[k]) if need else None
            for k, x, need in zip(ctx.weighted, xs, of_weights)
        ]
        by_place = dict(zip(ctx.weighted, weights))
        for_xs: list[Tensor | None] = []
        for k, need in enumerate(of_xs):
            if not need:
                for_xs.append(None)
            elif torch.is_grad_enabled() and k in by_place:
                # As a product only where the weight is differentiated once more.
                for_xs.append(_times(grad * by_place[k], ctx.factors[k]))
            else:
                for_xs.append(_times(grad, ctx.factors[k] * ctx.values[k]))
        return None, None, None, *for_weights, *for_xs


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else x * factor


def apart(weights: Tensor) -> tuple[Tensor, ...]:
    """The numbers of a vector one by one; backward joins the gradients of those that have one.

    Torch's own would first make a zero of each of the others.
    """
    if torch.is_grad_enabled() and weights.requires_grad:
        return _Apart.apply(weights)
    return weights.unbind(0)


class _Apart(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    @signed
    def forward(weights: Tensor) -> tuple[Tensor, ...]:
        return weights.unbind(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.zero = inputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Tensor:
        return torch.stack([ctx.zero if grad is None else grad for grad in grads])


def _plain(weights: Sequence[Tensor], xs: Sequence[Tensor]) -> Tensor:
    total = xs[0] * weights[0]
    for weight, x in zip(weights[1:], xs[1:]):
        total = torch.addcmul(total, x, weight)
    return total


class _WeightedSum(torch.autograd.Function):
    """The sum, and its gradients; they are differentiable again."""

    generate_vmap_rule = True

    @staticmethod
    @signed
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
    @signed
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
