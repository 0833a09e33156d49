"""Searched widths in a supernet: cut, masked, drawn, scored."""

import random

import pytest
import torch
from example_spaces import concatenated, trilevel
from torch.nn import functional as F

import trinas as tn


def lowered(*items, shape=(3, 6, 6)):
    return tn.lower(tn.seq(*items), shape)


def test_an_output_can_be_as_wide_as_is_decided():
    net = tn.compile_supernet(lowered(tn.conv(3, tn.width(values=(2, 4, 5)))))
    x = torch.rand(2, 3, 6, 6)
    shapes = {w: tuple(net(x, widths=w).shape) for w in ("narrowest", "widest", "soft")}

    assert shapes == {"narrowest": (2, 2, 6, 6), "widest": (2, 5, 6, 6), "soft": (2, 5, 6, 6)}


@pytest.mark.parametrize("seed", range(4))
def test_vectors_have_searched_widths_too(seed):
    c = tn.width(values=(2, 3))
    graph = lowered(
        tn.conv(3, c), tn.flatten(), tn.linear(c * 2), tn.sigmoid(), tn.linear(3), shape=(3, 4, 4)
    )
    net = tn.compile_supernet(graph).eval()
    genotype = tn.sample(graph, seed)
    x = torch.rand(2, 3, 4, 4)
    y = net(x, at=genotype)

    torch.testing.assert_close(net(x, at=genotype, widths="soft"), y)
    torch.testing.assert_close(tn.build(graph, genotype, inherit=net).eval()(x), y)


def test_soft_widths_are_the_mean_of_masks():
    """A convolution behind soft widths gets each channel by the odds that it is there."""
    graph = lowered(tn.conv(1, tn.width(values=(1, 3))), tn.conv(1, 2, bias=False))
    net = tn.compile_supernet(graph, {"width": tn.relax.Softmax()})
    first, second = (net.network.layers[f"conv[{i}]"] for i in range(2))
    narrow, wide = net.weights()["conv[0]/width"]
    x = torch.rand(2, 3, 6, 6)
    mask = torch.tensor([narrow + wide, wide, wide])[:, None, None]

    torch.testing.assert_close(net(x), second(first(x) * mask))


def test_a_skip_that_changes_nothing_is_not_weighted_by_the_width():
    """Of the two parts of a residual only the convolution is masked softly, and scored."""
    w = tn.width(values=(2, 4))
    body = tn.residual(tn.conv(1, w, bias=False), skip=tn.shortcut(w))
    graph = lowered(tn.conv(1, w), body)
    skip = next(s for s in tn.compile_supernet(graph).network.plan.steps if "skip" in s.node)
    conv = next(s for s in tn.compile_supernet(graph).network.plan.steps if s.node == "conv")

    assert (skip.makes, conv.makes) == ((), ("width",))


def test_cut_batch_norm_sees_and_updates_its_channels_only():
    graph = lowered(tn.conv(1, tn.width(values=(2, 4))), tn.batch_norm(), tn.conv(1, 1))
    net = tn.compile_supernet(graph).train()
    norm = net.network.layers["batch_norm"]
    x = torch.rand(4, 3, 6, 6)
    net(x, widths="narrowest")
    inside = F.conv2d(x, *(p[:2] for p in net.network.layers["conv[0]"].parameters()))

    torch.testing.assert_close(norm.running_mean[:2], 0.1 * inside.mean((0, 2, 3)))
    assert norm.running_mean[2:].tolist() == [0.0, 0.0]
    assert norm.running_var[2:].tolist() == [1.0, 1.0]
    assert norm.num_batches_tracked == 1


def test_batch_norm_behind_a_concatenation_updates_the_channels_of_each_piece():
    a, b = tn.width(values=(1, 2), name="a"), tn.width(values=(1, 2), name="b")
    graph = lowered(tn.concat(tn.conv(1, a), tn.conv(1, b)), tn.batch_norm())
    net = tn.compile_supernet(graph).train()
    net(torch.rand(4, 3, 6, 6) + 1, widths="narrowest")
    (norm,) = (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))

    assert (norm.running_mean != 0).tolist() == [True, False, True, False]


