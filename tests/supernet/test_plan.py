"""What a pass runs: nothing twice, no sums of zeros, and results as if it did."""

import pytest
import torch
from example_spaces import ALL

import trinas as tn
from trinas.supernet.order import Order


def running(net, mixture):
    """The kinds of the operations that run."""
    steps = [live.step for live in net.network.plan.order(mixture.alive).lives]
    return [step.operation.kind for step in steps if step.operation is not None]


def options():
    return tn.choice(
        none=tn.zero(),
        skip=tn.seq(),
        small=tn.relu_conv_bn(1, 4),
        large=tn.relu_conv_bn(3, 4),
        pool=tn.avg_pool(3),
    )


def test_equal_pure_operations_on_one_input_run_once():
    net = tn.compile_supernet(tn.lower(options(), (4, 6, 6)))
    kinds = running(net, net.mixture())

    assert kinds.count("relu") == 1
    assert kinds.count("conv") == 2
    assert sum("relu" in name for name, _ in net.named_modules()) == 2


def test_edges_of_a_cell_share_what_they_begin_with():
    net = tn.compile_supernet(tn.lower(tn.cell(3, lambda i, j: options()), (4, 6, 6)))
    kinds = running(net, net.mixture())

    # Six edges leave three nodes of the cell.
    assert kinds.count("avg_pool") == 3
    assert kinds.count("relu") == 3
    assert kinds.count("conv") == 12


@tn.operation("noise_for_the_plan")
class Noise(tn.Operation):
    def forward(self, x):
        return x + torch.rand_like(x)


def test_what_is_not_pure_runs_each_time():
    net = tn.compile_supernet(tn.lower(tn.choice(a=Noise(), b=Noise()), (1, 2, 2)))
    dropouts = tn.compile_supernet(tn.lower(tn.choice(a=tn.dropout(), b=tn.dropout()), (1, 2, 2)))

    assert running(net, net.mixture()).count("noise_for_the_plan") == 2
    assert running(dropouts, dropouts.mixture()).count("dropout") == 2


def test_pure_operations_with_other_settings_are_others():
    net = tn.compile_supernet(tn.lower(tn.choice(a=tn.avg_pool(3), b=tn.avg_pool(5)), (1, 8, 8)))

    assert running(net, net.mixture()).count("avg_pool") == 2


def test_zeros_are_not_added():
    graph = tn.lower(tn.seq(tn.conv(3, 4), options()), (3, 6, 6))
    net = tn.compile_supernet(graph, init_std=0.0).eval()

    assert "zero" not in running(net, net.mixture())


def test_an_option_that_is_zero_can_stand_alone():
    graph = tn.lower(tn.seq(tn.conv(3, 4), options()), (3, 6, 6))
    net = tn.compile_supernet(graph)
    genotype = tn.Genotype.of(graph, {next(iter(graph.decisions)): "none"})
    result = net(torch.rand(2, 3, 6, 6), at=genotype)

    assert torch.equal(result, torch.zeros(2, 4, 6, 6))


def test_sums_of_zeros_lead_nowhere():
    graph = tn.lower(tn.cell(2, lambda i, j: options(), merge="last"), (4, 6, 6))
    net = tn.compile_supernet(graph)
    edges = list(graph.decisions)
    picked = dict(zip(edges, ("none", "large", "small")))
    kinds = running(net, tn.Mixture.of(tn.Genotype.of(graph, picked), torch.empty(0)))

    # The node behind "none" is zero, but "small" is no sum: it runs, on zeros.
    assert kinds.count("conv") == 2
    picked[edges[2]] = "none"
    kinds = running(net, tn.Mixture.of(tn.Genotype.of(graph, picked), torch.empty(0)))
    assert kinds.count("conv") == 1
    assert "zero" not in kinds


