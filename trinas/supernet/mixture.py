"""One setting of all decisions: what a forward pass of a supernet mixes with."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from trinas._core.errors import RelaxationError, SpaceError
from trinas.graph import Genotype, Graph
from trinas.space.decision import Decision, Option

Widths: TypeAlias = Literal["sampled", "widest", "narrowest", "random", "soft"]
WIDTHS: tuple[str, ...] = ("sampled", "widest", "narrowest", "random", "soft")


@attrs.frozen(eq=False)
class Mixture:
    """Weights for every option of every decision, on the device and on the host.

    Attributes:
        graph: the space.
        weights: flat vector (layout of `Graph.offsets`), differentiable.
        odds: the probabilities behind the weights, differentiable; for expected costs.
        host: the values of `weights` as Python floats.
        host_odds: the values of `odds` as Python floats.
        alive: one byte for every slot, 1 where the option takes part: its branch runs and
            its weight takes a gradient. See `from_weights`.
        widths: number of channels for each width decision; None where widths are soft,
            and the supernet then runs at full width behind masks.
        learned_inputs: whether the weights of the inputs of a cell's steps take gradients; where
            False they are constant.
        scored: width decisions whose weight multiplies what they produce, so that a
            gradient reaches their logits (AGD, Section 3.2).
        pruned: options that were dropped for good, by decision (`Supernet.pruned`).
    """

    graph: Graph
    weights: Tensor
    odds: Tensor
    host: tuple[float, ...] = attrs.field(repr=False)
    host_odds: tuple[float, ...] = attrs.field(repr=False)
    alive: bytes = attrs.field(repr=False)
    widths: Mapping[str, int] | None = None
    scored: frozenset[str] = frozenset()
    learned_inputs: bool = True
    pruned: Mapping[str, Collection[Option]] = attrs.field(factory=dict, repr=False)

    @classmethod
    def from_weights(
        cls,
        graph: Graph,
        weights: Tensor,
        odds: Tensor,
        *,
        widths: str = "sampled",
        open_slots: Collection[int] = (),
        learned_inputs: bool = True,
        pruned: Mapping[str, Collection[Option]] | None = None,
    ) -> Mixture:
        """Bring the weights to the host (the one transfer of a step) and read them.

        An option of weight 0 does not take part: nothing of its branch runs, and where it
        does run (`Network.skip` is off) its weight takes no gradient. For relaxations
        that are closed at zero nothing is lost, the gradient is zero anyway. For sampled
        ones (straight-through Gumbel-softmax) it means that only what was drawn gets a
        gradient, as in GDAS, Section 3.2, and AGD, Section 3.2, which run nothing else.

        Args:
            graph: the space.
            weights: shape (graph.slots,).
            odds: the same shape; the same tensor unless weights are a sample.
            widths: how widths stand, see `with_widths`.
            open_slots: slots whose weight takes a gradient even at 0; while gradients are
                asked for, they take part at any weight.
            learned_inputs: see the attribute.
            pruned: see the attribute.

        Raises:
            RelaxationError: another shape, or a weight that is not a finite number; the
                message names the decision.
        """
        for name, vector in (("weights", weights), ("odds", odds)):
            if vector.shape != (graph.slots,):
                raise RelaxationError(
                    f"the {name} of a mixture are one flat vector, one number an option",
                    got=f"shape {tuple(vector.shape)} for {graph.slots} options",
                    fix="Lay them out as Graph.offsets says.",
                )
        both = [weights] if odds is weights else [weights, odds.to(weights.dtype)]
        rows = torch.stack(both).detach().tolist()
        for row in rows:
            _require_finite(graph, row)
        alive = bytearray(w != 0.0 for w in rows[0])
        if weights.requires_grad:
            for slot in open_slots:
                alive[slot] = 1
        host, host_odds = tuple(rows[0]), tuple(rows[-1])
        mixture = cls(
            graph,
            weights,
            odds,
            host,
            host_odds,
            bytes(alive),
            learned_inputs=learned_inputs,
            pruned=pruned or {},
        )
        return mixture.with_widths(widths)

    @classmethod
    def of(cls, genotype: Genotype, like: Tensor) -> Mixture:
        """The mixture that is exactly one genotype, on the device and dtype of `like`."""
        graph = genotype.graph
        host = tuple(graph.one_hot(genotype))
        flat = torch.tensor(host, device=like.device, dtype=like.dtype)
        widths = {path: _picked_width(graph, host, d) for path, d in _width_decisions(graph)}
        return cls(graph, flat, flat, host, host, bytes(w != 0.0 for w in host), widths)

    def with_widths(self, widths: str, *, rng: random.Random | None = None) -> Mixture:
        """The same mixture of operations and paths at other widths.

        Args:
            widths: ``sampled`` (by the weights; soft where they are not one-hot),
                ``widest``, ``narrowest``, ``random`` (evenly) or ``soft`` (all at once, channels
                weighted where they are added up).
            rng: randomness for ``random``; torch's global generator where None.

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
        source = rng or random_from(None)
        choose = {"widest": max, "narrowest": min, "random": source.choice}[widths]
        fixed = {path: int(choose(d.options)) for path, d in decisions}  # type: ignore[operator]  # all numbers
        return attrs.evolve(self, widths=fixed, scored=frozenset())

    def picking(self, picked: Mapping[str, Option]) -> Mixture:
        """The same mixture with some decisions settled, at one option each.

        Their weights and odds become constants, 1 and 0, which take no gradient.

        Args:
            picked: decision path to option.
        """
        widths = None if self.widths is None else dict(self.widths)
        host, host_odds, alive = list(self.host), list(self.host_odds), bytearray(self.alive)
        settled: list[int] = []
        for path, option in picked.items():
            decision, start = self.graph.decisions[path], self.graph.offsets[path]
            if widths is not None and decision.kind == "width":
                widths[path] = int(option)  # which says all: nothing reads their weights
                continue
            end = start + len(decision.options)
            row = [float(other == option) for other in decision.options]
            host[start:end] = host_odds[start:end] = row
            alive[start:end] = bytes(value != 0 for value in row)
            settled += range(start, end)
        weights, odds = self.weights, self.odds
        if settled:
            places = torch.tensor(settled, device=weights.device)
            values = torch.tensor([host[slot] for slot in settled]).to(weights)
            weights = weights.index_copy(0, places, values)
            same = odds is self.weights
            odds = weights if same else odds.index_copy(0, places, values.to(odds))
        return attrs.evolve(
            self,
            weights=weights,
            odds=odds,
            host=tuple(host),
            host_odds=tuple(host_odds),
            alive=bytes(alive),
            widths=widths,
            scored=self.scored - frozenset(picked),
        )

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
        return _rows(self.graph, self.host)

    def odds_by_path(self) -> dict[str, list[float]]:
        """The odds as lists, by decision; not of inputs that follow from other decisions."""
        rows = _rows(self.graph, self.host_odds)
        if self.learned_inputs:
            return rows
        return {p: row for p, row in rows.items() if self.graph.decisions[p].kind != "inputs"}


