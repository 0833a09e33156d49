"""Terms on the architecture: what a search descends on besides the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from trinas._core.errors import ConfigError
from trinas.relax import order_penalty
from trinas.search import validators as check
from trinas.search.part import Part, Working
from trinas.search.step import Step
from trinas.search.task import Task
from trinas.supernet import Mixture

MixtureTerm: TypeAlias = Callable[[Mixture], Tensor]
"""A mixture (its ``odds`` and ``weights`` are differentiable) to a tensor of no dimensions."""


@attrs.frozen
class Term(Part):
    """See `term`."""

    function: MixtureTerm = attrs.field(validator=check.function, repr=check.shown)
    weight: float = attrs.field(default=1.0, validator=check.finite)
    name: str = attrs.field(default="term", validator=check.fact)

    def start(self, task: Task) -> TermAtWork:
        """Nothing to prepare."""
        return TermAtWork(self, task)


def term(function: MixtureTerm, weight: float = 1.0, *, name: str = "term") -> Term:
    """A term of one's own.

    Args:
        function: of the mixture of a step; called for each supernet, and added up.
        weight: factor on it, of either sign.
        name: of its value (before the factor) in ``report.facts``.

    Raises:
        ConfigError: the weight is no finite number, or the name is one that reports have.

    >>> import torch, trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 1), b=tn.conv(1, 1), name="slot"), (1, 6, 6))
    >>> net = tn.compile_supernet(graph, tn.relax.Softmax(), seed=0)
    >>> batch = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
    >>> no_a = tn.term(lambda mixture: mixture.odds[0], weight=10.0)
    >>> method = tn.chain(tn.weights(), tn.architecture(tn.adam(0.1)), no_a)
    >>> for report in tn.run(method, net, torch.nn.functional.l1_loss, lambda step: batch,
    ...                      lambda step: batch, steps=30):
    ...     pass
    >>> net.weights()["slot"][0] < 0.1
    True
    """
    return Term(function, weight, name)


class TermAtWork(Working):
    """A `Term` at work."""

    def __init__(self, part: Term, task: Task) -> None:
        super().__init__(task)
        self.part = part

    def term(self, step: Step) -> Tensor | None:
        """The function of every mixture, times its weight."""
        values = [self.part.function(mixture) for mixture in step.setting.mixtures]
        if not values:
            return None
        for value in values:
            if not isinstance(value, Tensor) or value.dim():
                raise ConfigError(
                    "a term is a tensor of no dimensions",
                    got=tuple(value.shape) if isinstance(value, Tensor) else value,
                    at=self.part.name,
                    fix="Take its sum or its mean.",
                )
        total = torch.stack(values).sum()
        step.tell(**{self.part.name: total.detach()})
        return self.part.weight * total


def entropy(weight: float) -> Term:
    """Weight times the mean entropy of the odds of all decisions, in nats.

    Above 0 it presses for decisions, below 0 it holds them back.

    Args:
        weight: factor, of either sign.

    Raises:
        ConfigError: the weight is no finite number.

    >>> entropy(0.1).name
    'entropy'
    """

    def mean_entropy(mixture: Mixture) -> Tensor:
        rows = []
        for path, start in mixture.graph.offsets.items():
            odds = mixture.odds[start : start + len(mixture.graph.decisions[path].options)]
            # Where odds are 0 so is their part, with its gradient.
            rows.append(-torch.where(odds > 0, odds * odds.clamp_min(1e-30).log(), 0.0).sum())
        return torch.stack(rows).mean() if rows else mixture.odds.sum()

    return Term(mean_entropy, weight, "entropy")


@attrs.frozen
class Ordered(Part):
    """See `ordered`."""

    weight: float = attrs.field(validator=check.not_negative)

    def start(self, task: Task) -> OrderedAtWork:
        """Nothing to prepare."""
        return OrderedAtWork(self, task)


def ordered(weight: float = 0.1) -> Ordered:
    """The paper's order term: the logits of paths are pushed to descend along each path.

    Args:
        weight: lambda, at least 0.

    Raises:
        ConfigError: it is negative or infinite.

    Source: Trilevel NAS, Algorithm 1 and Eq. 3 (`trinas.relax.order_penalty`).

    >>> ordered(0.1).weight
    0.1
    """
    return Ordered(weight)


class OrderedAtWork(Working):
    """An `Ordered` at work."""

    def __init__(self, part: Ordered, task: Task) -> None:
        super().__init__(task)
        self.part = part

    def term(self, step: Step) -> Tensor | None:
        """The sum over all ordered decisions, times lambda."""
        found = [
            order_penalty(net.architecture.get_parameter(group.name), group.order).sum()
            for net in self.task.nets.values()
            for group in net.architecture.groups
            if group.kind != "width" and any(parent >= 0 for parent in group.order)
        ]
        return self.part.weight * torch.stack(found).sum() if found and self.part.weight else None
