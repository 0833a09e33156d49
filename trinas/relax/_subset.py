"""Choices of k of n entries on rows: weights in [0, 1] that sum to k.

Shapes: `z`, `q` are `[..., n]`, `t` is `[..., 1]`, tables are `[..., k, n]`: 1 <= k <= n.

With z in descending order, a state (a, b), a < k < b, says that the first a entries weigh 1, the
ones from b on 0, and those between are free. There `q_i = (k - a)/(b - a) + t (z_i - m)`, with m
the mean of the free ones and V the sum of squares around it, and the squared distance from the
centre k/n is

    D_ab(t) = t^2 V_ab + a + (k - a)^2 / (b - a) - k^2 / n.

Which state holds has not to be looked for. A state other than the true one fixes entries at 1 that
should be less, or frees some that should be 1 (likewise at 0): either way mass moves from smaller
entries to larger ones, so that its point majorises the true one and is no nearer to the centre.
Hence the distance is `min_ab D_ab(t)`, or that of a vertex, and it meets the radius r at the
largest `t^2 = (r^2 - D_ab(0)) / V_ab`. The level of the weights at that t, `q_i = clip(level + t
z_i)`, is `max_a min_b` of those of the states, since the sum of clipped entries is a least over a
of a largest over b, each of which falls with the level. (k = 1 has a = 0 only: `_functions`.)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from trinas._core.errors import RelaxationError
from trinas.relax._functions import CLOSE, Face, Rule, composed, pulled, pushed, turned
from trinas.relax._rows import in_eager_mode, read, reject_rows


def check_subset(k: int, n: int) -> None:
    """Refuse a number of entries to choose that is none.

    Raises:
        RelaxationError: it is no whole number from 1 to n.

    >>> check_subset(2, 3)
    """
    if type(k) is not int or not 1 <= k <= n:
        raise RelaxationError(
            "the number of entries that are chosen is a whole number from 1 to that of all",
            got=f"k = {k!r} of {n}",
        )


def require_subset(z: Tensor, k: int, probe: Tensor) -> None:
    """Raise for the first row that defines no choice of k, where that may be read.

    Args:
        z: logits `[..., n]`.
        k: how many are chosen.
        probe: `[..., 1]`, finite in exactly the defined rows.

    Raises:
        RelaxationError: a row holds NaN, +inf, or fewer than k logits above -inf.
    """
    total = read(probe.detach().sum())
    if total is None or math.isfinite(total):
        return
    reject_rows(z)
    left = (z.detach() > -math.inf).sum(-1)
    for place in torch.nonzero(left < k).tolist()[:1]:
        raise RelaxationError(
            f"a choice of {k} needs as many logits above -inf",
            got=f"{int(left[tuple(place)])} of them",
            at=f"row {tuple(place)}" if place else "the only row",
            fix="A logit of -inf rules an entry out; leave enough in.",
        )


def _probe(largest: Tensor) -> Tensor:
    """Return 0 for rows that define a choice, else NaN, from their k largest entries."""
    span = largest[..., -1:] - largest[..., :1]
    return span - span


# Stands for -inf in sums of logarithms, whose derivatives would be NaN there.
_NOTHING = -1e200


def subset_softmax_rows(z: Tensor, k: int) -> Tensor:
    """Return how likely each entry is part of S, where `p(S)` of k entries is as exp(sum z_S).

    Entry i is in S with probability `exp(z_i) e_{k-1}(without i) / e_k`, with e_j the elementary
    symmetric polynomials of exp(z). They are built up from both ends, in logarithms and in double
    precision, of sums of positive terms only.
    """
    probe = _probe(z.detach().topk(k, -1).values)
    require_subset(z, k, probe)
    if k == z.shape[-1]:
        return 1 + 0 * (z - z.detach()) + probe
    out = z.detach() == -math.inf
    x = torch.where(out, _NOTHING, z.double() - z.detach().amax(-1, keepdim=True))
    entries = x.unbind(-1)
    before = _polynomials(entries, k)
    behind = _polynomials(entries[::-1], k)[::-1]
    others = [torch.logsumexp(b + a.flip(-1), -1) for b, a in zip(before, behind)]
    q = k * torch.softmax((x + torch.stack(others, -1)).masked_fill(out, -math.inf), -1)
    q = q - (q.detach() - 1).clamp_min(0.0)
    return (q + probe).to(z.dtype)


def _polynomials(entries: tuple[Tensor, ...], k: int) -> list[Tensor]:
    """Return the logarithms of e_0 ... e_{k-1}, `[..., k]`, of what comes before each entry."""
    first = entries[0]
    now = torch.full((k,), _NOTHING, dtype=first.dtype, device=first.device)
    now = torch.cat([torch.zeros_like(now[:1]), now[1:]]).expand(*first.shape, k)
    found = [now]
    for x in entries[:-1]:
        fewer = torch.cat([torch.full_like(now[..., :1], _NOTHING), now[..., :-1]], -1)
        # Not `logaddexp`, whose second derivative is NaN where the two are far apart.
        now = torch.logsumexp(torch.stack([now, fewer + x.unsqueeze(-1)], -1), -1)
        found.append(now)
    return found


def subset_sparsestmax_rows(z: Tensor, k: int, radius: float | Tensor, rule: Rule) -> Tensor:
    """Project each row to weights of sum k that are at least a radius away from their centre.

    The weights are those of the projection of `t z`, t >= 1. With f free entries (neither 0 nor 1)
    and p the way to them from their mean, the Jacobian is `t (I - 11'/f - kappa p p')` on them,
    `kappa = 1 / ||p||^2` on the sphere and 0 off it, as that of sparsestmax.

    Args:
        z: `[..., n]`.
        k: how many are chosen.
        radius: as in `sparsestmax_rows`.
        rule: as there.
    """
    if in_eager_mode():
        return SubsetSparsestmax.apply(z, k, radius, rule)[0]
    q, t = _project(z.detach(), k, radius, rule)
    on = (q > 0) & (q < 1)
    own = z - z.detach().amax(-1, keepdim=True)
    mean = torch.where(on, own, 0.0).sum(-1, keepdim=True) / on.sum(-1, keepdim=True).clamp_min(1)
    return composed(q, t, torch.where(on, own - mean, 0.0), rule)


class _States(NamedTuple):
    """What the states of a row come to, `[..., k, n]`: row a, column b - 1.

    Args:
        there: which of them are states, of entries that are not masked.
        means: of the distances of the free entries below the k-th.
        squares: V.
    """

    there: Tensor
    means: Tensor
    squares: Tensor


def _states(below: Tensor, k: int) -> _States:
    """Return the states of rows that are sorted: `below` holds the distances below the k-th."""
    n = below.shape[-1]
    number = torch.arange(n, device=below.device)
    sizes = number + 1 - number[:k, None]
    counts = sizes.clamp_min(1).to(below.dtype)
    inside = below < math.inf
    start = below[..., :k, None]
    # Below the first free one: sums of terms of one sign, as in `_functions`.
    e = torch.where((sizes > 0) & inside.unsqueeze(-2), below.unsqueeze(-2) - start, 0.0)
    means = e.cumsum(-1) / counts
    pairs = torch.where(sizes > 1, counts / (counts - 1).clamp_min(1), 0.0)
    squares = ((e - means).square() * pairs).cumsum(-1)
    return _States((number >= k) & inside.unsqueeze(-2), means + start, squares)


def _project(z: Tensor, k: int, radius: float | Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Return the weights, and t as the Jacobian has it."""
    n, close = z.shape[-1], torch.finfo(z.dtype).tiny ** CLOSE
    ranked = z.sort(dim=-1, descending=True, stable=True)
    probe = _probe(ranked.values[..., :k])
    require_subset(z, k, probe)
    pivot = ranked.values[..., k - 1 : k]
    states = _states(_untied(pivot - ranked.values, close), k)
    a = torch.arange(k, device=z.device)[:, None].to(z.dtype)
    b = torch.arange(1, n + 1, device=z.device).to(z.dtype)
    sizes = (b - a).clamp_min(1)
    left = (z > -math.inf).sum(-1, keepdim=True).to(z.dtype)
    most = k * (left - k) / left  # the squared circumradius
    squared = radius * radius
    lack = (most * (1 - squared) if rule.share else most - squared).clamp_min(0.0)
    # Exactly 0 for all entries at radius 0, which is the plain projection.
    gains = (k - a) * (b - k) / sizes - lack.unsqueeze(-1)
    gains = torch.where(states.there & (gains > 0), gains, -1.0) / states.squares
    t2 = torch.where(states.there, gains, 0.0).flatten(-2).amax(-1, keepdim=True)
    t = t2.clamp(1.0, (4 / close) ** 2).sqrt()
    levels = torch.where(states.there, (k - a) / sizes + t.unsqueeze(-1) * states.means, math.inf)
    level = levels.amin(-1).amax(-1, keepdim=True)
    q = torch.where(z > -math.inf, level - t * _untied(pivot - z, close), 0.0).clamp(0.0, 1.0)
    # At the end rounding must not leave an entry between, nor a tie: the first ones win.
    ended = lack <= 2 * rule.slack * most
    q = torch.where(ended, torch.zeros_like(q).scatter(-1, ranked.indices[..., :k], 1.0), q)
    return q + probe, torch.where(t2 < math.inf, t, 0.0)


