"""What is planted is right: every network was trained alone, and some are again here."""

from __future__ import annotations

import attrs
import pytest
import torch

import trinas as tn
from trinas._core.errors import ShapeError, UnknownNameError
from trinas.bench import Benchmark, planted
from trinas.bench.planted_spaces import Take
from trinas.bench.planting import PLANTED, SEED

every = pytest.mark.parametrize("name", PLANTED)


def of_seed(benchmark: Benchmark, seed: int) -> dict[tn.Genotype, float]:
    return {g: benchmark.noisy(g, seed) for g in benchmark.networks}


@every
def test_the_least_loss_is_the_planted_answers(name):
    benchmark = planted(name)
    best = max(benchmark.networks, key=benchmark.score)

    assert benchmark.accepts(best)
    assert benchmark.regret(best) == 0


@every
def test_every_training_alone_tells_right_from_wrong(name):
    """Not only the means: with each of the three seeds the best network is a right one."""
    benchmark = planted(name)
    for seed in range(3):
        worth = of_seed(benchmark, seed)
        right = max(v for g, v in worth.items() if benchmark.accepts(g))
        wrong = [v for g, v in worth.items() if not benchmark.accepts(g)]

        assert all(right > value for value in wrong)


@every
def test_the_truth_covers_the_space(name):
    benchmark = planted(name)

    assert set(benchmark.networks) == set(tn.enumerate_genotypes(benchmark.graph))


@pytest.mark.parametrize("name", [n for n, t in PLANTED.items() if t.charge is not None])
def test_with_a_cost_exactly_one_network_is_right(name):
    benchmark = planted(name)
    right = [g for g in benchmark.networks if benchmark.accepts(g)]

    assert len(right) == 1
    assert [g for g in benchmark.networks if benchmark.regret(g) == 0] == right


@pytest.mark.parametrize("name", ["depth-2", "path-3"])
def test_without_a_cost_more_blocks_are_as_right(name):
    benchmark = planted(name)
    count = int(name[-1])
    accepted = [benchmark.accepts(g) for g in benchmark.networks]

    assert accepted == [depth >= count for depth in (1, 2, 3, 4)]


@pytest.mark.parametrize("name", ["operation", "width", "edges-2of4", "pair"])
def test_trained_once_more_on_a_small_budget_the_planted_network_is_ahead(name):
    """An independent look: other seed, a third of the steps."""
    benchmark = planted(name)
    assert benchmark.problem is not None
    recipe = attrs.evolve(benchmark.problem.recipe, steps=100)
    problem = attrs.evolve(benchmark.problem, recipe=recipe)
    worth = {g: problem.train_alone(g, seed=77).measured.test for g in benchmark.networks}

    assert benchmark.accepts(max(worth, key=worth.__getitem__))


def test_in_a_pair_one_right_choice_is_hardly_better_than_none():
    benchmark = planted("pair")
    regrets = sorted(benchmark.regret(g) for g in benchmark.networks)

    assert regrets[0] == 0
    assert min(regrets[1:]) > 0.8


@every
def test_targets_have_mean_0_and_variance_1(name):
    benchmark = planted(name)
    _, _, train, valid = benchmark.task(seed=3)
    y = torch.cat([part(step)[1] for part in (train, valid) for step in range(20)])

    assert float(y.mean()) == pytest.approx(0, abs=0.1)
    assert float(y.var()) == pytest.approx(1, abs=0.25)


def test_the_width_is_that_of_eight_random_kernels():
    """The teacher, a second way: from its seed by torch alone."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        first = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        second = torch.nn.Conv2d(8, 3, 3, padding=1)
    x, y = planted("width").task(0).train(0)
    with torch.no_grad():
        z = second(first(x).relu())
    slopes = [
        torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        for a, b in zip(y.unbind(1), z.unbind(1))
    ]

    assert torch.stack(slopes).tolist() == pytest.approx([1.0] * 3, abs=1e-4)


def test_a_task_follows_from_its_seed():
    benchmark = planted("widths")
    one, same, other = benchmark.task(1), benchmark.task(1), benchmark.task(2)

    assert all(
        torch.equal(a, b) for a, b in zip(one.net.parameters(), same.net.parameters(), strict=True)
    )
    assert not torch.equal(next(one.net.parameters()), next(other.net.parameters()))
    for part in ("train", "valid"):
        x, again, new = (getattr(task, part)(5)[0] for task in (one, same, other))
        assert torch.equal(x, again)
        assert not torch.equal(x, new)
    assert not torch.equal(one.train(5)[0], one.valid(5)[0])
    assert not torch.equal(one.train(5)[0], one.train(6)[0])


def test_a_task_leaves_the_randomness_of_the_process_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    planted("width").task(0).train(0)

    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_task_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'width'"):
        planted("widht")


def test_channels_that_are_not_there_cannot_be_taken():
    assert tn.lower(tn.seq(Take(1, 3)), (4, 8, 8)).out_shape.numbers() == (2, 8, 8)
    with pytest.raises(ShapeError, match="channels that are there"):
        tn.lower(tn.seq(Take(2, 5)), (4, 8, 8))
