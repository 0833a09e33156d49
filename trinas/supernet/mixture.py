"""One setting of all decisions: what a forward pass of a supernet mixes with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from trinas._core.errors import RelaxationError, SpaceError
from trinas.graph import Genotype, Graph
from trinas.space.decision import Decision

Widths: TypeAlias = Literal["sampled", "widest", "narrowest", "random", "soft"]
WIDTHS: tuple[str, ...] = ("sampled", "widest", "narrowest", "random", "soft")


@attrs.frozen(eq=False)
class Mixture:
    """Weights for every option of every decision, on the device and on the host.

    Attributes:
        graph: the space.
        weights: flat vector (layout of `Graph.offsets`), differentiable.
        odds: the probabilities behind the weights, differentiable; for expected costs.
        host: the values of `weights` as Python floats: which branches are alive.
        widths: number of channels for each width decision; None where widths are soft,
            and the supernet then runs at full width behind masks.
        scored: width decisions whose weight multiplies what they produce, so that a
            gradient reaches their logits (AGD, Section 3.2).
    """

    graph: Graph
    weights: Tensor
    odds: Tensor
    host: tuple[float, ...] = attrs.field(repr=False)
    widths: Mapping[str, int] | None = None
    scored: frozenset[str] = frozenset()

    @classmethod
    def from_weights(
        cls, graph: Graph, weights: Tensor, odds: Tensor, *, widths: str = "sampled"
    ) -> Mixture:
        """Bring the weights to the host (the one transfer of a step) and read them.

        Raises:
            RelaxationError: a weight is not a number; the message names the decision.
        """
        host = tuple(weights.detach().tolist())
        for path, start in graph.offsets.items():
            for value in host[start : start + len(graph.decisions[path].options)]:
                if value != value:
                    raise RelaxationError(
                        "architecture weights are numbers",
                        got="nan",
                        at=path,
                        fix="Are its logits finite? A learning rate that is too high is the "
                        "usual cause.",
                    )
        mixture = cls(graph, weights, odds, host)
        return mixture.with_widths(widths)

    @classmethod
    def of(cls, genotype: Genotype, like: Tensor) -> Mixture:
        """The mixture that is exactly one genotype, on the device and dtype of `like`."""
        graph = genotype.graph
        host = tuple(graph.one_hot(genotype))
        flat = torch.tensor(host, device=like.device, dtype=like.dtype)
        widths = {path: _picked_width(graph, host, d) for path, d in _width_decisions(graph)}
        return cls(graph, flat, flat, host, widths)

    def with_widths(self, widths: str, *, rng: random.Random | None = None) -> Mixture:
        """The same mixture of operations and paths at other widths.

        Args:
            widths: ``sampled`` (by the weights; soft where they are not one-hot),
                ``widest``, ``narrowest``, ``random`` (evenly) or ``soft`` (masks).
            rng: randomness for ``random``.

        Raises:
            SpaceError: an unknown policy.
        """
        if widths not in WIDTHS:
            raise SpaceError("unknown width policy", got=widths, fix=f"Known: {', '.join(WIDTHS)}.")
        decisions = _width_decisions(self.graph)
        if widths == "soft":
            return attrs.evolve(self, widths=None, scored=frozenset())
        if widths == "sampled":
            if not all(self._is_one_hot(path, d) for path, d in decisions):
                return attrs.evolve(self, widths=None, scored=frozenset())
            chosen = {path: _picked_width(self.graph, self.host, d) for path, d in decisions}
            scored = frozenset(chosen) if self.weights.requires_grad else frozenset()
            return attrs.evolve(self, widths=chosen, scored=scored)
        source = rng or random.Random()
        choose = {"widest": max, "narrowest": min, "random": source.choice}[widths]
        fixed = {path: int(choose(d.options)) for path, d in decisions}  # type: ignore[operator]
        return attrs.evolve(self, widths=fixed, scored=frozenset())

    def _is_one_hot(self, path: str, decision: Decision) -> bool:
        start = self.graph.offsets[path]
        values = self.host[start : start + len(decision.options)]
        return values.count(0.0) == len(values) - 1

    def detached(self) -> Mixture:
        """The same mixture without gradients, for steps that train weights only."""
        return attrs.evolve(
            self, weights=self.weights.detach(), odds=self.odds.detach(), scored=frozenset()
        )

    def leaf(self) -> Mixture:
        """The same mixture cut off from the logits, collecting gradients of its own.

        Several passes can then be run backward one by one, each freeing its memory;
        ``mixture.weights.backward(leaf.weights.grad)`` carries the sum to the logits.
        """
        return attrs.evolve(self, weights=self.weights.detach().requires_grad_())

    def by_path(self) -> dict[str, list[float]]:
        """The weights as lists, by decision."""
        return {
            path: list(self.host[start : start + len(self.graph.decisions[path].options)])
            for path, start in self.graph.offsets.items()
        }


def _width_decisions(graph: Graph) -> list[tuple[str, Decision]]:
    return [(path, d) for path, d in graph.decisions.items() if d.kind == "width"]


def _picked_width(graph: Graph, host: tuple[float, ...], decision: Decision) -> int:
    start = graph.offsets[decision.path]
    values = host[start : start + len(decision.options)]
    return int(decision.options[values.index(max(values))])
