"""What one step of a search or of a training tells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs
from torch import Tensor

from trinas.graph import Genotype, Graph
from trinas.search.checks import require_finite
from trinas.search.setting import Setting
from trinas.search.step import Step
from trinas.search.validators import TOLD
from trinas.space.decision import Decision


@attrs.frozen
class Spread:
    """How decided one kind of decision is, by the odds of its options.

    Where several inputs are kept, the odds sum to their number, and each is that of one input
    being kept or not.

    The odds are the weights of the mixture; where the relaxation is stochastic they are
    those of the draw, so that a one-hot sample does not pass for a decision.

    Attributes:
        entropy: mean entropy of the odds over the entropy of equal odds, in [0, 1]; 0 is
            one-hot. Of inputs: the sum of the entropies of their being kept or not, over that
            of equal odds; 0 where as many as are kept have odds 1.
        alive: share of options whose odds are not zero.
        decided: share of decisions with a single option left; with as many as are kept.
        dead: number of options whose odds are exactly zero. They take no gradient of
            their own and come back only if the others fall.
    """

    entropy: float
    alive: float
    decided: float
    dead: int = 0


def spreads(graph: Graph, odds: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
    """The spread of the odds for every kind of decision that is learned.

    Args:
        graph: the space.
        odds: of the options of every decision, as `Supernet.odds` gives them.
    """
    return spreads_of_odds([(graph, odds)])


def spreads_of(setting: Setting) -> dict[str, Spread]:
    """The spread of the odds in a step, for every kind of decision, over all supernets."""
    return spreads_of_odds([(m.graph, m.odds_by_path()) for m in setting.mixtures])


def spreads_of_odds(
    found: Iterable[tuple[Graph, Mapping[str, Sequence[float]]]],
) -> dict[str, Spread]:
    """The same of the odds of several spaces."""
    rows: dict[str, list[tuple[Decision, Sequence[float]]]] = {}
    for graph, odds in found:
        for path, values in odds.items():
            decision = graph.decisions[path]
            rows.setdefault(decision.kind, []).append((decision, values))
    return {kind: _spread(group) for kind, group in rows.items()}


def _spread(rows: list[tuple[Decision, Sequence[float]]]) -> Spread:
    entropy = sum(_entropy(decision, row) for decision, row in rows)
    left = [sum(w != 0 for w in row) for _, row in rows]
    options = sum(len(row) for _, row in rows)
    decided = sum(n == decision.keep for n, (decision, _) in zip(left, rows))
    return Spread(
        entropy=max(0.0, entropy / len(rows)),
        alive=sum(left) / options,
        decided=decided / len(rows),
        dead=options - sum(left),
    )


def _entropy(decision: Decision, row: Sequence[float]) -> float:
    """The entropy of one decision over that of equal odds."""
    if decision.kind != "inputs":
        return sum(map(_term, row)) / math.log(len(row))
    even = decision.keep / len(row)
    return sum(_term(w) + _term(1 - w) for w in row) / len(row) / (_term(even) + _term(1 - even))


def _term(w: float) -> float:
    return -w * math.log(w) if w > 0 else 0.0


@attrs.frozen(eq=False)
class StepReport:
    """One finished step.

    Losses stay on the device until they are read, so that a report costs no
    synchronisation by itself. Reading one that is not finite raises `DivergenceError`; on
    the CPU the step itself has raised it.

    Attributes:
        phase: ``pretrain``, ``search``, ``train`` or ``score``.
        step: number of the step within the run, from 1.
        total: number of steps of the run.
        progress: share of the search done, what the radius follows.
        lr: learning rate of the weights.
        cost_weight: present weight of the cost term.
        spread: how decided each kind of decision is (search only).
        facts: what else the parts told, by name: the values of terms, for instance.
    """

    phase: str
    step: int
    total: int
    progress: float
    lr: float = 0.0
    cost_weight: float = 0.0
    spread: dict[str, Spread] = attrs.field(factory=dict)
    facts: Mapping[str, Any] = attrs.field(factory=dict)
    _loss: Tensor | None = attrs.field(default=None, repr=False, alias="loss")
    _arch_loss: Tensor | None = attrs.field(default=None, repr=False, alias="arch_loss")
    _cost: Tensor | None = attrs.field(default=None, repr=False, alias="cost")

    @property
    def loss(self) -> float:
        """Training loss, summed over the passes."""
        return self._read(self._loss, "loss")

    @property
    def arch_loss(self) -> float:
        """Loss on the architecture's data, without the cost term; NaN where none."""
        return self._read(self._arch_loss, "architecture loss")

    @property
    def cost(self) -> float:
        """The cost term before its weight; NaN where there is none.

        It is the blend of `CostControl.share_structure`: expected cost over target with
        the widths at their widest, and with operations and paths held even. What the
        derived network costs is `trinas.cost.count`'s to say.
        """
        return self._read(self._cost, "expected cost")

    def _read(self, value: Tensor | None, what: str) -> float:
        if value is None:
            return math.nan
        require_finite(value, what, at=f"{self.phase} step {self.step}", wait=True)
        return float(value)


@attrs.frozen(eq=False)
class SampleReport:
    """One finished step of a `RandomSearch`: a network, and its loss.

    The loss stays on the device until it is read, as in `StepReport`.

    Attributes:
        phase: ``train`` or ``score``.
        step: number of the step within the run, from 1.
        total: number of steps of the run.
        genotype: the network that was trained or scored.
        lr: learning rate of the weights; 0 where a network is scored.
    """

    phase: Literal["train", "score"]
    step: int
    total: int
    genotype: Genotype = attrs.field(repr=False)
    lr: float
    _loss: Tensor = attrs.field(repr=False, alias="loss")

    @property
    def loss(self) -> float:
        """Training loss of the step, or the score of the candidate.

        Raises:
            DivergenceError: it is not finite; on the CPU the step itself has raised it.
        """
        require_finite(self._loss, "loss", at=f"{self.phase} step {self.step}", wait=True)
        return float(self._loss)


def step_report(step: Step, done: int, total: int) -> StepReport:
    """The report of a step that is done, of what its parts told."""
    facts = dict(step.facts)
    known = {name: facts.pop(name) for name in TOLD if name in facts}
    nets = step.task.nets
    progress = next((net.progress for net in nets.values()), done / total)
    if done == total and "spread" in known:  # by the odds that the search ends with
        known["spread"] = spreads_of_odds([(net.graph, net.odds()) for net in nets.values()])
    return StepReport(
        phase=step.phase, step=done, total=total, progress=progress, facts=facts, **known
    )
