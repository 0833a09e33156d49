"""The supernet does what torch modules do: copies, dtypes, modes, functional calls."""

import copy
import io
import pickle

import pytest
import torch
from example_spaces import ALL, concatenated, trilevel

import trinas as tn


@pytest.fixture(params=ALL, scope="module")
def graph(request):
    return ALL[request.param]()


def batch(graph, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, *graph.in_shape.numbers(), generator=generator).to(dtype)


def test_a_whole_module_is_saved_and_loaded(graph):
    net = tn.compile_supernet(graph).eval()
    net.progress = 0.4
    net(batch(graph))  # with plans in its memory
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)

    assert twin.progress == 0.4
    assert twin.graph == net.graph
    assert torch.equal(twin(batch(graph)), net(batch(graph)))


def test_a_copy_has_parameters_of_its_own(graph):
    net = tn.compile_supernet(graph).eval()
    twin = copy.deepcopy(net)

    assert torch.equal(twin(batch(graph)), net(batch(graph)))
    assert not {id(p) for p in net.parameters()} & {id(p) for p in twin.parameters()}


def test_a_plain_network_is_pickled(graph):
    model = tn.build(graph, tn.sample(graph, 0)).eval()

    assert torch.equal(pickle.loads(pickle.dumps(model))(batch(graph)), model(batch(graph)))


@pytest.mark.parametrize("widths", ["sampled", "soft"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_runs_in_any_dtype(graph, dtype, widths):
    net = tn.compile_supernet(graph).to(dtype)
    y = net(batch(graph, dtype), widths=widths)
    y.sum().backward()

    assert y.dtype == dtype
    assert all(p.grad is None or p.grad.dtype == dtype for p in net.parameters())


@pytest.mark.parametrize("widths", ["sampled", "widest", "soft"])
def test_it_runs_under_autocast(graph, widths):
    net = tn.compile_supernet(graph)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(batch(graph), widths=widths)
    y.float().square().sum().backward()

    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


def test_without_gradients_none_are_kept(graph):
    net = tn.compile_supernet(graph)
    with torch.no_grad():
        assert not net(batch(graph)).requires_grad


def test_inference_mode_leaves_nothing_behind_that_training_trips_over(graph):
    net = tn.compile_supernet(graph)
    genotype = tn.sample(graph, 3)
    for widths in ("sampled", "soft"):
        with torch.inference_mode():
            net(batch(graph), at=genotype, widths=widths)
        net(batch(graph), at=genotype, widths=widths).sum().backward()


def test_evaluation_repeats(graph):
    net = tn.compile_supernet(graph).eval()

    assert torch.equal(net(batch(graph)), net(batch(graph)))


def test_parameters_can_be_given_from_outside():
    net = tn.compile_supernet(trilevel(), tn.relax.Softmax()).eval()
    x = batch(net.graph)
    parameters = {name: p.detach().clone() for name, p in net.named_parameters()}
    called = torch.func.functional_call(net, parameters, (x,))
    net(x).sum().backward()
    found = torch.func.grad(lambda p: torch.func.functional_call(net, p, (x,)).sum())(parameters)

    assert torch.equal(called, net(x))
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad)


def test_a_plain_network_can_be_exported():
    graph = trilevel()
    model = tn.build(graph, tn.sample(graph, 0)).eval()
    exported = torch.export.export(model, (batch(graph),)).module()

    torch.testing.assert_close(exported(batch(graph)), model(batch(graph)))


def test_looking_at_the_weights_leaves_modes_alone():
    net = tn.compile_supernet(concatenated())
    frozen = next(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
    net.weights()
    tn.derive(net)

    assert net.training
    assert not frozen.training


def test_spaces_without_parameters():
    x = torch.rand(2, 3, 4, 4)
    for space, expected in ((tn.seq(), x), (tn.tanh(), x.tanh())):
        graph = tn.lower(space, (3, 4, 4))
        net = tn.compile_supernet(graph)

        assert torch.equal(net(x), expected)
        assert torch.equal(net(x, at=tn.derive(net)), expected)
        assert torch.equal(tn.build(graph, inherit=net)(x), expected)


def test_options_that_are_the_input_itself():
    """One decision at two places, two of whose options are the identity."""
    slot = tn.share("slot", tn.choice(a=tn.seq(), b=tn.seq(), c=tn.conv(3, 3)))
    graph = tn.lower(tn.seq(slot, slot), (3, 4, 4))
    net = tn.compile_supernet(graph, tn.relax.Softmax())
    x = torch.rand(2, 3, 4, 4)
    a, b, c = net.weights()["slot"]
    conv = net.network.layers["slot[0]/c"], net.network.layers["slot[1]/c"]
    once = (a + b) * x + c * conv[0](x)

    torch.testing.assert_close(net(x), (a + b) * once + c * conv[1](once))
    assert torch.equal(tn.build(graph, {"slot": "b"})(x), x)


@pytest.mark.parametrize(
    ("state", "text"),
    [({}, r"progress and its space; got \{\}"), (None, "got None"), ({"progress": 0.5}, "got {'p")],
)
def test_a_state_of_something_else_is_refused(state, text):
    net = tn.compile_supernet(trilevel())

    with pytest.raises(tn.errors.CheckpointError, match=text):
        net.load_state_dict({**net.state_dict(), "_extra_state": state})


def test_a_mixture_of_another_space_is_refused():
    other = tn.compile_supernet(tn.lower(tn.choice(a=tn.conv(3, 4), b=tn.conv(1, 4)), (3, 8, 8)))
    net = tn.compile_supernet(trilevel())

    with pytest.raises(tn.errors.GenotypeError, match="supernet of its own space; got Mixture"):
        net(torch.rand(1, 3, 8, 8), at=other.mixture())


def test_a_genotype_run_in_inference_mode_can_be_trained_afterwards():
    slot = tn.choice(a=tn.conv(1, 4), b=tn.conv(3, 4), name="slot")
    net = tn.compile_supernet(tn.lower(slot, (1, 8, 8)))
    net.network.skip = False
    genotype, x = tn.sample(net.graph, 0), torch.rand(1, 1, 8, 8)

    with torch.inference_mode():
        net(x, at=genotype)
    net(x, at=genotype).sum().backward()

    assert any(p.grad is not None for p in net.weight_parameters())
