"""Sparsemax and sparsestmax on rows, with closed-form first derivatives that differentiate again.

Shapes: `z`, `q`, `p` are `[..., K]`, what is sorted and summed of z too; `n`, `t` are `[..., 1]`.

With `d_j` the distance of the j-th largest entry below the largest, write for the first j entries
`m_j` for their mean distance and `V_j` for the sum of squares around it. On j entries the squared
distance of `sparsemax(t z)` from the centre is `D_j(t) = t^2 V_j + 1/j - 1/K`. Entry j leaves at
`t = 1 / (j (d_j - m_j))`, where `D_j` and `D_{j-1}` cross; so the distance is `min_j D_j(t)`, and
it meets the radius at the largest `t_j = sqrt((r^2 - 1/j + 1/K) / V_j)`. Likewise the level that
weights reach down to is the least of `1/j + t m_j`. No support has to be looked for.
Close entries lose no digits: distances are sums of terms of one sign, and so is
`V_j = V_{j-1} + (d_j - m_j)^2 j / (j - 1)`, Welford's update.

Plain autograd gets a `Function` with a backward pass written out, for speed. Under torch.func and
torch.compile the result is composed of what they differentiate by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from trinas.relax._rows import in_eager_mode, keeps, kept, read, require_defined
from trinas.relax._sorting import depths, running_sums, sort_rows


def _out(like: Tensor, x: Tensor) -> Tensor | None:
    """Return where to write what comes of `x` and shall have the layout of `like`.

    None where it will have that layout anyway, and, whatever the layout, where derivatives are
    recorded or a transform is at work.
    """
    if torch.is_grad_enabled() or not in_eager_mode() or x.stride() == like.stride():
        return None
    return torch.empty_like(like)


class Tables(NamedTuple):
    """Numbers that depend on the place j = 1..K alone, `[K]`.

    Args:
        steps: j.
        inverse: 1/j.
        pairs: j/(j - 1), 0 for the first.
        ones: 1.
        tiny: the smallest normal number.
    """

    steps: Tensor
    inverse: Tensor
    pairs: Tensor
    ones: Tensor
    tiny: Tensor


def _tables(z: Tensor) -> Tables:
    """Return the tables for such rows."""
    make = _kept_tables if keeps(z) else _new_tables
    return make(z.shape[-1], z.dtype, z.device)


def _new_tables(k: int, dtype: torch.dtype, device: torch.device) -> Tables:
    steps = torch.arange(1, k + 1, dtype=dtype, device=device)
    pairs = torch.where(steps > 1, steps / (steps - 1), 0.0)
    ones = torch.ones_like(steps)
    return Tables(steps, steps.reciprocal(), pairs, ones, ones * torch.finfo(dtype).tiny)


_kept_tables = kept(_new_tables)


def sparsemax_rows(z: Tensor) -> Tensor:
    """Project each row to the simplex.

    The Jacobian is `I - 11'/k` on the support, 0 elsewhere.
    """
    if in_eager_mode():
        return Sparsemax.apply(z)
    q = _sparsemax(z.detach()).clamp_min_(0.0)
    moved = _centred(z, q > 0)
    return q + (moved - moved.detach())


def _centred(z: Tensor, on: Tensor) -> Tensor:
    """Return z minus its mean over the entries that are `on`, 0 elsewhere."""
    z = z - z.detach().amax(-1, keepdim=True)  # saves the digits of entries far from 0
    mean = torch.where(on, z, 0.0).sum(-1, keepdim=True) / on.sum(-1, keepdim=True)
    return torch.where(on, z - mean, 0.0)


def _sparsemax(z: Tensor) -> Tensor:
    """Return the weights before what is negative is cut off, in a layout of its own."""
    depth = depths(z)
    inverse = _tables(z).inverse
    sums = running_sums(sort_rows(depth))
    reach = torch.addcmul(inverse, sums, inverse).amin(-1, keepdim=True)
    require_defined(z, reach)
    return reach - depth


class Sparsemax(Function):
    """`sparsemax_rows` in plain autograd."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        """Return the weights, and keep the support: all that the derivative depends on."""
        columns = _sparsemax(z)
        out = _out(z, columns)
        q = torch.clamp_min(columns, 0.0, out=out)
        on = torch.sign(q if out is None else columns.clamp_min_(0.0))
        ctx.save_for_backward(on)
        ctx.save_for_forward(on)
        return q

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Apply the (symmetric) Jacobian to the incoming gradient."""
        (on,) = ctx.saved_tensors
        g = on * grads[0]
        mean = g.sum(-1, keepdim=True) / on.sum(-1, keepdim=True)
        return torch.addcmul(g, on, mean, value=-1, out=_out(grads[0], g))

    jvp = backward


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


