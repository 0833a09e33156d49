"""Sparsemax and sparsestmax on rows, with closed-form first derivatives that differentiate again.

Shapes: `z`, `q` are `[..., K]`, sorted copies of z too; `k`, `t`, `c2` are `[..., 1]`.

With z sorted in descending order, write for its first k entries `m_k` for the mean,
`e_k = k (m_k - z_k)` and `V_k = sum (z_i - m_k)^2`. Entry k leaves `sparsemax(t z)` at
`t = 1 / e_k`, where the squared distance from the centre is `V_k / e_k^2 + 1/k - 1/K`.
Both sequences come from sums of terms of one sign, so close entries lose no digits:
`z_1 = 0` (the maximum is subtracted) makes e_k at least as large as anything summed for it, and
`V_k = V_{k-1} + e_k^2 / (k (k - 1))` is Welford's update.
"""

from __future__ import annotations

import inspect
import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from trinas.relax._rows import read, require_defined
from trinas.relax._sorting import sort_rows


def _batched(x: Tensor, in_dim: int | None, size: int) -> Tensor:
    """Put the dimension that vmap runs over first, so that it is one more batch dimension."""
    return x.expand(size, *x.shape) if in_dim is None else x.movedim(in_dim, 0)


def _with_signature(forward: Any) -> Any:
    """Store a function's signature, which torch otherwise works out anew at every call."""
    forward.__signature__ = inspect.signature(forward)
    return forward


class Sparsemax(Function):
    """Euclidean projection of each row to the simplex.

    The Jacobian is `I - 11'/k` on the support, 0 elsewhere.
    """

    @staticmethod
    @_with_signature
    def forward(z: Tensor) -> Tensor:
        """Return the weights `[..., K]`."""
        depth = z.amax(-1, keepdim=True) - z
        steps = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
        # As deep as weights reach: the least of (1 + depths of the first k) / k.
        reach = sort_rows(depth).cumsum_(-1).add_(1).div_(steps).amin(-1, keepdim=True)
        q = torch.sub(reach, depth, out=depth).clamp_min_(0)
        require_defined(z, q)
        return q

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep the support, which is all that the derivative depends on."""
        on = output.detach().sign()
        ctx.save_for_backward(on)
        ctx.save_for_forward(on)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Apply the (symmetric) Jacobian to the incoming gradient."""
        (on,) = ctx.saved_tensors
        g = grads[0] * on
        mean = g.sum(-1, keepdim=True) / on.sum(-1, keepdim=True)
        return torch.addcmul(g, on, mean, value=-1)

    jvp = backward

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], *args: Any) -> tuple[Tensor, int]:
        """Treat the mapped dimension as one more batch dimension."""
        return Sparsemax.apply(_batched(args[0], in_dims[0], info.batch_size)), 0


# Logits closer to the top than this power of the smallest normal number are tied with it (1e-12 in
# float32): then squared distances, and their quotients, neither underflow nor overflow.
_CLOSE = 0.316


class Rule(NamedTuple):
    """The settings of a sparsestmax that are not tensors.

    Args:
        share: the radius is a share of each row's circumradius, not absolute.
        slack: the relative error that the radius may come with.
        min_spread: a floor under `||z - m||` in the backward pass.
    """

    share: bool
    slack: float
    min_spread: float


def _squared_radius(radius: float | Tensor, n: float | Tensor, rule: Rule) -> Any:
    """Return r^2, or something above every possible squared distance where r reaches r_c.

    So r_c asks for a distance that no face but a vertex (or a tie) survives, which
    rounding in r^2 alone would not guarantee.
    """
    if isinstance(n, Tensor) and not isinstance(radius, Tensor):
        radius = torch.full_like(n, radius)  # a number would make r^2 of the default dtype
    limit = 1 - 1 / n
    squared = radius * radius * limit if rule.share else radius * radius
    full = squared >= limit * (1 - 2 * rule.slack)
    return squared + 2 * full


