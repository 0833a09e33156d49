"""What one pass runs, in order: steps one by one, or gathered in blocks."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import attrs

from trinas.ops import Operation
from trinas.space.shape import Shape
from trinas.space.values import Var, largest


@attrs.frozen(eq=False)
class Step:
    """One node of the graph, as the executor wants it.

    Attributes:
        node: name of the node.
        kind: its kind in the graph contract.
        decision: path of the decision of a ``mix`` or ``keep``.
        inputs: positions of the steps that feed it; of equal pure operations on one input
            the first stands for all.
        slots: for a ``mix`` or ``keep`` the place of each input's weight in the flat vector.
        coefs: factors of a ``sum``, empty where all are one.
        key: name of the module of an ``op``.
        operation: the operation of an ``op``.
        weights: what the operation declares about its weights, where widths are searched.
        x: shape of the first input.
        y: shape of the result.
        x_pieces: number of the channel pieces of `x`: equal pieces have equal numbers.
        y_pieces: the same for `y`.
        searched: widths decide what is computed here.
        makes: widths that the operation sets its channels by.
        declared: the line of the space the node comes from.
    """

    node: str
    kind: str
    decision: str | None
    inputs: tuple[int, ...]
    slots: tuple[int, ...]
    coefs: tuple[float, ...]
    key: str
    operation: Operation | None
    weights: Mapping[str, tuple[int | str, ...]]
    x: Shape
    y: Shape
    x_pieces: int
    y_pieces: int
    searched: bool
    makes: tuple[str, ...]
    declared: str | None


@attrs.frozen(eq=False)
class Live:
    """A step that runs in a particular pass: its inputs that count, and what it frees.

    Where a sum does the work of mixtures, too (`Order.joined`), `mixed` has the slot of each of
    them in the place of its input, and None in the other places.
    """

    position: int
    step: Step
    inputs: tuple[int, ...]
    slots: tuple[int, ...]
    coefs: tuple[float, ...]
    frees: tuple[int, ...]
    mixed: tuple[int | None, ...] = ()


@attrs.frozen(cache_hash=True)
class Part:
    """One step of a region, without what tells two places apart.

    Attributes:
        kind: of the step.
        operation: of an ``op``, with numbers for searched widths.
        coefs: factors of a ``sum``.
        inputs: what it reads: inputs of the region, then results, counted through.
    """

    kind: str
    operation: Operation | None
    coefs: tuple[float, ...]
    inputs: tuple[int, ...]


class Block:
    """Steps between some inputs and one result: nothing outside reads what is in between.

    Attributes:
        lives: the steps; the last one gives the result.
        inputs: positions of what they read from outside.
        frees: positions that nothing needs after this block.
    """

    def __init__(
        self,
        lives: Sequence[Live],
        inputs: Sequence[int],
        frees: Sequence[int],
        regions: Mapping[int, int],
    ) -> None:
        self.lives = tuple(lives)
        self.inputs = tuple(inputs)
        self.frees = tuple(frees)
        self._regions = regions

    @functools.cached_property
    def recipe(self) -> tuple[Part, ...]:
        """What is computed, the same for all places that are built alike."""
        places = {position: k for k, position in enumerate(self.inputs)}
        parts = []
        for live in self.lives:
            operation = _anywhere(live.step.operation)
            inputs = tuple(places[i] for i in live.inputs)
            parts.append(Part(live.step.kind, operation, live.coefs, inputs))
            places[live.position] = len(places)
        return tuple(parts)

    @functools.cached_property
    def regions(self) -> tuple[Block, ...]:
        """The static regions within."""
        return _grouped(self.lives, self._regions, self._regions)


def _anywhere(operation: Operation | None) -> Operation | None:
    """The operation without the names of the widths in it."""
    if operation is None or not operation.symbols:
        return operation
    bound = operation.bind({symbol: largest(symbol) for symbol in operation.symbols})
    assert isinstance(bound, Operation)
    return bound


def keys_of(order: Order) -> set[str]:
    """Keys of the modules that run."""
    return {live.step.key for live in order.lives}


class Order:
    """What one pass runs, in order: steps one by one, or gathered in blocks.

    Args:
        lives: the steps.
        regions: for every position that of the end of its static region, see `Plan`.
    """

    def __init__(self, lives: tuple[Live, ...], regions: Mapping[int, int]) -> None:
        self.lives = lives
        self._regions = regions

    @functools.cached_property
    def decisions(self) -> frozenset[str]:
        """The decisions that these steps depend on."""
        found = {live.step.decision for live in self.lives if live.step.decision is not None}
        for live in self.lives:
            if live.step.searched:
                symbols = live.step.x.symbols + live.step.y.symbols
                found |= {symbol.path for symbol in symbols if isinstance(symbol, Var)}
        return frozenset(found)

    @functools.cached_property
    def regions(self) -> tuple[Block, ...]:
        """The steps gathered in static regions."""
        return _grouped(self.lives, self._regions, self._regions)

    @functools.cached_property
    def joined(self) -> tuple[Live, ...]:
        """The steps, with every mixture that has one input left done by the sum that reads it.

        Where hardly anything is left, as at the end of a search, that is one call for a node of a
        cell instead of one for each of its edges.
        """
        uses = Counter(i for live in self.lives for i in live.inputs)
        single = {
            live.position: live
            for live in self.lives
            if live.step.kind == "mix" and len(live.inputs) == 1 and uses[live.position] == 1
        }
        done: set[int] = set()
        lives: list[Live] = []
        for live in self.lives:
            adds = live.step.kind in ("sum", "keep")
            mixed = [i for i in live.inputs if i in single] if adds else []
            done.update(mixed)
            lives.append(_joining(live, single) if mixed else live)
        if not done:
            return self.lives
        lives = [live for live in lives if live.position not in done]
        freed = zip(lives, last_reads([live.inputs for live in lives]))
        return tuple(v if v.frees == frees else attrs.evolve(v, frees=frees) for v, frees in freed)

    @functools.cached_property
    def choices(self) -> tuple[Block, ...]:
        """The steps of every mixture together, with all that leads to it and nowhere else."""
        mixtures = {live.position for live in self.lives if live.step.kind == "mix"}
        ends = ends_of(self.lives, closed=mixtures, into=mixtures)
        return _grouped(self.lives, ends, self._regions)


def _joining(live: Live, mixtures: Mapping[int, Live]) -> Live:
    """A sum that reads what these mixtures read, of one input each."""
    return attrs.evolve(
        live,
        inputs=tuple(mixtures[i].inputs[0] if i in mixtures else i for i in live.inputs),
        mixed=tuple(mixtures[i].slots[0] if i in mixtures else None for i in live.inputs),
    )


def last_reads(reads: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Of what several read in turn, for each of them what none behind it reads."""
    last = {i: number for number, inputs in enumerate(reads) for i in inputs}
    return [
        tuple(dict.fromkeys(i for i in inputs if last[i] == number))
        for number, inputs in enumerate(reads)
    ]


