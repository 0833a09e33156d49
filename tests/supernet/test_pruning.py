"""Options dropped for good: what goes, what stays as it was, and what is refused."""

import math

import pytest
import torch
from example_spaces import trilevel

import trinas as tn

SLOT = "network.layers.slot[1]"


def slots(count=2):
    slot = dict(a=tn.conv_relu(3, 4), b=tn.conv_relu(1, 4), c=tn.resblock(4))
    parts = (tn.choice(slot, name="slot") for _ in range(count))
    return tn.compile_supernet(tn.lower(tn.seq(*parts), (4, 6, 6)), tn.relax.Sparsemax())


def parameters(net):
    return {name for name, _ in net.network.named_parameters()}


def test_layers_and_logits_of_a_dropped_option_go():
    net = slots()
    before = parameters(net)
    gone = net.prune({"slot[0]": ["a", "c"]})

    assert before - parameters(net) == {
        "layers.slot[0]/a/conv.weight",
        "layers.slot[0]/c/residual/conv1.weight",
        "layers.slot[0]/c/residual/conv2.weight",
    }
    assert sum(p.numel() for p in gone) == 3 * 4 * 4 * 9
    assert net.logits("slot[0]").tolist()[::2] == [-math.inf, -math.inf]
    assert net.weights()["slot[0]"] == [0.0, 1.0, 0.0]
    assert net.pruned == {"slot[0]": ("a", "c")}


def test_what_is_left_computes_as_before():
    net = slots()
    for path in net.graph.decisions:
        net.logits(path).data.copy_(torch.tensor([1.0, 0.9, -3.0]))
    x = torch.rand(2, 4, 6, 6)
    expected = net(x)
    net.prune({path: ["c"] for path in net.graph.decisions})

    torch.testing.assert_close(net(x), expected)
    net.network.skip = False
    torch.testing.assert_close(net(x), expected)


def test_a_path_that_is_dropped_takes_its_cells_along():
    torch.manual_seed(0)
    net = tn.compile_supernet(trilevel())
    trunk = net.graph.decisions["trunk"]
    first = trunk.options[0]
    others = [option for option in trunk.options if option != first]
    before = len(parameters(net))
    net.prune({"trunk": others})
    model = tn.build(net.graph, tn.derive(net), inherit=net)

    assert len(parameters(net)) < before
    assert tn.derive(net)["trunk"] == first
    x = torch.rand(1, *net.graph.in_shape.numbers())
    assert model.eval()(x).shape == net.eval()(x).shape


def test_layers_that_others_use_stay():
    cell = tn.cell(2, lambda i, j: tn.choice(a=tn.conv(3, 4), b=tn.conv(1, 4)), merge="last")
    net = tn.compile_supernet(tn.lower(tn.repeat(tn.share("cell", cell), 2), (4, 6, 6)))
    path = next(iter(net.graph.decisions))
    gone = net.prune({path: ["a"]})

    assert len(gone) == 4  # weight and bias, in both copies of the cell
    assert net(torch.rand(1, 4, 6, 6)).shape == (1, 4, 6, 6)


@pytest.mark.parametrize(
    "relax", [tn.relax.Softmax(), tn.relax.Sparsemax(), tn.relax.GumbelSoftmax()]
)
def test_what_is_left_learns_under_every_relaxation(relax):
    """Softmax lets options of weight zero take gradients, but not those that are gone."""
    slot = dict(a=tn.conv_relu(3, 4), b=tn.conv_relu(1, 4), c=tn.resblock(4))
    net = tn.compile_supernet(tn.lower(tn.choice(slot, name="slot"), (4, 6, 6)), relax)
    net.prune({"slot": "a"})
    for parameter in (*net.arch_parameters().values(), *net.weight_parameters()):
        parameter.grad = None
    net(torch.rand(1, 4, 6, 6)).sum().backward()

    gradient = net.arch_parameters()["alpha_3"].grad
    assert gradient is not None
    assert gradient[0, 0] == 0
    assert torch.isfinite(gradient).all()


def test_a_pruned_state_loads_into_a_fresh_supernet():
    net, fresh = slots(), slots()
    net.prune({"slot[1]": ["b"]})
    fresh.load_state_dict(net.state_dict())
    x = torch.rand(1, 4, 6, 6)

    assert fresh.pruned == net.pruned
    assert torch.equal(fresh(x), net(x))


