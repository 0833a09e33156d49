"""The nodes of a search space: frozen data, checked as they are made, no behaviour.

A node is a template. Wherever it is used it stands for a new instance, with weights and
decisions of its own, unless a `Share` says otherwise. Users write the lower-case words of
`trinas.space.words`, which build these nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import attrs

from trinas._core.declared import declared_at
from trinas._core.errors import SpaceError
from trinas.space.checks import (
    as_items,
    as_tuple,
    check_label,
    finite_factor,
    not_empty,
    optional_label,
    whole,
)
from trinas.space.nested import Nested
from trinas.space.operation import OperationSpec
from trinas.space.values import Symbol

Merge = Literal["sum", "mean", "concat", "product"]
MERGES: tuple[str, ...] = ("sum", "mean", "concat", "product")
CellMerge = Literal["concat", "sum", "last"]
CELL_MERGES: tuple[str, ...] = ("concat", "sum", "last")


N = TypeVar("N", bound="Node")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Node(Nested):
    """Any part of a space.

    Attributes:
        name: what the node is called in paths; its kind where None. A place that has a
            label of its own (an option, a skip, an edge of a cell) goes by that.
        declared: the line that made it, for messages; not part of equality.
    """

    name: str | None = attrs.field(default=None, validator=optional_label)
    declared: str | None = attrs.field(default=None, eq=False, repr=False)

    def named(self: N, name: str) -> N:
        """The same node under another name.

        Raises:
            SpaceError: `name` is not made of letters, digits and underscores.
        """
        return attrs.evolve(self, name=name)

    @property
    def label(self) -> str:
        """What the node is called in a path."""
        return self.name or type(self).__name__.lower()

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly inside, each once for every place it is written."""
        return ()

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The widths written in this very node, not in its children."""
        return ()


def as_node(thing: Node | OperationSpec) -> Node:
    """A node, from a node or from an operation.

    Raises:
        SpaceError: anything else.
    """
    if isinstance(thing, Node):
        return thing
    if isinstance(thing, OperationSpec):
        # An inherited name would make this operation look like its parent everywhere.
        if "registered" not in vars(type(thing)):
            raise SpaceError(
                "an operation is registered under a name of its own",
                got=type(thing).__name__,
                at=declared_at(),
                fix='Decorate its class with @trinas.operation("name").',
            )
        return Op(thing, declared=declared_at())
    raise SpaceError(
        "a space is made of nodes and operations",
        got=thing,
        at=declared_at(),
        fix="Use the words of trinas (conv, seq, choice, ...), or register your operation "
        "with @trinas.operation.",
    )


def _as_nodes(things: Sequence[Node | OperationSpec]) -> tuple[Node, ...]:
    return tuple(as_node(thing) for thing in things)


@attrs.frozen(eq=False, repr=False)
class Op(Node):
    """One operation."""

    operation: OperationSpec

    @property
    def label(self) -> str:
        """The registered name of the operation, unless the node has one."""
        return self.name or self.operation.kind

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The widths in the settings of the operation."""
        return self.operation.symbols


@attrs.frozen(eq=False, repr=False)
class Seq(Node):
    """Nodes one after another."""

    items: tuple[Node, ...] = attrs.field(converter=_as_nodes)

    @property
    def children(self) -> tuple[Node, ...]:
        """The items in order."""
        return self.items


Labelled = tuple[tuple[str, Node], ...]


def _labelled(pairs: Sequence[tuple[str, Node | OperationSpec]]) -> Labelled:
    labels = [check_label(label) for label, _ in pairs]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise SpaceError(
            "every label is given once", got=twice, at=declared_at(), fix="Rename one of them."
        )
    return tuple((label, as_node(node)) for label, node in pairs)


@attrs.frozen(eq=False, repr=False)
class Choice(Node):
    """One of several options, to be decided.

    Attributes:
        search_only: options that compete in the supernet but are never derived, such as
            the ``none`` of DARTS.
    """

    options: Labelled = attrs.field(converter=_labelled, validator=not_empty("a choice"))
    search_only: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        labels = [label for label, _ in self.options]
        for label in self.search_only:
            if label not in labels:
                raise SpaceError(
                    "search_only names options of its choice",
                    got=label,
                    at=declared_at(),
                    fix=f"The options are {', '.join(labels)}.",
                )
        if len(set(self.search_only)) == len(labels):
            raise SpaceError(
                "a choice leaves at least one option to derive",
                got=self.search_only,
                at=declared_at(),
                fix="Take one option out of search_only.",
            )

    @property
    def children(self) -> tuple[Node, ...]:
        """The options in order."""
        return tuple([node for _, node in self.options])


