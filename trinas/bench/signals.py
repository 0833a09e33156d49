"""What can be read from a searched supernet: rank correlation, gap, confidence."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trinas.bench.benchmark import Benchmark
from trinas.bench.problem import Task
from trinas.graph import Genotype
from trinas.search import RandomSearch, RandomSearchConfig
from trinas.space.decision import chosen
from trinas.supernet import Supernet

BATCHES = 5
"""Validation batches that the numbers here are means over."""


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 0, ascending; equal values share the mean of theirs.

    >>> ranks([3.0, 1.0, 3.0])
    [1.5, 0.0, 1.5]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for k in order[start:stop]:
            found[k] = (start + stop - 1) / 2
        start = stop
    return found


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation in [-1, 1]; NaN where all values of one are equal.

    >>> round(spearman([1, 2, 3], [10, 30, 20]), 6)
    0.5
    """
    x = torch.tensor([ranks(a), ranks(b)], dtype=torch.float64)
    x = x - x.mean(1, keepdim=True)
    scale = x.norm(dim=1).prod()
    return float((x[0] * x[1]).sum() / scale) if scale > 0 else float("nan")


def rank_correlation(
    benchmark: Benchmark, task: Task, seed: int, *, candidates: int = 100
) -> float:
    """How well shared weights rank networks: Spearman's correlation with the truth.

    Args:
        benchmark: the truth.
        task: the supernet as it was trained; it stays as it is.
        seed: which networks are ranked where the space has more than `candidates`.
        candidates: most networks that are ranked.
    """
    config = RandomSearchConfig(
        train_steps=0, candidates=candidates, score_batches=BATCHES, seed=seed
    )
    task = task._replace(net=copy.deepcopy(task.net))
    run = RandomSearch(*task, config)
    for _ in run:
        pass
    shared = [-loss - benchmark.charged(genotype) for genotype, loss in run.ranking]
    return spearman(shared, [benchmark.score(genotype) for genotype, _ in run.ranking])


@torch.no_grad()
def discretisation_gap(task: Task, genotype: Genotype) -> float:
    """Loss of the derived network with the supernet's weights, minus that of the supernet.

    Both on the same validation batches, normalised by the batch; 0 where the supernet has
    become the network it derives.
    """
    net = copy.deepcopy(task.net).train()
    gap = 0.0
    for number in range(BATCHES):
        x, y = task.valid(number)
        mixture = net.mixture(generator=torch.Generator().manual_seed(number))
        gap += float(task.loss(net(x, at=genotype), y) - task.loss(net(x, at=mixture), y))
    return gap / BATCHES


def confidence(net: Supernet, genotype: Mapping[str, Any]) -> float:
    """The least probability that the supernet gives to an option it derives.

    Decisions that have no probabilities of their own are left out.
    """
    odds = net.odds()
    sure = [1.0]
    for path, value in genotype.items():
        decision = net.graph.decisions[path]
        if path in odds and len(odds[path]) == len(decision.options):
            sure += [odds[path][decision.options.index(option)] for option in chosen(value)]
    return min(sure)
