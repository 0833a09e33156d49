"""The convolution that compilers do not look into: the same numbers, shapes and layouts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from trinas.ops import opaque
from trinas.ops.opaque import conv2d


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


SETTINGS = st.tuples(
    st.sampled_from([1, 3, 5]),  # kernel
    st.sampled_from([1, 2]),  # stride
    st.sampled_from([0, 1, 2]),  # padding
    st.sampled_from([1, 2]),  # dilation
    st.sampled_from([1, 2, 4]),  # groups
)


@given(settings=SETTINGS, bias=st.booleans(), last=st.booleans())
def test_equals_the_convolution_of_torch(settings, bias, last):
    kernel, stride, padding, dilation, groups = settings
    layout = torch.channels_last if last else torch.contiguous_format
    x = torch.rand(2, 4, 11, 10).contiguous(memory_format=layout).requires_grad_()
    weight = torch.rand(8, 4 // groups, kernel, kernel, requires_grad=True)
    shift = torch.rand(8, requires_grad=True) if bias else None
    leaves = [t for t in (x, weight, shift) if t is not None]

    y = opaque._conv2d(x, weight, shift, [stride] * 2, [padding] * 2, [dilation] * 2, groups)
    expected = F.conv2d(x, weight, shift, stride, padding, dilation, groups)

    torch.testing.assert_close(y, expected)
    cotangent = torch.rand_like(y)
    torch.testing.assert_close(
        torch.autograd.grad(y, leaves, cotangent),
        torch.autograd.grad(expected, leaves, cotangent),
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 4, 7, 6), (1, 1, 5, 5), (2, 4, 1, 1)])
@pytest.mark.parametrize("learns", [(True, True), (True, False), (False, True)])
def test_what_is_announced_is_what_comes(layout, shape, learns):
    x = torch.rand(shape).contiguous(memory_format=layout).requires_grad_(learns[0])
    weight = torch.rand(6, shape[1], 3, 3, requires_grad=learns[1])
    bias = torch.rand(6, requires_grad=learns[1])

    for shift in (bias, None):
        torch.library.opcheck(opaque._conv2d, (x, weight, shift, [1, 1], [1, 1], [1, 1], 1))


def test_channels_stay_open_where_it_is_compiled():
    counter = CompileCounterWithBackend("aot_eager")
    weight = torch.rand(8, 3, 3, 3, requires_grad=True)

    @torch.compile(backend=counter, dynamic=True, fullgraph=True)
    def narrow(x, width):
        return conv2d(x, weight.narrow(0, 0, width), padding=1).relu()

    for width in (4, 6, 8):
        x = torch.rand(2, 3, 9, 7)
        torch.testing.assert_close(narrow(x, width), F.conv2d(x, weight[:width], padding=1).relu())
    assert counter.frame_count == 1


def test_autocast_computes_in_low_precision_there_too():
    compiled = torch.compile(conv2d, backend="aot_eager", dynamic=True, fullgraph=True)
    x, weight, bias = torch.rand(2, 3, 6, 6), torch.rand(4, 3, 3, 3), torch.rand(4)

    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(x, weight, bias)
        expected = F.conv2d(x, weight, bias)

    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected)


def test_an_exported_network_has_operators_that_everybody_knows():
    weight = torch.rand(4, 3, 3, 3)

    class Layer(torch.nn.Module):
        def forward(self, x):
            return conv2d(x, weight)

    program = torch.export.export(Layer(), (torch.rand(1, 3, 6, 6),), strict=True)
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["aten.conv2d.default"]


def test_autocast_leaves_double_precision_alone():
    compiled = torch.compile(conv2d, backend="aot_eager", dynamic=True, fullgraph=True)
    x, weight = torch.rand(2, 3, 6, 6).double(), torch.rand(4, 3, 3, 3).double()

    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(x, weight)
        expected = F.conv2d(x, weight)

    assert y.dtype == expected.dtype
    torch.testing.assert_close(y, expected)
