"""NAS-Bench-201's table: known facts, with the file; and what is refused, without."""

from __future__ import annotations

import math
import os
import random
import statistics

import numpy as np
import pytest

import trinas as tn
from examples.cell_spaces import nas_bench_201 as example_space
from examples.cell_spaces import nas_bench_201_decisions
from trinas._core.errors import ConfigError, DataError, UnknownNameError
from trinas.bench import Benchmark, nas_bench_201
from trinas.bench.nats import (
    EDGES,
    OPERATIONS,
    PATHS,
    VARIABLE,
    counted,
    decisions,
    nas_bench_201_space,
)

with_table = pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} is not set")


@pytest.fixture(scope="module")
def cifar10() -> Benchmark:
    return nas_bench_201()


def text(digits: str) -> str:
    """A cell as NAS-Bench-201 writes it."""
    edges = dict(zip(EDGES, digits))
    nodes = []
    for j in (1, 2, 3):
        inside = "|".join(f"{OPERATIONS[int(edges[i, j])]}~{i}" for i in range(j))
        nodes.append(f"|{inside}|")
    return "+".join(nodes)


@pytest.mark.parametrize("digits", ["000000", "333133", "012341"])
def test_the_order_of_edges_is_that_of_the_published_form(digits):
    assert decisions(digits) == nas_bench_201_decisions(text(digits))


def test_the_space_is_that_of_the_example():
    graphs = [
        tn.lower(space(c=4, n=1), (3, 8, 8)) for space in (nas_bench_201_space, example_space)
    ]

    assert graphs[0].text == graphs[1].text
    assert set(graphs[0].decisions) == set(PATHS)


def test_parameters_added_up_by_edges_are_those_of_whole_networks():
    graph = tn.lower(nas_bench_201_space(c=4, n=2), (3, 8, 8))
    genotypes = [tn.sample(graph, seed) for seed in range(12)]
    connected = [g for g in genotypes if "none" not in g.values()]
    genotypes = connected + [
        tn.Genotype.of(graph, decisions(d)) for d in ("333133", "123412", "444444", "231231")
    ]
    rows = tuple(tuple(g[path] for path in PATHS) for g in genotypes)

    assert list(counted(graph, rows)) == [tn.cost.params(graph, g) for g in genotypes]


@with_table
@pytest.mark.parametrize(
    ("dataset", "best", "rank"),
    [("cifar10", 91.607, 2), ("cifar100", 73.493, 1), ("imagenet16_120", 46.733, 9)],
)
def test_the_best_and_a_well_known_cell(dataset, best, rank):
    benchmark = nas_bench_201(dataset=dataset)

    assert len(benchmark.truth.rows) == 15_625
    assert benchmark.best == pytest.approx(best, abs=5e-4)
    assert benchmark.rank(decisions("333133")) == rank
    wrong = [math.isnan(n) for n in benchmark.truth.facts["recorded_params"]]
    assert sum(wrong) == 150


@with_table
def test_facts_of_cifar10(cifar10):
    ascending = cifar10.truth.ascending

    assert cifar10.score(decisions("111111")) == pytest.approx(39.77, abs=5e-3)
    for share, score in ((0.5, 87.31), (0.95, 90.11), (0.99, 90.97)):
        assert np.quantile(ascending, share) == pytest.approx(score, abs=5e-3)
    assert cifar10.percentile(decisions("333133")) > 99.9
    assert cifar10.fact("latency", decisions("000000")) == pytest.approx(0.0109, abs=1e-4)
    assert cifar10.fact("train_time", decisions("000000")) == pytest.approx(740.39, abs=1e-2)


@with_table
def test_wrong_counts_are_off_by_one_convolution(cifar10):
    with np.load(path_of_table(), allow_pickle=False) as data:
        recorded = data["cifar10_params"].tolist()
    right = cifar10.truth.facts["params"]

    off = {abs(a - b) for a, b in zip(recorded, right)} - {0}
    assert off == {243_040, 28_000}


@with_table
def test_counts_are_those_of_whole_networks(cifar10):
    rng = random.Random(1)
    for number in rng.sample(range(15_625), 6):
        genotype = cifar10.network(number)
        if "none" not in genotype.values():
            assert cifar10.fact("params", genotype) == tn.cost.params(cifar10.graph, genotype)