def sparsestmax_rows(z: Tensor, radius: float | Tensor, rule: Rule) -> Tensor:
    """Project each row to the part of the simplex that is at least a radius away from its centre.

    The weights are sparsemax's of `t z`, t >= 1, and the Jacobian is `t (I - 11'/k - kappa p p')`
    on the support, with `p = q - 1/k` and `kappa = 1 / ||p||^2` on the sphere, 0 off it.
    """
    if in_eager_mode():
        return Sparsestmax.apply(z, radius, rule)[0]
    q, t, _ = _sparsestmax(z.detach(), radius, rule)
    return composed(q, t, _centred(z, q > 0), rule)


def composed(q: Tensor, t: Tensor, centred: Tensor, rule: Rule) -> Tensor:
    """Return the weights with derivatives that torch finds by itself.

    Args:
        q: the weights, without derivatives.
        t: as the Jacobian has it.
        centred: the logits of the entries that move, minus their mean; 0 elsewhere.
        rule: of the sparsestmax.
    """
    square = centred.square().sum(-1, keepdim=True)
    moving = (t > 1) & (square > 0)
    norm = torch.where(moving, square, 1.0).sqrt()
    # On the sphere t is inverse to the norm.
    moved = torch.where(moving, (t * norm).detach() / norm, t) * centred
    if rule.min_spread > 0:
        share = (norm.detach() / rule.min_spread).clamp_max(1.0)
        moved = torch.where(moving, share, 1.0) * moved
    return q + (moved - moved.detach())


# Logits closer to the top than this power of the smallest normal number are tied with it (1e-12 in
# float32): then squared distances, and their quotients, neither underflow nor overflow.
CLOSE = 0.316


