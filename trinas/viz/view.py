"""What is drawn: a graph, with what is known about its decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import attrs

from trinas._core.errors import GenotypeError
from trinas.graph import Genotype, Graph, specialise
from trinas.space import Decision
from trinas.space.decision import Option, Picked
from trinas.viz.outline import Facts
from trinas.viz.style import spell_channels, spell_weight

Weights = Mapping[str, Sequence[float]]


@attrs.frozen(eq=False)
class View:
    """One thing to draw.

    Attributes:
        graph: the graph that is drawn.
        facts: about the graph with all decisions, which is `graph` unless they are settled.
        picks: outcomes by decision path: settled ones, or those to bring out.
        weights: the weights of the options by decision path.
    """

    graph: Graph
    facts: Facts
    picks: Mapping[str, Picked] | None = None
    weights: Weights | None = None

    @property
    def is_open(self) -> bool:
        """Whether decisions are still to be made in what is drawn."""
        return self.graph is self.facts.graph

    def weight(self, decision: Decision, option: Option) -> float | None:
        """The weight of one option, None where nothing is known."""
        known = None if self.weights is None else self.weights.get(decision.path)
        return None if known is None else float(known[decision.index(option)])

    def allows(self, decision: Decision, option: Option) -> bool:
        """Whether `option` takes part: it is picked, or its weight is not 0."""
        if self.picks is not None:
            picked = self.picks.get(decision.path, ())
            return option in picked if isinstance(picked, tuple) else option == picked
        return self.weight(decision, option) != 0

    @cached_property
    def live(self) -> frozenset[str]:
        """The nodes of the graph whose result takes part in the output."""
        if not self.is_open or (self.picks is None and self.weights is None):
            return frozenset(self.graph)
        return live_nodes(self.graph, self.allows)

    def width_notes(self, path: str) -> tuple[str, ...]:
        """A line for every width that is decided at `path` and still open."""
        if not self.is_open:
            return ()
        return tuple(self._width_note(d) for d in self.facts.widths(path))

    def _width_note(self, decision: Decision) -> str:
        name = decision.path.rpartition("/")[2]
        if self.picks is None and (self.weights is None or decision.path not in self.weights):
            return f"{name} {min(decision.options)}–{max(decision.options)}"
        weight = self.weight(decision, self.leading(decision))
        tail = "" if weight is None else f" ({spell_weight(weight)})"
        return f"{name} {self.leading(decision)}{tail}"

    def leading(self, decision: Decision) -> Option:
        """The picked option, else the one of the largest weight."""
        if self.picks is not None and decision.path in self.picks:
            return next(o for o in decision.options if self.allows(decision, o))
        return max(decision.options, key=lambda o: self.weight(decision, o) or 0.0)


def live_nodes(graph: Graph, allows: Callable[[Decision, Option], bool]) -> frozenset[str]:
    """The nodes that reach the output through options that `allows` lets through."""
    live = {graph.output}
    for node in reversed(list(graph)):
        if node not in live:
            continue
        path = graph.vertex(node)["decision"]
        for producer, option in graph.sources(node):
            if path is None or option is None or allows(graph.decisions[path], option):
                live.add(producer)
    return frozenset(live)


def open_view(graph: Graph, picks: Genotype | None = None, weights: Weights | None = None) -> View:
    """A view of a graph whose decisions are open.

    Raises:
        GenotypeError: `picks` belongs to another graph.
    """
    if picks is not None and picks.graph != graph:
        raise GenotypeError(
            "a genotype is drawn on the graph it belongs to",
            got=f"one of {picks.graph!r} on {graph!r}",
            fix="Draw the genotype alone, or bind it with Genotype.of(graph, genotype).",
        )
    return View(graph, Facts(graph), picks, weights)


def settled_view(genotype: Genotype) -> View:
    """A view of the network that a genotype describes."""
    return View(specialise(genotype.graph, genotype), Facts(genotype.graph), genotype)


def spell_options(decision: Decision) -> str:
    """The options of a decision, separated by bars."""
    if decision.kind == "width":
        return " | ".join(spell_channels(int(o)) for o in decision.options)
    return " | ".join(map(str, decision.options))
