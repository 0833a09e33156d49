"""The supernet as a module."""

import copy
import subprocess
import sys

import pytest
import torch
from example_spaces import ALL, trilevel

import trinas as tn


@pytest.fixture
def net():
    torch.manual_seed(0)
    return tn.compile_supernet(trilevel())


@pytest.fixture
def x():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_architecture_parameters_are_stacked_and_named(net):
    shapes = {name: tuple(p.shape) for name, p in net.arch_parameters().items()}
    kinds = [d.kind for d in net.graph.decisions.values()]

    assert shapes == {
        "gamma_2": (kinds.count("width"), 2),
        "alpha_4": (kinds.count("operation"), 4),
        "beta_5": (1, 5),
    }
    assert all(isinstance(p, torch.nn.Parameter) for p in net.arch_parameters().values())
    assert not {id(p) for p in net.weight_parameters()} & {
        id(p) for p in net.arch_parameters().values()
    }


def test_order_of_parameters_is_the_same_in_every_process():
    code = (
        "import sys; sys.path.insert(0, 'tests'); from example_spaces import depths\n"
        "import trinas as tn\n"
        "net = tn.compile_supernet(depths())\n"
        "print([n for n, _ in net.named_parameters()], list(net.graph.decisions))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        ).stdout
        for seed in ("1", "2")
    }

    assert len(runs) == 1


def test_one_relaxation_call_serves_all_decisions_of_a_kind(x):
    calls = []

    class Counting(tn.relax.Softmax):
        def forward(self, logits, **settings):
            calls.append(tuple(logits.shape))
            return super().forward(logits, **settings)

    net = tn.compile_supernet(trilevel(), {"operation": Counting()})
    net(x)

    assert calls == [(len([d for d in net.graph.decisions.values() if d.kind == "operation"]), 4)]


def test_weights_are_read_on_the_host_once_a_pass(net, x, monkeypatch):
    reads = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: reads.append(1) or original(t))
    mixture = net.mixture()
    for widths in ("sampled", "widest", "narrowest"):
        net(x, at=mixture.with_widths(widths))

    assert len(reads) == 1


def test_gradients_reach_every_kind_of_parameter(net, x):
    net.progress = 0.2
    net(x).square().mean().backward()

    for name, parameter in net.arch_parameters().items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_width_policy_changes_what_runs(net, x):
    outputs = {w: net(x, widths=w) for w in ("widest", "narrowest", "soft")}

    assert not torch.allclose(outputs["widest"], outputs["narrowest"])
    assert not torch.allclose(outputs["widest"], outputs["soft"])
    with pytest.raises(tn.errors.SpaceError, match=r"unknown width policy; got wide.*sampled"):
        net(x, widths="wide")


def test_evaluation_is_without_noise(net, x):
    net.eval()

    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


def test_a_generator_repeats_a_sample(net):
    samples = [net.mixture(generator=torch.Generator().manual_seed(s)).widths for s in (5, 5, 6)]

    assert samples[0] == samples[1] != samples[2]


def test_state_dict_round_trips_with_progress(net, x):
    net.progress = 0.4
    other = tn.compile_supernet(trilevel())
    other.load_state_dict(net.state_dict())

    assert other.progress == 0.4
    assert torch.equal(net.eval()(x), other.eval()(x))


def test_a_checkpoint_of_another_space_is_refused(net):
    other = tn.compile_supernet(tn.lower(tn.conv(3, 4), (3, 8, 8)))

    with pytest.raises(ValueError, match=r"supernet of its own space; got space"):
        other.set_extra_state(net.get_extra_state())


def test_deepcopy_and_dtype(net, x):
    twin = copy.deepcopy(net).eval()
    net.eval()
    assert torch.equal(twin(x), net(x))
    net.double()
    assert net(x.double()).dtype == torch.float64
    assert net.mixture().weights.dtype == torch.float64


def test_autocast(net, x):
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    y.float().sum().backward()

    assert torch.isfinite(y).all()
    assert net.arch_parameters()["alpha_4"].grad is not None


