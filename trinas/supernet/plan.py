"""The order of work of a network: which steps run, on which inputs, at which widths.

A `Plan` is made once from a graph. For a forward pass it is narrowed to the steps that
matter, from the output backwards: an input of weight zero is not needed, and neither is
anything that only leads to it. So the unused parts of a choice, and every tree node
below which all weights are zero, cost nothing. Nothing is computed twice, either (the
options of a choice often begin with the same activation or pooling of one input), and
zeros are not added.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from trinas._core.errors import GraphError, RelaxationError
from trinas.graph import Graph, Vertex
from trinas.ops import Operation
from trinas.space.decision import Option
from trinas.space.values import Value, Var
from trinas.supernet.exits import Exits, branched, settled
from trinas.supernet.order import Live, Order, Step, ends_of, keys_of, last_reads


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
        self._graph = graph
        self._output = list(graph).index(graph.output)
        self._remembered = remembered
        # Only what picks among branches matters, so other widths are no other plan.
        self._picking = sorted({slot for step in self.steps for slot in step.slots})
        self._left: bytes | None = None
        self._regions: dict[int, int] = {}
        self._full = self._narrow(None)
        # In place: what was made already looks it up there.
        self._regions.update(ends_of(self._full.lives, closed=self._varying()))
        self._orders: OrderedDict[bytes, Order] = OrderedDict()
        self._exits: OrderedDict[tuple[object, ...], Exits] = OrderedDict()

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
        order = self._left_only(self._narrow(alive))
        self._orders[key] = order
        if len(self._orders) > self._remembered:
            self._orders.popitem(last=False)
        return order

    def exits(
        self, path: str, options: Sequence[Option], alive: bytes, *, skip: bool = True
    ) -> Exits:
        """The steps that run where one decision stands at each of some options in turn.

        Args:
            path: the decision.
            options: of this decision.
            alive: which options of the others take part (`Mixture.alive`).
            skip: as in `order`.

        Raises:
            RelaxationError: no option of another decision takes part, or one that was dropped.
        """
        if not skip:
            alive = self._left or bytes([1]) * len(alive)
        key = (path, tuple(options), skip, bytes([alive[slot] for slot in self._picking]))
        if key in self._exits:
            self._exits.move_to_end(key)
            return self._exits[key]
        decision, start = self._graph.decisions[path], self._graph.offsets[path]
        orders = {}
        for option in options:
            one = bytearray(alive)
            for index, other in enumerate(decision.options):
                one[start + index] = other == option
            order = self._left_only(self._narrow(bytes(one), add_zeros=not skip))
            orders[option] = settled(order, path)
        exits = self._exits[key] = branched(orders, path, self._output, self._regions)
        if len(self._exits) > self._remembered:
            self._exits.popitem(last=False)
        return exits

    def runnable(self, left: bytes) -> set[str]:
        """Keys of the modules that can run with these options left (one byte a slot)."""
        return keys_of(self._narrow(left, add_zeros=True))

    def keep(self, left: bytes) -> set[str]:
        """Forget the options that are not `left` (one byte a slot).

        Returns:
            Keys of the modules that can still run.
        """
        self._left = left
        self._full = self._narrow(left, add_zeros=True)
        self._orders.clear()
        self._exits.clear()
        return keys_of(self._full)

    def _left_only(self, order: Order) -> Order:
        left = self._left
        if left is None:
            return order
        # Of what does not run, such as a branch that is out, weights may be as they like.
        for live in order.lives:
            if not all(left[slot] for slot in live.slots):
                raise RelaxationError(
                    "an option that was dropped for good takes no part any more",
                    got="a weight other than 0",
                    at=live.step.decision,
                    fix="See Supernet.pruned; load a checkpoint from before.",
                )
        return order

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
        for (position, kept, inputs), frees in zip(found, last_reads([i for *_, i in found])):
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
