"""The order of work of a network: which steps run, on which inputs, at which widths.

A `Plan` is made once from a graph. For a forward pass it is narrowed to the steps that
matter, from the output backwards: an input of weight zero is not needed, and neither is
anything that only leads to it. So the unused parts of a choice, and every tree node
below which all weights are zero, cost nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import attrs

from trinas.graph import Graph
from trinas.ops import Operation
from trinas.space.shape import Shape
from trinas.space.values import Var


@attrs.frozen(eq=False)
class Step:
    """One node of the graph, as the executor wants it.

    Attributes:
        node: name of the node.
        kind: its kind in the graph contract.
        inputs: positions of the steps that feed it.
        slots: for a ``mix`` or ``keep`` the place of each input's weight in the flat vector.
        coefs: factors of a ``sum``, empty where all are one.
        key: name of the module of an ``op``.
        operation: the operation of an ``op``.
        x: shape of the first input.
        y: shape of the result.
        searched: widths decide what is computed here.
        makes: widths that the operation sets its channels by.
        declared: the line of the space the node comes from.
    """

    node: str
    kind: str
    inputs: tuple[int, ...]
    slots: tuple[int, ...]
    coefs: tuple[float, ...]
    key: str
    operation: Operation | None
    x: Shape
    y: Shape
    searched: bool
    makes: tuple[str, ...]
    declared: str | None


@attrs.frozen(eq=False)
class Live:
    """A step that runs in a particular pass: its inputs that count, and what it frees."""

    position: int
    step: Step
    inputs: tuple[int, ...]
    slots: tuple[int, ...]
    coefs: tuple[float, ...]
    frees: tuple[int, ...]


def make_steps(graph: Graph) -> tuple[Step, ...]:
    """The steps of a graph, producers first."""
    positions = {node: i for i, node in enumerate(graph)}
    steps = []
    for node in graph:
        vertex = graph.vertex(node)
        sources = graph.sources(node)
        slots: tuple[int, ...] = ()
        if vertex["decision"] is not None:
            decision = graph.decisions[vertex["decision"]]
            start = graph.offsets[decision.path]
            slots = tuple(start + decision.index(s.option) for s in sources if s.option is not None)
        operation = vertex["op"]
        if operation is not None and not isinstance(operation, Operation):
            raise TypeError(f"{operation} at {node} cannot be built: it is no trinas.Operation")
        x = graph.vertex(sources[0].node)["shape"] if sources else vertex["shape"]
        y = vertex["shape"]
        steps.append(
            Step(
                node=node,
                kind=vertex["kind"],
                inputs=tuple(positions[s.node] for s in sources),
                slots=slots,
                coefs=vertex["coefs"],
                key=vertex["weights"] or "",
                operation=operation,
                x=x,
                y=y,
                searched=bool(x.symbols or y.symbols),
                makes=tuple(
                    s.path for s in (operation.symbols if operation else ()) if isinstance(s, Var)
                ),
                declared=vertex["declared"],
            )
        )
    return tuple(steps)


class Plan:
    """The steps of a network, and recently used narrowings of them.

    Args:
        graph: the graph to run.
        remembered: how many different sets of live branches to keep plans for.
    """

    def __init__(self, graph: Graph, *, remembered: int = 16) -> None:
        self.steps = make_steps(graph)
        self._output = list(graph).index(graph.output)
        self._remembered = remembered
        self._plans: OrderedDict[bytes, tuple[Live, ...]] = OrderedDict()

    def live(self, weights: Sequence[float] | None, *, skip: bool = True) -> tuple[Live, ...]:
        """The steps that run for these weights (host values of the flat vector).

        Args:
            weights: None for a network without decisions.
            skip: leave out what weighs zero; without it everything runs.
        """
        alive = bytes(w != 0.0 for w in weights) if weights is not None and skip else b""
        if alive in self._plans:
            self._plans.move_to_end(alive)
            return self._plans[alive]
        plan = self._narrow(alive)
        self._plans[alive] = plan
        if len(self._plans) > self._remembered:
            self._plans.popitem(last=False)
        return plan

    def _narrow(self, alive: bytes) -> tuple[Live, ...]:
        needed = {self._output}
        found: list[tuple[int, Step, list[int]]] = []
        last_use: dict[int, int] = {}
        for position in range(len(self.steps) - 1, -1, -1):
            step = self.steps[position]
            if position not in needed:
                continue
            kept = [
                i
                for i in range(len(step.inputs))
                if not step.slots or not alive or alive[step.slots[i]]
            ]
            found.append((position, step, kept))
            for i in kept:
                needed.add(step.inputs[i])
                last_use.setdefault(step.inputs[i], position)
        frees: dict[int, list[int]] = {}
        for producer, consumer in last_use.items():
            frees.setdefault(consumer, []).append(producer)
        return tuple(
            Live(
                position,
                step,
                tuple(step.inputs[i] for i in kept),
                tuple(step.slots[i] for i in kept) if step.slots else (),
                tuple(step.coefs[i] for i in kept) if step.coefs else (),
                tuple(frees.get(position, ())),
            )
            for position, step, kept in reversed(found)
        )
