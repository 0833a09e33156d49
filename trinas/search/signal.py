"""What signals and estimators are: the contract of a gradient of the architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from trinas.search.setting import Pass
from trinas.search.step import Step


class Signal(Protocol):
    """The gradient of decisions that are mixed."""

    def __call__(self, step: Step, passes: Sequence[Pass]) -> Tensor:
        """Add gradients to the weights of the passes' setting (`Setting.leaf`); their loss."""
        ...


class Estimate(NamedTuple):
    """What an estimator of drawn decisions found.

    Args:
        gradients: for each supernet a flat vector: the loss's gradient by the odds.
        loss: the mean loss of the draws.
    """

    gradients: list[Tensor]
    loss: Tensor


class Estimator(Protocol):
    """The gradient of decisions that are drawn."""

    def start(self) -> EstimatorAtWork | None:
        """Put it to work; None where the passes of the other signal do its work."""
        ...


class EstimatorAtWork(Protocol):
    """An estimator with its memory."""

    def __call__(self, step: Step) -> Estimate:
        """Estimate at the mixture of the step."""
        ...

    def memory(self) -> Mapping[str, Any]:
        """What it knows from earlier steps."""
        ...

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take that up."""
        ...