def _sparsestmax(z: Tensor, radius: float | Tensor, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights, t as the Jacobian has it, and the weights as they were computed."""
    # Small batches pay for every call here (one more for most numbers, of which torch makes
    # tensors), large ones for every new tensor of their size.
    close = torch.finfo(z.dtype).tiny ** CLOSE
    depth = torch.threshold_(depths(z), close, 0.0)
    tables = _tables(z)
    e = sort_rows(depth)
    means = running_sums(e).mul_(tables.inverse)
    e = e.sub_(means)
    v = running_sums(e.mul_(e).mul_(tables.pairs))
    same = _rate_of_all(radius, rule, v, close)
    t, rate = (same, same) if same is not None else _rate_of_each(radius, rule, v, means, z)
    level = torch.addcmul(tables.inverse, means, t).amin(-1, keepdim=True)
    columns = torch.addcmul(level, depth, t, value=-1)
    out = _out(z, columns)
    q = torch.clamp_min(columns, 0.0, out=out)
    return q, rate, q if out is None else columns.clamp_min_(0.0)


def _rate_of_all(radius: float | Tensor, rule: Rule, v: Tensor, close: float) -> Tensor | None:
    """Return t, or None if any row has to be looked at more closely, or t may not be read.

    That is a row with entries at -inf or no weights (V is NaN), or with a tie to be broken (V = 0).
    """
    if v.device.type != "cpu" or not in_eager_mode():
        return None
    k = v.shape[-1]
    squared = radius * radius * (1 - 1 / k) if rule.share else radius * radius
    make = _kept_gains if keeps(v) else _new_gains
    gains = make(k, rule.slack, v.dtype, v.device)
    if isinstance(squared, Tensor):
        out = None if v.is_contiguous() else torch.empty_like(v)
        left = torch.add(squared, gains, out=out).div_(v)
    else:
        left = torch.add(gains, _tables(v).ones, alpha=squared) / v
    t = left.amax(-1, keepdim=True).clamp_min_(1.0).sqrt_()
    total = read(t.sum())
    return t if total is not None and total < 1 / close else None


def _rate_of_each(
    radius: float | Tensor, rule: Rule, v: Tensor, means: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    """Return t, and t as the Jacobian has it: 0 for a tie that is not broken, which does not move.

    Raises:
        RelaxationError: on the CPU, for a row that defines no weights.
    """
    require_defined(z, means)
    free = means < math.inf  # from the first entry at -inf on, V is NaN
    n = free.sum(-1, keepdim=True).to(v.dtype)
    squared = radius * radius * (1 - 1 / n) if rule.share else radius * radius
    left = _gains(n, rule.slack, _tables(v).steps) + squared
    # Where any spread will do, V = 0 will; else it takes a t beyond that of all that is no tie.
    left = torch.where(left > 0, left, -1.0) / v
    beyond = 4 / torch.finfo(v.dtype).tiny ** CLOSE
    t2 = torch.where(free, left, 0.0).amax(-1, keepdim=True)
    t = t2.clamp(1.0, beyond**2).sqrt_()
    return t, torch.where(t2 < math.inf, t, 0.0)


def _gains(n: float | Tensor, slack: float, steps: Tensor) -> Tensor:
    """Return `1/n - 1/j`: what j entries lack at the centre of their face, squared.

    Exactly 0 at j = n, so that a radius of 0 is sparsemax. At j = 1 the circumradius suffices but
    for its error: then no face but a vertex (or a tie) is left, which rounding would not guarantee.
    """
    gains = (steps - n) / (steps * n)
    return torch.where(steps > 1, gains, gains * (1 - 2 * slack))


def _new_gains(k: int, slack: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _gains(float(k), slack, _new_tables(k, dtype, device).steps)


_kept_gains = kept(_new_gains)


class Face(NamedTuple):
    """The face of the simplex that the weights are on.

    Args:
        on: 1 on the support, 0 off it.
        size: of the support.
        p: the way from the centre of the face to the weights.
        square: `||p||^2`, a constant on the sphere.
    """

    on: Tensor
    size: Tensor
    p: Tensor
    square: Tensor


def _face(q: Tensor) -> Face:
    on = q.sign()
    size = on.sum(-1, keepdim=True)
    p = torch.addcdiv(q, on, size, value=-1)
    # From p as it came out, so that rounding cannot make more than a projection of it.
    return Face(on, size, p, torch.addcmul(_tables(p).tiny, p, p).sum(-1, keepdim=True))


def _rates(t: Tensor, face: Face, min_spread: float) -> tuple[Tensor, Tensor]:
    """Return t, at most `||p|| / min_spread` on the sphere, and `kappa t`."""
    if min_spread == 0:
        return t, torch.threshold(t, 1.0, 0.0) / face.square
    kappa = torch.threshold(t.detach(), 1.0, 0.0).sign_() / face.square
    t = torch.minimum(t, (kappa.sqrt() * min_spread).reciprocal_())
    return t, t * kappa


def pushed(g: Tensor, face: Face, t: Tensor, min_spread: float) -> Tensor:
    """Return `t (I - 11'/k - kappa p p') g` on the support."""
    t, pull = _rates(t, face, min_spread)
    own = face.on * g
    mean = own.sum(-1, keepdim=True) / face.size
    along = (face.p * own).sum(-1, keepdim=True)
    level = torch.addcmul(own, face.on, mean, value=-1).mul_(t)
    return torch.addcmul(level, face.p, along * pull, value=-1, out=_out(g, level))


def turned(face: Face, t: Tensor) -> Tensor:
    """Return the derivative of t, `-kappa t^2 p`."""
    return _rates(t, face, 0.0)[1] * t * -face.p


def pulled(
    grads: Sequence[Tensor | None], face: Face, t: Tensor, min_spread: float
) -> Tensor | None:
    """Apply the transposed Jacobian of (q, t) to gradients by q and by t; None where both are."""
    by_q, by_t = grads
    total = None if by_q is None else pushed(by_q, face, t, min_spread)
    if by_t is None:
        return total
    extra = turned(face, t) * by_t
    return extra if total is None else total + extra


class Sparsestmax(Function):
    """`sparsestmax_rows` in plain autograd.

    The second output is t, to make the backward pass a differentiable function of (grad, q, t).
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, radius: float | Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
        """Return the weights `[..., K]` and t `[..., 1]`."""
        q, t, columns = _sparsestmax(z, radius, rule)
        ctx.rule = rule
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, t, columns)
        ctx.save_for_forward(q, t)
        return q, t

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        """Apply the transposed Jacobian of (q, t) to the incoming gradients."""
        q, t, columns = ctx.saved_tensors
        face = _recorded_face(q) if torch.is_grad_enabled() else _face(columns)
        return pulled(grads, face, t, ctx.rule.min_spread), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        """Apply the Jacobian of (q, t) to a tangent of z."""
        q, t = ctx.saved_tensors[:2]
        face = _recorded_face(q)
        moved = pushed(tangents[0], face, t, ctx.rule.min_spread)
        return moved, (turned(face, t) * tangents[0]).sum(-1, keepdim=True)


def _recorded_face(q: Tensor) -> Face:
    """Return the face with the derivative of p, which is all that moves."""
    face = _face(q.detach())
    return face._replace(p=torch.addcdiv(q, face.on, face.size, value=-1))
