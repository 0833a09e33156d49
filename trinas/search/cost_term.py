"""The penalty on the expected cost, and the controller of its weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from trinas._core.errors import CheckpointError, ConfigError
from trinas.cost import ExpectedCost, Metric
from trinas.graph import Graph
from trinas.search import validators as check
from trinas.search.candidates import cheapest, cost_of
from trinas.search.part import Part, Working
from trinas.search.step import Step
from trinas.search.task import Task
from trinas.supernet import Mixture

Side = Literal["structure", "widths"]


@attrs.frozen(kw_only=True)
class CostControl(Part):
    """A penalty on the expected cost, and a controller of its weight: `expected_cost`.

    The term is ``weight * expected cost / target``: it always pushes towards cheaper
    networks, and `target` is the unit it is measured in. The controller (`every`) is what
    aims at the target: it doubles the weight while the derived network costs too much and
    halves it while it costs too little.

    Attributes:
        target: cost on budget, in the unit of the metric; of all supernets together.
        metric: ``macs`` or ``params``.
        weight: omega, the weight of the term at the start.
        share_structure: share of the weight on operations and paths (widths held at the
            widest); the rest is on widths (operations and paths held uniform). With None the
            term is the expected cost of all decisions together.
        band: at every check, the weight is doubled if the derived network costs more than
            ``band[1] * target``, halved if it costs less than ``band[0] * target``.
        every: steps between checks; never where None.

    Raises:
        ConfigError: a setting is out of its range.
    """

    target: float = attrs.field(validator=check.positive)
    metric: Metric = attrs.field(default="macs", validator=check.metric)
    weight: float = attrs.field(default=0.1, validator=check.not_negative)
    share_structure: float | None = attrs.field(
        default=2 / 7, validator=check.optional(check.share)
    )
    band: tuple[float, float] = attrs.field(default=(0.9, 1.1), validator=check.band)
    every: int | None = attrs.field(
        default=None, validator=check.optional([check.whole, check.positive])
    )

    def start(self, task: Task) -> CostAtWork:
        """Work out what everything costs.

        Raises:
            ConfigError: the controller aims at less than the cheapest network costs.
        """
        return CostAtWork(self, task)


def expected_cost(target: float, **settings: Any) -> CostControl:
    """A penalty on the expected cost, and a controller of its weight; see `CostControl`.

    >>> expected_cost(target=1e6, weight=0.01, every=50).band
    (0.9, 1.1)
    """
    return CostControl(target=target, **settings)


class CostAtWork(Working):
    """A `CostControl` at work.

    Attributes:
        weight: omega at present.
    """

    def __init__(self, part: CostControl, task: Task) -> None:
        super().__init__(task)
        self.part = part
        self.weight = part.weight
        graphs = [net.graph for net in task.nets.values()]
        if part.every is not None:
            _require_attainable(part, graphs)
        self._terms = [CostTerm(graph, part, task.device) for graph in graphs]

    def works_in(self, phase: str) -> bool:
        """Wherever there is something to say about it."""
        return phase in ("pretrain", "search")

    def term(self, step: Step) -> Tensor | None:
        """Lines 18 to 20 of Algorithm 1, times omega."""
        parts = [term(mixture) for term, mixture in zip(self._terms, step.setting.mixtures)]
        if not parts:
            return None
        total = torch.stack(parts).sum()
        step.tell(cost=total.detach())
        return self.weight * total

    def before(self, step: Step) -> None:
        """Say the weight that holds, in pretraining too."""
        step.tell(cost_weight=self.weight)

    def after(self, step: Step) -> None:
        """Double or halve the weight when the derived network leaves its band."""
        part = self.part
        if step.phase != "search" or part.every is None or (step.number + 1) % part.every:
            return
        derived = [net.derive() for net in self.task.nets.values()]
        share = sum(cost_of(genotype, part.metric) for genotype in derived) / part.target
        factor = 2.0 if share > part.band[1] else 0.5 if share < part.band[0] else 1.0
        weight = self.weight * factor
        step.tell(cost_weight=weight)
        step.commit(lambda: setattr(self, "weight", weight))

    def memory(self) -> Mapping[str, Any]:
        """The weight."""
        return {"weight": self.weight}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take it up."""
        weight = memory.get("weight")
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not weight >= 0:
            raise CheckpointError(
                "the weight of the cost in a checkpoint is a number from 0 on", got=repr(weight)
            )
        self.weight = float(weight)


def _require_attainable(part: CostControl, graphs: list[Graph]) -> None:
    least = sum(cost_of(cheapest(graph, part.metric), part.metric) for graph in graphs)
    if part.target * part.band[1] < least:
        raise ConfigError(
            "some network of the space is within the band of the target",
            got=f"a target of {part.target:,g} {part.metric}; the cheapest network costs {least:,}",
            at="expected_cost",
            fix="Raise the target, or put cheaper options into the space.",
        )


class CostTerm:
    """Expected cost over target, for structure and widths apart or together.

    Apart, one part is the cost as a function of operations and paths with all widths at their
    widest, the other as a function of the widths with operations and paths held even:
    ``F(alpha, beta)`` and ``F(gamma)`` of Trilevel NAS, Algorithm 1, lines 18 to 20.

    Args:
        graph: the space.
        control: target, metric and shares.
        device: where the mixtures are.
    """

    def __init__(self, graph: Graph, control: CostControl, device: torch.device) -> None:
        self._expected = ExpectedCost(graph, control.metric, target=control.target).to(device)
        share = control.share_structure
        sides: tuple[tuple[Side, float], ...] = ()
        if share is not None:
            sides = (("structure", share), ("widths", 1 - share))
        self._parts = [
            (part, *(torch.tensor(held, device=device) for held in hold_all_but(graph, side)))
            for side, part in sides
        ]

    def __call__(self, mixture: Mixture) -> Tensor:
        """The term, without its weight; a tensor of no dimensions."""
        if not self._parts:
            return self._expected(mixture.odds)
        total = torch.zeros((), device=mixture.odds.device)
        for share, held, constants in self._parts:
            total = total + share * self._expected(torch.where(held, constants, mixture.odds))
        return total


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
