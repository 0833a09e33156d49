"""The space of today's blocks: what it counts, what it computes, and that BSRN is in it."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
import torchinfo
from torch import nn

import trinas as tn
from examples.sr_trilevel.efficient import (
    bsrn_like,
    efficient,
    efficient_reference,
    largest_macs,
)
from examples.sr_trilevel.teachers.bsrn import BSRN


def small(**settings) -> tn.Graph:
    """16 channels, one distillation cell or two, at most one plain cell."""
    options = {"cells": 2, "plain": 1, "steps": 2, "inner": 4, "ratios": (1 / 2, 1), **settings}
    return tn.lower(efficient(16, **options), (3, 16, 16))


@pytest.fixture(scope="module")
def space() -> tn.Graph:
    return small()


# --- the space ------------------------------------------------------------------------------------


def test_paths_start_with_a_distillation_cell_and_keep_to_their_limits():
    trunk = tn.lower(efficient(), (3, 32, 32)).decisions["trunk"]
    paths = [str(option).split("-") for option in trunk.options]

    assert trunk.kind == "path"
    assert trunk.order is not None
    assert len(paths) == sum(1 + n for n in range(1, 7))
    assert all(p[0] == "a" and p.count("a") <= 6 and p.count("b") <= 1 for p in paths)
    assert small(plain=0).decisions["trunk"].options == ("a", "a-a")


@pytest.mark.parametrize("features", [8, 20])
def test_widths_that_cannot_be(features):
    with pytest.raises(tn.errors.SpaceError, match="a multiple of 8, at least 16"):
        efficient(features)


def test_the_three_levels_of_the_paper_are_decided(space):
    kinds = {}
    for path, decision in space.decisions.items():
        kinds.setdefault(decision.kind, set()).add(re.sub(r"\[\d\]", "", path.split("/")[-1]))

    assert kinds == {
        "path": {"trunk"},
        "operation": {"slot", "last", "attention"},
        "width": {"width"},
    }


def test_there_are_as_many_networks_as_decisions_allow():
    def networks(cells, plain, steps, widths):
        a = 5**steps * 3 * 4 * widths ** (steps + 1)
        b = 5**2 * 4
        return sum(a**n * (1 + plain * n * b) for n in range(1, cells + 1))

    assert tn.cardinality(efficient()) == networks(6, 1, 3, 5)
    assert tn.cardinality(efficient(16, cells=2, plain=0, steps=1, ratios=(1 / 2, 1))) == networks(
        2, 0, 1, 2
    )


@pytest.mark.parametrize("seed", range(6))
def test_networks_cost_what_torchinfo_counts_and_what_is_expected(space, seed):
    genotype = tn.sample(space, seed)
    network = tn.build(space, genotype).eval()
    info = torchinfo.summary(network, (1, 3, 16, 16), verbose=0)
    cost = tn.cost.count(space, genotype)
    odds = tn.Mixture.of(genotype, torch.zeros(1)).odds

    assert info.total_params == cost.params
    assert info.total_mult_adds == cost.macs
    assert tn.cost.ExpectedCost(space, "macs")(odds).item() == pytest.approx(cost.macs)


def test_no_network_costs_more_than_the_largest(space):
    largest = largest_macs(space)
    costs = [tn.cost.macs(space, tn.sample(space, seed)) for seed in range(40)]

    assert max(costs) < largest
    assert largest < 2.5 * max(costs)
    for kind, option in (("slot", "conv3x3"), ("last", "conv3x3"), ("attention", "both")):
        fixed = [
            tn.cost.macs(space, {**tn.sample(space, 3), path: other})
            - tn.cost.macs(space, {**tn.sample(space, 3), path: option})
            for path, decision in space.decisions.items()
            if path.split("/")[-1].startswith(kind) and path in tn.sample(space, 3)
            for other in decision.options
        ]
        assert fixed
        assert max(fixed) == 0


@pytest.mark.parametrize("scale", [2, 3])
def test_the_scale_is_that_of_the_result(scale):
    graph = tn.lower(efficient(16, scale, cells=1), (3, 16, 16))

    assert graph.out_shape.numbers() == (3, 16 * scale, 16 * scale)


@pytest.mark.parametrize("picture", ["nearest", "bilinear", "bicubic"])
def test_the_enlarged_picture_is_added(picture):
    with_picture, without = small(picture=picture), small(picture=None)
    genotype = dict(tn.sample(without, 1))
    full, bare = tn.build(with_picture, genotype), tn.build(without, genotype)
    # The layers are called alike but for the name of the skip around them.
    bare.load_state_dict(
        {name.replace("network/", "", 1): w for name, w in full.state_dict().items()}
    )
    x = torch.rand(1, 3, 16, 20)
    corners = None if picture == "nearest" else False
    enlarged = F.interpolate(x, scale_factor=4, mode=picture, align_corners=corners)

    torch.testing.assert_close(full(x), bare(x) + enlarged)


def test_the_supernet_trains_and_its_derived_network_is_that_part_of_it(space):
    torch.manual_seed(0)
    net = tn.compile_supernet(space)
    x = torch.rand(2, 3, 16, 16)
    y = net(x, widths="widest")
    y.abs().mean().backward()
    gradients = [w.grad for w in net.weight_parameters()]

    assert y.shape == (2, 3, 64, 64)
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert any(bool(p.grad.any()) for p in net.arch_parameters().values() if p.grad is not None)

    net.eval()
    genotype = tn.derive(net)
    with torch.no_grad():
        plain = tn.build(space, genotype, inherit=net).eval()
        torch.testing.assert_close(plain(x), net(x, at=genotype))


@pytest.mark.parametrize("seed", range(4))
def test_a_supernet_at_a_genotype_is_the_network_built_from_it(space, seed):
    net = tn.compile_supernet(space).eval()
    genotype = tn.sample(space, seed)
    x = torch.rand(1, 3, 18, 21)
    with torch.no_grad():
        y = net(x, at=genotype)
        plain = tn.build(space, genotype, inherit=net).eval()

        torch.testing.assert_close(plain(x), y)
        torch.testing.assert_close(net(x, at=genotype, widths="soft"), y)


def searched(graph: tn.Graph, cost_weight: float) -> tuple[set[str], tn.Genotype]:
    """Which decisions a short search moved, by their last word, and what it ends with."""
    torch.manual_seed(0)
    radius = tn.relax.Linear(0.0, 1.0)
    relaxations = {
        "operation": tn.relax.Sparsestmax(radius=radius),
        "path": tn.relax.SortedSparsestmax(radius=radius),
        "width": tn.relax.GumbelSoftmax(),
    }
    net = tn.compile_supernet(graph, relaxations)
    target = 0.5 * largest_macs(graph)
    config = tn.SearchConfig(
        pretrain_steps=2,
        search_steps=16,
        weight_lr=2e-3,
        arch_lr=0.1,
        cost=tn.CostControl(target=target, weight=cost_weight, every=8),
    )
    batch = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 64, 64)
    before = net.weights()
    for report in tn.Search(net, F.l1_loss, lambda _: batch, lambda _: batch, config):
        assert math.isfinite(report.loss)
    moved = {path.split("/")[-1] for path, now in net.weights().items() if now != before[path]}
    return moved, tn.derive(net)


def test_the_method_searches_all_three_levels_and_heeds_the_cost():
    graph = small(steps=1, plain=0)
    moved, free = searched(graph, 0.0)
    _, cheap = searched(graph, 1.0)
    costs = [tn.cost.macs(graph, tn.sample(graph, seed)) for seed in range(40)]

    assert {"trunk", "slot", "last", "attention", "width"} <= moved
    assert tn.cost.macs(graph, cheap) < tn.cost.macs(graph, free)
    assert tn.cost.macs(graph, cheap) <= sorted(costs)[4]


# --- BSRN -----------------------------------------------------------------------------------------

# Layers of a cell here, and what they are called in BSRN; then those around the cells.
CELL = {
    "first/x/cell/step0/aside/conv": "c1_d",
    "first/x/cell/step0/rest/slot/bsconv/residual": "c1_r",
    "first/x/cell/step0/rest/step1/aside/conv": "c2_d",
    "first/x/cell/step0/rest/step1/rest/slot/bsconv/residual": "c2_r",
    "first/x/cell/step0/rest/step1/rest/step2/aside/conv": "c3_d",
    "first/x/cell/step0/rest/step1/rest/step2/rest/slot/bsconv/residual": "c3_r",
    "first/x/cell/step0/rest/step1/rest/step2/rest/last/bsconv": "c4",
    "first/x/cell/fuse": "c5",
    "first/x/cell/attention/both/spatial/gate/reduce": "esa.conv1",
    "first/x/cell/attention/both/spatial/gate/view/near": "esa.conv_f",
    "first/x/cell/attention/both/spatial/gate/view/far.shrink": "esa.conv2",
    "first/x/cell/attention/both/spatial/gate/view/far.look.0": "esa.conv_max",
    "first/x/cell/attention/both/spatial/gate/view/far.look.2": "esa.conv3",
    "first/x/cell/attention/both/spatial/gate/view/far.look.4": "esa.conv3_",
    "first/x/cell/attention/both/spatial/gate/expand": "esa.conv4",
    "first/x/cell/attention/both/channel/gate/reduce": "cca.conv_du.0",
    "first/x/cell/attention/both/channel/gate/expand": "cca.conv_du.2",
}
AROUND = {
    "stem": "fea_conv",
    "deep/shift": "c1",
    "deep/fusion": "c2",
    "tail": "upsampler.upsampleOneStep.0",
}
PARTS = {"/point.": ".pw.", "/depth.": ".dw."}


def weights_of(published: BSRN, names: list[str]) -> dict[str, torch.Tensor]:
    """The weights of `published` under the `names` that they have here."""
    state, width = published.state_dict(), published.c1.out_channels
    found = {}
    for name in names:
        path = name.removeprefix("layers.")
        for ours, theirs in PARTS.items():
            path = path.replace(ours, theirs)
        cell = re.match(r"deep/trunk/(a(?:-a)*)/(.*)", path)
        number = cell[1].count("a") if cell else 0
        if cell and cell[2] == "then/s/new/gather.weight":
            found[name] = state["c1.weight"][:, width * (number - 1) : width * number]
            continue
        prefix, path, known = (f"B{number}.", cell[2], CELL) if cell else ("", path, AROUND)
        layer = max((k for k in known if path.startswith(k)), key=len)
        found[name] = state[prefix + known[layer] + path.removeprefix(layer)]
    return found


def test_bsrn_is_a_network_of_the_space():
    torch.manual_seed(0)
    published = BSRN(16, 3).eval()
    for weight in published.parameters():
        nn.init.uniform_(weight, -0.4, 0.4)
    graph = tn.lower(efficient(16, cells=4, picture=None), (3, 16, 16))
    network = tn.build(graph, bsrn_like(graph, 3, 8)).eval()
    network.load_state_dict(weights_of(published, list(network.state_dict())))
    x = torch.rand(2, 3, 22, 19)

    with torch.no_grad():
        torch.testing.assert_close(network(x), published(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "features", "cells", "params", "macs"),
    [("bsrn_s", 48, 5, 145_207, 8_964_077_647), ("bsrn_m", 64, 6, 272_776, 17_118_814_936)],
)
def test_references_cost_what_torchinfo_counts_of_bsrn(name, features, cells, params, macs):
    genotype = efficient_reference(name)
    cost = tn.cost.count(genotype.graph, genotype)
    info = torchinfo.summary(BSRN(features, cells), (1, 3, 256, 256), verbose=0)

    assert genotype["trunk"] == "-".join("a" * cells)
    assert (cost.params, cost.macs) == (params, macs)
    assert info.total_params == params
    # The bias of its fusing convolution counts at every position, that of a shift once.
    assert info.total_mult_adds == macs + features * (256**2 - 1)
    assert cost.params <= 300_000


def test_references_that_are_not_there():
    with pytest.raises(tn.errors.UnknownNameError, match=r"got bsrn_l\. There are bsrn_s, bsrn_m"):
        efficient_reference("bsrn_l")
    with pytest.raises(tn.errors.GenotypeError, match="trunk"):
        bsrn_like(small(ratios=(1 / 2, 1)), 3, 8)
    with pytest.raises(tn.errors.GenotypeError, match="width"):
        bsrn_like(small(ratios=(1 / 2, 1)), 1, 12)


def test_scale_and_size_of_a_reference_are_settings():
    genotype = efficient_reference("bsrn_s", scale=2, side=32)

    assert genotype.graph.in_shape.numbers() == (3, 32, 32)
    assert genotype.graph.out_shape.numbers() == (3, 64, 64)


# --- training -------------------------------------------------------------------------------------


def test_a_deep_network_starts_with_signals_and_gradients_of_one_size():
    """Whatever the depth: no cell multiplies what goes through it, none is out of reach."""
    torch.manual_seed(0)
    graph = tn.lower(efficient(16, cells=8, plain=0, ratios=(1 / 2,)), (3, 24, 24))
    network = tn.build(graph, bsrn_like(graph, 8, 8))
    scale = []
    for name, module in network.named_modules():
        if name.endswith("cell/fuse"):
            module.register_forward_hook(lambda _, __, y: scale.append(float(y.detach().std())))
    network(torch.rand(2, 3, 24, 24)).square().mean().backward()
    sizes = [
        float(w.grad.norm())
        for n, w in network.named_parameters()
        if n.endswith("cell/fuse.weight") and w.grad is not None
    ]

    assert len(scale) == len(sizes) == 8
    assert max(scale) < 5 * min(scale)
    assert max(sizes) < 20 * min(sizes)


def test_a_reference_of_few_channels_learns():
    """In a few steps it gets nearer to a sharp picture than the interpolation it starts from."""
    torch.manual_seed(0)
    graph = small(picture="bilinear")
    network = tn.build(graph, bsrn_like(graph, 2, 8))
    target = (torch.rand(1, 3, 8, 8) > 0.5).float()
    target = F.interpolate(target, scale_factor=8)
    x = F.interpolate(target, scale_factor=0.25, mode="bicubic", antialias=True)
    enlarged = F.interpolate(x, scale_factor=4, mode="bilinear")
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(60):
        loss = (network(x) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    assert loss.item() < 0.7 * float((enlarged - target).abs().mean())
