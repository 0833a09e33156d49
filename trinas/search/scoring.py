"""Parts of searches that try networks: one drawn a step, and candidates scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from trinas._core.errors import CheckpointError
from trinas.graph import Genotype
from trinas.search import validators as check
from trinas.search.batches import Data
from trinas.search.candidates import Budget, draw
from trinas.search.checks import require_finite
from trinas.search.part import Part, Working
from trinas.search.setting import Setting
from trinas.search.step import Step
from trinas.search.stream import Stream
from trinas.search.task import Task
from trinas.search.undo import uninterrupted
from trinas.supernet import Mixture, Supernet, batch_statistics


def _counted(networks: Sequence[Genotype]) -> str:
    return f"<{len(networks)} networks>"


@attrs.frozen
class DrawNetwork(Part):
    """Every step of training runs one network, drawn evenly decision by decision.

    Attributes:
        within: the budget of the networks; all where None.
        otherwise: what is drawn from where hardly any network keeps to the budget.
    """

    within: Budget | None = None
    otherwise: tuple[Genotype, ...] = attrs.field(default=(), repr=_counted)

    def start(self, task: Task) -> DrawAtWork:
        """Nothing to prepare."""
        return DrawAtWork(self, task)


class DrawAtWork(Working):
    """A `DrawNetwork` at work."""

    def __init__(self, part: DrawNetwork, task: Task) -> None:
        super().__init__(task)
        self.part = part

    def works_in(self, phase: str) -> bool:
        """Where weights are trained."""
        return phase == "train"

    def before(self, step: Step) -> None:
        """Draw."""
        (net,) = self.task.nets.values()
        genotype = draw(net.graph, step.rng, within=self.part.within)
        if genotype is None:
            genotype = step.rng.choice(self.part.otherwise)
        like = torch.empty(0, device=self.task.device)
        step.use(Setting((net,), (Mixture.of(genotype, like),)))
        step.tell(genotype=genotype)


@attrs.frozen
class Score(Part):
    """Each step of the phase ``score`` looks at one candidate.

    Attributes:
        candidates: in order.
        data: of the scores.
        batches: how many of them; taken once and kept.
        seed: of the run.
    """

    candidates: tuple[Genotype, ...] = attrs.field(repr=_counted)
    data: Data = attrs.field(repr=check.shown)
    batches: int
    seed: int

    def start(self, task: Task) -> ScoreAtWork:
        """Nothing is scored yet."""
        return ScoreAtWork(self, task)


class ScoreAtWork(Working):
    """A `Score` at work.

    Attributes:
        scores: mean losses of the candidates so far, in their order.
    """

    def __init__(self, part: Score, task: Task) -> None:
        super().__init__(task)
        self.part = part
        self.scores: list[Tensor] = []
        self._stream = Stream(part.data, name="valid", seed=part.seed, device=task.device)
        self._batches: list[Any] = []

    def works_in(self, phase: str) -> bool:
        """In its own phase."""
        return phase == "score"

    def update(self, step: Step) -> None:
        """The mean loss of one candidate."""
        while len(self._batches) < self.part.batches:
            batch = self._stream.take(len(self._batches))
            with uninterrupted():
                self._batches.append(batch)
                self._stream.done()
        genotype = self.part.candidates[step.number]
        (net,) = self.task.nets.values()
        score = mean_loss(self.task, net, genotype, self._batches, at=step.place)
        step.tell(genotype=genotype, loss=score)
        step.commit(lambda: self.scores.append(score))

    def ranking(self) -> list[tuple[Genotype, float]]:
        """The candidates scored so far with their scores, the least loss first.

        Raises:
            DivergenceError: a score is not finite.
        """
        if not self.scores:
            return []
        scores = torch.stack(self.scores)
        require_finite(scores.abs().max(), "score of every candidate", at="score", wait=True)
        return sorted(zip(self.part.candidates, scores.tolist()), key=lambda entry: entry[1])

    def memory(self) -> Mapping[str, Any]:
        """The scores."""
        return {"scores": torch.stack(self.scores) if self.scores else torch.empty(0)}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take them up."""
        scores = memory.get("scores")
        most = len(self.part.candidates)
        if isinstance(scores, Tensor) and scores.dim() == 1 and len(scores) <= most:
            self.scores = list(scores.to(self.task.device).unbind())
            return
        shape = f"scores of {tuple(scores.shape)}" if isinstance(scores, Tensor) else None
        raise CheckpointError(
            "a random search has a score for every candidate that it is past",
            got=shape or type(scores).__name__,
            at=f"{most} candidates",
            fix="Load what RandomSearch.state_dict gave.",
        )


def mean_loss(
    task: Task, net: Supernet, genotype: Genotype, batches: Sequence[Any], *, at: str
) -> Tensor:
    """The loss of one network with the weights of its supernet, in evaluation mode.

    Batch normalisation is by the batch at hand: the running statistics of a supernet are those of
    no single network.
    """
    task.model.eval()
    one = Setting((net,), (Mixture.of(genotype, torch.empty(0, device=task.device)),))
    with torch.no_grad(), batch_statistics(task.model):
        task.freeze()
        return torch.stack([task.loss_at(batch, one, at=at) for batch in batches]).mean()
