"""Methods: functions that look for a network, and the two random baselines.

A method is any function ``method(benchmark, allowance, seed) -> Found``. Register one under a
name, and the runner scores it beside the others:

    @trinas.bench.METHODS.register("mine")
    def mine(benchmark, allowance, seed):
        task = benchmark.task(seed)
        with trinas.bench.Passes(task.net) as passes:
            ...
        return trinas.bench.found(benchmark, task, passes, seed)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs

from trinas._core.errors import ConfigError
from trinas._core.registry import Registry
from trinas.bench.benchmark import Benchmark
from trinas.bench.passes import BACKWARD, Passes
from trinas.bench.problem import Task
from trinas.bench.signals import confidence, discretisation_gap, rank_correlation
from trinas.relax import GumbelSoftmax, Linear, Softmax
from trinas.search import (
    Chain,
    CostControl,
    Halving,
    RandomSearch,
    RandomSearchConfig,
    Search,
    SearchConfig,
    adam,
    architecture,
    chain,
    run,
    weights,
)
from trinas.search.config import PUBLISHED
from trinas.search.estimators import straight_through
from trinas.search.methods import darts
from trinas.supernet import derive
from trinas.supernet.architecture import RelaxSpec


@attrs.frozen(kw_only=True)
class Allowance:
    """What a method may spend.

    Attributes:
        pretrain_steps: of a gradient search, on the weights alone.
        search_steps: of a gradient search, on weights and architecture.
        passes: of a baseline, in forward passes: what the method it is compared with spent.
        seconds: the same in seconds of processor time.
    """

    pretrain_steps: int = 80
    search_steps: int = 260
    passes: float = 0.0
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class Found:
    """What a method came up with.

    Attributes:
        genotype: the network, as a mapping from the benchmark's decisions to outcomes.
        passes: what it spent, in forward passes (see `Passes`).
        seconds: processor time it took; for what is looked up, what the trainings took.
        facts: other numbers by name: ``correlation`` (Spearman's, of shared-weight scores with
            the truth), ``gap`` (loss of the derived network with the supernet's weights minus
            that of the supernet), ``confidence`` (the least probability of a chosen option).
    """

    genotype: Mapping[str, Any]
    passes: float
    seconds: float
    facts: Mapping[str, float] = attrs.field(factory=dict)


Method: TypeAlias = Callable[[Benchmark, Allowance, int], Found]
"""A benchmark, an allowance and a seed to what was found."""

METHODS: Registry[Method] = Registry("method")
"""Methods that spend what their steps cost; baselines are then given as much."""

BASELINES: Registry[Method] = Registry("baseline")
"""Methods that are given an allowance of passes and seconds."""

BY_PASSES = frozenset({"random-shared", "alone-passes", "one-random"})
"""Baselines that ask for the passes only: at equal passes they are not run twice."""


def found(benchmark: Benchmark, task: Task, passes: Passes, seed: int) -> Found:
    """What a supernet has settled on, with the facts that can be read from it.

    Args:
        benchmark: where the task came from.
        task: its supernet has been searched.
        passes: what that cost; what is done here is not counted.
        seed: of the networks whose shared-weight scores are compared.
    """
    genotype = derive(task.net)
    facts = {
        "gap": discretisation_gap(task, genotype),
        "confidence": confidence(task.net, genotype),
    }
    if not task.net.pruned:
        facts["correlation"] = rank_correlation(benchmark, task, seed)
    return Found(genotype=genotype, passes=passes.spent, seconds=passes.seconds, facts=facts)


def cost_of(benchmark: Benchmark) -> CostControl | None:
    """What a benchmark charges, as the cost term of a search."""
    charge = benchmark.charge
    if charge is None:
        return None
    return CostControl(target=charge.target, weight=charge.weight, share_structure=charge.structure)


def gradient_search(
    benchmark: Benchmark,
    allowance: Allowance,
    seed: int,
    relax: RelaxSpec | None = None,
    **settings: Any,
) -> Found:
    """`trinas.Search` with its defaults, or with other settings of its config.

    Args:
        benchmark: a searchable one; a cost that belongs to it becomes the search's.
        allowance: its steps.
        seed: of everything.
        relax: as in `trinas.compile_supernet`.
        settings: of `trinas.SearchConfig`.
    """
    config = SearchConfig(
        pretrain_steps=allowance.pretrain_steps,
        search_steps=allowance.search_steps,
        cost=cost_of(benchmark),
        seed=seed,
        **settings,
    )
    task = benchmark.task(seed, relax)
    with Passes(task.net) as passes:
        for _ in Search(*task, config):
            pass
    return found(benchmark, task, passes, seed)


@METHODS.register("search")
def search(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """`trinas.Search` as it comes."""
    return gradient_search(benchmark, allowance, seed)


@METHODS.register("search-drawn")
def search_drawn(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """`trinas.Search` where operations and inputs are drawn, as widths are; paths as they come."""
    drawn: RelaxSpec = {"operation": GumbelSoftmax(), "inputs": GumbelSoftmax()}
    return gradient_search(benchmark, allowance, seed, relax=drawn)


@METHODS.register("trilevel")
def trilevel(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """Algorithm 1 with the paper's signals and passes, at the rates of `search`."""
    return gradient_search(benchmark, allowance, seed, **PUBLISHED)