def test_a_full_state_does_not_load_into_a_pruned_supernet():
    net = slots()
    state = slots().state_dict()
    net.prune({"slot[1]": ["b"]})

    with pytest.raises(tn.errors.CheckpointError, match=r"no place to load .*slot\[1\].*anew"):
        net.load_state_dict(state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("network.layers.slot[1]/a/conv.weight"),
        lambda state: state.update({"network.layers.slot[1]/a/conv.weight": torch.zeros(3)}),
        lambda state: state.update(
            {"network.layers.slot[1]/b/conv.weight": torch.zeros(4, 4, 1, 1)}
        ),
    ],
)
def test_a_pruned_state_that_does_not_fit_prunes_nothing(damage):
    net, fresh = slots(), slots()
    net.prune({"slot[1]": ["b"]})
    state = dict(net.state_dict())
    damage(state)
    before = {name: value.clone() for name, value in fresh.network.state_dict().items()}

    with pytest.raises(tn.errors.CheckpointError, match=r"what was left of it.*got 1 .*slot\[1\]"):
        fresh.load_state_dict(state)
    after = fresh.network.state_dict()
    assert fresh.pruned == {}
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    fresh.load_state_dict(net.state_dict())
    assert fresh.pruned == net.pruned


def test_a_dropped_option_runs_no_more():
    net = slots()
    net.prune({"slot[0]": ["a"]})
    genotype = tn.Genotype.of(net.graph, {"slot[0]": "a", "slot[1]": "b"})

    with pytest.raises(tn.errors.RelaxationError, match=r"dropped for good.*slot\[0\]"):
        net(torch.rand(1, 4, 6, 6), at=genotype)
    with pytest.raises(tn.errors.GenotypeError, match=r"slot\[0\]=a, which was pruned"):
        tn.build(net.graph, genotype, inherit=net)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slot": ["a"]}, "depths and learned inputs are dropped"),
        ({"slot[0]": ["d"]}, "is one of its decision"),
        ({"slot[0]": ["a", "b", "c"]}, "is left in every decision"),
    ],
)
def test_refused(options, message):
    net = slots()
    before = parameters(net)

    with pytest.raises(tn.errors.SpaceError, match=message):
        net.prune(options)
    assert parameters(net) == before
    assert not net.pruned


def test_the_last_option_is_counted_with_those_dropped_before():
    net = slots()
    net.prune({"slot[0]": ["a"]})
    net.prune({"slot[0]": ["b", "a"]})

    with pytest.raises(tn.errors.SpaceError, match="is left"):
        net.prune({"slot[0]": ["c"]})


def test_an_option_that_is_only_searched_cannot_be_the_last():
    graph = tn.lower(tn.choice(none=tn.zero(), a=tn.conv(1, 4), search_only="none"), (4, 6, 6))
    net = tn.compile_supernet(graph)

    with pytest.raises(tn.errors.SpaceError, match="is left"):
        net.prune({next(iter(graph.decisions)): ["a"]})


def test_widths_are_not_dropped():
    net = tn.compile_supernet(trilevel())
    width = next(path for path, d in net.graph.decisions.items() if d.kind == "width")

    with pytest.raises(tn.errors.SpaceError, match="share their weights"):
        net.prune({width: [net.graph.decisions[width].options[0]]})


def test_weights_are_inherited_after_a_state_was_loaded():
    """Equal layers without weights run once, and loading leaves one of them."""
    twins = tn.parallel(tn.relu(), tn.relu())
    slot = tn.choice(a=tn.conv(1, 4), b=tn.conv(3, 4), name="slot")
    net = tn.compile_supernet(tn.lower(tn.seq(tn.conv(1, 4), twins, slot), (1, 8, 8)))
    genotype = tn.sample(net.graph, 0)
    x = torch.rand(1, 1, 8, 8)
    expected = net(x, at=genotype)

    net.load_state_dict(net.state_dict())
    model = tn.build(net.graph, genotype, inherit=net)

    torch.testing.assert_close(model(x), expected)


def test_options_may_come_one_by_one():
    slot = tn.choice(a=tn.conv(1, 4), b=tn.conv(3, 4), name="slot")
    net = tn.compile_supernet(tn.lower(slot, (1, 8, 8)))

    with pytest.raises(tn.errors.SpaceError, match="can be derived is left"):
        net.prune({"slot": (option for option in "ab")})
    assert net.pruned == {}


def test_one_option_may_stand_by_itself():
    slot = tn.choice(conv=tn.conv(1, 4), other=tn.conv(3, 4), name="slot")
    net = tn.compile_supernet(tn.lower(slot, (1, 8, 8)))

    net.prune({"slot": "conv"})

    assert net.pruned == {"slot": ("conv",)}
