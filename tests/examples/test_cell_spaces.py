"""NAS-Bench-201 and DARTS: known sizes come out, and everything works on them."""

from __future__ import annotations

import ast
import inspect
import random
import textwrap

import pytest
import torch
import torchinfo

import trinas as tn
from examples.cell_spaces import (
    DARTS_V2,
    darts,
    darts_decisions,
    nas_bench_201,
    nas_bench_201_decisions,
)

# The best architecture on CIFAR-10 in NAS-Bench-201's table: 1.073 M parameters there.
BEST = (
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)

SMALL = {
    "nas_bench_201": lambda: nas_bench_201(c=4, n=1, classes=3),
    "darts": lambda: darts(c=4, layers=3, steps=2, classes=3),
}

small = pytest.mark.parametrize("name", SMALL)


def lowered(name: str) -> tn.Graph:
    return tn.lower(SMALL[name](), (3, 16, 16))


def agrees_with_torchinfo(graph: tn.Graph, genotype: tn.Genotype, side: int = 16) -> None:
    network = tn.build(graph, genotype)
    summary = torchinfo.summary(network, (1, 3, side, side), verbose=0)
    cost = tn.cost.count(graph, genotype)

    assert sum(p.numel() for p in network.parameters()) == cost.params
    assert summary.total_params == cost.params
    assert summary.total_mult_adds == cost.macs


def test_nas_bench_201_has_15625_networks():
    assert tn.cardinality(nas_bench_201()) == 5**6 == 15625


def test_nas_bench_201_is_at_most_ten_lines():
    function = ast.parse(textwrap.dedent(inspect.getsource(nas_bench_201))).body[0]
    assert isinstance(function, ast.FunctionDef)
    docstring, *body = function.body
    first, last = body[0].lineno, body[-1].end_lineno
    lines = inspect.getsource(nas_bench_201).splitlines()[first - 1 : last]

    assert ast.get_docstring(function)
    assert docstring.end_lineno < first
    assert 1 < len([line for line in lines if line.strip()]) <= 10


def test_a_network_of_nas_bench_201_has_the_published_size():
    graph = tn.lower(nas_bench_201(), (3, 32, 32))
    genotype = tn.Genotype.of(graph, nas_bench_201_decisions(BEST))

    assert tn.cost.params(graph, genotype) == 1_073_466
    agrees_with_torchinfo(graph, genotype, 32)


def test_darts_v2_has_the_published_size():
    graph = tn.lower(darts(), (3, 32, 32))
    genotype = tn.Genotype.of(graph, darts_decisions(DARTS_V2))
    network = tn.build(graph, genotype)

    assert tn.cost.params(graph, genotype) == 3_349_342
    assert sum(p.numel() for p in network.parameters()) == 3_349_342


def test_darts_v2_in_three_cells_runs_and_costs_what_torchinfo_counts():
    graph = tn.lower(darts(c=8, layers=3), (3, 16, 16))

    agrees_with_torchinfo(graph, tn.Genotype.of(graph, darts_decisions(DARTS_V2)))


def test_darts_never_derives_none():
    """`none` is there for the search only, as in DARTS, Section 2.4."""
    net = tn.compile_supernet(lowered("darts"))
    with torch.no_grad():
        for decision in net.graph.decisions.values():
            if decision.kind == "operation":
                net.logits(decision.path)[decision.index("none")] = 9.0
    net.progress = 1.0

    assert "none" not in tn.derive(net).values()


@small
def test_a_supernet_of_it_trains_derives_builds_and_draws(name):
    graph = lowered(name)
    net = tn.compile_supernet(graph, generator=torch.Generator().manual_seed(0))
    output = net(torch.rand(2, 3, 16, 16))
    output.square().mean().backward()
    genotype = tn.derive(net)

    assert tuple(output.shape) == (2, 3)
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in net.arch_parameters().values()
    )
    agrees_with_torchinfo(graph, genotype)
    built = tn.build(graph, genotype, inherit=net).eval()
    with torch.no_grad():
        x = torch.rand(2, 3, 16, 16)
        assert torch.allclose(built(x), net.eval()(x, at=genotype), atol=1e-6)
    dot = tn.draw(genotype).dot
    assert dot.startswith("digraph")
    for operation in set(genotype.values()) - {"none"}:
        if isinstance(operation, str):
            assert operation in dot


@small
def test_samples_cost_what_torchinfo_counts(name):
    graph, rng = lowered(name), random.Random(0)

    for _ in range(3):
        genotype = tn.sample(graph, rng)
        assert tn.Genotype.from_json(genotype.to_json(), graph) == genotype
        agrees_with_torchinfo(graph, genotype)
