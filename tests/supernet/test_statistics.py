"""Statistics of normalisation: re-estimated from a few batches, and kept out of a pass."""

import copy

import pytest
import torch
from example_spaces import ALL, concatenated, trilevel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

import trinas as tn


def buffers(module):
    return {name: b.clone() for name, b in module.named_buffers()}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


def batches(shape, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Of several sizes: each counts the same.
    return [2 + 3 * torch.randn(2 + k, *shape, generator=generator) for k in range(count)]


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


# -- recalibrate ---------------------------------------------------------------------------


@given(count=st.integers(1, 4), momentum=st.sampled_from([0.1, 0.9, None]), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_statistics_are_the_average_over_batches_layer_by_layer(count, momentum, seed):
    """Worked out by hand: the second layer reads what the first makes of the batch at hand."""
    first, second = nn.BatchNorm2d(3, momentum=momentum), nn.BatchNorm2d(3)
    model = nn.Sequential(first, nn.ReLU(), second).double()
    with torch.no_grad():
        first.weight.uniform_(0.5, 2)
        first.bias.uniform_(-1, 1)
    data = [x.double() for x in batches((3, 4, 4), count, seed)]
    written = tn.recalibrate(model, data)

    inside = []
    for x in data:
        mean, std = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        normal = (x - mean) / (std + first.eps).sqrt()
        inside.append((normal * first.weight[:, None, None] + first.bias[:, None, None]).relu())
    for layer, xs in ((first, data), (second, inside)):
        for got, expected in (
            (layer.running_mean, [x.mean((0, 2, 3)) for x in xs]),
            (layer.running_var, [x.var((0, 2, 3)) for x in xs]),
        ):
            torch.testing.assert_close(got, torch.stack(expected).mean(0).detach())
        assert int(layer.num_batches_tracked) == count
    assert written == ("0", "2")
    assert first.momentum == momentum


@pytest.mark.parametrize("name", ALL)
def test_a_built_network_gets_what_torch_would_give_it(name):
    graph = ALL[name]()
    net = tn.build(graph, tn.sample(graph, 3))
    twin = copy.deepcopy(net)
    data = batches(graph.in_shape.numbers())
    update_bn(data, twin)
    tn.recalibrate(net, data)

    for got, expected in zip(norms(net), norms(twin)):
        torch.testing.assert_close(buffers(got), buffers(expected))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["concatenated", "depths", "bench", "cells"])
def test_a_subnet_of_a_supernet_is_recalibrated_as_the_network_built_of_it(name, seed):
    """With numbers that are not there, it evaluates like that network; the rest is untouched."""
    graph = ALL[name]()
    net = tn.compile_supernet(graph).eval()
    for layer in norms(net):
        nn.init.constant_(layer.running_var, float("nan"))
    genotype = tn.sample(graph, seed)
    data = batches(graph.in_shape.numbers())
    plain = tn.build(graph, genotype, inherit=net)
    tn.recalibrate(plain, data)
    written = tn.recalibrate(net, data, at=genotype)

    x = data[0]
    torch.testing.assert_close(net(x, at=genotype), plain.eval()(x))
    inherited = tn.build(graph, genotype, inherit=net)
    pairs = list(zip(norms(inherited), norms(plain)))
    # A supernet does not run what leads to zeros only.
    ran = [(a, b) for a, b in pairs if int(a.num_batches_tracked)]
    for got, expected in ran:
        torch.testing.assert_close(buffers(got), buffers(expected))
    count = sum(int(torch.isfinite(layer.running_var).sum()) for layer in norms(net))
    assert count == sum(layer.num_features for layer, _ in ran)
    assert len(written) == len(ran) >= (name != "bench") * len(pairs)


def test_a_network_without_batch_norm_runs_nothing():
    ran = []
    assert tn.recalibrate(nn.ReLU(), [torch.rand(1)], forward=ran.append) == ()
    assert ran == []


def test_dropout_is_off_and_modes_and_gradients_are_left_alone():
    """The statistics are those of evaluation, of which dropout is no part."""
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3))
    model[0].eval()
    data = batches((3, 4, 4))
    tn.recalibrate(model, data)
    by_hand = torch.stack([x.mean((0, 2, 3)) for x in data]).mean(0)

    torch.testing.assert_close(model[1].running_mean, by_hand)
    assert [m.training for m in model.modules()] == [True, False, True]
    model.eval()
    tn.recalibrate(model, data)
    assert not any(m.training for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_frozen_norms_keep_their_statistics_and_use_them():
    by_mode = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    by_mode[0].eval()
    by_weights = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).eval()
    by_weights[0].requires_grad_(False)
    data = batches((3, 4, 4))
    expected = torch.stack([x.mean((0, 2, 3)) for x in data]).mean(0) / (1 + 1e-5) ** 0.5
    for model in (by_mode, by_weights):
        before = buffers(model[0])
        assert tn.recalibrate(model, data) == ("1",)
        assert_same(buffers(model[0]), before)
        torch.testing.assert_close(model[1].running_mean, expected)
        with tn.batch_statistics(model):
            torch.testing.assert_close(
                model[0](data[0]), F.batch_norm(data[0], torch.zeros(3), torch.ones(3))
            )


