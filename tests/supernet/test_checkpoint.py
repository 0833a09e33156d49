"""Activation checkpointing: less is kept for backward, and nothing else changes."""

import copy

import pytest
import torch
from example_spaces import ALL, trilevel

import trinas as tn


def twins(graph, **settings):
    torch.manual_seed(0)
    net = tn.compile_supernet(graph, **settings)
    twin = copy.deepcopy(net)
    twin.network.checkpoint = True
    return net, twin


def gradients(net, x, **how):
    torch.manual_seed(1)
    mixture = net.mixture(generator=torch.Generator().manual_seed(2), **how)
    result = net(x, at=mixture)
    result.square().mean().backward()
    return result, {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("widths", ["sampled", "narrowest", "soft"])
@pytest.mark.parametrize("name", ALL)
def test_results_gradients_and_statistics_are_the_same(name, widths):
    graph = ALL[name]()
    x = torch.rand(2, *graph.in_shape.numbers())
    net, twin = twins(graph)
    expected, got = gradients(net, x, widths=widths), gradients(twin, x, widths=widths)

    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(dict(twin.named_buffers()), dict(net.named_buffers()))


def test_dropout_drops_the_same_twice():
    options = tn.choice(a=tn.seq(tn.conv(3, 4), tn.dropout()), b=tn.conv(1, 4))
    net, twin = twins(tn.lower(tn.seq(options, tn.conv(1, 1)), (3, 6, 6)))
    x = torch.rand(2, 3, 6, 6)

    torch.testing.assert_close(gradients(twin, x), gradients(net, x))


def kept_for_backward(net, x):
    sizes = {}

    def pack(tensor):
        sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = net(x, at=net.mixture(widths="widest"))
    weights = {p.data_ptr() for p in net.parameters()}
    return result, sum(size for pointer, size in sizes.items() if pointer not in weights)


def test_one_tensor_a_choice_is_kept():
    slot = dict(a=tn.resblock(4), b=tn.dwsblock(4), c=tn.conv_relu(3, 4), d=tn.conv_relu(1, 4))
    graph = tn.lower(tn.seq(*(tn.choice(slot) for _ in range(5))), (4, 8, 8))
    net, twin = twins(graph)
    x = torch.rand(1, 4, 8, 8)
    (_, plain), (_, less) = kept_for_backward(net, x), kept_for_backward(twin, x)

    # Seen from outside, a block keeps its inputs: the hooks of the checkpoint take the rest.
    assert less <= 5 * x.numel() + 100
    assert plain > 10 * less


def test_nothing_is_computed_twice_without_gradients():
    _, twin = twins(trilevel())
    calls = []
    for module in twin.network.layers.children():
        module.register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(1, *twin.graph.in_shape.numbers())
    with torch.no_grad():
        twin(x)
    once = len(calls)
    twin(x).sum().backward()

    assert len(calls) > 2 * once  # hooks see only what is not cut, in both computations


def test_gradients_of_the_unrolled_step_are_the_same():
    graph = tn.lower(tn.choice(a=tn.conv_relu(3, 4), b=tn.conv(1, 4), name="slot"), (3, 6, 6))
    batch = torch.rand(2, 3, 6, 6).double(), torch.rand(2, 4, 6, 6).double()
    grads = []
    for net in twins(graph):
        config = tn.SearchConfig(search_steps=2, order=2)
        search = tn.Search(
            net.double(), torch.nn.functional.mse_loss, lambda _: batch, lambda _: batch, config
        )
        search.advance()
        grads.append({name: p.grad for name, p in net.arch_parameters().items()})

    torch.testing.assert_close(*grads)


def test_errors_still_name_the_node():
    graph = tn.lower(tn.seq(tn.choice(a=tn.linear(2), b=tn.linear(2), name="slot")), (4,))
    _, twin = twins(graph)
    twin.network.layers["slot/a"].weight = torch.nn.Parameter(torch.rand(2, 3))

    with pytest.raises(RuntimeError) as caught:
        twin(torch.rand(1, 4))

    assert "while running node slot/a" in "".join(caught.value.__notes__)


def test_the_second_computation_has_the_weights_of_the_first():
    graph = tn.lower(tn.choice(a=tn.conv_relu(3, 4), b=tn.conv(1, 4), name="slot"), (3, 6, 6))
    x, grads = torch.rand(2, 3, 6, 6), []
    for net in twins(graph):
        others = {name: 2 * p.detach() for name, p in net.network.named_parameters()}
        others["layers.slot/a/conv.weight"].requires_grad_()
        result = torch.func.functional_call(net.network, others, (x, net.mixture(widths="widest")))
        result.square().sum().backward()
        grads.append(others["layers.slot/a/conv.weight"].grad)

    torch.testing.assert_close(*grads)