def _tables(n: float | Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for j = 1..K: j, 1/j, 1/(j (j - 1)) (1 for the first), and 1/n - 1/j.

    The last one is exactly 0 at j = n, so that r = 0 is sparsemax.
    """
    steps = torch.arange(1, like.shape[-1] + 1, dtype=like.dtype, device=like.device)
    gain = (steps - n) / (steps * n)
    return steps, steps.reciprocal(), (steps * (steps - 1)).clamp_min_(1).reciprocal_(), gain


@lru_cache(maxsize=64)
def _full_tables(k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keep the tables of full rows on the CPU, where small problems are all calls."""
    return _tables(float(k), torch.empty(k, dtype=dtype, device="cpu"))


def _entries(sums: Tensor, z: Tensor) -> float | Tensor:
    """Return how many entries of each row are above -inf: a number where that is known to be all.

    Args:
        sums: of the distances below the largest, in ascending order, `[..., K]`.
        z: the logits, to find the row if there is one that is not defined.
    """
    extent = read(sums.sum())
    if extent is not None and math.isfinite(extent):
        return float(sums.shape[-1])
    require_defined(z, sums - sums[..., :1])
    return (sums < math.inf).sum(-1, keepdim=True).to(sums.dtype)


class Sparsestmax(Function):
    """Sparsemax at the temperature `1/t`, t >= 1, at which the distance from the centre is r.

    The second output is `t` as the Jacobian has it:
    `J = t (I - 11'/k - kappa p p')` on the support, with `p = q - 1/k` and
    `kappa = 1 / ||p||^2` on the sphere, 0 off it. Returning t, whose own derivative is
    `-kappa t^2 p`, makes the backward pass a differentiable function of (grad, q, t).
    The third output is kappa, with a minus sign where t is held by `min_spread` and has
    derivative 0.
    """

    @staticmethod
    @_with_signature
    def forward(z: Tensor, radius: float | Tensor, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights `[..., K]`, then t and kappa `[..., 1]`."""
        # Small batches pay for every call here, large ones for every new tensor of their size.
        tiny = torch.finfo(z.dtype).tiny
        close = tiny**_CLOSE
        depth = torch.threshold_(z.amax(-1, keepdim=True) - z, close, 0.0)
        e = sort_rows(depth)
        sums = e.cumsum(-1)
        n = _entries(sums, z)
        full = isinstance(n, float)
        steps, inverse, pairs, gain = _full_tables(int(n), z.dtype) if full else _tables(n, z)

        e2 = torch.addcmul(sums, e, steps, value=-1, out=e).square_()
        v = (e2 * pairs).cumsum_(-1).clamp_min_(tiny)
        c2 = (gain + _squared_radius(radius, n, rule)).clamp_min_(tiny)
        # t^2 for every size of support. The k-th entry is on while it outlives its own (a tie at
        # the top, e = 0, always); the NaN of an entry at -inf compares as no.
        t2 = (c2 / v).clamp_min_(1)
        last = (e2.mul_(t2) <= 1).sum(-1, keepdim=True).sub_(1)
        if not full:
            last.clamp_min_(0)  # of undefined rows, which are NaN whatever it is

        t2 = t2.gather(-1, last)
        t = t2.sqrt()
        part = inverse.take(last)
        base = torch.addcmul(part, t * part, sums.gather(-1, last))
        q = torch.addcmul(base, depth, t, value=-1, out=depth).clamp_min_(0)

        c2 = c2.take(last) if c2.dim() == 1 else c2.gather(-1, last)
        kappa = (t2 > 1) / c2
        if rule.min_spread > 0:
            floor = c2.sqrt() / rule.min_spread
            kappa = torch.where(t > floor, -kappa, kappa)
            t = torch.where(kappa < 0, floor, t)
        # Pushed along no direction: a tie, which does not move.
        t = t.masked_fill_(t2 > 8 / close**2, 0)
        return q, t, kappa

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the outputs; the derivatives need nothing else."""
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        """Apply the transposed Jacobian of (q, t) to the incoming gradients."""
        q, t, kappa = ctx.saved_tensors
        total: Tensor | None = None
        if grads[0] is not None:
            total = _push(grads[0], q, t, kappa.abs())[0]
        if grads[1] is not None:
            on = q.detach().sign()
            p = q - on / on.sum(-1, keepdim=True)
            extra = -(t * t * kappa.clamp_min(0) * grads[1]) * p
            total = extra if total is None else total + extra
        return total, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor, None]:
        """Apply the Jacobian of (q, t) to a tangent of z."""
        q, t, kappa = ctx.saved_tensors
        moved, along = _push(tangents[0], q, t, kappa.abs())
        return moved, -(t * t * kappa.clamp_min(0)) * along, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Treat the mapped dimension as one more batch dimension."""
        z, radius, rule = args
        z = _batched(z, in_dims[0], info.batch_size)
        if isinstance(radius, Tensor):
            radius = _batched(radius, in_dims[1], info.batch_size)
        return Sparsestmax.apply(z, radius, rule), (0, 0, 0)


def _push(g: Tensor, q: Tensor, t: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
    """Return `t (I - 11'/k - kappa p p') g` on the support, and `p'g`."""
    on = q.detach().sign()
    inverse = on.sum(-1, keepdim=True).reciprocal()
    g = g * on
    total = g.sum(-1, keepdim=True)
    along = torch.addcmul((q * g).sum(-1, keepdim=True), total, inverse, value=-1)
    rate = t * kappa * along
    level = torch.addcmul(rate, t, total, value=-1) * inverse
    return torch.addcmul(torch.addcmul(t * g, on, level), q, rate, value=-1), along
