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
from collections.abc import Sequence

import torch
from torch import Tensor

from trinas.relax._order import Forest


def nearly_isotonic(z: Tensor, forest: Forest, mu: float) -> Tensor:
    """Solve the problem above; a masked (-inf) entry stays, its children move to its parent.

    Which entries fuse and which pairs pay the full penalty is found without gradients;
    on that structure x is an affine function of z, through which autograd differentiates
    any number of times. Blocks that only touch, as equal logits do, have equal values but a
    gradient of their own.
    """
    free = z > -math.inf
    with torch.no_grad():
        finite = torch.where(free, z, 0.0)
        heads, over, push = _structure(finite, free, forest, mu)
        together = heads.unsqueeze(-1) == heads.unsqueeze(-2)
        size = together.sum(-1)
    sums = torch.where(together, (z + push).unsqueeze(-2), 0.0).sum(-1)
    means = (sums / size).gather(-1, heads)
    with torch.no_grad():
        weight = (finite.abs() + push.abs()).unsqueeze(-2)
        error = 4 * torch.finfo(z.dtype).eps * torch.where(together, weight, 0.0).sum(-1)
        level = _levels(means, heads, over, error)
        settled = means.gather(-1, level)
    # The value of the level (bitwise equal throughout), the derivative of the block.
    return torch.where(free, settled + (means - means.detach()), z)


def _levels(means: Tensor, heads: Tensor, over: Tensor, error: Tensor) -> Tensor:
    """Return for each entry the head of the first of the blocks that its own is level with.

    Neighbouring blocks whose means agree in exact arithmetic differ by rounding in floating
    point. At the top sparsestmax would blow that up to weights of any order, so that "strict"
    could ascend; hence blocks closer than their rounding count as tied.

    Args:
        means: of the block of each entry.
        heads: the first position of the block of each entry.
        over: the head of the block above that of each entry, for a root its own.
        error: how far rounding may have moved the means.
    """
    above = over.gather(-1, heads)
    gap = (means - means.gather(-1, above)).abs()
    level = torch.where(gap <= error + error.gather(-1, above), above, heads)
    for _ in range(means.shape[-1].bit_length()):  # along a path, in steps that double
        level = level.gather(-1, level)
    return level


def _structure(z: Tensor, free: Tensor, forest: Forest, mu: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the head of each entry's block, the one above it, and what penalties add to z.

    Heads are positions; the one above is that of the nearest unmasked entry's block, for a root
    the entry itself.
    """
    lo, hi, x = _intervals(z, free, forest, mu)
    heads: list[Tensor] = []
    over: list[Tensor] = []
    above: list[Tensor] = []  # the nearest unmasked value at or above each position
    paying: list[Tensor] = []
    for at, parent in enumerate(forest.parents):
        on, own = free[..., at], torch.full_like(z[..., at], at, dtype=torch.long)
        # Above a root is +inf, with which nothing fuses.
        x_p = above[parent] if parent >= 0 else torch.full_like(z[..., at], math.inf)
        head_p = heads[parent] if parent >= 0 else own
        fused = (lo[..., at] < x_p) & (x_p < hi[..., at])
        over.append(head_p)
        # A masked entry only passes on what is above it. (A masked root passes itself on; nothing
        # is level with its -inf.)
        heads.append(torch.where(fused | ~on, head_p, own))
        above.append(torch.where(on, x[..., at], x_p))
        paying.append((on & (x_p <= lo[..., at])).to(z.dtype))
    places = torch.arange(len(heads), device=z.device)
    block = torch.where(free, torch.stack(heads, -1), places)
    push = net_pushes(paying, free, forest)
    push = torch.zeros_like(z) if math.isinf(mu) else -mu * push
    return block, torch.stack(over, -1), push


def net_pushes(paying: Sequence[Tensor], free: Tensor, forest: Forest) -> Tensor:
    """Return for each position what it pays as second of a pair minus what it is paid as first.

    Args:
        paying: per position, what it pays to the nearest unmasked position above.
        free: which entries are not masked, `[..., K]`.
        forest: the order.
    """
    k = len(forest.parents)
    from_below: list[Tensor] = [torch.zeros_like(free[..., 0], dtype=torch.float)] * k
    net = from_below.copy()
    for at in reversed(range(k)):
        parent, pays = forest.parents[at], paying[at] * free[..., at]
        net[at] = pays - from_below[at]
        if parent >= 0:
            passed = torch.where(free[..., at], pays, from_below[at])
            from_below[parent] = from_below[parent] + passed
    return torch.stack(net, -1)


def _intervals(z: Tensor, free: Tensor, forest: Forest, mu: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return lo, hi and the solution x; at masked entries lo = -inf, hi = +inf, x is arbitrary."""
    lo, hi = z - mu, z.clone()
    a, b = torch.where(free, lo, z), z.clone()  # masked: an interval of length 0 counts for nothing
    for at in reversed(range(len(forest.sizes))):
        below = slice(at + 1, at + forest.sizes[at])
        if forest.sizes[at] > 1:
            # Relative to z_v: exact zeros where nothing below wants to rise above it.
            start = z[..., at : at + 1]
            from_lo, from_hi = _solve(a[..., below] - start, b[..., below] - start, mu)
            lo[..., at], hi[..., at] = z[..., at] + from_lo, z[..., at] + from_hi
            a[..., at] = torch.where(free[..., at], lo[..., at], a[..., at])
            b[..., at] = torch.where(free[..., at], hi[..., at], b[..., at])
        on = free[..., at]
        lo[..., at] = torch.where(on, lo[..., at], -math.inf)
        hi[..., at] = torch.where(on, hi[..., at], math.inf)
        if forest.sizes[at] > 1:
            # x_u as a function of what is above: first clamped for v, then for u.
            a_u, b_u = a[..., below].clone(), b[..., below].clone()
            a[..., below] = lo[..., at : at + 1].clamp(a_u, b_u)
            b[..., below] = hi[..., at : at + 1].clamp(a_u, b_u)
    return lo, hi, b


def _solve(a: Tensor, b: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    """Solve `H(x) = x + sum_u (clamp(x, a_u, b_u) - b_u) = y` for y = -mu and y = 0.

    H is increasing and piecewise linear with its corners at the `a` and `b` `[..., n]`; its
    values there tell on which side of every corner the solution lies, hence its piece.
    """
    at_a = _slope_sum(a, a, b)
    at_b = _slope_sum(b, a, b)
    high = _on_piece(a, b, at_a, at_b, 0.0)
    low = torch.full_like(high, -math.inf) if math.isinf(mu) else _on_piece(a, b, at_a, at_b, -mu)
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
