"""Sorted sparsestmax: weights that descend along the paths of a tree.

Shapes: logits `[..., K, ...]` with the K entries of one choice along `dim`, weights the same.

An order is either

- chains, `((0, 1, 2), (0, 3))`: each a path of entries, head first, covering all K entries; paths
  may share a prefix, and an entry that stands alone is a chain of one; or
- a parent array, `(-1, 0, 1, 0)`: for each entry the one before it, -1 for a root.

Either way it is a forest, every pair (parent, child) of which is one constraint. A logit of `-inf`
takes its entry out of the forest too: what came after it comes after the one before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trinas._core.errors import RelaxationError
from trinas._core.registry import Registry
from trinas.relax._forest import Plan, in_original_order, in_preorder, nearest, net_pushes, plan
from trinas.relax._order import Order, read_order
from trinas.relax._prox import nearly_isotonic
from trinas.relax._rows import read, require_defined, to_rows
from trinas.relax.simplex import project_outside


def sorted_sparsestmax(
    z: Tensor,
    radius: float | Tensor,
    order: Order,
    strength: float = 0.1,
    form: str = "hinge",
    dim: int = -1,
    *,
    min_spread: float = 0.0,
) -> Tensor:
    """Sparsestmax with a penalty on weights that ascend along a path.

    Solves `argmin ||q - z||^2 + strength * penalty(q)` over the simplex with `||q - u|| >= r`,
    where the sums of the penalty run over the pairs (parent p, child v) of the order:

    - `form="linear"`: `sum (q_v - q_p)`, the paper's. It telescopes: on a chain only the last
      entry is pushed down and the first up. Equals `sparsestmax(z - strength / 2 * d, r)`, `d_v`
      = how often v comes second in a pair minus how often it comes first. A pair that
      several chains contain counts once for each; a parent array has every pair once.
    - `form="hinge"`: `sum max(0, q_v - q_p)`, only what ascends. Equals `sparsestmax(x, r)` with
      `x = argmin ||x - z||^2 + strength * sum max(0, x_v - x_p)`, nearly-isotonic regression.
    - `form="strict"`: the limit of infinite strength (`strength` is not used): isotonic
      regression first, so that weights never ascend. A child then never exceeds its parent, and
      at full radius nothing but a root can be chosen.

    Args:
        z: logits, any shape, K >= 1 entries along `dim`.
        radius: r, in [0, `circumradius(K)`], as in `sparsestmax`.
        order: chains or a parent array over the K entries (see the module).
        strength: lambda, at least 0. 0 is plain sparsestmax (except in form "strict").
        form: "linear", "hinge" or "strict".
        dim: the choice dimension; negative counts from the end.
        min_spread: as in `sparsestmax`.

    Returns:
        Weights of the shape and dtype of `z`.

    Gradient: sparsestmax's, for hinge and strict times the averaging over fused entries (an
    entry and its child whose logits ascend by too little to pay for). Entries that only touch,
    as equal logits do, count as separate.

    Ties: fused entries get equal weights and the same gradient, so that nothing pushes them apart
    until their logits do. Where the largest x is that of several fused entries and the radius
    would have to break the tie, the result is the symmetric one with gradient 0, as in
    `sparsestmax`: nearer to the centre than r, and not broken towards the head.

    Raises:
        RelaxationError: `z`, `dim`, `radius`, `order`, `strength` or `min_spread` is unfit, or
            (CPU) a row defines no weights.
        UnknownNameError: there is no such `form`.

    Cost: linear adds a few calls per entry. Hinge and strict solve two equations per entry that has
    something below it, for all rows at once; O(K^3) per row at worst, meant for K up to 64.

    Source: TrilevelNAS, Eq. 3 (linear); Tibshirani, Hoefling and Tibshirani, 2011
    (nearly-isotonic); the composition is that of fusedmax (Niculae and Blondel, 2017).

    >>> z = torch.tensor([0.3, 0.0, 0.2])
    >>> sorted_sparsestmax(z, 0.0, ((0, 1, 2),), strength=0.1)
    tensor([0.4667, 0.2167, 0.3167])
    >>> sorted_sparsestmax(z, 0.0, (-1, 0, 1), form="strict")
    tensor([0.4667, 0.2667, 0.2667])
    """
    return sort_outside(z, radius, order, strength, form, dim, min_spread, share=False)


def sort_outside(
    z: Tensor,
    radius: float | Tensor,
    order: Order,
    strength: float,
    form: str,
    dim: int,
    min_spread: float,
    *,
    share: bool,
) -> Tensor:
    """Sorted sparsestmax whose radius is absolute or, if `share`, a share of each row's r_c."""
    check_strength(strength)
    move = _FORMS[form]

    def prepare(rows: Tensor) -> Tensor:
        forest = plan(read_order(order, rows.shape[-1]), rows)
        rows, whole = _below_top(rows)
        return in_original_order(move(in_preorder(rows, forest), forest, strength, whole), forest)

    return project_outside(z, radius, dim, min_spread, share=share, prepare=prepare)