def _untied(distances: Tensor, close: float) -> Tensor:
    """Return the distances from the k-th entry, with those that count as tied at exactly 0."""
    return torch.where(distances.abs() > close, distances, 0.0)


def _face(q: Tensor) -> Face:
    """Return the free entries and the way to them from their mean."""
    fixed = q.detach()
    on = ((fixed > 0) & (fixed < 1)).to(q.dtype)
    size = on.sum(-1, keepdim=True).clamp_min(1.0)
    mean = (on * fixed).sum(-1, keepdim=True) / size
    p = on * (q - mean)
    square = p.detach().square().sum(-1, keepdim=True)
    # Where no entry is free nothing moves.
    return Face(on, size, p, torch.where(square > torch.finfo(q.dtype).tiny, square, 1.0))


class SubsetSparsestmax(Function):
    """`subset_sparsestmax_rows` in plain autograd; the second output is t, as in `Sparsestmax`."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, k: int, radius: float | Tensor, rule: Rule
    ) -> tuple[Tensor, Tensor]:
        """Return the weights `[..., n]` and t `[..., 1]`."""
        q, t = _project(z, k, radius, rule)
        ctx.rule = rule
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, t)
        ctx.save_for_forward(q, t)
        return q, t

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        """Apply the transposed Jacobian of (q, t) to the incoming gradients."""
        q, t = ctx.saved_tensors
        face = _face(q)
        return pulled(grads, face, t, ctx.rule.min_spread), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        """Apply the Jacobian of (q, t) to a tangent of z."""
        q, t = ctx.saved_tensors
        face = _face(q)
        moved = pushed(tangents[0], face, t, ctx.rule.min_spread)
        return moved, (turned(face, t) * tangents[0]).sum(-1, keepdim=True)
