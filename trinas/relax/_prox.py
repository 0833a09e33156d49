"""Nearly-isotonic regression on forests, exactly and for all rows at once.

Shapes: rows `[..., K]` with the entries in preorder (`Forest`); `N` rows, `n` entries below one.

Problem: `argmin_x ||x - z||^2 + 2 mu sum max(0, x_v - x_p)` over the pairs (parent p, child v)
of a forest. Write `f_v(x)` for half the best value of v's subtree when x_v = x. Its derivative
is `f_v'(x) = x - z_v + sum_c clamp(f_c'(x), -mu, 0)` over the children c, so the optimum is
`x_v = clamp(x_p, lo_v, hi_v)` with `f_v'(lo_v) = -mu`, `f_v'(hi_v) = 0`. As a function of x, each
descendant u is then a clamp of x to an interval [a_u, b_u] (clamps compose to clamps) and
`f_v'(x) = x - z_v + sum_u (clamp(x, a_u, b_u) - b_u)`: one pass from the leaves to
the roots solves two piecewise linear equations per inner entry, both exactly.

This is message passing for total variation on trees (Johnson, 2013; Kolmogorov, Pock and
Rolinek, 2016) for a penalty on one side only. `mu = inf` gives isotonic regression.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trinas.relax._forest import Level, Plan, nearest, net_pushes


def nearly_isotonic(z: Tensor, plan: Plan, mu: float, *, whole: bool) -> Tensor:
    """Solve the problem above; a masked (-inf) entry stays, its children move to its parent.

    Which entries fuse and which pairs pay the full penalty is found without gradients;
    on that structure x is an affine function of z, through which autograd differentiates
    any number of times. Blocks that only touch, as equal logits do, have equal values but a
    gradient of their own.

    Args:
        z: rows.
        plan: of the forest.
        mu: half the strength of the penalty, or inf.
        whole: it is known that nothing is masked.
    """
    free = z > -math.inf
    with torch.no_grad():
        finite = torch.where(free, z.detach(), 0.0)
        heads, over, push = _structure(finite, free, plan, mu, whole)
        together = heads.unsqueeze(-1) == heads.unsqueeze(-2)
        size = together.sum(-1)
    sums = torch.where(together, (z + push).unsqueeze(-2), 0.0).sum(-1)
    means = (sums / size).gather(-1, heads)
    with torch.no_grad():
        weight = (finite.abs() + push.abs()).unsqueeze(-2)
        error = 4 * torch.finfo(z.dtype).eps * torch.where(together, weight, 0.0).sum(-1)
        level = _levels(means.detach(), heads, over, error, plan)
        settled = means.detach().gather(-1, level)
    # The value of the level (bitwise equal throughout), the derivative of the block.
    return torch.where(free, settled + (means - means.detach()), z)


def _levels(means: Tensor, heads: Tensor, over: Tensor, error: Tensor, plan: Plan) -> Tensor:
    """Return for each entry the head of the first of the blocks that its own is level with.

    Neighbouring blocks whose means agree in exact arithmetic differ by rounding in floating
    point. At the top sparsestmax would blow that up to weights of any order, so that "strict"
    could ascend; hence blocks closer than their rounding count as tied.

    Args:
        means: of the block of each entry.
        heads: the first position of the block of each entry.
        over: the head of the block above that of each entry, for a root its own.
        error: how far rounding may have moved the means.
        plan: of the forest.
    """
    above = over.gather(-1, heads)
    gap = (means - means.gather(-1, above)).abs()
    level = torch.where(gap <= error + error.gather(-1, above), above, heads)
    return _to_the_end(level, plan)


def _to_the_end(links: Tensor, plan: Plan) -> Tensor:
    """Follow links up paths to where they end, in steps that double."""
    for _ in range((plan.depth - 1).bit_length()):
        links = links.gather(-1, links)
    return links


def _structure(
    z: Tensor, free: Tensor, plan: Plan, mu: float, whole: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the head of each entry's block, the one above it, and what penalties add to z.

    Heads are positions; the one above is that of the nearest unmasked entry's block, for a root
    the entry itself.
    """
    lo, hi, x = _intervals(z, free, plan, mu)
    near = nearest(free, plan, whole=whole)
    # Above a root is +inf, with which nothing fuses and to which nothing is paid.
    x_p = torch.where(near.found, x.gather(-1, near.place), math.inf)
    places = torch.arange(z.shape[-1], device=z.device)
    fused = free & (lo < x_p) & (x_p < hi)
    heads = _to_the_end(torch.where(fused, near.place, places), plan)
    over = torch.where(near.found, heads.gather(-1, near.place), places)
    if mu == math.inf:
        return heads, over, torch.zeros_like(z)
    return heads, over, -mu * net_pushes((x_p <= lo).to(z.dtype), near)