def random_from(generator: torch.Generator | None) -> random.Random:
    """A source of Python randomness that repeats when `generator` does (torch's if None)."""
    device = "cpu" if generator is None else generator.device
    return random.Random(int(torch.randint(2**62, (), generator=generator, device=device)))


def _rows(graph: Graph, flat: Sequence[float]) -> dict[str, list[float]]:
    return {
        path: list(flat[start : start + len(graph.decisions[path].options)])
        for path, start in graph.offsets.items()
    }


def _require_finite(graph: Graph, flat: Sequence[float]) -> None:
    if math.isfinite(sum(flat)):
        return
    for path, row in _rows(graph, flat).items():
        for value in row:
            if not math.isfinite(value):
                raise RelaxationError(
                    "architecture weights are finite numbers",
                    got=value,
                    at=path,
                    fix="Are its logits finite? A loss or a learning rate that diverged is "
                    "the usual cause.",
                )


def _width_decisions(graph: Graph) -> list[tuple[str, Decision]]:
    return [(path, d) for path, d in graph.decisions.items() if d.kind == "width"]


def _picked_width(graph: Graph, host: tuple[float, ...], decision: Decision) -> int:
    start = graph.offsets[decision.path]
    values = host[start : start + len(decision.options)]
    return int(decision.options[values.index(max(values))])
