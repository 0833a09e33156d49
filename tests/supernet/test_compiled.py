"""Compiled parts: equal results, one compilation for all places built alike."""

import copy
import itertools
import shutil

import attrs
import pytest
import torch
from example_spaces import ALL
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

import trinas as tn

# torch looks at an attribute that warns, and hides the warning unless it is an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
    # Of inductor's own imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def sandwich(slots=2):
    """Slots of several operations and widths, as in the reference example."""
    width = lambda: tn.width(values=(4, 6, 8))  # noqa: E731  # each call another width
    parts = (
        tn.choice(a=tn.resblock(w), b=tn.conv_relu(3, w), name="slot")
        for w in (width() for _ in range(slots))
    )
    return tn.lower(tn.seq(tn.conv(1, 8), *parts, tn.conv(1, 3)), (3, 6, 6))


def compiled_twin(net):
    twin = copy.deepcopy(net)
    counter = CompileCounterWithBackend("eager")
    twin.network.compile(backend=counter)
    return twin, counter


def gradients(net, x, mixture):
    for parameter in net.parameters():
        parameter.grad = None
    result = net(x, at=mixture)
    result.square().mean().backward()
    return result, {name: p.grad for name, p in net.network.named_parameters()}


@pytest.mark.parametrize("name", ["trilevel", pytest.param("cells", marks=pytest.mark.long)])
def test_results_gradients_and_statistics_are_the_same(name):
    torch.manual_seed(0)
    net = tn.compile_supernet(ALL[name]())
    twin, counter = compiled_twin(net)
    x = torch.rand(2, *net.graph.in_shape.numbers())
    for seed in range(2):
        mixture = net.mixture(generator=torch.Generator().manual_seed(seed)).detached()
        torch.testing.assert_close(gradients(twin, x, mixture), gradients(net, x, mixture))

    assert counter.frame_count > 0
    torch.testing.assert_close(dict(twin.named_buffers()), dict(net.named_buffers()))


def test_places_built_alike_share_what_was_compiled():
    frames = []
    for slots in (2, 3):
        net, counter = compiled_twin(tn.compile_supernet(sandwich(slots)))
        net(torch.rand(1, 3, 6, 6), at=net.mixture(widths="narrowest"))
        frames.append(counter.frame_count)

    assert frames[0] == frames[1]


def test_nothing_is_compiled_anew_as_decisions_change():
    torch.manual_seed(0)
    net, counter = compiled_twin(tn.compile_supernet(sandwich(), tn.relax.GumbelSoftmax()))
    x = torch.rand(2, 3, 6, 6)
    paths = [path for path, d in net.graph.decisions.items() if d.kind == "width"]

    def step(mixture, *widths):
        net(x, at=attrs.evolve(mixture, widths=dict(zip(paths, widths)))).sum().backward()

    weights = torch.full((net.graph.slots,), 0.5)
    everything = tn.Mixture.from_weights(net.graph, weights, weights)
    for widths in ((4, 4), (4, 6), (4, 8), (8, 4), (8, 8)):  # cut or not, equal or not
        step(everything, *widths)
    before = counter.frame_count
    for seed, widths in enumerate(itertools.product((4, 6, 8), repeat=2)):
        drawn = net.mixture(generator=torch.Generator().manual_seed(seed)).detached()
        step(drawn, *widths)

    assert counter.frame_count == before


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_compiles_nothing_anew_for_other_widths_and_sizes():
    torch.manual_seed(0)
    width = tn.width(values=(4, 6, 8))
    graph = tn.lower(tn.seq(tn.conv(1, 8), tn.resblock(width), tn.conv(1, 3)), (3, 6, 6))
    (path,) = graph.decisions
    net = tn.compile_supernet(graph)
    twin = copy.deepcopy(net)
    twin.network.compile()
    everything = tn.Mixture.from_weights(graph, *[torch.ones(graph.slots)] * 2)

    def check(width, side):
        mixture = attrs.evolve(everything, widths={path: width})
        x = torch.rand(2, 3, side, side + 1)
        torch.testing.assert_close(gradients(twin, x, mixture), gradients(net, x, mixture))

    check(8, 6)  # nothing is cut
    check(4, 6)
    before = counters["stats"]["unique_graphs"]
    for width, side in ((6, 6), (4, 9), (6, 12), (8, 7)):
        check(width, side)
    assert counters["stats"]["unique_graphs"] == before


def test_a_deep_copy_and_a_plain_network_compile_too():
    net, _ = compiled_twin(tn.compile_supernet(sandwich()))
    genotype = tn.sample(net.graph, 0)
    model = tn.build(net.graph, genotype, inherit=net).eval()
    x = torch.rand(1, 3, 6, 6)
    expected = model(x)
    counter = CompileCounterWithBackend("eager")
    model.compile(backend=counter)

    torch.testing.assert_close(model(x), expected)
    assert counter.frame_count > 0


def test_masks_run_as_they_are():
    net = tn.compile_supernet(sandwich()).eval()
    twin, counter = compiled_twin(net)
    mixture = net.mixture(widths="soft")
    x = torch.rand(1, 3, 6, 6)

    assert torch.equal(twin(x, at=mixture), net(x, at=mixture))
    assert counter.frame_count == 0


def test_checkpoints_hold_compiled_parts():
    torch.manual_seed(0)
    net = tn.compile_supernet(sandwich())
    twin, counter = compiled_twin(net)
    twin.network.checkpoint = True
    mixture = net.mixture(widths="narrowest").detached()
    x = torch.rand(2, 3, 6, 6)

    torch.testing.assert_close(gradients(twin, x, mixture), gradients(net, x, mixture))
    assert counter.frame_count > 0


def test_sizes_of_one_and_inputs_with_and_without_gradient_have_parts_of_their_own():
    net = tn.compile_supernet(sandwich())
    twin, _ = compiled_twin(net)
    mixture = net.mixture(widths="narrowest").detached()

    for batch, height, width in itertools.product((1, 2), (1, 5), (1, 6)):
        for learns in (False, True):
            x = torch.rand(batch, 3, height, width, requires_grad=learns)
            torch.testing.assert_close(gradients(twin, x, mixture), gradients(net, x, mixture))


def test_torch_compiles_a_plain_network_as_a_whole():
    graph = tn.lower(tn.seq(tn.conv(3, 8), tn.resblock(8), tn.conv(3, 3)), (3, 6, 6))
    model = tn.build(graph)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.rand(2, 3, 6, 6)

    torch.testing.assert_close(compiled(x), model(x))
