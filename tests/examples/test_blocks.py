"""Today's blocks: what they count, what they compute, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchinfo
from torch import nn

import trinas as tn
from examples.sr_trilevel.blocks import (
    ContrastPool,
    Shift,
    Take,
    WideView,
    bsconv,
    channel_attention,
    distillation,
    refinement,
    spatial_attention,
)
from trinas.space.operation import resolve_dimension

IMAGE = (16, 17, 24)
BLOCKS = {
    "bsconv": lambda: bsconv(3, 24),
    "bsconv without bias": lambda: bsconv(5, 8, bias=False),
    "channel_attention": lambda: channel_attention(16, reduction=4),
    "spatial_attention": lambda: spatial_attention(16, inner=6),
    "refinement": lambda: refinement(tn.conv(3, 16)),
    "distillation": lambda: distillation(12, aside=(8, 4, 6)),
    "distillation of one step": lambda: distillation(12, aside=(8,), last=lambda c: tn.conv(1, c)),
    "wide_view": lambda: tn.op("wide_view"),
    "contrast_pool": lambda: tn.op("contrast_pool"),
    "take": lambda: tn.op("take", 3, 5),
    "shift": lambda: tn.op("shift"),
}
every_block = pytest.mark.parametrize("name", BLOCKS)


@every_block
def test_blocks_cost_what_torchinfo_counts(name):
    graph = tn.lower(BLOCKS[name](), IMAGE)
    tn.lint(graph)
    network = tn.build(graph).eval()
    info = torchinfo.summary(network, (1, *IMAGE), verbose=0)
    cost = tn.cost.count(graph)

    assert info.total_params == cost.params
    assert info.total_mult_adds == cost.macs
    assert network(torch.rand(2, *IMAGE)).shape == (2, *graph.out_shape.numbers())


def test_declared_weights_of_a_wide_view_are_those_built():
    graph = tn.lower(WideView(), IMAGE)
    operation = graph.operation("wide_view")
    x = y = graph.out_shape
    declared = {
        name: tuple(resolve_dimension(d, x, y) for d in dimensions)
        for name, dimensions in operation.weights(x, y).items()
    }
    built = {n: tuple(w.shape) for n, w in operation.build(x, y).named_parameters()}

    assert declared == built


def test_bias_adds_are_the_values_that_biased_layers_give():
    counted = []
    network = tn.build(tn.lower(spatial_attention(16), IMAGE)).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.register_forward_hook(lambda _, __, y: counted.append(y.numel()))
    with torch.no_grad():
        network(torch.rand(1, *IMAGE))

    assert sum(counted) == tn.cost.count(network.graph).bias_adds


def test_contrast_is_the_mean_plus_the_deviation_of_a_channel():
    x = torch.rand(2, *IMAGE)
    pixels = x.numpy().reshape(2, 16, -1)
    expected = pixels.mean(2) + np.sqrt(((pixels - pixels.mean(2, keepdims=True)) ** 2).mean(2))

    torch.testing.assert_close(ContrastPool().forward(x)[..., 0, 0], torch.from_numpy(expected))


def test_a_constant_channel_has_a_finite_gradient():
    x = torch.full((1, 2, 4, 4), 0.5, requires_grad=True)
    ContrastPool().forward(x).sum().backward()

    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 / 16))


def test_taken_channels_are_a_view_of_those_of_the_input():
    x = torch.rand(1, 8, 3, 3)
    taken = Take(2, 5).forward(x)

    assert torch.equal(taken, x[:, 2:7])
    assert taken.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert tn.lower(Take(2, 5), (8, 3, 3)).out_shape.numbers() == taken.shape[1:]


def test_a_refinement_keeps_what_comes_in():
    network = tn.build(tn.lower(refinement(tn.conv(3, 4)), (4, 5, 5)))
    for weight in network.parameters():
        nn.init.zeros_(weight)
    x = torch.randn(1, 4, 5, 5)

    torch.testing.assert_close(network(x), F.gelu(x))


def test_gates_lie_between_zero_and_one_and_follow_the_picture():
    for block in (channel_attention(16), spatial_attention(16)):
        network = tn.build(tn.lower(block, IMAGE)).eval()
        for weight in network.parameters():
            nn.init.uniform_(weight, 0, 0.2)  # so that no ReLU is dead
        first, second = (torch.rand(1, *IMAGE) + 0.5 for _ in range(2))
        with torch.no_grad():
            gates = network(first) / first, network(second) / second

        assert all(0 < float(g.min()) < float(g.max()) < 1 for g in gates)
        assert not torch.allclose(*gates)


@pytest.mark.parametrize("side", [(15, 15), (16, 16), (23, 41)])
def test_attention_takes_any_size_from_15_on(side):
    network = tn.build(tn.lower(spatial_attention(16), (16, 16, 16))).eval()

    assert network(torch.rand(1, 16, *side)).shape == (1, 16, *side)


@pytest.mark.parametrize(
    ("block", "shape", "text"),
    [
        (lambda: tn.op("wide_view"), (4, 14, 20), "sides of at least 15; got 4x14x20"),
        (lambda: spatial_attention(4), (4, 20, 14), "sides of at least 15"),
        (lambda: tn.op("wide_view"), (4,), "takes a feature map"),
        (lambda: tn.op("contrast_pool"), (4,), "contrast_pool takes a feature map"),
        (lambda: Take(3, 2), (4, 8, 8), "within the channels of its input; got 3 to 5 of 4"),
        (lambda: Take(-1, 2), (4, 8, 8), "within the channels"),
        (lambda: Take(1, 0), (4, 8, 8), "within the channels"),
        (
            lambda: tn.seq(tn.conv(1, tn.width(values=(2, 4))), Take(0, 2)),
            (4, 8, 8),
            "take needs a fixed number of channels",
        ),
        (
            lambda: tn.seq(tn.conv(1, tn.width(values=(2, 4))), WideView()),
            (4, 16, 16),
            "wide_view needs a fixed number of channels",
        ),
    ],
)
def test_inputs_that_do_not_fit(block, shape, text):
    with pytest.raises(tn.errors.ShapeError, match=text) as caught:
        tn.lower(block(), shape)
    assert caught.value.fix


def test_a_picture_that_is_too_small_is_refused_when_it_runs():
    network = tn.build(tn.lower(WideView(), (4, 16, 16)))

    with pytest.raises(tn.errors.ShapeError, match=r"at least 15; got \(1, 4, 16, 14\)"):
        network(torch.rand(1, 4, 16, 14))


def test_a_distillation_puts_something_aside():
    with pytest.raises(tn.errors.SpaceError, match=r"puts something aside; got \(\)"):
        distillation(8, aside=())


def searched_blocks() -> tn.Node:
    """Every block between searched widths."""
    first, second, third = (tn.width(values=(4, 6, 8), name=n) for n in ("w", "v", "u"))
    return tn.seq(
        bsconv(3, first),
        channel_attention(first, reduction=2),
        distillation(second, aside=(third, 5, third)),
        spatial_attention(second, inner=4),
        Shift(),
        tn.conv(1, 2),
    )


@pytest.mark.parametrize("seed", range(5))
def test_slices_are_masks_are_plain_networks(seed):
    graph = tn.lower(searched_blocks(), (3, 16, 16))
    net = tn.compile_supernet(graph).eval()
    for weight in net.weight_parameters():
        nn.init.uniform_(weight, -0.5, 0.5)
    genotype = tn.sample(graph, seed)
    plain = tn.build(graph, genotype, inherit=net).eval()
    x = torch.rand(2, 3, 16, 16)
    sliced = net(x, at=genotype)

    torch.testing.assert_close(net(x, at=genotype, widths="soft"), sliced)
    torch.testing.assert_close(plain(x), sliced)
    assert tn.cost.params(graph, genotype) == sum(p.numel() for p in plain.parameters())
