"""Expected costs against enumeration."""

import math

import pytest
import torch
from example_spaces import concatenated, depths
from hypothesis import given, settings
from hypothesis import strategies as st

import trinas as tn


def _by_enumeration(graph: tn.Graph, odds: dict[str, list[float]], metric: str) -> float:
    """The sum over all genotypes of their probability times their cost."""
    total = mass = 0.0
    for genotype in tn.enumerate_genotypes(graph):
        probability = math.prod(
            odds[path][graph.decisions[path].index(picked)] for path, picked in genotype.items()
        )
        total += probability * getattr(tn.cost.count(graph, genotype), metric)
        mass += probability
    assert mass == pytest.approx(1.0)
    return total


def _odds(graph: tn.Graph, seed: int) -> dict[str, list[float]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        path: torch.rand(len(d.options), generator=generator, dtype=torch.float64)
        .mul(4)
        .softmax(0)
        .tolist()
        for path, d in graph.decisions.items()
    }


def small_tree() -> tn.Graph:
    w = tn.width(values=(2, 4, 6))
    cell = tn.seq(tn.conv(3, w), tn.conv(1, 4))
    space = tn.tree(
        a=tn.choice(x=cell, y=tn.conv(3, 4)), b=tn.conv(1, 4), first="a", at_most={"a": 2, "b": 1}
    )
    return tn.lower(space, (4, 4, 4))


def square() -> tn.Graph:
    """One width on both sides of a product: its mean squared is not its mean square."""
    w = tn.width(values=(1, 10))
    return tn.lower(
        tn.seq(
            tn.conv(1, w, bias=False), tn.conv(1, w * 2, bias=False), tn.resblock(w), tn.conv(1, 1)
        ),
        (1, 2, 2),
    )


def shared() -> tn.Graph:
    """One decision at two places, once inside an option of another."""
    tied = tn.share("t", tn.choice(p=tn.conv(3, 2), q=tn.conv(1, 2)))
    return tn.lower(tn.seq(tied, tn.choice(u=tied, v=tn.seq(tied, tn.relu(), tied))), (2, 3, 3))


def tied_weights() -> tn.Graph:
    """Weights shared between an option and the way around it count once."""
    one = tn.share("w", tn.conv(3, 2), weights=True)
    return tn.lower(tn.seq(tn.choice(u=one, v=tn.seq()), tn.choice(u=one, v=tn.relu())), (2, 3, 3))


def grid() -> tn.Graph:
    return tn.lower(
        tn.trellis(u=tn.conv(1, 2), v=tn.conv(3, 2), at_most={"u": 2, "v": 2}), (2, 3, 3)
    )


SPACES = [small_tree, square, shared, tied_weights, grid, concatenated]


@pytest.mark.parametrize("metric", ["params", "macs"])
@pytest.mark.parametrize("space", SPACES, ids=lambda f: f.__name__)
def test_expectation_equals_enumeration(space, metric):
    graph = space()
    odds = _odds(graph, seed=1)
    flat = torch.tensor([w for row in odds.values() for w in row], dtype=torch.float64)

    assert tn.cost.ExpectedCost(graph, metric)(flat).item() == pytest.approx(
        _by_enumeration(graph, odds, metric), rel=1e-12
    )


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_expectation_equals_enumeration_for_any_odds(seed):
    graph = small_tree()
    odds = _odds(graph, seed)
    flat = torch.tensor([w for row in odds.values() for w in row], dtype=torch.float64)

    assert tn.cost.ExpectedCost(graph, "macs")(flat).item() == pytest.approx(
        _by_enumeration(graph, odds, "macs"), rel=1e-12
    )


@pytest.mark.parametrize("space", [*SPACES, depths], ids=lambda f: f.__name__)
def test_gradient_is_that_of_finite_differences(space):
    graph = space()
    odds = _odds(graph, seed=2)
    flat = torch.tensor([w for row in odds.values() for w in row], dtype=torch.float64)
    expected = tn.cost.ExpectedCost(graph, "macs", target=1000.0)

    assert torch.autograd.gradcheck(expected, flat.requires_grad_(), atol=1e-4)


def test_descending_on_the_term_makes_cheap_options_likelier():
    space = tn.choice(cheap=tn.conv(1, 4), dear=tn.conv(3, 4), name="slot")
    graph = tn.lower(space, (4, 8, 8))
    net = tn.compile_supernet(graph, tn.relax.Softmax())
    tn.cost.ExpectedCost(graph, target=1000.0)(net.mixture().odds).backward()
    gradient = net.logits("slot").grad_fn is not None and net.arch_parameters()["alpha_2"].grad[0]

    assert gradient[0] < 0 < gradient[1]


@pytest.mark.parametrize("kind", ["width", "path"])
def test_the_term_pulls_widths_and_paths_down_too(kind):
    w = tn.width(values=(4, 8))
    space = {
        "width": tn.seq(tn.conv(3, w), tn.conv(1, 4)),
        "path": tn.tree(a=tn.conv(3, 4), at_most={"a": 2}),
    }[kind]
    graph = tn.lower(space, (4, 8, 8))
    net = tn.compile_supernet(graph, {"path": tn.relax.Softmax()})
    tn.cost.ExpectedCost(graph, target=1000.0)(net.mixture().odds).backward()
    (gradient,) = next(iter(net.arch_parameters().values())).grad

    assert gradient[0] < 0 < gradient[1]


def test_target_divides():
    graph = small_tree()
    flat = torch.tensor(graph.one_hot(tn.sample(graph, 0)))

    whole = tn.cost.ExpectedCost(graph)(flat)
    assert tn.cost.ExpectedCost(graph, target=50.0)(flat) == whole / 50


def test_counts_need_settled_decisions():
    with pytest.raises(tn.errors.GenotypeError, match=r"depends on its decisions; got .* open"):
        tn.cost.count(small_tree())


def test_dtype_is_kept():
    graph = small_tree()
    flat = torch.tensor(graph.one_hot(tn.sample(graph, 0)))

    assert tn.cost.ExpectedCost(graph)(flat).dtype == torch.float32
