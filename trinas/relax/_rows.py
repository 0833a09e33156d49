"""Rows in, rows out: what every relaxation does to its input before and after the mathematics.

Shapes: `z` is `[..., K]` once its choice dimension is last; K is the number of entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from trinas._core.errors import RelaxationError

# Sums of a few weights are not safe in these; everything is computed in float32 instead.
_NARROW = (torch.float16, torch.bfloat16)

P = ParamSpec("P")
R = TypeVar("R")
# Results that `kept` keeps of one function.
_MOST = 64


def to_rows(z: Tensor, dim: int) -> Tensor:
    """Return `z` with dimension `dim` moved last, in a dtype fit for computing.

    Raises:
        RelaxationError: `z` is not floating point, has no dimension `dim`, or no entry in it.
    """
    if not z.is_floating_point():
        raise RelaxationError(
            "logits are floating point numbers", got=str(z.dtype), fix="Convert with .float()."
        )
    if not -z.dim() <= dim < z.dim():
        raise RelaxationError(
            "dim must be a dimension of the logits",
            got=dim,
            fix=f"The logits have shape {tuple(z.shape)}.",
        )
    if z.shape[dim] == 0:
        raise RelaxationError(
            "a choice has at least one entry", got=f"shape {tuple(z.shape)}", at=f"dim {dim}"
        )
    rows = z if dim in (-1, z.dim() - 1) else z.movedim(dim, -1)
    return rows.float() if z.dtype in _NARROW else rows


def from_rows(q: Tensor, like: Tensor, dim: int) -> Tensor:
    """Undo `to_rows`: put the last dimension of `q` back at `dim`, in the dtype of `like`."""
    q = q if q.dtype == like.dtype else q.to(like.dtype)
    return q if dim in (-1, like.dim() - 1) else q.movedim(-1, dim)


def compiling() -> bool:
    """Whether this runs to be traced: by torch.compile or torch.export."""
    return torch.compiler.is_compiling()


def in_eager_mode() -> bool:
    """Whether this runs neither to be traced nor under a transform of torch.func."""
    # There is no public way to ask for transforms.
    return not (compiling() or torch._C._are_functorch_transforms_active())


def keeps(like: Tensor) -> bool:
    """Whether constants for work on `like` may be kept, and kept ones used.

    Not while compiling, and not beside tensors that only stand for others.
    """
    return type(like) in (Tensor, torch.nn.Parameter) and not compiling()


def kept(make: Callable[P, R]) -> Callable[P, R]:
    """Return `make`, keeping its results, which hold tensors, by its (positional) arguments.

    Those made under a transform are not kept, because they do not outlive it.
    """
    results: dict[Any, R] = {}

    def call(*key: P.args, **none: P.kwargs) -> R:
        found = results.get(key)
        if found is None:
            with torch.inference_mode(mode=False):  # or autograd would refuse them elsewhere
                found = make(*key, **none)
            if in_eager_mode():
                if len(results) >= _MOST:
                    results.clear()
                results[key] = found
        return found

    return call


def as_tensor(number: float, like: Tensor) -> Tensor:
    """Return a number as a tensor `[]` that can be computed with beside `like`.

    By arithmetic: torch.compile takes a number that changes for a constant anywhere else, and
    would compile anew for every value.
    """
    dtype = torch.float32 if like.dtype in _NARROW else like.dtype
    return torch.zeros((), dtype=dtype, device=like.device) + number


def read(number: Tensor) -> float | None:
    """Return the value of a one-element tensor, or None where reading it is not to be done.

    It is not done on an accelerator (the host would wait for the device), while a graph is
    being compiled, and inside `torch.func.vmap`, which has no single value to give.
    """
    if number.device.type != "cpu" or compiling():
        return None
    try:
        return number.item()
    except RuntimeError:  # vmap and fake tensors refuse; an ordinary CPU tensor cannot
        return None


def known(number: float | Tensor) -> float | None:
    """Return a number, or the value of a tensor `[]` where that may be read, else None."""
    return read(number) if isinstance(number, Tensor) else number


def require_defined(z: Tensor, probe: Tensor) -> None:
    """Raise for the first row of logits that defines no weights, where that may be read.

    Args:
        z: logits `[..., K]`.
        probe: `[..., n]` with n >= 1, its first NaN or infinite in exactly the undefined rows.

    Raises:
        RelaxationError: see `reject_rows`.
    """
    total = read(probe.detach()[..., :1].sum())
    if total is not None and not math.isfinite(total):
        reject_rows(z)


def reject_rows(z: Tensor) -> None:
    """Raise for the first row of `z` that holds NaN or +inf, or nothing above -inf.

    Raises:
        RelaxationError: there is such a row; the message has its index and the value.
    """
    top = z.detach().amax(-1)
    for place in torch.nonzero(~torch.isfinite(top)).tolist()[:1]:
        value = top[tuple(place)].item()
        at = f"row {tuple(place)}" if place else "the only row"
        if value == -math.inf:
            raise RelaxationError(
                "a choice needs at least one logit above -inf",
                got="-inf throughout",
                at=at,
                fix="A logit of -inf rules an entry out; leave one in.",
            )
        raise RelaxationError(
            "logits must be numbers below +inf",
            got=value,
            at=at,
            fix="Look for a loss or a learning rate that diverged; -inf rules an entry out.",
        )
