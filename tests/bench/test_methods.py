"""Methods and baselines: what they spend, and that what they report is so."""

from __future__ import annotations

import math

import attrs
import pytest
import torch
from scipy import stats

import trinas as tn
from trinas._core.errors import ConfigError, UnknownNameError
from trinas.bench import BASELINES, METHODS, Allowance, Passes, planted
from trinas.bench.signals import confidence, discretisation_gap, rank_correlation, spearman

SHORT = Allowance(pretrain_steps=2, search_steps=4)


def test_passes_are_counted_as_a_loop_would():
    net = planted("width").task(0).net
    x = torch.rand(2, 3, 8, 8)
    with Passes(net) as passes:
        net(x).sum().backward()
        net(x)
        with torch.no_grad():
            net(x)
    net(x)

    assert passes.spent == 3 + 3 + 1
    assert passes.seconds > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_method_finds_a_network_and_says_what_it_cost(name):
    benchmark = planted("widths")
    found = METHODS[name](benchmark, SHORT, 0)

    assert found.genotype in benchmark.networks
    assert found.passes >= SHORT.pretrain_steps * 3 + SHORT.search_steps * 4
    assert -1 <= found.facts["correlation"] <= 1
    assert 0 <= found.facts["confidence"] <= 1
    assert math.isfinite(found.facts["gap"])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_follows_from_its_seed(name):
    def once(seed):
        found = METHODS[name](planted("operation"), SHORT, seed)
        return found.genotype, found.passes, dict(found.facts)

    assert once(1) == once(1)
    assert once(1)[2] != once(2)[2]


@pytest.mark.parametrize("passes", [200.0, 601.0])
def test_random_search_spends_what_it_is_given(passes):
    found = BASELINES["random-shared"](planted("widths"), Allowance(passes=passes), 0)

    assert passes - 3 < found.passes <= passes


def test_random_search_needs_passes_for_its_candidates():
    with pytest.raises(ConfigError, match="scores its networks within its passes"):
        BASELINES["random-shared"](planted("widths"), Allowance(passes=10.0), 0)


def test_random_search_finds_a_planted_width():
    found = BASELINES["random-shared"](planted("width"), Allowance(passes=900.0), 0)

    assert planted("width").accepts(found.genotype)


def test_networks_alone_are_as_many_as_the_allowance_has():
    benchmark = planted("widths")
    one = benchmark.passes_alone
    for passes, networks in ((0.0, 1), (one, 1), (2.5 * one, 2), (99 * one, 16)):
        found = BASELINES["alone-passes"](benchmark, Allowance(passes=passes), 0)
        assert found.facts["networks"] == networks
        assert found.passes == networks * one
    seconds = 3.5 * benchmark.seconds_alone
    assert (
        BASELINES["alone-seconds"](benchmark, Allowance(seconds=seconds), 0).facts["networks"] == 3
    )


def test_all_networks_alone_find_the_best_by_noise_alone():
    """Looking at every network, what is chosen is what the noisy numbers say."""
    benchmark = planted("pair")
    found = BASELINES["alone-passes"](benchmark, Allowance(passes=1e9), 0)

    assert benchmark.regret(found.genotype) == 0


def test_one_random_network_has_percentile_50_on_average():
    benchmark = planted("widths")
    percentiles = [
        benchmark.percentile(BASELINES["one-random"](benchmark, SHORT, seed).genotype)
        for seed in range(400)
    ]

    assert sum(percentiles) / 400 == pytest.approx(50, abs=5)


def test_a_cost_of_the_task_is_a_cost_of_the_search():
    """Widths behind a huge charge: the search goes for the narrowest."""
    benchmark = planted("width-4-cost")
    assert benchmark.charge is not None
    dear = attrs.evolve(benchmark, charge=attrs.evolve(benchmark.charge, weight=1e3))
    found = METHODS["search"](dear, Allowance(pretrain_steps=0, search_steps=60), 0)

    assert dict(found.genotype) == {"conv[0]/width": 1}


def test_methods_of_users_are_registered():
    @METHODS.register("test-first")
    def first(benchmark, allowance, seed):
        raise NotImplementedError

    assert "test-first" in METHODS
    with pytest.raises(UnknownNameError, match="unknown method"):
        METHODS["test-last"]
    del METHODS._items["test-first"]


# -- what is read from a supernet ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_rank_correlation_is_spearmans(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randint(0, 6, (2, 20), generator=generator).double().tolist()

    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_no_correlation_without_differences():
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0]))


def test_reading_a_supernet_leaves_it_as_it_is():
    benchmark = planted("width-norm")
    task = benchmark.task(0)
    before = {name: value.clone() for name, value in task.net.network.state_dict().items()}
    rank_correlation(benchmark, task, 0)
    discretisation_gap(task, tn.derive(task.net))
    after = task.net.network.state_dict()

    assert all(torch.equal(before[name], after[name]) for name in before)


def test_shared_weights_that_fit_one_network_rank_it_first():
    """Weights trained at the planted width alone: wider is better all along."""
    benchmark = planted("width")
    task = benchmark.task(0)
    optimiser = torch.optim.Adam(task.net.weight_parameters(), 2e-2)
    for step in range(150):
        x, y = task.train(step)
        optimiser.zero_grad()
        genotypes = benchmark.networks
        genotype = genotypes[step % len(genotypes)]
        task.loss(task.net(x, at=genotype), y).backward()
        optimiser.step()

    assert rank_correlation(benchmark, task, 0) == pytest.approx(1.0)


def test_a_one_hot_supernet_has_no_gap_and_all_confidence():
    task = planted("operation").task(0)
    task.net.progress = 1.0
    genotype = tn.derive(task.net)

    assert discretisation_gap(task, genotype) == pytest.approx(0, abs=1e-6)
    assert confidence(task.net, genotype) == pytest.approx(1.0)


def test_a_mixture_has_a_gap():
    task = planted("operation").task(0, tn.relax.Softmax())
    genotype = tn.derive(task.net)
    x, y = task.valid(0)
    with torch.no_grad():
        gap = task.loss(task.net(x, at=genotype), y) - task.loss(task.net(x), y)

    assert discretisation_gap(task, genotype) == pytest.approx(float(gap), abs=0.05)
    assert confidence(task.net, genotype) == pytest.approx(0.25, abs=0.01)
