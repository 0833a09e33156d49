"""Relaxations of a choice: K logits to K weights on the simplex.

Shapes: logits `[..., K, ...]` with the K entries of one choice along `dim`, weights the same.

All of them are exact, work on every row at once in any floating dtype (float16 and bfloat16
are computed in float32) on any device, and differentiate any number of times, under
`torch.func` too. (In forward mode once: `jacfwd` of `jacfwd` is wrong for every custom function of
torch so far; `torch.func.hessian` is right. `torch.compile` leaves them out of its graphs.) They
share these rules:

- A logit of `-inf` rules its entry out: the result is that of the row without the entry, with
  weight 0 in its place. Size-dependent quantities (the centre, the circumradius) count the
  remaining entries only.
- NaN, `+inf`, or a row of nothing but `-inf` define no weights. On the CPU they raise a
  `RelaxationError` that names the row; on an accelerator, where raising would make the host wait
  for the device, inside `torch.func.vmap` and while compiling, such a row is NaN throughout.
- `K = 1` gives weight 1, an empty batch an empty result.

Where k > 1 of n entries are chosen (`k=`), weights lie in [0, 1] and sum to k; then a row needs k
logits above -inf. With all entries chosen (k = n) every weight is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trinas._core.errors import RelaxationError
from trinas.relax._functions import Rule, sparsemax_rows, sparsestmax_rows
from trinas.relax._rows import as_tensor, compiling, from_rows, read, require_defined, to_rows
from trinas.relax._subset import check_subset, subset_softmax_rows, subset_sparsestmax_rows


def softmax(z: Tensor, dim: int = -1, *, k: int = 1) -> Tensor:
    """Weigh every entry by the exponential of its logit.

    Solves `argmax q'z - sum q log q` over the simplex. Never exactly 0, so never sparse. This
    is `torch.softmax` with trinas's checks.

    For k > 1 the weight of an entry is the probability that it is part of S, a set of k entries
    with `p(S)` proportional to `exp(sum of z over S)` (conditional Poisson sampling), from
    elementary symmetric polynomials: O(nk), in double precision.

    Args:
        z: logits, any shape, K >= 1 entries along `dim`.
        dim: the choice dimension; negative counts from the end.
        k: how many entries are chosen, which is the sum of the weights; from 1 to K.

    Returns:
        Weights of the shape and dtype of `z`. Ties get equal weights.

    Raises:
        RelaxationError: `z`, `dim` or `k` is unfit, or (CPU) a row defines no weights.

    Source: Bridle, 1990; in architecture search DARTS (Liu et al., 2019), Eq. 2. For k > 1: Chen,
    Dempster and Liu, 1994; as a layer Ahmed et al., 2023 (SIMPLE), section 3.

    >>> softmax(torch.tensor([0.0, 0.0, -math.inf]))
    tensor([0.5000, 0.5000, 0.0000])
    >>> softmax(torch.zeros(3), k=2)
    tensor([0.6667, 0.6667, 0.6667])
    """
    rows = to_rows(z, dim)
    check_subset(k, rows.shape[-1])
    if k > 1:
        return from_rows(subset_softmax_rows(rows, k), z, dim)
    q = torch.softmax(rows, -1)
    require_defined(rows, q)
    return from_rows(q, z, dim)


def sparsemax(z: Tensor, dim: int = -1, *, k: int = 1) -> Tensor:
    """Project the logits to the simplex.

    Solves `argmin ||q - z||^2` over the simplex, by one sort. Entries far enough below the
    others get weight exactly 0. For k > 1 the simplex is `0 <= q <= 1, sum q = k`, and entries far
    enough above the others get weight exactly 1.

    Args:
        z: logits, any shape, K >= 1 entries along `dim`.
        dim: the choice dimension; negative counts from the end.
        k: how many entries are chosen, which is the sum of the weights; from 1 to K. Above 1 it
            takes memory for k K numbers a row.

    Returns:
        Weights of the shape and dtype of `z`. Ties get equal weights.

    Gradient: `I - 11'/k` on the k entries of positive weight, 0 elsewhere: an entry at 0 takes
    no gradient, and returns only when the others fall. Where an entry is just leaving, the
    mapping has a kink and the gradient is that of the smaller support. For k > 1 an entry at 1
    takes no gradient either.

    Raises:
        RelaxationError: `z`, `dim` or `k` is unfit, or (CPU) a row defines no weights.

    Source: Martins and Astudillo, 2016, Eq. 2, Algorithm 1 and Proposition 1. The projection for
    k > 1: Wang and Lu, 2015; as a layer Malaviya, Ferreira and Martins, 2018 (constrained
    sparsemax).

    >>> sparsemax(torch.tensor([1.0, 0.5, -1.0]))
    tensor([0.7500, 0.2500, 0.0000])
    >>> sparsemax(torch.tensor([1.0, 0.5, 0.25, -1.0]), k=2)
    tensor([1.0000, 0.6250, 0.3750, 0.0000])
    """
    rows = to_rows(z, dim)
    check_subset(k, rows.shape[-1])
    if k > 1:
        q = subset_sparsestmax_rows(rows, k, 0.0, Rule(True, _slack(rows), 0.0))
        return from_rows(q, z, dim)
    return from_rows(sparsemax_rows(rows), z, dim)


def _slack(rows: Tensor) -> float:
    """Return the relative error that a radius may come with."""
    return 2 * torch.finfo(rows.dtype).eps


def circumradius(k: int, *, ones: int = 1) -> float:
    """Return the distance from the centre of the simplex to a vertex, `sqrt(1 - 1/k)`.

    Args:
        k: number of entries, at least 1.
        ones: how many of them are chosen: the `k` of the relaxations. The centre is `ones/k`, a
            vertex has so many ones, and the distance is `sqrt(ones (1 - ones/k))`.

    Raises:
        RelaxationError: `k` is below 1, or `ones` is no number from 1 to `k`.

    >>> circumradius(4)
    0.8660254037844386
    >>> circumradius(4, ones=2)
    1.0
    """
    if k < 1:
        raise RelaxationError("a choice has at least one entry", got=k, at="circumradius(k)")
    check_subset(ones, k)
    return math.sqrt(ones * (1 - ones / k))


def sparsestmax(
    z: Tensor, radius: float | Tensor, dim: int = -1, *, min_spread: float = 0.0, k: int = 1
) -> Tensor:
    """Project the logits to the part of the simplex at least `radius` away from its centre.

    Solves `argmin ||q - z||^2` over the simplex with `||q - u|| >= r`, `u = 1/K`: sparsemax where
    that is far enough out already, else `sparsemax(t z)` for the one t > 1 that meets the radius.
    Growing r from 0 to r_c = `circumradius(K)` leads from sparsemax to one-hot, so that the
    relaxation becomes a selection during the search. Closed form: one sort, two cumulative sums.

    For k > 1 the simplex is `0 <= q <= 1, sum q = k`, its centre u = k/K, its vertices have k ones,
    and r_c = `circumradius(K, ones=k)`. The rest holds alike, the closed form included, of which
    the tables have k rows.

    Args:
        z: logits, any shape, K >= 1 entries along `dim`.
        radius: r, in [0, r_c]; a number, or a tensor that broadcasts against `z` with `dim`
            reduced to 1 (one radius per row). Above r_c by rounding counts as r_c, and so does
            anything from r_c of the entries that -inf leaves in a row. Takes no gradient.
        dim: the choice dimension; negative counts from the end.
        min_spread: a floor under `||z - m||` in the backward pass (see below), at least 0.
            0 gives the exact gradient; the weights never depend on it.
        k: how many entries are chosen, which is the sum of the weights; from 1 to K. Above 1 it
            takes memory for k K numbers a row.

    Returns:
        Weights of the shape and dtype of `z`.

    Limits: `r = 0` is sparsemax, `r >= r_c` is one-hot at the largest logit. Exact ties at the top
    that the radius would have to break have no unique answer; they get equal weights (closer to
    the centre than r) and a gradient of exactly 0, as do logits within 1e-12 (float32; 1e-97 in
    float64) of the largest. For k > 1 so do ties with the k-th largest that the radius would have
    to break, but not at r_c: there k weights are 1, of tied entries the first, because a search of
    k edges has to end with k edges.

    Gradient: on the k entries of positive weight, with m their mean and `n = (z - m)/||z - m||`, it
    is `c / ||z - m|| (I - 11'/k - nn')` with `c = sqrt(r^2 - 1/k + 1/K)` on the sphere, and
    sparsemax's off it. An entry at 0 takes none. On the sphere the weights depend on the
    direction of `z - m` only, and the gradient grows as logits come closer: from nearly equal
    logits the first choice is noise. `min_spread` bounds it by `c / min_spread`;
    other remedies are a radius that starts late (`Linear(0, 1, warmup=0.2)`) and logits that
    start further apart.

    Raises:
        RelaxationError: `z`, `dim`, `radius`, `min_spread` or `k` is unfit, or (CPU) a row
            defines no weights. A radius tensor is checked on the CPU only; elsewhere one that
            is too large counts as r_c.

    Source: Shao et al., 2019 (SSN), whose algorithm iterates projections and does not always reach
    the minimum; TrilevelNAS, Eq. 2. The closed form is trinas's own.

    >>> z = torch.tensor([0.3, 0.2, -0.1])
    >>> sparsestmax(z, 0.0)
    tensor([0.5000, 0.4000, 0.1000])
    >>> sparsestmax(z, 0.5)
    tensor([0.7041, 0.2959, 0.0000])
    >>> sparsestmax(z, circumradius(3))
    tensor([1., 0., 0.])
    >>> sparsestmax(z, 0.5, k=2)
    tensor([0.9497, 0.7799, 0.2704])
    """
    return project_outside(z, radius, dim, min_spread, share=False, k=k)


def project_outside(
    z: Tensor,
    radius: float | Tensor,
    dim: int,
    min_spread: float,
    *,
    share: bool,
    prepare: Callable[[Tensor], Tensor] | None = None,
    k: int = 1,
) -> Tensor:
    """Sparsestmax in the form that the rest of the package uses.

    Args:
        z: as in `sparsestmax`.
        radius: absolute, or a share in [0, 1] of each row's own circumradius.
        dim: as in `sparsestmax`.
        min_spread: as in `sparsestmax`.
        share: which of the two the radius is.
        prepare: what to do with the logits `[..., K]` before they are projected.
        k: as in `sparsestmax`.
    """
    rows = to_rows(z, dim)
    check_subset(k, rows.shape[-1])
    check_min_spread(min_spread)
    eps = torch.finfo(rows.dtype).eps
    if isinstance(radius, Tensor):
        eps = max(eps, torch.finfo(radius.dtype).eps) if radius.is_floating_point() else eps
        radius = _radius_rows(radius.detach(), z, dim).to(rows.dtype)
    elif compiling():
        radius = as_tensor(radius, rows)  # or its value would be part of what is compiled
    slack = max(2 * eps, 1e-6)
    _check_radius(radius, slack, None if share else (rows.shape[-1], k))
    if prepare is not None:
        rows = prepare(rows)
    if k > 1:
        q = subset_sparsestmax_rows(rows, k, radius, Rule(share, 2 * eps, min_spread))
    elif not isinstance(radius, Tensor) and radius == 0:
        q = sparsemax_rows(rows)
    else:
        q = sparsestmax_rows(rows, radius, Rule(share, 2 * eps, min_spread))
    return from_rows(q, z, dim)


def check_min_spread(min_spread: float) -> float:
    """Return `min_spread` if it can be a floor under a norm.

    Raises:
        RelaxationError: it is negative, infinite or NaN.

    >>> check_min_spread(0.01)
    0.01
    """
    if not 0 <= min_spread < math.inf:
        raise RelaxationError("min_spread is a finite number, 0 or more", got=min_spread)
    return min_spread


def _radius_rows(radius: Tensor, z: Tensor, dim: int) -> Tensor:
    """Return one radius per row, `[..., 1]`."""
    shape = list(z.shape)
    shape[dim] = 1
    try:
        radius = radius if list(radius.shape) == shape else radius.broadcast_to(shape)
    except RuntimeError:
        raise RelaxationError(
            "a radius tensor broadcasts against the logits with dim reduced to 1",
            got=f"shape {tuple(radius.shape)}",
            fix=f"It must broadcast to {tuple(shape)}.",
        ) from None
    return radius if dim in (-1, z.dim() - 1) else radius.movedim(dim, -1)


def _check_radius(radius: float | Tensor, slack: float, counts: tuple[int, int] | None) -> None:
    """Refuse a radius out of its range where that may be read.

    Args:
        radius: what is checked.
        slack: by which share it may be too large.
        counts: of how many entries it is an absolute radius, and how many are chosen; None for a
            share.
    """
    if compiling():
        return
    if isinstance(radius, Tensor):
        bounds = [read(bound) for bound in radius.aminmax()] if radius.numel() else []
    else:
        bounds = [radius]
    limit = 1.0 if counts is None else circumradius(counts[0], ones=counts[1])
    for value in bounds:
        # The radius may have been through float32 whatever its type now.
        if value is not None and not 0 <= value <= limit * (1 + slack):
            _reject_radius(value, limit, counts)


def _reject_radius(value: float, limit: float, counts: tuple[int, int] | None) -> None:
    if counts is None:
        raise RelaxationError(
            "a radius given as a share of the circumradius lies in [0, 1]", got=value
        )
    n, k = counts
    what, call = "sqrt(1 - 1/K)", f"circumradius({n})"
    if k > 1:
        what, call = "sqrt(k (1 - k/K))", f"circumradius({n}, ones={k})"
    raise RelaxationError(
        f"the radius lies between 0 and the circumradius {what}",
        got=value,
        fix=f"With K = {n} the range is [0, {limit:.6g}]; see {call}.",
    )