@with_table
def test_341_cells_are_disconnected(cifar10):
    """By paths through the cell; all of them guess, and hardly any other cell does."""

    def connected(row):
        cut = {edge for edge, name in zip(EDGES, row) if name == "none"}
        paths = [((0, 3),), ((0, 1), (1, 3)), ((0, 2), (2, 3)), ((0, 1), (1, 2), (2, 3))]
        return any(not cut.intersection(path) for path in paths)

    apart = [n for n, row in enumerate(cifar10.truth.rows) if not connected(row)]

    assert len(apart) == 341
    assert max(cifar10.truth.scores[n] for n in apart) < 10.5


@with_table
@pytest.mark.parametrize(("queries", "bar"), [(100, 91.00), (200, 91.15)])
def test_random_search_by_lookup_reaches_the_known_bar(cifar10, queries, bar):
    """The mean over 200 repeats, each choosing by a noisy query."""
    rng = random.Random(0)
    reached = []
    for _ in range(200):
        numbers = rng.sample(range(15_625), queries)
        singles = [rng.choice(cifar10.truth.singles[n]) for n in numbers]
        best = numbers[max(range(queries), key=singles.__getitem__)]
        reached.append(cifar10.truth.scores[best])

    assert statistics.mean(reached) == pytest.approx(bar, abs=0.06)


@with_table
def test_what_is_searched_on_digits_is_scored_here(cifar10):
    task = cifar10.task(0)
    genotype = tn.derive(task.net)

    assert task.net.graph.in_shape.numbers() == (1, 8, 8)
    assert cifar10.score(genotype) == cifar10.score(dict(genotype))
    assert cifar10.passes_alone == 3 * 19_600


def path_of_table() -> str:
    given = os.environ[VARIABLE]
    return given if given.endswith(".npz") else os.path.join(given, "nas_bench_201.npz")


def small_table(path, **changes):
    """Two cells: the second is recorded with a convolution too many, and lacks a seed."""
    graph = tn.lower(nas_bench_201_space(), (3, 32, 32))
    params = [tn.cost.params(graph, decisions(d)) for d in ("333133", "111111")]
    arrays = {
        "arch": np.array([b"333133", b"111111"]),
        "cifar10_val_acc": np.array([[91.0, 92.0, 93.0], [40.0, np.nan, 41.0]]),
        "cifar10_latency_s": np.array([0.02, 0.01]),
        "cifar10_train_time_s": np.array([9.0, 8.0]),
        "cifar10_params": np.array([params[0], params[1] + 28_000]),
        **changes,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return params


def test_a_table_is_read_and_its_wrong_counts_are_masked(tmp_path):
    params = small_table(tmp_path / "nas_bench_201.npz")
    benchmark = nas_bench_201(tmp_path)
    good, bad = decisions("333133"), decisions("111111")

    assert (benchmark.score(good), benchmark.score(bad)) == (92.0, 40.5)
    assert [benchmark.noisy(bad, seed) for seed in range(3)] == [40.0, 41.0, 40.0]
    assert [benchmark.fact("params", cell) for cell in (good, bad)] == params
    assert benchmark.fact("recorded_params", good) == params[0]
    assert math.isnan(benchmark.fact("recorded_params", bad))


def test_a_table_with_pickled_objects_is_refused(tmp_path):
    path = tmp_path / "t.npz"
    small_table(path, cifar10_val_acc=np.array([[1.0], {"run": "me"}], dtype=object))

    with pytest.raises(DataError, match="plain arrays"):
        nas_bench_201(path)


def test_other_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "t.npz"
    small_table(path, cifar10_params=None)
    with pytest.raises(DataError, match="cifar10_params"):
        nas_bench_201(path)
    with pytest.raises(DataError, match="FileNotFoundError"):
        nas_bench_201(tmp_path / "none.npz")
    with pytest.raises(UnknownNameError, match="unknown data set"):
        nas_bench_201(path, dataset="svhn")
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"set {VARIABLE}"):
        nas_bench_201()