def test_progress_out_of_range(net):
    with pytest.raises(tn.errors.SpaceError, match=r"progress lies in \[0, 1\]; got 1.5"):
        net.progress = 1.5


def test_a_genotype_of_another_space_is_refused(net, x):
    graph = tn.lower(tn.choice(a=tn.conv(3, 4), b=tn.conv(1, 4)), (3, 8, 8))

    with pytest.raises(tn.errors.GenotypeError, match=r"supernet of its own space"):
        net(x, at=tn.sample(graph, 0))


def test_a_failing_layer_names_its_node(net):
    with pytest.raises(RuntimeError) as caught:
        net(torch.rand(2, 3, 8, 8, dtype=torch.float64))

    assert "while running node stem" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("shape", [(2, 5, 8, 8), (3, 8, 8), (2, 3, 64)])
def test_an_input_of_another_shape_is_refused(net, shape):
    with pytest.raises(
        tn.errors.ShapeError, match=r"got shape \(.*; at a network for \(N, 3, 8, 8\)"
    ):
        net(torch.rand(shape))


def test_any_errors_of_a_layer_names_its_node():
    graph = tn.lower(tn.seq(tn.global_avg_pool(), tn.batch_norm()), (3, 4, 4))

    with pytest.raises(ValueError, match="more than 1 value per channel") as caught:
        tn.compile_supernet(graph)(torch.rand(1, 3, 4, 4))
    assert (
        "while running node batch_norm, declared at test_supernet.py" in caught.value.__notes__[0]
    )


def test_derive_passes_over_options_that_are_searched_only():
    space = tn.choice(none=tn.zero(), conv=tn.conv(3, 3), search_only="none", name="slot")
    net = tn.compile_supernet(tn.lower(space, (3, 8, 8)))
    with torch.no_grad():
        net.logits("slot").copy_(torch.tensor([5.0, -5.0]))

    assert dict(tn.derive(net)) == {"slot": "conv"}


def test_derive_keeps_the_strongest_inputs():
    graph = ALL["cells"]()
    net = tn.compile_supernet(graph, tn.relax.Softmax())
    with torch.no_grad():
        for parameter in net.arch_parameters().values():
            parameter.zero_()
        strong = graph.decisions["normal/edge[0,3]"].index("sep_conv_3x3")
        net.logits("normal/edge[0,3]")[strong] = 3.0
        # A heavy "none" does not make an edge strong.
        net.logits("normal/edge[1,3]")[0] = 9.0
    genotype = tn.derive(net)

    assert genotype["normal/node[3]"] == (0, 2)
    assert genotype["normal/edge[0,3]"] == "sep_conv_3x3"


def test_leaf_collects_what_backward_would_give(net, x):
    net.progress = 0.3
    mixture = net.mixture(generator=torch.Generator().manual_seed(0))
    net(x, at=mixture).square().sum().backward()
    direct = {n: p.grad.clone() for n, p in net.arch_parameters().items()}
    net.zero_grad()
    mixture = net.mixture(generator=torch.Generator().manual_seed(0))
    leaf = mixture.leaf()
    net(x, at=leaf.with_widths("sampled")).square().sum().backward()
    mixture.weights.backward(leaf.weights.grad)

    for name, parameter in net.arch_parameters().items():
        torch.testing.assert_close(parameter.grad, direct[name])


def test_open_decisions_need_a_mixture(net, x):
    with pytest.raises(tn.errors.GraphError, match=r"open decisions needs a mixture"):
        net.network(x)
    with pytest.raises(tn.errors.GenotypeError, match=r"no open decisions; got .* of them"):
        tn.build(net.graph)


def test_weights_are_not_inherited_across_spaces(net):
    graph = tn.lower(tn.choice(a=tn.conv(3, 4), b=tn.conv(1, 4)), (3, 8, 8))

    with pytest.raises(tn.errors.GenotypeError, match=r"supernet of the same space"):
        tn.build(graph, tn.sample(graph, 0), inherit=net)


def test_shared_weights_are_one_module():
    net = tn.compile_supernet(ALL["depths"]())

    assert len([n for n, _ in net.network.layers.named_modules() if n.startswith("tied/")]) == 2
