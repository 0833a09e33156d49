"""What holds for every space: checked on random ones."""

import random

import torch
import torchinfo
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import IN_SHAPE, spaces

import trinas as tn

X = torch.rand(2, *IN_SHAPE, generator=torch.Generator().manual_seed(0))
SEEDS = st.integers(0, 1000)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def compiled(graph, seed, relax=None):
    torch.manual_seed(seed)
    net = tn.compile_supernet(graph, relax, init_std=0.5).eval()
    for module in net.modules():  # statistics that are not all alike
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight)
            torch.nn.init.uniform_(module.bias)
    return net


@settings(max_examples=200)
@given(space=spaces(), seed=SEEDS)
def test_a_built_network_is_the_supernet_at_its_genotype(space, seed):
    graph = tn.lower(space, IN_SHAPE)
    net = compiled(graph, seed)
    genotype = tn.sample(graph, seed)
    model = tn.build(graph, genotype, inherit=net).eval()

    torch.testing.assert_close(model(X), net(X, at=genotype), **CLOSE)


@settings(max_examples=200)
@given(space=spaces(), seed=SEEDS)
def test_masks_are_slices(space, seed):
    graph = tn.lower(space, IN_SHAPE)
    net = compiled(graph, seed)
    genotype = tn.sample(graph, seed)

    torch.testing.assert_close(net(X, at=genotype, widths="soft"), net(X, at=genotype), **CLOSE)


@settings(max_examples=100)
@given(space=spaces(), seed=SEEDS, hard=st.booleans())
def test_skipping_changes_no_gradient(space, seed, hard):
    graph = tn.lower(space, IN_SHAPE)
    found = []
    for skip in (True, False):
        net = compiled(graph, seed, tn.relax.GumbelSoftmax() if hard else None).double()
        net.network.skip, net.progress = skip, 0.6
        net.architecture.train()
        x = X.double().requires_grad_()
        y = net(x, generator=torch.Generator().manual_seed(seed))
        if y.requires_grad:  # not if nothing but zeros was drawn
            y.square().sum().backward()
        tensors = [x, *net.parameters()]
        found.append([torch.zeros_like(t) if t.grad is None else t.grad for t in tensors] + [y])

    for skipped, full in zip(*found):
        torch.testing.assert_close(skipped, full)


@settings(max_examples=100)
@given(space=spaces(), seed=SEEDS)
def test_a_specialised_space_is_the_space_with_these_decisions_taken(space, seed):
    graph = tn.lower(space, IN_SHAPE)
    net, rng = compiled(graph, seed), random.Random(seed)
    genotype = tn.sample(graph, rng)
    # Widths stay open, as they change the shapes of the weights that are taken over.
    taken = {
        path: picked
        for path, picked in genotype.items()
        if graph.decisions[path].kind != "width" and rng.random() < 0.5
    }
    rest = tn.specialise(graph, taken)
    small = compiled(rest, seed)
    tensors = net.network.state_dict()
    small.network.load_state_dict({key: tensors[key] for key in small.network.state_dict()})
    open_weights = small.mixture().weights.detach()
    flat = torch.tensor(graph.one_hot(genotype))
    for path, start in rest.offsets.items():
        count = len(rest.decisions[path].options)
        at = graph.offsets[path]
        flat[at : at + count] = open_weights[start : start + count]

    torch.testing.assert_close(small(X), net(X, at=tn.Mixture.from_weights(graph, flat, flat)))


@settings(max_examples=60)
@given(space=spaces(), seed=SEEDS)
def test_counts_are_those_of_torchinfo(space, seed):
    graph = tn.lower(space, IN_SHAPE)
    genotype = tn.sample(graph, seed)
    model = tn.build(graph, genotype)
    info = torchinfo.summary(model, input_size=(1, *IN_SHAPE), verbose=0)
    cost = tn.cost.count(graph, genotype)

    assert (info.total_params, info.total_mult_adds) == (cost.params, cost.macs)
    assert sum(p.numel() for p in model.parameters()) == cost.params
