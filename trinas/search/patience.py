"""How long options have been at weight zero, and which of them are dropped for it."""

from __future__ import annotations

from collections.abc import Sequence

from trinas.graph import Graph
from trinas.space.decision import Option
from trinas.supernet import Supernet
from trinas.supernet.pruning import droppable


class Patience:
    """Counts, for every option, the steps in a row that it had no weight.

    Only options of relaxations that close at zero and do not draw are counted: a draw
    says nothing about the next one.

    Args:
        net: the supernet whose options are counted.
        limit: steps after which an option is dropped.
    """

    def __init__(self, net: Supernet, limit: int) -> None:
        self._graph: Graph = net.graph
        self._limit = limit
        self._slots = frozenset(net.architecture.closing_slots)
        self.counts = [0] * net.graph.slots

    def counted(self, weights: Sequence[float]) -> list[int]:
        """The counts after one more step; those of this object stay.

        Args:
            weights: of all options, in the layout of `Graph.offsets`.
        """
        counts = list(self.counts)
        for slot in self._slots:
            counts[slot] = 0 if weights[slot] else counts[slot] + 1
        return counts

    def exhausted(
        self, counts: Sequence[int], pruned: dict[str, tuple[Option, ...]]
    ) -> dict[str, list[Option]]:
        """The options to drop now, by decision.

        Args:
            counts: for every option the steps that it had no weight.
            pruned: what was dropped before.
        """
        found: dict[str, list[Option]] = {}
        for path, start in self._graph.offsets.items():
            decision = self._graph.decisions[path]
            gone = list(pruned.get(path, ()))
            for k, option in enumerate(decision.options):
                late = counts[start + k] >= self._limit and option not in gone
                if late and droppable(decision, [*gone, option]):
                    gone.append(option)
                    found.setdefault(path, []).append(option)
        return found
