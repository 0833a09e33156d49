"""Which inputs the steps of cells keep: derived from the operations on their edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from trinas.graph import Graph
from trinas.space.decision import Decision, Option


@attrs.frozen
class _Edge:
    """One input of a step: its option there, and the operation decision it comes from."""

    option: Option
    operation: Decision | None


class KeptInputs:
    """The rule by which a cell's step keeps some of its inputs.

    An edge is as strong as its likeliest operation that may be derived (DARTS, Section
    2.4); where no operation is decided on an edge it has strength 1. The strongest stay,
    of equally strong ones the first.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._edges: dict[str, tuple[Decision, list[_Edge]]] = {}
        for node in graph:
            path = graph.vertex(node)["decision"]
            if path is None or graph.decisions[path].kind != "inputs":
                continue
            edges = []
            for source in graph.sources(node):
                inner = graph.vertex(source.node)["decision"]
                decision = None if inner is None else graph.decisions[inner]
                if decision is not None and decision.kind != "operation":
                    decision = None
                if source.option is not None:
                    edges.append(_Edge(source.option, decision))
            # A shared cell asks at each of its places, for the same edges.
            self._edges.setdefault(path, (graph.decisions[path], edges))

    def strongest(self, path: str, odds: Mapping[str, Sequence[float]]) -> tuple[int, ...]:
        """The inputs that the step of this decision keeps, ascending."""
        decision, edges = self._edges[path]
        ranked = sorted(edges, key=lambda edge: -_strength(edge.operation, odds))
        return tuple(sorted(int(edge.option) for edge in ranked[: decision.keep]))

    def mask(self, odds: Mapping[str, Sequence[float]]) -> list[float] | None:
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


def _strength(decision: Decision | None, odds: Mapping[str, Sequence[float]]) -> float:
    if decision is None:
        return 1.0
    rated = zip(odds[decision.path], decision.options)
    return max(odd for odd, option in rated if option in decision.derivable)