def _intervals(z: Tensor, free: Tensor, plan: Plan, mu: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return lo, hi and the solution x; at masked entries lo = -inf, hi = +inf, x is arbitrary."""
    # Masked: an interval of length 0 counts for nothing.
    a, b = torch.where(free, z - mu, z), z.clone()
    lo, hi = torch.where(free, z - mu, -math.inf), torch.where(free, z, math.inf)
    for level in plan.levels:
        top, on = z.index_select(-1, level.at), free.index_select(-1, level.at)
        each = (top.shape[-1], -1)
        a_u = a.index_select(-1, level.below).unflatten(-1, each)
        b_u = b.index_select(-1, level.below).unflatten(-1, each)
        # Relative to z_v: exact zeros where nothing below wants to rise above it.
        a_v, b_v = a_u - top.unsqueeze(-1), b_u - top.unsqueeze(-1)
        if level.inside is not None:
            a_v, b_v = torch.where(level.inside, a_v, 0.0), torch.where(level.inside, b_v, 0.0)
        from_lo, from_hi = _solve(a_v, b_v, mu)
        from_lo, from_hi = top + from_lo, top + from_hi
        a = _put(a, level.at, torch.where(on, from_lo, top))
        b = _put(b, level.at, torch.where(on, from_hi, top))
        from_lo = torch.where(on, from_lo, -math.inf)
        from_hi = torch.where(on, from_hi, math.inf)
        lo, hi = _put(lo, level.at, from_lo), _put(hi, level.at, from_hi)
        # x_u as a function of what is above: first clamped for v, then for u.
        a = _put_below(a, level, from_lo.unsqueeze(-1).clamp(a_u, b_u))
        b = _put_below(b, level, from_hi.unsqueeze(-1).clamp(a_u, b_u))
    return lo, hi, b


def _put(x: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Return x with the values `[..., L]` at the positions `[L]`."""
    return x.scatter(-1, at.expand_as(values), values)


def _put_below(x: Tensor, level: Level, values: Tensor) -> Tensor:
    """Return x with the values `[..., L, n]` at the positions below those of a level."""
    values = values.flatten(-2)
    if level.picks is not None:
        values = values.index_select(-1, level.picks)
    return _put(x, level.places, values)


def _solve(a: Tensor, b: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    """Solve `H(x) = x + sum_u (clamp(x, a_u, b_u) - b_u) = y` for y = -mu and y = 0.

    H is increasing and piecewise linear with its corners at the `a` and `b` `[..., n]`; its
    values there tell on which side of every corner the solution lies, hence its piece.
    """
    at_a = _slope_sum(a, a, b)
    at_b = _slope_sum(b, a, b)
    high = _on_piece(a, b, at_a, at_b, 0.0)
    low = torch.full_like(high, -math.inf) if mu == math.inf else _on_piece(a, b, at_a, at_b, -mu)
    return low, high


def _slope_sum(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return H at each of `x` `[..., n]`."""
    a, b = a.unsqueeze(-2), b.unsqueeze(-2)
    return x + (x.unsqueeze(-1).clamp(a, b) - b).sum(-1)


def _on_piece(a: Tensor, b: Tensor, at_a: Tensor, at_b: Tensor, y: float) -> Tensor:
    """Solve H(x) = y `[...]` given H at the corners."""
    past = at_b <= y  # x is at or above b_u: the term is 0
    short = ~past & (at_a >= y)  # x is at or below a_u: the term is a_u - b_u
    inside = ~past & ~short  # the term is x - b_u
    shift = torch.where(inside, b, 0.0) + torch.where(short, b - a, 0.0)
    return (y + shift.sum(-1)) / (1 + inside.sum(-1))
