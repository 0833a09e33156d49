"""Depthwise convolutions with gradients of our own, against torch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import trinas as tn
from trinas.ops import depthwise
from trinas.ops.depthwise import DepthwiseConv2d, depthwise_conv2d


def by_torch(x, weight, bias, stride, dilation):
    padding = dilation * (weight.shape[-1] - 1) // 2
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])


def tensors(channels, height, width, kernel, *, bias=True, layout=torch.channels_last, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, channels, height, width), (channels, 1, kernel, kernel), (channels,)]
    x, weight, shift = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    x = x.contiguous(memory_format=layout)
    found = [x, weight, shift] if bias else [x, weight]
    return [t.requires_grad_() for t in found]


@settings(max_examples=60)
@given(
    channels=st.integers(1, 4),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    kernel=st.sampled_from([1, 3, 5, 7]),
    dilation=st.integers(1, 4),
    stride=st.integers(1, 3),
    bias=st.booleans(),
    layout=st.sampled_from([torch.channels_last, torch.contiguous_format]),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients_are_torchs(
    channels, height, width, kernel, dilation, stride, bias, layout, seed
):
    given = tensors(channels, height, width, kernel, bias=bias, layout=layout, seed=seed)
    x, weight, *shift = given
    ours = depthwise_conv2d(x, weight, shift[0] if shift else None, stride, dilation)
    plain = by_torch(x, weight, shift[0] if shift else None, stride, dilation)
    grad = torch.randn(plain.shape, dtype=torch.float64)

    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(
        torch.autograd.grad(ours, given, grad), torch.autograd.grad(plain, given, grad)
    )


@pytest.mark.parametrize(("kernel", "dilation", "stride"), [(3, 2, 1), (5, 2, 2), (3, 3, 2)])
def test_gradients_are_differentiable_again(kernel, dilation, stride):
    given = tensors(2, 5, 6, kernel, bias=False)

    def convolve(x, weight):
        return depthwise_conv2d(x, weight, None, stride, dilation)

    assert torch.autograd.gradcheck(convolve, given)
    assert torch.autograd.gradgradcheck(convolve, given)


def test_only_the_gradients_that_are_asked_for(monkeypatch):
    x, weight = tensors(2, 6, 6, 3, bias=False)
    monkeypatch.setattr(depthwise, "_of_weight", None)  # or it would be called
    depthwise_conv2d(x, weight.detach(), None, 1, 2).sum().backward()

    assert x.grad is not None


@pytest.mark.parametrize("dilation", [1, 2])
def test_the_layer_is_torchs_by_another_way(dilation):
    torch.manual_seed(0)
    settings = dict(kernel_size=5, padding=2 * dilation, dilation=dilation, groups=4)
    ours, plain = DepthwiseConv2d(4, 4, **settings), torch.nn.Conv2d(4, 4, **settings)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 9, 9)
    results = [layer(x) for layer in (ours, plain)]
    for result in results:
        result.square().sum().backward()

    torch.testing.assert_close(*results)
    for one, other in zip(ours.parameters(), plain.parameters()):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_a_plain_convolution_stands_where_gradients_are_off_or_traced():
    layer = DepthwiseConv2d(4, 4, 3, padding=2, dilation=2, groups=4)
    x = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        assert layer(x).grad_fn is None
    compiled = torch.compile(layer, backend="eager", fullgraph=True)

    torch.testing.assert_close(compiled(x), layer(x))


def test_autocast_is_left_to_torch():
    layer = DepthwiseConv2d(4, 4, 3, padding=2, dilation=2, groups=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 4, 6, 6)).dtype == torch.bfloat16


def test_searched_widths_run_the_same_way():
    width = tn.width(values=(4, 8))
    space = tn.seq(tn.conv(1, width), tn.dwconv(3, dilation=2), tn.conv(1, 2))
    graph = tn.lower(space, (3, 6, 6))
    net = tn.compile_supernet(graph)
    x = torch.randn(2, 3, 6, 6)
    for picked in (4, 8):
        genotype = tn.Genotype.of(graph, {next(iter(graph.decisions)): picked})
        model = tn.build(graph, genotype, inherit=net)
        torch.testing.assert_close(net(x, at=genotype), model(x))
