"""The words a space is written in.

Each word builds one frozen node (`trinas.space.nodes`) and notes the line it was written
on, which errors quote. Operations (`conv`, `relu`, ...) come from `trinas.ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trinas._core.declared import declared_at
from trinas._core.errors import SpaceError
from trinas.space.checks import as_items, as_tuple, check_label, whole
from trinas.space.nodes import (
    Cell,
    CellMerge,
    Choice,
    Merge,
    Node,
    Parallel,
    Repeat,
    Residual,
    Seq,
    Share,
    Stack,
    Tree,
    Trellis,
    as_node,
)
from trinas.space.operation import OperationSpec
from trinas.space.values import Width

NodeLike = Node | OperationSpec


def width(
    base: int | None = None,
    *,
    ratios: Sequence[float] = (),
    values: Sequence[int] = (),
    divisor: int = 1,
    name: str | None = None,
) -> Width:
    """A searched number of channels: ratios of `base`, or plain `values`.

    Every call makes a new variable. Use the returned object wherever the same number is
    meant; arithmetic on it (``w * 4``, ``w // 2``, ``w + 16``) gives values that follow it.

    The decision belongs to the smallest node that contains all uses of the width: where
    that node is copied (by a repeat, a tree, or by being used twice), each copy decides.

    Args:
        base: the full width; ratios are taken of it.
        ratios: shares of `base`, each in (0, 1].
        values: candidate counts, given outright instead of `base` and `ratios`.
        divisor: candidates are rounded to the nearest multiple of it, never down by more
            than a tenth (the usual ``make_divisible``).
        name: what the decision is called in paths; ``width`` by default.

    Raises:
        SpaceError: no candidates, or one below 1 or beyond the base.

    >>> width(64, ratios=(1/3, 1/2, 2/3, 5/6, 1), divisor=8).values
    (24, 32, 40, 56, 64)
    """
    values, ratios = as_tuple("values", values), as_tuple("ratios", ratios)
    if (base is None) == (not values) or (values and (ratios or divisor != 1)):
        raise SpaceError(
            "a width has a base with ratios (and a divisor), or else values",
            got=f"base {base}, ratios {tuple(ratios)}, values {values}",
            at=declared_at(),
            fix="Write width(64, ratios=(1/2, 1)) or width(values=(32, 64)).",
        )
    if base is not None:
        values = _candidates(base, tuple(ratios), divisor)
    if not all(whole(v, 1) for v in values):
        raise SpaceError(
            "a width is a whole number of at least 1",
            got=values,
            at=declared_at(),
            fix="Give the candidate numbers of channels.",
        )
    if name is not None:
        check_label(name)
    return Width(tuple(sorted(set(values))), name)


def _candidates(base: int, ratios: tuple[float, ...], divisor: int) -> tuple[int, ...]:
    for what, value in (("base", base), ("divisor", divisor)):
        if not whole(value, 1):
            raise SpaceError(
                f"the {what} of a width is a whole number of at least 1",
                got=value,
                at=declared_at(),
                fix="It counts channels.",
            )
    if not ratios or any(not 0 < r <= 1 for r in ratios):
        raise SpaceError(
            "the ratios of a width lie in (0, 1]",
            got=ratios,
            at=declared_at(),
            fix="The base is the full width; give shares of it.",
        )
    values = tuple(_make_divisible(base * ratio, divisor) for ratio in ratios)
    if max(values) > base:
        raise SpaceError(
            "no candidate of a width goes beyond its base",
            got=f"{max(values)} of {base}",
            at=declared_at(),
            fix=f"Choose a base that is a multiple of the divisor {divisor}.",
        )
    return values


def _make_divisible(value: float, divisor: int) -> int:
    """Nearest multiple of `divisor`, raised by one where that loses over a tenth.

    The rounding rule of the MobileNet family, which the widths of the paper follow.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def seq(*items: NodeLike, name: str | None = None) -> Seq:
    """Nodes one after another; without any, the identity.

    An unnamed sequence adds nothing to paths: its items are called as if they stood in
    the node around it.
    """
    return Seq(items, name=name, declared=declared_at())


def _pairs(
    options: Mapping[str, NodeLike] | None, more: Mapping[str, NodeLike]
) -> tuple[tuple[str, NodeLike], ...]:
    return (*as_items("options", options or {}), *more.items())


def choice(
    options: Mapping[str, NodeLike] | None = None,
    /,
    *,
    name: str | None = None,
    search_only: str | Sequence[str] = (),
    **more: NodeLike,
) -> Choice:
    """One of several options, each any part of a space, decided by the search.

    Args:
        options: label to node; or give them as keywords.
        name: what the choice is called in paths.
        search_only: options that take part in the supernet but are never derived.

    Raises:
        SpaceError: no option, or `search_only` names none or all of them.
    """
    pairs = _pairs(options, more)
    hidden = (
        (search_only,) if isinstance(search_only, str) else as_tuple("search_only", search_only)
    )
    return Choice(pairs, hidden, name=name, declared=declared_at())


def repeat(body: NodeLike, counts: int | Sequence[int], *, name: str | None = None) -> Repeat:
    """`body` several times in a row, each time anew; several counts make it a decision.

    Raises:
        SpaceError: counts that are not ascending, or below 0.
    """
    return Repeat(body, counts, name=name, declared=declared_at())


def residual(
    body: NodeLike,
    *,
    scale: float = 1.0,
    skip: NodeLike | None = None,
    name: str | None = None,
) -> Residual:
    """``x + scale * body(x)``, or ``skip(x) + scale * body(x)``."""
    return Residual(body, scale, skip, name=name, declared=declared_at())


def parallel(*branches: NodeLike, merge: Merge = "sum", name: str | None = None) -> Parallel:
    """Branches on one input, merged by ``sum``, ``mean``, ``product`` or ``concat``."""
    return Parallel(branches, merge, name=name, declared=declared_at())


def concat(*branches: NodeLike, name: str | None = None) -> Parallel:
    """Branches on one input, their channels concatenated in order."""
    return Parallel(branches, "concat", name=name, declared=declared_at())


Edge = NodeLike | Callable[[int, int], NodeLike]


def cell(
    steps: int,
    edge: Edge,
    *,
    inputs: Sequence[NodeLike | None] = (None,),
    keep: int | None = None,
    merge: CellMerge = "concat",
    name: str | None = None,
) -> Cell:
    """A directed acyclic cell.

    Nodes are numbered: the inputs from 0, then the steps. Step j is the sum of
    ``edge(i, j)`` over all earlier i.

    Args:
        steps: how many inner nodes.
        edge: the node on every edge, or a function of (i, j) that gives it.
        inputs: for every tensor the cell takes, a preprocessing node or None.
        keep: a derived cell keeps this many incoming edges of each step (DARTS: 2); which
            ones is a decision of each step that has more.
        merge: ``concat`` or ``sum`` of all steps, or the ``last`` step.

    Raises:
        SpaceError: no step, no input, or `keep` below 1.
    """
    if not isinstance(edge, NodeLike) and not callable(edge):
        raise SpaceError(
            "an edge of a cell is a node, or a function of (i, j) that gives one",
            got=edge,
            at=declared_at(),
            fix="Write for example lambda i, j: conv(3, 16).",
        )
    inputs = as_tuple("inputs of a cell", inputs)
    first, last = len(inputs), len(inputs) + (steps if whole(steps, 0) else 0)
    edges = tuple(
        ((i, j), as_node(edge if isinstance(edge, NodeLike) else edge(i, j)))
        for j in range(first, last)
        for i in range(j)
    )
    prepare = tuple(None if node is None else as_node(node) for node in inputs)
    return Cell(prepare, edges, steps, keep, merge, name=name, declared=declared_at())


def stack(*items: NodeLike, memory: int = 2, name: str | None = None) -> Stack:
    """Nodes in a row, each given the last `memory` results (the input at the start)."""
    return Stack(items, memory, name=name, declared=declared_at())


def tree(
    options: Mapping[str, NodeLike] | None = None,
    /,
    *,
    at_most: Mapping[str, int],
    first: str | None = None,
    exit_at: Mapping[str, int] | None = None,
    name: str | None = None,
    **more: NodeLike,
) -> Tree:
    """All sequences of blocks within limits, as a tree with one output to be decided.

    Args:
        options: label to block; or give them as keywords.
        at_most: how often each block may occur on a path.
        first: the block every path starts with; any where None.
        exit_at: a node can be the output where its path holds exactly these counts (for
            instance only behind both upsampling blocks); every node where None.

    Source: Trilevel NAS, Section 3.1 and Eq. 1 (the tree supernet).
    """
    pairs = _pairs(options, more)
    exits = tuple((exit_at or {}).items())
    return Tree(pairs, at_most, first, exits, name=name, declared=declared_at())


def trellis(
    options: Mapping[str, NodeLike] | None = None,
    /,
    *,
    at_most: Mapping[str, int],
    first: str | None = None,
    exit_at: Mapping[str, int] | None = None,
    name: str | None = None,
    **more: NodeLike,
) -> Trellis:
    """The sequences of `tree`, merged where equal numbers of each block have passed.

    Args:
        options: label to block; or give them as keywords.
        at_most: how often each block may occur on a path.
        first: the block every path starts with; any where None.
        exit_at: the counts at which a path may end; by default those of `at_most`.

    Source: Auto-DeepLab, Section 3.2, as Trilevel NAS uses it for comparison.
    """
    pairs = _pairs(options, more)
    exits = tuple((at_most if exit_at is None else exit_at).items())
    return Trellis(pairs, at_most, first, exits, name=name, declared=declared_at())


def share(key: str, body: NodeLike, *, weights: bool = False, name: str | None = None) -> Share:
    """One decision for all places that use the same key; one set of weights if asked.

    >>> normal = share("normal", choice(a=seq(), b=seq()))
    >>> network = seq(normal, normal)      # two cells, one decision: normal
    """
    return Share(key, body, weights, name=name, declared=declared_at())
