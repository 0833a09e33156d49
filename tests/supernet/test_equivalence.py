"""One network, several ways to run it: they must agree."""

import copy

import pytest
import torch
import torchinfo
from example_spaces import ALL

import trinas as tn

SEEDS = range(4)


def _input(graph: tn.Graph, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, *graph.in_shape.numbers(), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=ALL, scope="module")
def graph(request):
    return ALL[request.param]()


@pytest.fixture(scope="module")
def net(graph):
    torch.manual_seed(0)
    net = tn.compile_supernet(graph).eval()
    for module in net.modules():  # statistics that are not all alike
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight)
            torch.nn.init.uniform_(module.bias)
    return net


@pytest.mark.parametrize("seed", SEEDS)
def test_built_network_gives_the_supernets_output(graph, net, seed):
    genotype = tn.sample(graph, seed)
    model = tn.build(graph, genotype, inherit=net).eval()
    x = _input(graph)

    torch.testing.assert_close(model(x), net(x, at=genotype), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_masks_equal_slices(graph, net, seed, training):
    """In training mode, too, where every channel is normalised by its batch."""
    genotype = tn.sample(graph, seed)
    x = _input(graph)
    mixture = tn.Mixture.of(genotype, x)
    net = copy.deepcopy(net).train(training)

    sliced = net(x, at=mixture)
    masked = net(x, at=mixture.with_widths("soft"))

    torch.testing.assert_close(masked[:, : sliced.shape[1]], sliced, atol=1e-5, rtol=1e-4)
    assert not masked[:, sliced.shape[1] :].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_equal_torchinfo(graph, seed):
    genotype = tn.sample(graph, seed)
    info = torchinfo.summary(
        tn.build(graph, genotype), input_size=(1, *graph.in_shape.numbers()), verbose=0
    )
    cost = tn.cost.count(graph, genotype)

    assert (info.total_params, info.total_mult_adds) == (cost.params, cost.macs)


@pytest.mark.parametrize("metric", ["params", "macs"])
def test_expected_cost_at_one_hot_is_the_cost(graph, metric):
    expected = tn.cost.ExpectedCost(graph, metric)
    for seed in range(10):
        genotype = tn.sample(graph, seed)
        flat = torch.tensor(graph.one_hot(genotype), dtype=torch.float64)

        assert expected(flat).item() == getattr(tn.cost.count(graph, genotype), metric)


def test_the_end_of_a_search_is_the_derived_network(graph, net):
    net.progress = 1.0
    genotype = tn.derive(net)
    model = tn.build(graph, genotype, inherit=net).eval()
    x = _input(graph)

    torch.testing.assert_close(net(x), model(x), atol=1e-5, rtol=1e-5)


def test_plain_networks_hold_torch_modules_only(graph):
    model = tn.build(graph, tn.sample(graph, 0))
    leaves = [m for m in model.modules() if not list(m.children())]

    assert not [n for n, _ in model.named_parameters() if "alpha" in n or "beta" in n]
    assert all(type(m).__module__.startswith(("torch.", "einops.", "trinas.")) for m in leaves)


def test_state_dict_of_a_plain_network_round_trips(graph):
    genotype = tn.sample(graph, 0)
    one, two = tn.build(graph, genotype).eval(), tn.build(graph, genotype).eval()
    two.load_state_dict(one.state_dict())
    x = _input(graph)

    assert torch.equal(one(x), two(x))
