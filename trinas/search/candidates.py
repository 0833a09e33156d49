"""The networks that a random search looks at: drawn evenly, within a budget."""

from __future__ import annotations

import math
import random
from itertools import islice

import attrs
import torch
from torch import Tensor

from trinas._core.errors import ConfigError
from trinas.cost import ExpectedCost, Metric, count
from trinas.graph import Genotype, Graph, enumerate_genotypes, sample
from trinas.search import validators as check
from trinas.space.decision import Picked

FEW = 64
"""A space of so many networks is small enough to look at each."""

STARTS = 8
"""So many descents to a cheap network begin at random."""

DRAWS = 1000
"""So many draws in a row without a new network within the budget, and drawing ends."""


@attrs.frozen
class Budget:
    """The largest cost a network may have, and the least.

    Attributes:
        limit: in the unit of the metric; a network may cost exactly as much.
        metric: ``macs`` or ``params``.
        at_least: what a network has to cost, so that the budget is used: what is compared at
            equal cost then costs about as much, too.

    Raises:
        ConfigError: the limit is not positive or below `at_least`, or the metric is unknown.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> budget = Budget(100, "params")
    >>> print(*(budget.allows(genotype) for genotype in tn.enumerate_genotypes(graph)))
    False True
    """

    limit: float = attrs.field(validator=check.positive)
    metric: Metric = attrs.field(default="macs", validator=check.metric)
    at_least: float = attrs.field(default=0.0, validator=check.not_negative)

    def __attrs_post_init__(self) -> None:
        """Refuse a budget that no network keeps."""
        if self.at_least > self.limit:
            raise ConfigError(
                "a budget asks for no more than it allows",
                got=f"at least {self.at_least:,}",
                at=f"a limit of {self.limit:,}",
            )

    def __str__(self) -> str:
        """As in messages."""
        least = f", at least {self.at_least:,}" if self.at_least else ""
        return f"a limit of {self.limit:,}{least}"

    def cost(self, genotype: Genotype) -> int:
        """What a network costs in this metric."""
        return cost_of(genotype, self.metric)

    def allows(self, genotype: Genotype) -> bool:
        """Whether a network costs no more than the limit, and no less than it has to."""
        return self.at_least <= self.cost(genotype) <= self.limit


def require_budget(within: object, *, at: str, name: str = "within") -> None:
    """Check that what is to be a budget is one, or None.

    Raises:
        ConfigError: it is something else.
    """
    if within is not None and not isinstance(within, Budget):
        raise ConfigError(
            f"{name} is a Budget or None",
            got=within,
            at=at,
            fix='Give Budget(limit, "macs") or Budget(limit, "params").',
        )


def cost_of(genotype: Genotype, metric: Metric) -> int:
    """What a network costs in a metric."""
    cost = count(genotype.graph, genotype)
    return cost.params if metric == "params" else cost.macs


def cheapest(graph: Graph, metric: Metric) -> Genotype:
    """The cheapest network of a small space; in a larger one, the cheapest found by descents.

    A descent changes decisions while that makes the network cheaper. The first begins where every
    decision has the option that is cheapest on average over all others, so that parts of the space
    that are not in use are cheap, too, when they are looked at; some more begin at random.

    >>> import trinas as tn
    >>> block = tn.choice(large=tn.conv(3, 8), small=tn.conv(1, 8), name="slot")
    >>> cheapest(tn.lower(tn.repeat(block, (1, 2)), (8, 4, 4)), "macs")
    Genotype(repeat=1, repeat[0]='small')
    """
    few = list(islice(enumerate_genotypes(graph), FEW + 1))
    if len(few) <= FEW:
        return min(few, key=lambda genotype: cost_of(genotype, metric))
    expected = ExpectedCost(graph, metric).double()
    odds = torch.cat(
        [
            torch.full((len(d.options),), d.keep / len(d.options), dtype=torch.float64)
            for d in graph.decisions.values()
        ]
        or [torch.zeros(0, dtype=torch.float64)]
    )
    rng = random.Random(0)
    starts = [odds, *(odds * torch.tensor(_noise(graph, rng)) for _ in range(STARTS))]
    ends = [_descent(graph, expected, start) for start in starts]
    return Genotype.of(graph, min(ends, key=lambda end: end[0])[1])


def _noise(graph: Graph, rng: random.Random) -> list[float]:
    """Factors of mean 1 on the odds of the options of every decision."""
    found: list[float] = []
    for decision in graph.decisions.values():
        row = [rng.expovariate(1.0) ** 2 for _ in decision.options]
        found += [value * len(row) / sum(row) for value in row]
    return found


def _descent(graph: Graph, expected: ExpectedCost, odds: Tensor) -> tuple[float, dict[str, Picked]]:
    """The cost and the network at the end of changing all decisions at once while that pays."""
    best, found = math.inf, _cheapest_each(graph, expected, odds)
    picked = found
    while (cost := _cost_at(expected, picked)) < best:
        best, found = cost, picked
        picked = _cheapest_each(graph, expected, _one_hot(graph, picked))
    return best, found


def _one_hot(graph: Graph, picked: dict[str, Picked]) -> Tensor:
    return torch.tensor(graph.one_hot(picked), dtype=torch.float64)


def _cost_at(expected: ExpectedCost, picked: dict[str, Picked]) -> float:
    return float(expected(_one_hot(expected.graph, picked)))


def _cheapest_each(graph: Graph, expected: ExpectedCost, odds: Tensor) -> dict[str, Picked]:
    """For every decision the option to which the cost falls most, the others as they are."""
    leaf = odds.clone().requires_grad_()
    cost = expected(leaf)
    slopes = [0.0] * graph.slots
    if cost.requires_grad:
        slopes = torch.autograd.grad(cost, leaf)[0].tolist()
    picked: dict[str, Picked] = {}
    for path, decision in graph.decisions.items():
        start = graph.offsets[path]
        ranked = sorted(decision.derivable, key=lambda o: slopes[start + decision.index(o)])
        if decision.kind == "inputs":
            picked[path] = tuple(sorted(int(option) for option in ranked[: decision.keep]))
        else:
            picked[path] = ranked[0]
    return picked


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
        return within.at_least <= cost <= within.limit

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
            at=str(within),
            fix="Raise the limit, ask for less, or put cheaper options into the space.",
        )
    return tuple(found)
