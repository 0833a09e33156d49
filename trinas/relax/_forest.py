"""A forest as tensors, and what masks make of it.

Shapes: rows `[..., K]` with the entries in preorder (`Forest`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trinas.relax._order import Forest
from trinas.relax._rows import keeps, kept


class Level(NamedTuple):
    """The positions that have something below them, those of one height.

    Subtrees of one height do not overlap, so that they can be worked on together.

    Args:
        at: the positions, `[L]`.
        below: of each the positions below, one after the other, up to a common number n, `[L n]`.
        inside: which of `below` are so, `[L, n]`; None if all are.
        picks: where those are in `below`; None if all are.
        places: those, each position once.
    """

    at: Tensor
    below: Tensor
    inside: Tensor | None
    picks: Tensor | None
    places: Tensor


class Plan(NamedTuple):
    """A forest as tensors on one device.

    Args:
        preorder: the entry at each position, `[K]`; None if they are sorted already.
        original: the position of each entry, `[K]`.
        parents: the position of each position's parent, for a root its own, `[K]`.
        inner: which positions have a parent, `[K]`.
        above: how deep u is, from 1 at the roots, where u is above v, else 0, `[K (v), K (u)]`.
        times: how often each position is second of a pair, `[K]`.
        net: `times` minus how often it is first, `[K]`.
        levels: from the lowest.
        depth: of the deepest entry, from 1 at the roots.
    """

    preorder: Tensor | None
    original: Tensor
    parents: Tensor
    inner: Tensor
    above: Tensor
    times: Tensor
    net: Tensor
    levels: tuple[Level, ...]
    depth: int


def plan(forest: Forest, like: Tensor) -> Plan:
    """Return the plan of a forest on the device and in the dtype of `like`."""
    make = _kept_plan if keeps(like) else _plan
    return make(forest, like.dtype, like.device)


def _plan(forest: Forest, dtype: torch.dtype, device: torch.device) -> Plan:
    k = len(forest.parents)
    chains = _chains(forest)
    above = [[0] * k for _ in range(k)]
    net = list(forest.times)
    for v, chain in enumerate(chains):
        for depth, u in enumerate(chain, 1):
            above[v][u] = depth
        if chain:
            net[chain[-1]] -= forest.times[v]
    places = sorted(range(k), key=forest.entries.__getitem__)
    parents = [p if p >= 0 else v for v, p in enumerate(forest.parents)]
    return Plan(
        preorder=None if places == list(range(k)) else _longs(forest.entries, device),
        original=_longs(places, device),
        parents=_longs(parents, device),
        inner=torch.tensor([p >= 0 for p in forest.parents], device=device),
        above=torch.tensor(above, dtype=dtype, device=device),
        times=torch.tensor(forest.times, dtype=dtype, device=device),
        net=torch.tensor(net, dtype=dtype, device=device),
        levels=_levels(forest, device),
        depth=1 + max(len(chain) for chain in chains),
    )


_kept_plan = kept(_plan)


def _chains(forest: Forest) -> list[list[int]]:
    """Return for each position those above it, from the root down."""
    chains: list[list[int]] = []
    for parent in forest.parents:
        chains.append([*chains[parent], parent] if parent >= 0 else [])
    return chains


def _levels(forest: Forest, device: torch.device) -> tuple[Level, ...]:
    heights = [0] * len(forest.parents)
    for v in range(len(heights) - 1, 0, -1):
        if (parent := forest.parents[v]) >= 0:
            heights[parent] = max(heights[parent], heights[v] + 1)
    return tuple(
        _level([v for v, h in enumerate(heights) if h == height], forest, device)
        for height in range(1, max(heights) + 1)
    )


def _level(at: list[int], forest: Forest, device: torch.device) -> Level:
    counts = [forest.sizes[v] - 1 for v in at]
    most = max(counts)
    places = [v + 1 + i for v, count in zip(at, counts) for i in range(count)]
    inside = [[i < count for i in range(most)] for count in counts]
    if len(places) == most * len(at):
        own = _longs(places, device)
        return Level(_longs(at, device), own, None, None, own)
    below = [v + 1 + i if i < count else v for v, count in zip(at, counts) for i in range(most)]
    picks = [i * most + j for i, count in enumerate(counts) for j in range(count)]
    return Level(
        _longs(at, device),
        _longs(below, device),
        torch.tensor(inside, device=device),
        _longs(picks, device),
        _longs(places, device),
    )


def _longs(values: list[int] | tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.long, device=device)


class Nearest(NamedTuple):
    """For each position the nearest unmasked one above it, `[..., K]`.

    Args:
        place: that position; its own where there is none.
        found: whether there is one and the position itself is not masked.
    """

    place: Tensor
    found: Tensor


def nearest(free: Tensor, plan: Plan, *, whole: bool) -> Nearest:
    """Return the nearest unmasked positions.

    Args:
        free: which positions are not masked, `[..., K]`.
        plan: of the forest.
        whole: it is known that none is masked.
    """
    if whole:
        return Nearest(plan.parents.expand_as(free), plan.inner.expand_as(free))
    depth, index = (plan.above * free.unsqueeze(-2)).max(-1)
    found = (depth > 0) & free
    return Nearest(
        torch.where(found, index, torch.arange(free.shape[-1], device=free.device)), found
    )


def net_pushes(paying: Tensor, near: Nearest) -> Tensor:
    """Return what each position pays as second of a pair minus what it is paid as first.

    Args:
        paying: what it pays to the nearest unmasked position above, `[..., K]`.
        near: those.
    """
    paying = paying * near.found
    places = torch.arange(paying.shape[-1], device=paying.device)
    to = near.place.unsqueeze(-1) == places
    return paying - torch.where(to, paying.unsqueeze(-1), 0.0).sum(-2)


def in_preorder(rows: Tensor, plan: Plan) -> Tensor:
    """Sort the entries as the forest has them."""
    return rows if plan.preorder is None else rows.index_select(-1, plan.preorder)


def in_original_order(rows: Tensor, plan: Plan) -> Tensor:
    """Undo `in_preorder`."""
    return rows if plan.preorder is None else rows.index_select(-1, plan.original)