def chain_search(
    benchmark: Benchmark, allowance: Allowance, seed: int, method: Chain, relax: RelaxSpec
) -> Found:
    """Any chain of parts.

    Args:
        benchmark: a searchable one; a cost that belongs to it is added to the chain.
        allowance: its steps.
        seed: of everything.
        method: the chain.
        relax: as in `trinas.compile_supernet`.
    """
    cost = cost_of(benchmark)
    if cost is not None:
        method = chain(method, cost)
    task = benchmark.task(seed, relax)
    steps, pretrain = allowance.search_steps, allowance.pretrain_steps
    with Passes(task.net) as passes:
        for _ in run(method, *task, steps=steps, pretrain=pretrain, seed=seed):
            pass
    return found(benchmark, task, passes, seed)


DARTS: RelaxSpec = {"operation": Softmax(), "inputs": "strongest"}
"""What DARTS relaxes, and how it keeps inputs."""


@METHODS.register("darts-1")
def darts_1(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """DARTS, first order, as published."""
    return chain_search(benchmark, allowance, seed, darts(1), DARTS)


@METHODS.register("darts-2")
def darts_2(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """DARTS, second order, as published."""
    return chain_search(benchmark, allowance, seed, darts(2), DARTS)


@METHODS.register("gdas")
def gdas(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """GDAS: one operation is drawn and runs; straight-through, temperature 10 to 0.1.

    Rates are those of `search`; what is no operation is relaxed as there.
    """
    drawn = GumbelSoftmax(temperature=Linear(10.0, 0.1))
    method = chain(
        weights(adam(1e-2), schedule=Halving(), clip=5.0),
        architecture(adam(2e-2, betas=(0.5, 0.999)), sampled=straight_through(), clip=5.0),
    )
    relax: RelaxSpec = {"operation": drawn, "inputs": "strongest"}
    return chain_search(benchmark, allowance, seed, method, relax)


CANDIDATES = 100
"""Most networks that are scored with shared weights."""


@BASELINES.register("random-shared")
def random_shared(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """`trinas.RandomSearch` at equal passes, at half the rate that trains a network alone.

    A fifth of the passes score up to 100 networks, the others train. What a network is
    charged is added to its score.

    Raises:
        ConfigError: the passes are not enough to score the networks.
    """
    candidates = min(CANDIDATES, len(benchmark.truth.rows))
    score_batches = max(1, min(10, int(0.2 * allowance.passes / candidates)))
    train_steps = int((allowance.passes - candidates * score_batches) / BACKWARD)
    if train_steps < 0:
        raise ConfigError(
            "a random search scores its networks within its passes",
            got=f"{allowance.passes:g} passes for {candidates} networks",
            at=benchmark.name,
            fix="Compare with a method of more steps.",
        )
    task = benchmark.task(seed)
    config = RandomSearchConfig(
        train_steps=train_steps,
        candidates=candidates,
        score_batches=score_batches,
        weight_lr=benchmark.rate / 2,
        seed=seed,
    )
    with Passes(task.net) as passes:
        run = RandomSearch(*task, config)
        for _ in run:
            pass
    best = min(run.ranking, key=lambda entry: entry[1] + benchmark.charged(entry[0]))
    facts = {"correlation": rank_correlation(benchmark, task, seed)}
    return Found(genotype=best[0], passes=passes.spent, seconds=passes.seconds, facts=facts)


def _alone(benchmark: Benchmark, number: int, seed: int) -> Found:
    """The best of random networks by one noisy number each, looked up."""
    number = max(1, min(number, len(benchmark.truth.rows)))
    rng = random.Random(f"{seed}: alone")
    looked_at = [
        benchmark.network(row) for row in rng.sample(range(len(benchmark.truth.rows)), number)
    ]
    best = max(looked_at, key=lambda genotype: benchmark.noisy(genotype, rng.randrange(2**16)))
    return Found(
        genotype=best,
        passes=number * benchmark.passes_alone,
        seconds=number * benchmark.seconds_alone,
        facts={"networks": float(number)},
    )


@BASELINES.register("alone-passes")
def alone_passes(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """Random networks trained alone, as many as the passes allow (one at least)."""
    return _alone(benchmark, int(allowance.passes / benchmark.passes_alone), seed)


@BASELINES.register("alone-seconds")
def alone_seconds(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """Random networks trained alone, as many as the seconds allow (one at least)."""
    return _alone(benchmark, int(allowance.seconds / benchmark.seconds_alone), seed)


@BASELINES.register("one-random")
def one_random(benchmark: Benchmark, allowance: Allowance, seed: int) -> Found:
    """A random network, for nothing."""
    rng = random.Random(f"{seed}: one")
    genotype = benchmark.network(rng.randrange(len(benchmark.truth.rows)))
    return Found(genotype=genotype, passes=0.0, seconds=0.0)
