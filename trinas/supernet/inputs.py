"""Which inputs the steps of cells keep, and how strong the operations on their edges are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from trinas.graph import Graph
from trinas.space.decision import Decision, Option

Rows = Mapping[str, Sequence[float]]


@attrs.frozen
class _Edge:
    """One input of a step: its option there, and the operation decision on it."""

    option: Option
    operation: Decision | None


class KeptInputs:
    """The rule by which a cell's step keeps some of its inputs.

    An edge is as strong as its likeliest operation that may be derived (DARTS, Section
    2.4), whatever else stands behind that choice on the edge: a dropout, a normalisation.
    Where no operation is decided on an edge it has strength 1. The strongest stay, of
    equally strong ones the first.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._edges: dict[str, tuple[Decision, list[_Edge]]] = {}
        for node in graph:
            path = graph.vertex(node)["decision"]
            if path is None or graph.decisions[path].kind != "inputs":
                continue
            edges = [
                _Edge(source.option, _operation_on(graph, node, source.option, source.node))
                for source in graph.sources(node)
                if source.option is not None
            ]
            # A shared cell asks at each of its places, for the same edges.
            self._edges.setdefault(path, (graph.decisions[path], edges))

    def strongest(self, path: str, odds: Rows) -> tuple[int, ...]:
        """The inputs that the step of this decision keeps, ascending."""
        return self._first(path, lambda edge: (_strength(edge.operation, odds),))

    def heaviest(self, path: str, weights: Rows, logits: Rows, odds: Rows) -> tuple[int, ...]:
        """The inputs of the largest weights, ascending.

        Equal weights fall to the larger logit, then to the stronger edge, then to the first.
        """
        decision = self._edges[path][0]

        def rank(edge: _Edge) -> tuple[float, ...]:
            k = decision.index(edge.option)
            return weights[path][k], logits[path][k], _strength(edge.operation, odds)

        return self._first(path, rank)

    def _first(self, path: str, rank: Callable[[_Edge], tuple[float, ...]]) -> tuple[int, ...]:
        decision, edges = self._edges[path]
        ranked = sorted(edges, key=lambda edge: tuple(-value for value in rank(edge)))
        return tuple(sorted(int(edge.option) for edge in ranked[: decision.keep]))

    def mask(self, odds: Rows) -> list[float] | None:
        """A flat vector that is 0 for inputs that would not be kept, else 1.

        None where no step of the space drops inputs.
        """
        if not self._edges:
            return None
        flat = [1.0] * self._graph.slots
        for path, (decision, _) in self._edges.items():
            kept = self.strongest(path, odds)
            for option in decision.options:
                slot = self._graph.offsets[path] + decision.index(option)
                flat[slot] = float(option in kept)
        return flat


def _operation_on(graph: Graph, step: str, option: Option, end: str) -> Decision | None:
    """The last operation decision on an edge of a cell, seen from the step that it leads to."""
    cell, _, name = step.rpartition("/")
    edge = f"{cell}/edge[{option},{name.removeprefix('node[')}"
    while end == edge or end.startswith(f"{edge}/"):
        vertex = graph.vertex(end)
        if vertex["decision"] is not None:
            decision = graph.decisions[vertex["decision"]]
            return decision if decision.kind == "operation" else None
        if vertex["kind"] != "op":
            return None
        end = graph.sources(end)[0].node
    return None


def _strength(decision: Decision | None, odds: Rows) -> float:
    if decision is None:
        return 1.0
    rated = zip(odds[decision.path], decision.options)
    return max(odd for odd, option in rated if option in decision.derivable)
