"""The order of work of a network: which steps run, on which inputs, at which widths.

A `Plan` is made once from a graph. For a forward pass it is narrowed to the steps that
matter, from the output backwards: an input of weight zero is not needed, and neither is
anything that only leads to it. So the unused parts of a choice, and every tree node
below which all weights are zero, cost nothing. Nothing is computed twice, either (the
options of a choice often begin with the same activation or pooling of one input), and
zeros are not added.
"""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence

import attrs

from trinas._core.errors import GraphError, RelaxationError
from trinas.graph import Graph, Vertex
from trinas.ops import Operation
from trinas.space.shape import Shape
from trinas.space.values import Value, Var, largest


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


def _keys(order: Order) -> set[str]:
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
        freed = zip(lives, _last_reads([live.inputs for live in lives]))
        return tuple(v if v.frees == frees else attrs.evolve(v, frees=frees) for v, frees in freed)

    @functools.cached_property
    def choices(self) -> tuple[Block, ...]:
        """The steps of every mixture together, with all that leads to it and nowhere else."""
        mixtures = {live.position for live in self.lives if live.step.kind == "mix"}
        ends = _ends(self.lives, closed=mixtures, into=mixtures)
        return _grouped(self.lives, ends, self._regions)


def _joining(live: Live, mixtures: Mapping[int, Live]) -> Live:
    """A sum that reads what these mixtures read, of one input each."""
    return attrs.evolve(
        live,
        inputs=tuple(mixtures[i].inputs[0] if i in mixtures else i for i in live.inputs),
        mixed=tuple(mixtures[i].slots[0] if i in mixtures else None for i in live.inputs),
    )


