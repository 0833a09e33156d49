"""The interface: scores, regrets, percentiles and ranks of any truth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trinas as tn
from trinas._core.errors import ConfigError, GenotypeError
from trinas.bench import Benchmark, Charge, Truth
from trinas.bench.benchmark import charged

OPTIONS = tuple(f"k{number}" for number in range(1, 8))


def of(scores: list[float], singles: tuple[tuple[float, ...], ...] | None = None) -> Benchmark:
    """A choice of so many kernels with these scores."""
    options = {label: tn.conv(1, k) for k, label in enumerate(OPTIONS[: len(scores)], start=1)}
    space = tn.seq(tn.choice({k: tn.seq(v, tn.conv(1, 2)) for k, v in options.items()}, name="c"))
    rows = tuple((label,) for label in options)
    truth = Truth(
        paths=("c",),
        rows=rows,
        scores=tuple(scores),
        singles=singles or tuple((score,) for score in scores),
        facts={},
    )
    graph = tn.lower(space, (1, 4, 4))
    return Benchmark(name="made", about="", unit="", graph=graph, truth=truth)


SCORES = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=len(OPTIONS))


@given(SCORES)
def test_percentiles_are_those_counted_by_hand(scores):
    benchmark = of(scores)
    for genotype, score in zip(benchmark.networks, scores):
        others = list(scores)
        others.remove(score)
        below = sum((o < score) + (o == score) / 2 for o in others)

        assert benchmark.percentile(genotype) == pytest.approx(100 * below / max(1, len(others)))
        assert benchmark.rank(genotype) == 1 + sum(other > score for other in scores)
        assert benchmark.regret(genotype) == max(scores) - score
        assert benchmark.accepts(genotype) == (score == max(scores))


def test_a_random_network_has_percentile_50_on_average():
    benchmark = of([3.0, 1.0, 2.0, 2.0, 5.0, 2.0])
    percentiles = [benchmark.percentile(genotype) for genotype in benchmark.networks]

    assert sum(percentiles) / len(percentiles) == pytest.approx(50)


def test_a_noisy_score_is_one_training():
    benchmark = of([0.5, 1.0], ((0.4, 0.6), (0.9, 1.1)))

    assert [benchmark.noisy({"c": "k2"}, seed) for seed in range(4)] == [0.9, 1.1, 0.9, 1.1]


def test_networks_that_are_not_there_are_refused():
    benchmark = of([1.0, 2.0])

    with pytest.raises(GenotypeError, match=r"scored that the table holds; got .'c': 'k9'"):
        benchmark.score({"c": "k9"})
    with pytest.raises(ConfigError, match="looked up"):
        benchmark.task(0)
    with pytest.raises(ConfigError, match="a fact is one that the table holds; got params"):
        benchmark.fact("params", {"c": "k1"})


def test_a_charge_can_change_which_network_is_best():
    benchmark = of([0.0, 0.01, 0.02])
    last = benchmark.networks[-1]
    charge = Charge(weight=0.3, structure=1.0).of(benchmark.graph, last)
    truth = charged(benchmark.truth, benchmark.graph, charge)
    counts = [tn.cost.macs(benchmark.graph, genotype) for genotype in benchmark.networks]
    expected = [s - 0.3 * n / counts[-1] for s, n in zip((0.0, 0.01, 0.02), counts)]

    assert truth.scores == pytest.approx(expected)
    assert truth.scores.index(max(truth.scores)) == 0
    assert [row[0] for row in truth.singles] == pytest.approx(expected)
