"""What one step of a search or of a training tells."""

from __future__ import annotations

import math
from typing import Literal

import attrs
from torch import Tensor

from trinas.graph import Graph
from trinas.supernet import Mixture


@attrs.frozen
class Spread:
    """How decided one kind of decision is.

    Attributes:
        entropy: mean entropy of the weights over the entropy of equal weights, in [0, 1];
            0 is one-hot.
        alive: share of options whose weight is not zero.
        decided: share of decisions with a single option left.
    """

    entropy: float
    alive: float
    decided: float


def spreads(mixture: Mixture) -> dict[str, Spread]:
    """The spread of the weights for every kind of decision that is learned."""
    rows: dict[str, list[list[float]]] = {}
    for path, weights in mixture.by_path().items():
        kind = mixture.graph.decisions[path].kind
        if kind != "inputs":
            rows.setdefault(kind, []).append(weights)
    return {kind: _spread(group) for kind, group in rows.items()}


def _spread(rows: list[list[float]]) -> Spread:
    entropy = sum(-sum(w * math.log(w) for w in row if w > 0) / math.log(len(row)) for row in rows)
    alive = sum(sum(w != 0 for w in row) for row in rows) / sum(map(len, rows))
    decided = sum(sum(w != 0 for w in row) == 1 for row in rows) / len(rows)
    return Spread(max(0.0, entropy / len(rows)), alive, decided)


@attrs.frozen(eq=False)
class StepReport:
    """One finished step.

    Losses stay on the device until they are read, so that a report costs no
    synchronisation by itself.

    Attributes:
        phase: ``pretrain``, ``search`` or ``train``.
        step: number of the step within the run, from 1.
        total: number of steps of the run.
        progress: share of the search done, what the radius follows.
        lr: learning rate of the weights.
        cost_weight: present weight of the cost term.
        spread: how decided each kind of decision is (search only).
    """

    phase: Literal["pretrain", "search", "train"]
    step: int
    total: int
    progress: float
    lr: float
    cost_weight: float = 0.0
    spread: dict[str, Spread] = attrs.field(factory=dict)
    _loss: Tensor | None = attrs.field(default=None, repr=False, alias="loss")
    _arch_loss: Tensor | None = attrs.field(default=None, repr=False, alias="arch_loss")
    _cost: Tensor | None = attrs.field(default=None, repr=False, alias="cost")

    @property
    def loss(self) -> float:
        """Training loss, summed over the passes."""
        return math.nan if self._loss is None else float(self._loss)

    @property
    def arch_loss(self) -> float:
        """Loss on the architecture's data, without the cost term; NaN where none."""
        return math.nan if self._arch_loss is None else float(self._arch_loss)

    @property
    def cost(self) -> float:
        """Expected cost over target; NaN where there is no cost term."""
        return math.nan if self._cost is None else float(self._cost)


def uniform_structure(graph: Graph, *, structure: bool) -> tuple[list[float], list[bool]]:
    """Constants that hold part of the decisions for one half of the cost term.

    Returns:
        A flat vector of constants and, for every slot, whether it applies: widths at the
        widest (``structure`` on trial), or operations and paths even (widths on trial).
    """
    values, held = [], []
    for decision in graph.decisions.values():
        count = len(decision.options)
        is_width = decision.kind == "width"
        for k in range(count):
            values.append(float(k == count - 1) if is_width else 1.0 / count)
            held.append(decision.kind != "inputs" and is_width == structure)
    return values, held
