"""Where the decision about a width belongs.

A width is decided once in every instance of the smallest node that contains all its
uses. In the graph of node objects (a node used at two places has two parents) that is
the deepest object which every path from the root to a use of the width passes: its
immediate common dominator. Counting paths finds it without a dominator tree: N lies on
all of them exactly when (paths to N) * (uses below N) = (all uses).
"""

from __future__ import annotations

from collections import defaultdict

from trinas.space.nodes import Node
from trinas.space.values import Width


def objects_children_first(space: Node) -> list[Node]:
    """Every node object once, children before parents."""
    order: list[Node] = []
    seen: set[int] = set()
    pending: list[tuple[Node, bool]] = [(space, False)]
    while pending:
        node, done = pending.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            if children := node.children:
                pending.append((node, True))
                pending.extend([(child, False) for child in reversed(children)])
            else:
                order.append(node)
    return order


def bind_widths(space: Node) -> dict[int, tuple[Width, ...]]:
    """For each node (by ``id``) the widths that are decided at it, in order of use."""
    if not _holds_widths(space):
        return {}
    order = objects_children_first(space)
    own = {id(node): widths for node in order if (widths := _widths_in(node))}
    paths = _count_paths(space, order)
    uses: dict[Width, int] = defaultdict(int)
    for node_id, widths in own.items():
        for width in widths:
            uses[width] += paths[node_id]

    # Uses below each node of the widths that are not decided yet, counted along all paths.
    below: dict[int, dict[Width, int]] = {}
    bound: dict[int, tuple[Width, ...]] = {}
    for node in order:
        counts = dict.fromkeys(own.get(id(node), ()), 1)
        for child in node.children:
            for width, count in below.get(id(child), {}).items():
                counts[width] = counts.get(width, 0) + count
        here = tuple(w for w, n in counts.items() if n * paths[id(node)] == uses[w])
        if here:
            bound[id(node)] = here
            counts = {w: n for w, n in counts.items() if w not in here}
        if counts:
            below[id(node)] = counts
    return bound


def _holds_widths(space: Node) -> bool:
    seen: set[int] = set()
    pending = [space]
    while pending:
        node = pending.pop()
        if node.symbols and _widths_in(node):
            return True
        if (children := node.children) and id(node) not in seen:
            seen.add(id(node))
            pending.extend(children)
    return False


def _widths_in(node: Node) -> tuple[Width, ...]:
    return tuple([symbol for symbol in node.symbols if isinstance(symbol, Width)])


def _count_paths(space: Node, children_first: list[Node]) -> dict[int, int]:
    """In how many ways each node object is reached from the root."""
    paths: dict[int, int] = defaultdict(int)
    paths[id(space)] = 1
    for node in reversed(children_first):
        for child in node.children:
            paths[id(child)] += paths[id(node)]
    return paths