def order_penalty(logits: Tensor, order: Order, dim: int = -1) -> Tensor:
    """Sum the differences of consecutive logits over the paths of an order: a term of the loss.

    Computes `sum_i sum_j (z_ij - z_ij-1)` over the entries j of each path i. Added to the loss with
    a factor lambda this is how the paper's training objective has the order, beside
    `form="linear"` that solves it in the relaxation. It telescopes in the same way: its gradient
    is constant, how often an entry comes second in a pair minus how often it comes first.

    Args:
        logits: any shape, K >= 1 entries along `dim`. Entries at -inf are left out of the paths.
        order: chains or a parent array over the K entries (see the module).
        dim: the choice dimension; negative counts from the end.

    Returns:
        One number per row: the shape of `logits` without `dim`, and its dtype.

    Raises:
        RelaxationError: `logits`, `dim` or `order` is unfit, or (CPU) a row has NaN, +inf or
            nothing above -inf.

    Source: TrilevelNAS, Algorithm 1 and Eq. 3.

    >>> order_penalty(torch.tensor([0.5, 2.0, 1.0]), ((0, 1, 2),))
    tensor(0.5000)
    """
    rows = to_rows(logits, dim)
    forest = plan(read_order(order, rows.shape[-1]), rows)
    rows, whole = _below_top(rows)
    rows = in_preorder(rows, forest)
    free = rows > -math.inf
    total = (torch.where(free, rows, 0.0) * _pair_counts(free, forest, whole)).sum(-1)
    return total.to(logits.dtype)


def check_strength(strength: float) -> float:
    """Return `strength` if it can weigh a penalty.

    Raises:
        RelaxationError: it is negative, infinite or NaN.

    >>> check_strength(0.1)
    0.1
    """
    if not 0 <= strength < math.inf:
        raise RelaxationError(
            "the strength of an order is a finite number, 0 or more",
            got=strength,
            fix='For an order that must hold use form="strict".',
        )
    return strength


def form_named(form: str) -> str:
    """Return `form` if there is a form of that name.

    Raises:
        UnknownNameError: there is none; the message has the nearest names.

    >>> form_named("hinge")
    'hinge'
    """
    _FORMS[form]
    return form


def _below_top(rows: Tensor) -> tuple[Tensor, bool]:
    """Subtract the largest logit of each row, on which nothing here depends but the rounding.

    Returns:
        The rows, and whether it is known that none of their entries is masked.

    Raises:
        RelaxationError: (CPU) a row defines no weights.
    """
    top = rows.detach().amax(-1, keepdim=True)
    below = rows - top
    total = read(below.detach().sum())
    if total is not None and math.isfinite(total):
        return below, True
    require_defined(rows, top)
    return below, False


def _pair_counts(free: Tensor, forest: Plan, whole: bool) -> Tensor:
    """Return how often each unmasked position comes second in a pair minus how often first."""
    if whole:
        return forest.net
    return net_pushes(forest.times, nearest(free, forest, whole=whole))


_FORMS: Registry[Callable[[Tensor, Plan, float, bool], Tensor]] = Registry(
    "form of sorted sparsestmax"
)


@_FORMS.register("linear")
def _linear(z: Tensor, forest: Plan, strength: float, whole: bool) -> Tensor:
    return z - strength / 2 * _pair_counts(z > -math.inf, forest, whole)


@_FORMS.register("hinge")
def _hinge(z: Tensor, forest: Plan, strength: float, whole: bool) -> Tensor:
    return nearly_isotonic(z, forest, strength / 2, whole=whole)


@_FORMS.register("strict")
def _strict(z: Tensor, forest: Plan, strength: float, whole: bool) -> Tensor:
    del strength  # the limit of any
    return nearly_isotonic(z, forest, math.inf, whole=whole)