def test_a_model_that_learns_nothing_at_all_is_not_frozen():
    """Nor are the weights of a supernet while its logits are searched."""
    plain = nn.Sequential(nn.BatchNorm2d(3)).requires_grad_(False)
    assert tn.recalibrate(plain, batches((3, 4, 4))) == ("0",)

    graph = concatenated()
    net = tn.compile_supernet(graph)
    net.network.requires_grad_(False)
    assert tn.recalibrate(net, batches(graph.in_shape.numbers()), at=tn.sample(graph, 0))


class Doubled(nn.BatchNorm2d):
    """A norm of a user's own."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_subclasses_count_and_norms_without_statistics_do_not():
    own, plain = Doubled(3), nn.BatchNorm2d(3, track_running_stats=False)
    model = nn.Sequential(own, plain, nn.InstanceNorm2d(3, track_running_stats=True))
    before = buffers(model[2])

    assert tn.recalibrate(model, batches((3, 4, 4))) == ("0",)
    assert_same(buffers(model[2]), before)


def test_after_an_error_everything_is_as_before():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    before, identities = buffers(model), {n: id(b) for n, b in model.named_buffers()}
    with pytest.raises(RuntimeError):
        tn.recalibrate(model, [torch.rand(2, 3, 4, 4), torch.rand(2, 5, 4, 4)])

    assert_same(buffers(model), before)
    assert {n: id(b) for n, b in model.named_buffers()} == identities
    assert model[0].momentum == 0.1
    assert model[0].training


def test_batches_are_inputs_pairs_or_a_function_of_the_number():
    data = batches((3, 4, 4))
    forms = (
        (data, {}),
        ([(x, None) for x in data], {}),
        (lambda number: (data[number], None), {"count": 3}),
        (iter([*data, None]), {"count": 3}),
    )
    found = []
    for given_batches, settings_ in forms:
        model = nn.Sequential(nn.BatchNorm2d(3))
        tn.recalibrate(model, given_batches, **settings_)
        found.append(buffers(model))
    for one in found[1:]:
        assert_same(one, found[0])


def test_a_model_around_a_supernet_runs_by_forward():
    graph = trilevel()
    net = tn.compile_supernet(graph)
    model = nn.ModuleDict({"norm": nn.BatchNorm2d(3), "net": net})
    genotype = tn.sample(graph, 0)
    written = tn.recalibrate(
        model,
        batches((3, 8, 8)),
        forward=lambda x: model["net"](model["norm"](x), at=genotype),
    )

    assert written[0] == "norm"


def test_what_cannot_be_is_refused():
    model = nn.Sequential(nn.BatchNorm2d(3))
    graph = concatenated()
    net = tn.compile_supernet(graph)
    genotype = tn.sample(graph, 0)

    with pytest.raises(tn.errors.ConfigError, match="got at for a Sequential"):
        tn.recalibrate(model, [], at=genotype)
    with pytest.raises(tn.errors.ConfigError, match="at for a Supernet and forward"):
        tn.recalibrate(net, [], at=genotype, forward=net)
    with pytest.raises(tn.errors.ConfigError, match="got count=None"):
        tn.recalibrate(model, lambda number: torch.rand(1, 3, 4, 4))
    with pytest.raises(tn.errors.ConfigError, match="got count=0"):
        tn.recalibrate(model, [], count=0)
    with pytest.raises(tn.errors.DataError, match="one batch at least"):
        tn.recalibrate(model, [])
    with pytest.raises(tn.errors.ConfigError, match=r"has a size .* at 0"):
        tn.recalibrate(nn.Sequential(nn.LazyBatchNorm2d()), [])


def test_a_compiled_network_compiles_nothing_for_it():
    graph = concatenated()
    net = tn.compile_supernet(graph)
    twin = copy.deepcopy(net)
    net.compile(backend="eager")
    genotype, data = tn.sample(graph, 1), batches(graph.in_shape.numbers())
    tn.recalibrate(net, data, at=genotype)
    tn.recalibrate(twin, data, at=genotype)

    torch.testing.assert_close(buffers(net), buffers(twin))


# -- batch_statistics ----------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_passes_normalise_as_in_training_and_leave_no_trace(name, training):
    graph = ALL[name]()
    net = tn.compile_supernet(graph)
    x = batches(graph.in_shape.numbers())[0]
    genotypes = [tn.sample(graph, seed) for seed in range(3)]
    twin = copy.deepcopy(net).train()
    expected = [twin(x, at=genotype) for genotype in genotypes]
    net.train(training)
    before, identities = buffers(net), {n: id(b) for n, b in net.named_buffers()}
    with tn.batch_statistics(net):
        got = [net(x, at=genotype) for genotype in genotypes]

    torch.testing.assert_close(got, expected)
    assert_same(buffers(net), before)
    assert {n: id(b) for n, b in net.named_buffers()} == identities
    assert all(m.training == training for m in net.modules())
    if norms(net):
        assert_same(buffers(net), before)


def test_instance_norms_and_subclasses_too_and_other_modes_stay():
    model = nn.Sequential(
        Doubled(3), nn.InstanceNorm2d(3, track_running_stats=True), nn.Dropout(0.5)
    ).eval()
    x, before = batches((3, 4, 4))[0], buffers(model)
    with tn.batch_statistics(model), tn.batch_statistics(model):
        got = model(x)
        assert not model[2].training

    normal = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(got, F.instance_norm(2 * normal))
    assert_same(buffers(model), before)


def test_gradients_flow_and_errors_restore():
    model = nn.Sequential(nn.BatchNorm2d(3)).eval()
    x, before = batches((3, 4, 4))[0].requires_grad_(), buffers(model)
    with tn.batch_statistics(model):
        model(x).square().sum().backward()
    torch.testing.assert_close(x.grad, torch.zeros_like(x), atol=1e-4, rtol=0)
    with pytest.raises(ZeroDivisionError), tn.batch_statistics(model):
        raise ZeroDivisionError
    assert_same(buffers(model), before)
    assert not model[0].training


def test_a_checkpointed_pass_is_computed_again_as_it_was():
    """Backward comes after the statistics and the modes are as before."""
    graph = ALL["bench"]()
    torch.manual_seed(0)
    net = tn.compile_supernet(graph, tn.relax.Softmax()).eval()
    twin = copy.deepcopy(net)
    twin.network.checkpoint = True
    x = batches(graph.in_shape.numbers())[0]
    found = []
    for one in (net, twin):
        with tn.batch_statistics(one):
            loss = one(x).square().mean()
        loss.backward()
        found.append([p.grad for p in one.parameters()])

    torch.testing.assert_close(found[1], found[0])
    assert_same(buffers(twin), buffers(net))
