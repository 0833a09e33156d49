"""The part that averages the weights of a model over steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor

from trinas._core.errors import CheckpointError
from trinas.search import validators as check
from trinas.search.loading import require_dict
from trinas.search.part import Part, Working
from trinas.search.step import Step
from trinas.search.task import Task


@attrs.frozen
class Average(Part):
    """See `average`."""

    decay: float = attrs.field(default=0.999, validator=check.below_1)

    def start(self, task: Task) -> AverageAtWork:
        """Begin with the weights as they are."""
        return AverageAtWork(self, task)


def average(decay: float = 0.999) -> Average:
    """Keep an exponential moving average of the weights.

    ``run.part(Average).in_force()`` puts it in the place of the weights for a while: to
    evaluate, to derive from, to save.

    Args:
        decay: share of the average that stays at each step, in [0, 1).

    Raises:
        ConfigError: it is out of this range.

    >>> average(0.99)
    Average(decay=0.99)
    """
    return Average(decay)


class AverageAtWork(Working):
    """An `Average` at work.

    Attributes:
        averages: of the weights, by name.
    """

    def __init__(self, part: Average, task: Task) -> None:
        super().__init__(task)
        self.part = part
        self.averages = {name: p.detach().clone() for name, p in task.weights.items()}
        self._next = {name: torch.empty_like(average) for name, average in self.averages.items()}

    def works_in(self, phase: str) -> bool:
        """Wherever weights move."""
        return phase != "score"

    def after(self, step: Step) -> None:
        """Move towards the weights: in a copy, which counts once the step does."""
        with torch.no_grad():
            for name, own in self.averages.items():
                torch.lerp(own, self.task.weights[name], 1 - self.part.decay, out=self._next[name])
        step.commit(self._turn)

    def _turn(self) -> None:
        self.averages, self._next = self._next, self.averages

    def refresh(self) -> None:
        """Forget what is gone."""
        for kept in (self.averages, self._next):
            for name in kept.keys() - self.task.weights.keys():
                del kept[name]

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside, the model has the averages for its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self.averages.items():
            weight = self.task.weights[name]
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)

    def memory(self) -> Mapping[str, Any]:
        """The averages."""
        return {"averages": dict(self.averages)}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take them up."""
        found = require_dict(memory.get("averages"), "averages")
        for name, own in self.averages.items():
            value = found.get(name)
            if not isinstance(value, Tensor) or value.shape != own.shape:
                raise CheckpointError(
                    "a checkpoint has an average of every weight", got=repr(value)[:60], at=name
                )
        with torch.no_grad():
            for name, own in self.averages.items():
                own.copy_(found[name])
