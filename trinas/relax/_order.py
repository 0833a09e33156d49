"""What an order means: a forest over the K entries, read once and kept as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from trinas._core.errors import RelaxationError
from trinas.relax._rows import compiling

Order: TypeAlias = Sequence[int] | Sequence[Sequence[int]]


class Forest(NamedTuple):
    """An order with its entries in preorder, so that every subtree is a run of positions.

    Args:
        entries: the entry at each position.
        parents: the position of each position's parent, always smaller; -1 for a root.
        sizes: the number of positions of each position's subtree, itself included.
        times: how often the pair (parent, entry) occurs in the paths that were given.
    """

    entries: tuple[int, ...]
    parents: tuple[int, ...]
    sizes: tuple[int, ...]
    times: tuple[int, ...]


def read_order(order: Order, k: int) -> Forest:
    """Return the forest that `order` describes over `k` entries.

    Args:
        order: a parent array (`order[i]` is the entry before i, -1 for none) or chains (tuples
            of entries, first to last; they may share a prefix).
        k: number of entries.

    Raises:
        RelaxationError: the order does not cover the entries exactly, has a cycle, or puts two
            different entries directly before one.
    """
    items: Any = tuple(order)
    nested = [isinstance(item, Sequence) for item in items]
    if any(nested) and not all(nested):
        raise RelaxationError(
            "an order is a parent array or a set of chains, not a mixture", got=order
        )
    if any(nested):
        items = tuple(tuple(chain) for chain in items)
    read = _from_chains if any(nested) else _from_parents
    # torch.compile, which would trace through the cache and warn, reads an order but once.
    return read.__wrapped__(items, k) if compiling() else read(items, k)


@lru_cache(maxsize=256)
def _from_parents(parents: tuple[int, ...], k: int) -> Forest:
    if len(parents) != k:
        raise RelaxationError(
            "a parent array has one number per entry",
            got=f"{len(parents)} for {k} entries",
            fix="A flat tuple is a parent array; write one chain as ((0, 1, 2),).",
        )
    for entry, parent in enumerate(parents):
        if not -1 <= parent < k:
            raise RelaxationError(
                f"a parent is an entry 0 to {k - 1}, or -1 for a root", got=parent, at=f"[{entry}]"
            )
    return _forest(parents, tuple(1 if p >= 0 else 0 for p in parents))


@lru_cache(maxsize=256)
def _from_chains(chains: tuple[tuple[int, ...], ...], k: int) -> Forest:
    parents, times = [-1] * k, [0] * k
    seen: set[int] = set()
    for at, chain in enumerate(chains):
        for place, entry in enumerate(chain):
            if not 0 <= entry < k:
                raise RelaxationError(
                    f"chains hold entries 0 to {k - 1}", got=entry, at=f"chain {at}"
                )
            seen.add(entry)
            if place:
                before = chain[place - 1]
                if parents[entry] not in (-1, before):
                    raise RelaxationError(
                        "at most one entry comes directly before another",
                        got=f"{parents[entry]} and {before} before {entry}",
                        at=f"chain {at}",
                    )
                parents[entry] = before
                times[entry] += 1
    if len(seen) != k:
        raise RelaxationError(
            "chains cover every entry",
            got=f"none with {sorted(set(range(k)) - seen)}",
            fix=f"There are {k} entries; give a free one as a chain of its own.",
        )
    return _forest(tuple(parents), tuple(times))


def _forest(parents: tuple[int, ...], times: tuple[int, ...]) -> Forest:
    children: list[list[int]] = [[] for _ in parents]
    for entry, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(entry)
    entries: list[int] = []
    stack = [entry for entry, parent in enumerate(parents) if parent < 0][::-1]
    while stack:
        entries.append(stack.pop())
        stack += children[entries[-1]][::-1]
    if len(entries) != len(parents):
        raise RelaxationError(
            "an order has no cycle",
            got=f"one through some of {sorted(set(range(len(parents))) - set(entries))}",
            fix="Roots have parent -1; write one chain as ((0, 1, 2),).",
        )
    place = {entry: at for at, entry in enumerate(entries)}
    above = tuple(place[parents[e]] if parents[e] >= 0 else -1 for e in entries)
    sizes = [1] * len(entries)
    for at in range(len(entries) - 1, 0, -1):
        if above[at] >= 0:
            sizes[above[at]] += sizes[at]
    return Forest(tuple(entries), above, tuple(sizes), tuple(times[e] for e in entries))
