"""The table of the digits: complete, informative, and made by what stands here."""

from __future__ import annotations

import attrs
import pytest
import torch

import trinas as tn
from trinas.bench import digits
from trinas.bench.catalogue import DATA
from trinas.bench.noisy_digits import NOISE, SPLIT, digits_problem, images
from trinas.bench.problem import Recipe
from trinas.bench.signals import spearman
from trinas.bench.table import Table

BENCHMARK = digits()


def table() -> Table:
    return Table.load(DATA / "digits.json")


def test_every_network_was_trained_with_three_seeds():
    assert set(BENCHMARK.networks) == set(tn.enumerate_genotypes(BENCHMARK.graph))
    assert table().seeds == (0, 1, 2)
    assert all(len(row) == 3 for column in table().columns.values() for row in column)


def test_the_space_has_every_kind_of_decision():
    kinds = [decision.kind for decision in BENCHMARK.graph.decisions.values()]

    assert sorted(kinds) == ["inputs", "inputs", "operation", "path", "width", "width"]


def test_costs_are_those_of_the_networks():
    for genotype in BENCHMARK.networks[::29]:
        model = tn.build(BENCHMARK.graph, genotype)
        assert BENCHMARK.fact("params", genotype) == sum(p.numel() for p in model.parameters())
        assert BENCHMARK.fact("macs", genotype) == tn.cost.macs(BENCHMARK.graph, genotype)


def test_networks_differ_by_more_than_their_seeds():
    scores = torch.tensor(table().columns["test"])
    within = scores.var(1).mean()
    between = scores.mean(1).var() - within / 3

    assert between > 4 * within
    assert scores.min() > 30  # all learn something: chance is 10


def test_validation_tells_about_the_test():
    one = [BENCHMARK.noisy(genotype, 0) for genotype in BENCHMARK.networks]

    assert spearman(one, list(BENCHMARK.truth.scores)) > 0.8


def test_every_decision_matters():
    """The best outcome of each decision is ahead of its worst, by more than seeds do."""
    runs = torch.tensor(table().columns["test"], dtype=torch.float64)
    seeds = float(runs.var(1).mean()) / 3  # variance of a score
    for path, decision in BENCHMARK.graph.decisions.items():
        means, counts = [], []
        for option in decision.options:
            value = (option,) if decision.kind == "inputs" else option
            scores = [BENCHMARK.score(g) for g in BENCHMARK.networks if g.get(path) == value]
            means.append(sum(scores) / len(scores))
            counts.append(len(scores))
        assert max(means) - min(means) > 2 * (2 * seeds / min(counts)) ** 0.5, path


def test_a_network_trained_again_scores_as_it_did():
    """Another processor rounds otherwise, so not to the last digit."""
    genotype = max(BENCHMARK.networks, key=BENCHMARK.score)
    trained = digits_problem().train_alone(genotype, seed=0)

    assert trained.measured.test == pytest.approx(BENCHMARK.score(genotype), abs=4)


def test_parts_of_the_images_do_not_overlap():
    x, y = images()
    task = BENCHMARK.task(0)

    assert (len(x), float(x.min()), float(x.max())) == (1797, 0.0, 1.0)
    assert torch.bincount(y).min() > 150
    for part, rows in ((task.train, slice(0, SPLIT[0])), (task.valid, slice(*SPLIT))):
        batch, target = part(0)
        # The nearest clean image of all is one of its own part, of the same class.
        nearest = torch.cdist(batch.flatten(1), x.flatten(1)).argmin(1)
        inside = (nearest >= rows.start) & (nearest < rows.stop)
        assert inside.float().mean() > 0.8
        assert (y[nearest] == target).float().mean() > 0.8


def test_the_noise_is_that_which_is_said():
    x, _ = images()
    batch, _ = BENCHMARK.task(0).train(0)
    nearest = torch.cdist(batch.flatten(1), x[: SPLIT[0]].flatten(1)).argmin(1)

    assert float((batch - x[nearest]).std()) == pytest.approx(NOISE, rel=0.05)


def test_a_training_follows_from_its_seed():
    problem = attrs.evolve(digits_problem(), recipe=Recipe(steps=3, batch=8, lr=1e-2))
    genotype = BENCHMARK.networks[0]
    one, same, other = (problem.train_alone(genotype, seed) for seed in (1, 1, 2))

    assert (one.measured, one.loss) == (same.measured, same.loss)
    assert one.loss != other.loss
