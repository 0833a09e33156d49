"""The networks that a random search looks at: drawn evenly, within a budget."""

from __future__ import annotations

import math
import random
from itertools import islice

import attrs

from trinas._core.errors import ConfigError
from trinas.cost import Metric, count
from trinas.graph import Genotype, Graph, enumerate_genotypes, sample
from trinas.search import validators as check

DRAWS = 1000
"""So many draws in a row without a new network within the budget, and drawing ends."""


@attrs.frozen
class Budget:
    """The largest cost a network may have.

    Attributes:
        limit: in the unit of the metric; a network may cost exactly as much.
        metric: ``macs`` or ``params``.

    Raises:
        ConfigError: the limit is not positive, or the metric is unknown.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> budget = Budget(100, "params")
    >>> print(*(budget.allows(genotype) for genotype in tn.enumerate_genotypes(graph)))
    False True
    """

    limit: float = attrs.field(validator=check.positive)
    metric: Metric = attrs.field(default="macs", validator=check.metric)

    def cost(self, genotype: Genotype) -> int:
        """What a network costs in this metric."""
        cost = count(genotype.graph, genotype)
        return cost.params if self.metric == "params" else cost.macs

    def allows(self, genotype: Genotype) -> bool:
        """Whether a network costs no more than the limit."""
        return self.cost(genotype) <= self.limit


def draw(graph: Graph, rng: random.Random, *, within: Budget | None = None) -> Genotype | None:
    """A random network within the budget, as by `trinas.sample`.

    Returns:
        The network, or None where `DRAWS` draws in a row were over the budget.
    """
    for _ in range(DRAWS):
        genotype = sample(graph, rng)
        if within is None or within.allows(genotype):
            return genotype
    return None


def find_candidates(
    graph: Graph, number: int, *, rng: random.Random, within: Budget | None = None
) -> tuple[Genotype, ...]:
    """Different networks within the budget: all there are, or so many drawn at random.

    Args:
        graph: the space.
        number: of networks. A space of no more than these is enumerated; fewer are found where
            `DRAWS` draws in a row bring nothing new within the budget.
        rng: source of the draws.
        within: the budget; every network is within it where None.

    Raises:
        ConfigError: none was found within the budget.
    """
    cheapest = math.inf

    def fits(genotype: Genotype) -> bool:
        nonlocal cheapest
        if within is None:
            return True
        cost = within.cost(genotype)
        cheapest = min(cheapest, cost)
        return cost <= within.limit

    everything = list(islice(enumerate_genotypes(graph), number + 1))
    if len(everything) <= number:
        found, looked_at = [g for g in everything if fits(g)], f"all {len(everything)} networks"
    else:
        new: dict[Genotype, None] = {}
        in_vain = 0
        while len(new) < number and in_vain < DRAWS:
            genotype = sample(graph, rng)
            if genotype not in new and fits(genotype):
                new[genotype] = None
                in_vain = 0
            else:
                in_vain += 1
        found, looked_at = list(new), f"{DRAWS} random networks"
    if not found:
        assert within is not None
        raise ConfigError(
            "some networks of the space are within the budget",
            got=f"none among {looked_at}; the cheapest costs {cheapest:,} {within.metric}",
            at=f"a limit of {within.limit:,}",
            fix="Raise the limit, or put cheaper options into the space.",
        )
    return tuple(found)
