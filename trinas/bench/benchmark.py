"""One interface for everything that a search can be scored against."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from trinas._core.errors import ConfigError, GenotypeError
from trinas.bench.passes import BACKWARD
from trinas.bench.problem import Problem, Task
from trinas.bench.table import Table, genotype_of, row_of
from trinas.cost import macs
from trinas.graph import Genotype, Graph
from trinas.supernet.architecture import RelaxSpec


@attrs.frozen(kw_only=True, eq=False)
class Truth:
    """What every network of a space is worth.

    Attributes:
        paths: the decisions, in the order in which `rows` lists their outcomes.
        rows: the networks.
        scores: the mean worth of each on test data; higher is better.
        singles: what one training shows of it: a list for each network, one number a seed.
        facts: other numbers by name, one for each network; NaN where none is known.
    """

    paths: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    scores: tuple[float, ...]
    singles: tuple[tuple[float, ...], ...]
    facts: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, table: Table) -> Truth:
        """The truth of a table: test means are the scores, validation the single numbers."""
        means = tuple(math.fsum(row) / len(row) for row in table.columns["test"])
        facts: dict[str, Sequence[float]] = dict(table.facts)
        facts["seconds"] = tuple(min(row) for row in table.columns["seconds"])
        return cls(
            paths=table.paths,
            rows=table.rows,
            scores=means,
            singles=table.columns["valid"],
            facts=facts,
        )

    @cached_property
    def ascending(self) -> list[float]:
        """All scores, the lowest first."""
        return sorted(self.scores)

    @cached_property
    def _numbers(self) -> dict[tuple[Any, ...], int]:
        return {row: number for number, row in enumerate(self.rows)}

    def number(self, genotype: Mapping[str, Any]) -> int:
        """The row of a network.

        Raises:
            GenotypeError: the truth knows no such network.
        """
        row = row_of(self.paths, genotype)
        if row not in self._numbers:
            raise GenotypeError(
                "a network is scored that the table holds",
                got=dict(zip(self.paths, row)),
                fix="Give a genotype of the benchmark's graph (or of one with its decisions).",
            )
        return self._numbers[row]


@attrs.frozen(kw_only=True)
class Charge:
    """A small cost that belongs to a task: ``weight * multiply-adds / target``.

    Attributes:
        weight: the charge of a network that costs as much as the target.
        structure: share of the weight on operations and paths, the rest on widths (for
            searches that split it, as `trinas.CostControl` does).
        target: multiply-adds of the planted network; 0 until they are known.
    """

    weight: float
    structure: float
    target: float = 0.0

    def of(self, graph: Graph, genotype: Genotype) -> Charge:
        """The same charge in units of this network."""
        return attrs.evolve(self, target=float(macs(graph, genotype)))

    def __call__(self, graph: Graph, genotype: Genotype) -> float:
        """What a network is charged."""
        return self.weight * macs(graph, genotype) / self.target


@attrs.frozen(kw_only=True, eq=False)
class Benchmark:
    """A space in which the worth of every network is known.

    Attributes:
        name: what it is called on the command line.
        about: one sentence.
        unit: of scores and regrets.
        graph: the space; networks are scored as genotypes of it, or as any mapping from its
            decisions to outcomes.
        truth: what every network is worth.
        problem: what a search takes; None where networks can only be looked up.
        right: for a planted task, decisions that make a network right: one of these, all of it.
        charge: a cost that belongs to the task, and that its scores count.
        steps_alone: steps of one training alone, where that is not the problem's recipe.

    >>> import trinas as tn
    >>> from trinas.bench import planted
    >>> width = planted("width")
    >>> width.right, len(width.networks)
    (({'conv[0]/width': 8},), 4)
    >>> genotype = tn.Genotype.of(width.graph, {"conv[0]/width": 8})
    >>> width.accepts(genotype), width.regret(genotype), width.percentile(genotype)
    (True, 0.0, 100.0)
    >>> net, loss, train, valid = width.task(seed=0)
    """

    name: str
    about: str
    unit: str
    graph: Graph
    truth: Truth
    problem: Problem | None = None
    right: tuple[Mapping[str, Any], ...] = ()
    charge: Charge | None = None
    steps_alone: int | None = None

    @cached_property
    def networks(self) -> tuple[Genotype, ...]:
        """Every network of the space that is known."""
        return tuple(genotype_of(self.graph, self.truth.paths, row) for row in self.truth.rows)

    def network(self, number: int) -> Genotype:
        """One network by the number of its row; the others are not made."""
        return genotype_of(self.graph, self.truth.paths, self.truth.rows[number])

    def charged(self, genotype: Genotype) -> float:
        """What the task charges a network; 0 for a task without a cost."""
        return 0.0 if self.charge is None else self.charge(self.graph, genotype)

    def score(self, genotype: Mapping[str, Any]) -> float:
        """What a network is worth: its mean over seeds on test data; higher is better.

        Raises:
            GenotypeError: no network of this benchmark.
        """
        return self.truth.scores[self.truth.number(genotype)]

    def noisy(self, genotype: Mapping[str, Any], seed: int) -> float:
        """What one training of a network shows on validation data.

        Args:
            genotype: the network.
            seed: which training; taken modulo their number.

        Raises:
            GenotypeError: no network of this benchmark.
        """
        singles = self.truth.singles[self.truth.number(genotype)]
        return singles[seed % len(singles)]

    @property
    def best(self) -> float:
        """The highest score of the space."""
        return self.truth.ascending[-1]

    def regret(self, genotype: Mapping[str, Any]) -> float:
        """How far a network is below the best one; 0 for the best.

        Raises:
            GenotypeError: no network of this benchmark.
        """
        return self.best - self.score(genotype)

    def percentile(self, genotype: Mapping[str, Any]) -> float:
        """How many of the other networks score less, in percent; equal ones count half.

        The best network has 100, the worst 0, a random one 50 on average.

        Raises:
            GenotypeError: no network of this benchmark.
        """
        ascending, score = self.truth.ascending, self.score(genotype)
        below = bisect.bisect_left(ascending, score)
        equal = bisect.bisect_right(ascending, score) - below - 1
        return 100 * (below + equal / 2) / max(1, len(ascending) - 1)

    def rank(self, genotype: Mapping[str, Any]) -> int:
        """1 for the best network; equal ones share the better rank.

        Raises:
            GenotypeError: no network of this benchmark.
        """
        ascending = self.truth.ascending
        return 1 + len(ascending) - bisect.bisect_right(ascending, self.score(genotype))

    def fact(self, name: str, genotype: Mapping[str, Any]) -> float:
        """Another number of a network, such as ``params``; NaN where it is not known.

        Raises:
            ConfigError: no such number; the message lists those there are.
            GenotypeError: no network of this benchmark.
        """
        if name not in self.truth.facts:
            raise ConfigError(
                "a fact is one that the table holds",
                got=name,
                at=self.name,
                fix=f"It holds {', '.join(sorted(self.truth.facts))}.",
            )
        return self.truth.facts[name][self.truth.number(genotype)]

    def accepts(self, genotype: Mapping[str, Any]) -> bool:
        """Whether a network is a right answer: as planted, or else the best of the space.

        Raises:
            GenotypeError: no network of this benchmark.
        """
        if not self.right:
            return self.regret(genotype) == 0
        self.truth.number(genotype)
        return any(
            all(row_of([path], genotype) == (value,) for path, value in answer.items())
            for answer in self.right
        )

    def task(self, seed: int, relax: RelaxSpec | None = None) -> Task:
        """What a search takes: a fresh supernet, the loss, and two streams of batches.

        Args:
            seed: everything that is drawn follows from it.
            relax: as in `trinas.compile_supernet`.

        Raises:
            ConfigError: networks of this benchmark can only be looked up.
        """
        return self._problem.task(seed, relax)

    @property
    def _problem(self) -> Problem:
        if self.problem is None:
            raise ConfigError(
                "a search needs data",
                got=f"{self.name}, whose networks can only be looked up",
                fix="Give the benchmark a problem (attrs.evolve).",
            )
        return self.problem

    @property
    def rate(self) -> float:
        """The learning rate that trains a network alone."""
        return self._problem.recipe.lr

    @property
    def seconds_alone(self) -> float:
        """What one training alone takes on average, in seconds of a processor."""
        seconds = self.truth.facts.get("seconds", self.truth.facts.get("train_time", ()))
        return math.fsum(seconds) / max(1, len(seconds))

    @property
    def passes_alone(self) -> float:
        """What one training alone costs, in forward passes (see `trinas.bench.Passes`)."""
        steps = self._problem.recipe.steps if self.steps_alone is None else self.steps_alone
        return BACKWARD * float(steps)


def charged(truth: Truth, graph: Graph, charge: Charge) -> Truth:
    """The same networks, each charged what it costs."""
    due = [charge(graph, genotype_of(graph, truth.paths, row)) for row in truth.rows]
    return attrs.evolve(
        truth,
        scores=tuple(score - c for score, c in zip(truth.scores, due)),
        singles=tuple(tuple(v - c for v in row) for row, c in zip(truth.singles, due)),
    )