def ends_of(
    lives: Sequence[Live], *, closed: Collection[int], into: Collection[int] | None = None
) -> dict[int, int]:
    """For each step where all ways from it meet: a later step, or its own position.

    Args:
        lives: the steps, in order.
        closed: steps that are an end of their own.
        into: the only steps where others may end; all that are not closed if None.
    """
    ends: dict[int, int] = {}
    ahead: dict[int, set[int]] = {}
    for live in reversed(lives):
        meets = ahead.pop(live.position, set())
        end = live.position
        if end not in closed and live.step.kind != "input" and len(meets) == 1:
            (later,) = meets
            if (later in into) if into is not None else (later not in closed):
                end = later
        ends[live.position] = end
        for i in live.inputs:
            ahead.setdefault(i, set()).add(end)
    return ends


def _grouped(
    lives: Sequence[Live], ends: Mapping[int, int], regions: Mapping[int, int]
) -> tuple[Block, ...]:
    """The steps gathered by their ends, in the order of these."""
    members: dict[int, list[Live]] = {}
    for live in lives:
        members.setdefault(ends[live.position], []).append(live)
    # What a block reads from outside is the end of another, and comes earlier.
    groups = [group for _, group in sorted(members.items())]
    reads = []
    for group in groups:
        inside = {live.position for live in group}
        reads.append(list(dict.fromkeys(i for v in group for i in v.inputs if i not in inside)))
    return tuple(
        Block(group, inputs, frees, regions)
        for group, inputs, frees in zip(groups, reads, last_reads(reads))
    )