@pytest.mark.parametrize("name", ALL)
def test_the_layout_in_memory_changes_nothing(name):
    graph = ALL[name]()
    net = tn.compile_supernet(graph).eval()
    x = torch.rand(2, *graph.in_shape.numbers())
    expected = net(x)
    net.network.channels_last = False
    net.to(memory_format=torch.contiguous_format)

    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)


def test_feature_maps_stay_channels_last():
    graph = tn.lower(tn.seq(tn.conv(3, 4), tn.cell(3, lambda i, j: options())), (3, 6, 6))
    net = tn.compile_supernet(graph)
    seen = []
    for layer in net.network.layers.children():
        layer.register_forward_hook(lambda _, args, y: seen.append(y))
    net(torch.rand(2, 3, 6, 6))

    assert seen
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in seen)


def one_left(graph, picked):
    """A mixture with one option of every decision, whose weights take gradients."""
    weights = torch.tensor(graph.one_hot(tn.Genotype.of(graph, picked)), requires_grad=True)
    return weights, tn.Mixture.from_weights(graph, weights, weights)


def test_sums_do_the_work_of_mixtures_with_one_option_left():
    graph = tn.lower(tn.cell(3, lambda i, j: options(), merge="last"), (4, 6, 6))
    net = tn.compile_supernet(graph)
    _, mixture = one_left(graph, dict.fromkeys(graph.decisions, "large"))
    order = net.network.plan.order(mixture.alive)
    sums = [live for live in order.joined if live.mixed]

    mixtures = [live for live in order.lives if live.step.kind == "mix"]
    assert len(mixtures) == 6
    assert not any(live.step.kind == "mix" for live in order.joined)
    assert [len(live.inputs) for live in sums] == [1, 2, 3]
    slots = [slot for live in sums for slot in live.mixed]
    assert sorted(slots) == sorted(live.slots[0] for live in mixtures)


def test_a_mixture_that_several_read_or_that_mixes_several_is_no_part_of_a_sum():
    twice = tn.seq(options(), tn.parallel(tn.seq(), tn.relu(), merge="sum"))
    graph = tn.lower(twice, (4, 6, 6))
    net = tn.compile_supernet(graph)
    _, mixture = one_left(graph, dict.fromkeys(graph.decisions, "large"))

    assert not any(live.mixed for live in net.network.plan.order(mixture.alive).joined)
    graph = tn.lower(tn.residual(options()), (4, 6, 6))
    net = tn.compile_supernet(graph)
    mixture = net.mixture()
    assert sum(mixture.alive) > 1
    order = net.network.plan.order(mixture.alive)
    assert order.joined == order.lives


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", range(3))
def test_joined_sums_change_neither_results_nor_gradients(name, seed, monkeypatch):
    graph = ALL[name]()
    net = tn.compile_supernet(graph).eval()
    x = torch.rand(2, *graph.in_shape.numbers())
    found = []
    for joined in (True, False):
        if not joined:
            monkeypatch.setattr(Order, "joined", property(lambda order: order.lives))
        weights, mixture = one_left(graph, tn.sample(graph, seed))
        net.zero_grad()
        y = net(x, at=mixture)
        y.square().sum().backward()
        grads = {n: p.grad for n, p in net.network.named_parameters() if p.grad is not None}
        found.append((y.detach(), weights.grad, grads))

    torch.testing.assert_close(found[0], found[1])


def test_what_nothing_reads_any_more_is_freed():
    graph = tn.lower(tn.cell(4, lambda i, j: options()), (4, 6, 6))
    net = tn.compile_supernet(graph)
    _, mixture = one_left(graph, dict.fromkeys(graph.decisions, "small"))
    for lives in (
        net.network.plan.order(mixture.alive).lives,
        net.network.plan.order(mixture.alive).joined,
    ):
        there: set[int] = set()
        for live in lives:
            assert there.issuperset(live.inputs)
            there = (there | {live.position}) - set(live.frees)
        assert there == {lives[-1].position}