def _counts(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else as_tuple("counts of a repeat", value)


@attrs.frozen(eq=False, repr=False)
class Repeat(Node):
    """A body several times in a row; with several counts, how often is decided."""

    body: Node = attrs.field(converter=as_node)
    counts: tuple[int, ...] = attrs.field(converter=_counts, validator=not_empty("a repeat"))

    def __attrs_post_init__(self) -> None:
        numbers = all(whole(count, 0) for count in self.counts)
        if not numbers or list(self.counts) != sorted(set(self.counts)):
            raise SpaceError(
                "the counts of a repeat are ascending whole numbers, none below 0",
                got=self.counts,
                at=declared_at(),
                fix="Write for example (1, 2, 4).",
            )

    @property
    def children(self) -> tuple[Node, ...]:
        """The body."""
        return (self.body,)


@attrs.frozen(eq=False, repr=False)
class Residual(Node):
    """``skip(x) + scale * body(x)``; without `skip`, ``x`` itself is added."""

    body: Node = attrs.field(converter=as_node)
    scale: float = attrs.field(default=1.0, converter=finite_factor)
    skip: Node | None = attrs.field(default=None, converter=attrs.converters.optional(as_node))

    @property
    def children(self) -> tuple[Node, ...]:
        """The body, then the skip where there is one."""
        return (self.body,) if self.skip is None else (self.body, self.skip)


@attrs.frozen(eq=False, repr=False)
class Parallel(Node):
    """Branches on one input, merged by adding, averaging, multiplying or concatenating."""

    branches: tuple[Node, ...] = attrs.field(converter=_as_nodes, validator=not_empty("a parallel"))
    merge: Merge = "sum"

    def __attrs_post_init__(self) -> None:
        if self.merge not in MERGES:
            raise SpaceError(
                "unknown merge of branches",
                got=self.merge,
                at=declared_at(),
                fix=f"Known: {', '.join(MERGES)}.",
            )

    @property
    def children(self) -> tuple[Node, ...]:
        """The branches in order."""
        return self.branches


def _as_inputs(things: Any) -> tuple[Node | None, ...]:
    nodes = as_tuple("inputs of a cell", things)
    return tuple(None if thing is None else as_node(thing) for thing in nodes)


def _as_edges(things: Any) -> tuple[tuple[tuple[int, int], Node], ...]:
    return tuple((pair, as_node(node)) for pair, node in as_tuple("edges of a cell", things))


@attrs.frozen(eq=False, repr=False)
class Cell(Node):
    """A directed acyclic cell: every step adds up edges from all that came before.

    Attributes:
        inputs: one preprocessing node, or None, for each tensor the cell takes.
        edges: ``((i, j), node)`` from predecessor i to step j; inputs are numbered first.
        keep: how many incoming edges of a step survive derivation; all of them where None.
        merge: what leaves the cell: the steps concatenated or added, or the last one.
    """

    inputs: tuple[Node | None, ...] = attrs.field(converter=_as_inputs)
    edges: tuple[tuple[tuple[int, int], Node], ...] = attrs.field(converter=_as_edges)
    steps: int
    keep: int | None = None
    merge: CellMerge = "concat"

    def __attrs_post_init__(self) -> None:
        numbers = (("steps", self.steps), ("inputs", len(self.inputs)), ("keep", self.keep))
        for what, value in numbers:
            if value is not None and not whole(value, 1):
                raise SpaceError(
                    f"{what} of a cell is a whole number of at least 1",
                    got=value,
                    at=declared_at(),
                    fix="A cell has an input and a step, and keeps at least one edge of each.",
                )
        first = len(self.inputs)
        wanted = {(i, j) for j in range(first, first + self.steps) for i in range(j)}
        if {pair for pair, _ in self.edges} != wanted:
            raise SpaceError(
                "a cell has an edge from every earlier node to every step",
                got=[pair for pair, _ in self.edges],
                at=declared_at(),
                fix="Use trinas.cell, which makes them; cut one with an option like zero().",
            )
        if self.merge not in CELL_MERGES:
            raise SpaceError(
                "unknown merge of a cell",
                got=self.merge,
                at=declared_at(),
                fix=f"Known: {', '.join(CELL_MERGES)}.",
            )

    @property
    def children(self) -> tuple[Node, ...]:
        """The preprocessing nodes, then the edges."""
        return (*(n for n in self.inputs if n is not None), *(n for _, n in self.edges))


@attrs.frozen(eq=False, repr=False)
class Stack(Node):
    """Nodes one after another, each fed by the last `memory` results (cells of DARTS)."""

    items: tuple[Node, ...] = attrs.field(converter=_as_nodes, validator=not_empty("a stack"))
    memory: int = 2

    def __attrs_post_init__(self) -> None:
        if not whole(self.memory, 1):
            raise SpaceError(
                "a stack remembers at least 1 result",
                got=self.memory,
                at=declared_at(),
                fix="Cells of DARTS look at the last 2.",
            )

    @property
    def children(self) -> tuple[Node, ...]:
        """The items in order."""
        return self.items


def _at_most(value: Any) -> tuple[tuple[str, int], ...]:
    return as_items("at_most and exit_at", value)


@attrs.frozen(eq=False, repr=False)
class _Paths(Node):
    options: Labelled = attrs.field(converter=_labelled, validator=not_empty("a path space"))
    at_most: tuple[tuple[str, int], ...] = attrs.field(converter=_at_most)
    first: str | None = None
    exit_at: tuple[tuple[str, int], ...] = attrs.field(factory=tuple, converter=_at_most)

    def __attrs_post_init__(self) -> None:
        labels = [label for label, _ in self.options]
        limits, exits = dict(self.at_most), dict(self.exit_at)
        for label in (*limits, *exits, *(() if self.first is None else (self.first,))):
            if label not in labels:
                raise SpaceError(
                    "first, at_most and exit_at name blocks of the path space",
                    got=label,
                    at=declared_at(),
                    fix=f"The blocks are {', '.join(labels)}.",
                )
        for label in labels:
            if not whole(limits.get(label), 1):
                raise SpaceError(
                    "at_most gives every block a number of at least 1",
                    got=f"{label}={limits.get(label)}",
                    at=declared_at(),
                    fix="A path space without limits would be endless.",
                )
        for label, count in exits.items():
            if not whole(count, 0) or count > limits[label]:
                raise SpaceError(
                    "exit_at can be reached within at_most",
                    got=f"{label}={count}",
                    at=declared_at(),
                    fix=f"Use a whole number from 0 to {limits[label]}, what at_most allows.",
                )
        longest = {**limits, **exits}
        if not any(longest.values()) or (self.first is not None and not longest[self.first]):
            raise SpaceError(
                "a path holds at least one block, and the first one where that is given",
                got=exits,
                at=declared_at(),
                fix="Allow more in exit_at, or no path can end.",
            )

    @property
    def children(self) -> tuple[Node, ...]:
        """The blocks in order."""
        return tuple([node for _, node in self.options])


@attrs.frozen(eq=False, repr=False)
class Tree(_Paths):
    """Every sequence of blocks within limits, as a tree: paths share prefixes, never merge.

    Each tree edge is an instance of its block with weights of its own; every tree node
    (those that `exit_at` allows) can be the output. Which one is a single decision.
    """


@attrs.frozen(eq=False, repr=False)
class Trellis(_Paths):
    """The same sequences, merged wherever the same number of each block has been passed.

    Each grid node decides which way it is reached; the exit is decided among the grid
    nodes that `exit_at` allows, by default only the one where all blocks are used up.
    """


@attrs.frozen(eq=False, repr=False)
class Share(Node):
    """One decision (and, with `weights`, one set of weights) at all places that say `key`."""

    key: str = attrs.field(validator=lambda _, __, v: check_label(v) and None)
    body: Node = attrs.field(converter=as_node)
    weights: bool = False

    @property
    def label(self) -> str:
        """The name of this place, by default the key."""
        return self.name or self.key

    @property
    def children(self) -> tuple[Node, ...]:
        """The shared body."""
        return (self.body,)
