"""Expected costs of random spaces against enumeration, and what they refuse."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import IN_SHAPE, small_spaces

import trinas as tn


def _odds(graph: tn.Graph, seed: int) -> torch.Tensor:
    """Random odds, zero for what is never derived, and a random set of kept inputs."""
    rng = random.Random(seed)
    flat = []
    for decision in graph.decisions.values():
        if decision.kind == "inputs":
            kept = rng.sample(decision.options, decision.keep)
            flat += [float(option in kept) for option in decision.options]
        else:
            row = [rng.random() * (option in decision.derivable) for option in decision.options]
            flat += [odd / sum(row) for odd in row]
    return torch.tensor(flat, dtype=torch.float64)


def _probability(graph: tn.Graph, odds: torch.Tensor, genotype: tn.Genotype) -> float:
    result = 1.0
    for path, picked in genotype.items():
        for option in picked if isinstance(picked, tuple) else (picked,):
            result *= odds[graph.offsets[path] + graph.decisions[path].index(option)].item()
    return result


@settings(max_examples=200)
@given(space=small_spaces(60), seed=st.integers(0, 1000))
def test_expectation_is_enumeration(space, seed):
    graph = tn.lower(space, IN_SHAPE)
    odds = _odds(graph, seed)
    params = macs = 0.0
    for genotype in tn.enumerate_genotypes(graph):
        probability = _probability(graph, odds, genotype)
        if probability:
            cost = tn.cost.count(graph, genotype)
            params += probability * cost.params
            macs += probability * cost.macs

    assert tn.cost.ExpectedCost(graph, "params")(odds).item() == pytest.approx(params, rel=1e-9)
    assert tn.cost.ExpectedCost(graph, "macs")(odds).item() == pytest.approx(macs, rel=1e-9)


def test_kept_inputs_beside_two_options():
    """Both are tests with two outcomes, of which one has two odds and the other one."""
    cell = tn.cell(1, lambda i, j: tn.conv(1, 4), inputs=(tn.conv(1, 4), None), keep=1)
    space = tn.seq(tn.repeat(tn.conv(3, 4), (0, 1)), cell, tn.choice(a=tn.conv(1, 4), b=tn.seq()))
    graph = tn.lower(space, IN_SHAPE)

    for seed in range(4):
        genotype = tn.sample(graph, seed)
        flat = torch.tensor(graph.one_hot(genotype))
        expected = tn.cost.ExpectedCost(graph, "params")(flat).item()
        assert expected == tn.cost.params(graph, genotype)


def test_deeply_nested_spaces():
    space = tn.conv(1, 3)
    for _ in range(400):
        space = tn.choice(a=space, b=tn.relu())
    graph = tn.lower(space, (3, 1, 1))
    odds = torch.full((graph.slots,), 0.5, dtype=torch.float64)

    assert tn.cost.ExpectedCost(graph)(odds).item() == 12 * 0.5**400


def slot() -> tn.Graph:
    return tn.lower(tn.choice(a=tn.conv(3, 80), b=tn.conv(1, 80), name="s"), (3, 64, 64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_casting_the_module_does_not_round_the_counts(dtype):
    graph = slot()
    expected = tn.cost.ExpectedCost(graph).to(dtype)

    assert expected(torch.tensor([1.0, 0.0])).item() == tn.cost.macs(graph, {"s": "a"})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"metric": "flops"}, r"in one of the metrics; got 'flops'. They are params, macs"),
        ({"target": 0.0}, r"target of a cost is greater than 0; got 0.0"),
    ],
)
def test_settings_out_of_range(settings, text):
    with pytest.raises(tn.errors.SpaceError, match=text):
        tn.cost.ExpectedCost(slot(), **settings)


def test_odds_of_another_length():
    with pytest.raises(tn.errors.ShapeError, match=r"got shape \(3,\) for 2 options. Lay them"):
        tn.cost.ExpectedCost(slot())(torch.ones(3))