def test_grouped_convolutions_stay_whole():
    graph = lowered(
        tn.conv(1, tn.width(values=(2, 4))), tn.conv(1, 4), tn.conv(3, 4, groups=2), tn.conv(1, 1)
    )
    net = tn.compile_supernet(graph).eval()
    genotype = tn.sample(graph, 0)
    x = torch.rand(1, 3, 6, 6)

    torch.testing.assert_close(
        net(x, at=genotype), tn.build(graph, genotype, inherit=net).eval()(x)
    )


def test_random_widths_repeat_with_their_source():
    net = tn.compile_supernet(trilevel())

    def draws(**source):
        return [str(net.mixture(widths="random", **source).widths) for _ in range(3)]

    def seeded():
        return torch.Generator().manual_seed(1)

    assert draws(rng=random.Random(1)) == draws(rng=random.Random(1))
    assert (
        len({str(net.mixture(widths="random", generator=seeded()).widths) for _ in range(5)}) == 1
    )
    torch.manual_seed(3)
    first = draws()
    torch.manual_seed(3)
    assert draws() == first
    assert len(set(first)) > 1


def test_widths_of_a_given_mixture_can_be_overridden():
    net = tn.compile_supernet(concatenated()).eval()
    genotype = tn.sample(net.graph, 0)
    x = torch.rand(1, *net.graph.in_shape.numbers())
    mixture = tn.Mixture.of(genotype, x)

    assert torch.equal(
        net(x, at=genotype, widths="widest"), net(x, at=mixture.with_widths("widest"))
    )


def test_too_many_widths_in_one_place_are_refused():
    many = [tn.width(values=(1, 2, 3, 4), name=f"w{i}") for i in range(10)]
    total = sum(many[1:], start=many[0])
    graph = lowered(tn.conv(1, total), tn.conv(1, 1))
    net = tn.compile_supernet(graph)

    with pytest.raises(tn.errors.SpaceError, match=r"joint settings; got 1048576 of 10 widths"):
        net(torch.rand(1, 3, 6, 6), widths="soft")
    with pytest.raises(tn.errors.SpaceError, match=r"joint settings; got .* at conv\[0\]\. Give"):
        tn.cost.ExpectedCost(graph)
    assert net(torch.rand(1, 3, 6, 6), widths="widest").shape == (1, 1, 6, 6)


# -- their order -----------------------------------------------------------------------------


def test_widths_are_a_chain_from_narrow_to_wide_and_the_graph_says_nothing_of_it():
    """So the text of a graph, by which checkpoints know their space, stays as it was."""
    graph = trilevel()
    net = tn.compile_supernet(graph)
    groups = [group for group in net.architecture.groups if group.kind == "width"]

    assert {group.order for group in groups} == {(-1, 0)}
    assert {d.order for d in graph.decisions.values() if d.kind == "width"} == {None}


@pytest.mark.parametrize("form", ["linear", "hinge", "strict"])
def test_sorting_prefers_the_narrower_width(form):
    graph = lowered(tn.conv(1, tn.width(values=(8, 2, 4))), tn.conv(1, 3))
    relax = tn.relax.SortedSparsestmax(0.5, form, radius=0.0)
    net = tn.compile_supernet(graph, {"width": relax})
    with torch.no_grad():
        net.logits("conv[0]/width").copy_(torch.tensor([0.0, 0.1, 0.2]))
    two, four, eight = net.weights()["conv[0]/width"]

    assert graph.decisions["conv[0]/width"].options == (2, 4, 8)
    assert two >= four >= eight
    assert (two > eight) == (form == "linear"), "the others stop where all are equal"


@pytest.mark.parametrize("graph", [trilevel, concatenated])
def test_a_sorted_supernet_ends_one_hot_and_as_the_derived_network(graph):
    relax = tn.relax.SortedSparsestmax(0.01, "linear")
    net = tn.compile_supernet(graph(), {"width": relax}, init_std=0.1).train()
    x = torch.rand(3, *net.graph.in_shape.numbers())
    net.progress = 0.5
    assert net.mixture().widths is None, "soft on the way"
    net.progress = 1.0
    plain = tn.build(net.graph, tn.derive(net), inherit=net).train()

    assert all(sorted(weights)[-2:] == [0, 1] for weights in net.weights().values())
    assert net.mixture().widths is not None
    torch.testing.assert_close(net(x), plain(x))
