"""The penalty on the expected cost, and the controller of its weight."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trinas.cost import ExpectedCost, count
from trinas.graph import Genotype, Graph
from trinas.search.config import CostControl
from trinas.supernet import Mixture

Side = Literal["structure", "widths"]


class CostTerm:
    """Expected cost over target, for structure and widths apart.

    One part is the cost as a function of operations and paths with all widths at their
    widest, the other as a function of the widths with operations and paths held even:
    ``F(alpha, beta)`` and ``F(gamma)`` of Trilevel NAS, Algorithm 1, lines 18 to 20.

    Args:
        graph: the space.
        control: target, metric and shares.
        device: where the mixtures are.
    """

    def __init__(self, graph: Graph, control: CostControl, device: torch.device) -> None:
        self._graph = graph
        self._control = control
        self._expected = ExpectedCost(graph, control.metric, target=control.target).to(device)
        sides: tuple[tuple[Side, float], ...] = (
            ("structure", control.share_structure),
            ("widths", 1 - control.share_structure),
        )
        self._parts = [
            (share, *(torch.tensor(part, device=device) for part in hold_all_but(graph, side)))
            for side, share in sides
        ]

    def __call__(self, mixture: Mixture) -> Tensor:
        """The term, without its weight; a tensor of no dimensions."""
        total = torch.zeros((), device=mixture.odds.device)
        for share, held, constants in self._parts:
            total = total + share * self._expected(torch.where(held, constants, mixture.odds))
        return total

    def adjust(self, weight: float, genotype: Genotype) -> float:
        """The weight of the term after a look at the network that would be derived now."""
        control = self._control
        cost = count(self._graph, genotype)
        share = (cost.params if control.metric == "params" else cost.macs) / control.target
        if share > control.band[1]:
            return weight * 2
        return weight / 2 if share < control.band[0] else weight


def hold_all_but(graph: Graph, side: Side) -> tuple[list[bool], list[float]]:
    """How the decisions of the other side stand while one side of the space is on trial.

    Returns:
        Two flat vectors: which options are held, and their constant odds. Held widths
        stand at the widest, held operations, paths and depths are even, and of the inputs of a
        cell's step as many as are kept, evenly.
    """
    held: list[bool] = []
    constants: list[float] = []
    for decision in graph.decisions.values():
        options = len(decision.options)
        is_width = decision.kind == "width"
        belongs = is_width == (side == "widths")
        held += [not belongs] * options
        even = [decision.keep / options] * options
        constants += [*[0.0] * (options - 1), 1.0] if is_width else even
    return held, constants