def _last_reads(reads: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Of what several read in turn, for each of them what none behind it reads."""
    last = {i: number for number, inputs in enumerate(reads) for i in inputs}
    return [
        tuple(dict.fromkeys(i for i in inputs if last[i] == number))
        for number, inputs in enumerate(reads)
    ]


def _ends(
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
        for group, inputs, frees in zip(groups, reads, _last_reads(reads))
    )


def make_steps(graph: Graph) -> tuple[Step, ...]:
    """The steps of a graph, producers first.

    Raises:
        GraphError: an operation that torch knows nothing of.
    """
    positions: dict[str, int] = {}
    pure: dict[tuple[Operation, int], int] = {}
    numbers: dict[tuple[Value, ...], int] = {}
    steps = []
    for position, node in enumerate(graph):
        vertex = graph.vertex(node)
        sources = graph.sources(node)
        inputs = tuple(positions[s.node] for s in sources)
        slots: tuple[int, ...] = ()
        if vertex["decision"] is not None:
            decision = graph.decisions[vertex["decision"]]
            start = graph.offsets[decision.path]
            slots = tuple(start + decision.index(s.option) for s in sources if s.option is not None)
        x = graph.vertex(sources[0].node)["shape"] if sources else vertex["shape"]
        y = vertex["shape"]
        searched = bool(x.symbols or y.symbols)
        operation = _operation(node, vertex)
        weights = dict(operation.weights(x, y)) if operation is not None and searched else {}
        positions[node] = position
        if operation is not None and operation.pure:
            # Who reads this one reads the first that computes the same.
            positions[node] = pure.setdefault((operation, inputs[0]), position)
        steps.append(
            Step(
                node=node,
                kind=vertex["kind"],
                decision=vertex["decision"],
                inputs=inputs,
                slots=slots,
                coefs=vertex["coefs"],
                key=vertex["weights"] or "",
                operation=operation,
                weights=weights,
                x=x,
                y=y,
                x_pieces=numbers.setdefault(x.segments, len(numbers)),
                y_pieces=numbers.setdefault(y.segments, len(numbers)),
                searched=searched,
                makes=_makes(operation, bool(weights) or x.segments != y.segments),
                declared=vertex["declared"],
            )
        )
    return tuple(steps)


def _operation(node: str, vertex: Vertex) -> Operation | None:
    operation = vertex["op"]
    if operation is not None and not isinstance(operation, Operation):
        raise GraphError(
            "a network is built of operations that torch knows",
            got=str(operation),
            at=node,
            fix="Derive the operation from trinas.Operation.",
        )
    return operation


def _makes(operation: Operation | None, sets_channels: bool) -> tuple[str, ...]:
    """Widths an operation sets its channels by; a skip that changes nothing sets none."""
    if operation is None or not sets_channels:
        return ()
    return tuple(s.path for s in operation.symbols if isinstance(s, Var))


class Plan:
    """The steps of a network, and recently used narrowings of them.

    A *static region* is a run of steps between decisions that is needed as a whole or not
    at all, and works alike whatever is decided: the inside of an operation made of several,
    for instance. It is what can be compiled once and for all.

    Args:
        graph: the graph to run.
        remembered: how many different sets of live branches to keep plans for.
    """

    def __init__(self, graph: Graph, *, remembered: int = 16) -> None:
        self.steps = make_steps(graph)
        self._output = list(graph).index(graph.output)
        self._remembered = remembered
        # Only what picks among branches matters, so other widths are no other plan.
        self._picking = sorted({slot for step in self.steps for slot in step.slots})
        self._left: bytes | None = None
        self._regions: dict[int, int] = {}
        self._full = self._narrow(None)
        # In place: what was made already looks it up there.
        self._regions.update(_ends(self._full.lives, closed=self._varying()))
        self._orders: OrderedDict[bytes, Order] = OrderedDict()

    @property
    def last(self) -> Step:
        """The step that gives the result of the network."""
        return self.steps[self._output]

    def order(self, alive: bytes | None, *, skip: bool = True) -> Order:
        """The steps that run.

        Args:
            alive: which options take part (`Mixture.alive`); None for a network without
                decisions.
            skip: leave out what takes no part; without it everything runs.

        Raises:
            RelaxationError: no option of a decision takes part, or one that was dropped.
        """
        if alive is None or not skip:
            return self._full
        key = bytes([alive[slot] for slot in self._picking])
        if key in self._orders:
            self._orders.move_to_end(key)
            return self._orders[key]
        self._check_left(alive)
        order = self._narrow(alive)
        self._orders[key] = order
        if len(self._orders) > self._remembered:
            self._orders.popitem(last=False)
        return order

    def runnable(self, left: bytes) -> set[str]:
        """Keys of the modules that can run with these options left (one byte a slot)."""
        return _keys(self._narrow(left, add_zeros=True))

    def keep(self, left: bytes) -> set[str]:
        """Forget the options that are not `left` (one byte a slot).

        Returns:
            Keys of the modules that can still run.
        """
        self._left = left
        self._full = self._narrow(left, add_zeros=True)
        self._orders.clear()
        return _keys(self._full)

    def _check_left(self, alive: bytes) -> None:
        if self._left is None:
            return
        for step in self.steps:
            if any(alive[slot] and not self._left[slot] for slot in step.slots):
                raise RelaxationError(
                    "an option that was dropped for good takes no part any more",
                    got="a weight other than 0",
                    at=step.decision,
                    fix="See Supernet.pruned; load a checkpoint from before.",
                )

    def _narrow(self, alive: bytes | None, *, add_zeros: bool = False) -> Order:
        # A plain network runs all that its cost counts, as published counts do.
        zeros = set() if alive is None or add_zeros else self._zeros(alive)
        needed = {self._output}
        found: list[tuple[int, list[int], tuple[int, ...]]] = []
        for position in range(len(self.steps) - 1, -1, -1):
            step = self.steps[position]
            if position not in needed:
                continue
            kept = _kept(step, alive)
            if step.kind in _ADDING:
                kept = [i for i in kept if step.inputs[i] not in zeros] or kept[:1]
            inputs = tuple(step.inputs[i] for i in kept)
            needed.update(inputs)
            found.append((position, kept, inputs))
        found.reverse()
        lives = []
        for (position, kept, inputs), frees in zip(found, _last_reads([i for *_, i in found])):
            step = self.steps[position]
            slots = tuple(step.slots[i] for i in kept) if step.slots else ()
            coefs = tuple(step.coefs[i] for i in kept) if step.coefs else ()
            lives.append(Live(position, step, inputs, slots, coefs, frees))
        return Order(tuple(lives), self._regions)

    def _varying(self) -> set[int]:
        """The steps whose inputs hang on the decisions: mixtures, and sums that leave out zeros."""
        varying: set[int] = set()
        for position, step in enumerate(self.steps):
            if step.kind not in _ADDING:
                continue
            sources = [self.steps[i] for i in step.inputs]
            zero = any(s.operation is not None and s.operation.always_zero for s in sources)
            if step.slots or zero or any(s.kind in _ADDING for s in sources):
                varying.add(position)
        return varying

    def _zeros(self, alive: bytes) -> set[int]:
        """The steps whose result is zero for certain: zeros, and sums of nothing else."""
        zeros: set[int] = set()
        for position, step in enumerate(self.steps):
            if step.operation is not None:
                if step.operation.always_zero:
                    zeros.add(position)
            elif step.kind in _ADDING:
                kept = _kept(step, alive, strict=False)
                if all(step.inputs[i] in zeros for i in kept):
                    zeros.add(position)
        return zeros


_ADDING = ("mix", "keep", "sum")


def _kept(step: Step, alive: bytes | None, *, strict: bool = True) -> list[int]:
    """Which inputs of a step take part."""
    if not step.slots or alive is None:
        return list(range(len(step.inputs)))
    kept = [i for i, slot in enumerate(step.slots) if alive[slot]]
    if strict and not kept:
        raise RelaxationError(
            "one option of a decision at least has a weight other than 0",
            got="0 throughout",
            at=step.decision,
            fix="Does the relaxation always leave one?",
        )
    return kept
