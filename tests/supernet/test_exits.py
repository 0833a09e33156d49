"""One pass with several ends: the outputs and gradients of one pass an end, the trunk run once."""

import pytest
import torch
from example_spaces import ALL

import trinas as tn
from trinas.supernet.again import Again


def ends(graph):
    """All decisions that can be ends."""
    return [p for p, d in graph.decisions.items() if d.kind in ("operation", "path", "depth")]


def made(graph, progress=0.3, **settings):
    net = tn.compile_supernet(graph, init_std=0.5, **settings).double()
    net.progress = progress
    return net


def mixed(net, **settings):
    return net.mixture(generator=torch.Generator().manual_seed(1), **settings)


def settled(net, mixture, path, option):
    """The same mixture with this decision one-hot, made without the library's own means."""
    start = net.graph.offsets[path]
    decision = net.graph.decisions[path]
    flat = list(mixture.weights.unbind())
    for k, other in enumerate(decision.options):
        flat[start + k] = torch.tensor(float(other == option), dtype=flat[0].dtype)
    weights = torch.stack(flat)
    return tn.Mixture(
        net.graph,
        weights,
        weights,
        host=tuple(weights.tolist()),
        host_odds=tuple(weights.tolist()),
        alive=bytes(
            a if not start <= k < start + len(decision.options) else w != 0
            for k, (a, w) in enumerate(zip(mixture.alive, weights.tolist()))
        ),
        widths=mixture.widths,
        scored=mixture.scored,
    )


def everything(net, x, outputs):
    """The outputs and the gradients of a number made of all of them."""
    torch.manual_seed(3)
    total = sum((y * torch.rand_like(y)).square().sum() for y in outputs.values())
    tensors = {"x": x, **dict(net.named_parameters())}
    found = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
    grads = {
        n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(tensors.items(), found)
    }
    return {**grads, **{f"output {k}": y for k, y in outputs.items()}}


def both_ways(net, path, *, widths="sampled", size=2):
    """The pass with several ends, and separate passes, with outputs and gradients."""
    torch.manual_seed(2)
    x = torch.rand(size, *net.graph.in_shape.numbers(), dtype=torch.float64, requires_grad=True)
    mixture = mixed(net, widths=widths)
    together = net.network.outputs_at_exits(x, mixture, path)
    together = everything(net, x, together)
    mixture = mixed(net, widths=widths)
    options = [
        o
        for k, o in enumerate(net.graph.decisions[path].options)
        if mixture.alive[net.graph.offsets[path] + k]
        or mixture.host_odds[net.graph.offsets[path] + k]
    ]
    alone = {o: net.network(x, settled(net, mixture, path, o)) for o in options}
    return together, everything(net, x, alone)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], atol=1e-9, rtol=1e-7, msg=key)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_the_outputs_and_gradients_are_those_of_separate_passes(name, training):
    graph = ALL[name]()
    net = made(graph).train(training)
    paths = [p for p in ends(graph) if graph.decisions[p].kind != "operation"]
    for path in paths or ends(graph)[:2]:
        assert_same(*both_ways(net, path))


@pytest.mark.parametrize("widths", ["widest", "soft", "random"])
def test_at_other_widths(widths):
    net = made(ALL["trilevel"]())
    torch.manual_seed(0)
    mixture = mixed(net, widths=widths if widths != "random" else "narrowest")
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    found = net.network.outputs_at_exits(x, mixture, "trunk")

    for option, y in found.items():
        expected = net.network(x, settled(net, mixture, "trunk", option))
        torch.testing.assert_close(y, expected, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("name", ["trilevel", "upsampling", "depths"])
def test_stochastic_relaxations_have_all_ends(name):
    """Of a draw the others have odds, so that the exact gradient needs their losses."""
    graph = ALL[name]()
    net = made(graph, relax=tn.relax.GumbelSoftmax())
    for path in ends(graph):
        if graph.decisions[path].kind != "operation":
            together, alone = both_ways(net, path)
            assert_same(together, alone)
            count = sum("output" in key for key in together)
            assert count == len(graph.decisions[path].options)


TRUNK = "residual/trunk"


def planted():
    """A tree of three between stem and head, with a skip over the whole."""
    block = tn.seq(tn.conv(3, 4), tn.batch_norm(), tn.relu())
    trunk = tn.tree(a=block, b=tn.conv(1, 4), at_most={"a": 2, "b": 1}, name="trunk")
    return tn.lower(
        tn.seq(tn.conv(3, 4), tn.residual(trunk), tn.batch_norm(), tn.conv(1, 2)), (3, 6, 6)
    )


class Calls:
    """How often each layer runs."""

    def __init__(self, net):
        self.counts = {}
        for name, module in net.network.layers.named_children():
            module.register_forward_hook(lambda *_, name=name: self.note(name))

    def note(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1


@pytest.mark.parametrize("skip", [True, False])
def test_the_trunk_runs_once_and_each_tail_once(skip):
    net = tn.compile_supernet(planted(), init_std=0.0)
    net.network.skip = skip
    calls = Calls(net)
    with torch.no_grad():
        outputs = net.network.outputs_at_exits(torch.rand(2, 3, 6, 6), net.mixture(), TRUNK)
    exits = len(net.graph.decisions[TRUNK].options)

    assert len(outputs) == exits == 8
    in_the_trunk = {n: c for n, c in calls.counts.items() if n.startswith(("conv[0]", TRUNK))}
    behind = {n: c for n, c in calls.counts.items() if n not in in_the_trunk}
    assert set(in_the_trunk.values()) == {1}
    assert set(behind.values()) == {exits}
    assert set(calls.counts) == {name for name, _ in net.network.layers.named_children()}


def test_only_what_leads_to_living_ends_runs():
    net = tn.compile_supernet(planted(), init_std=0.0)
    calls = Calls(net)
    outputs = net.network.outputs_at_exits(
        torch.rand(2, 3, 6, 6), net.mixture(), TRUNK, options=["a"]
    )

    assert list(outputs) == ["a"]
    in_the_trunk = {name for name in calls.counts if name.startswith(TRUNK)}
    assert in_the_trunk == {f"{TRUNK}/a/{layer}" for layer in ("conv", "batch_norm", "relu")}


def test_memory_holds_one_tail_at_a_time():
    """Nothing is computed long before it is read: by the numbers of values held."""
    net = tn.compile_supernet(planted(), init_std=0.0)
    mixture = net.mixture()
    exits = net.network.plan.exits(TRUNK, mixture.graph.decisions[TRUNK].options, mixture.alive)
    held, most, tails = set(), 0, set(exits.outputs.values())
    for live in exits.order.lives:
        held = (held | {live.position}) - set(live.frees)
        most = max(most, len(held - tails))

    assert tails <= held
    assert held == tails
    # The skip, a path's nodes that others go on from, and the step that is at work.
    assert most <= 6


def test_each_tail_normalises_its_own_batches_and_moves_statistics():
    net = tn.compile_supernet(planted(), init_std=0.0).double()
    norms = [m for n, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    x = torch.rand(4, 3, 6, 6, dtype=torch.float64)
    exits = len(net.network.outputs_at_exits(x, net.mixture(), TRUNK))

    assert sorted({int(n.num_batches_tracked) for n in norms}) == [1, exits]
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    with Again(norms), torch.no_grad():
        outputs = net.network.outputs_at_exits(x, net.mixture(), TRUNK)
        for option, y in outputs.items():
            genotype = tn.Genotype.of(net.graph, {TRUNK: option})
            torch.testing.assert_close(y, net(x, at=genotype))
    for key, value in before.items():
        assert torch.equal(value, net.state_dict()[key])


# torch looks at an attribute that warns, and hides the warning unless it is an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("how", ["checkpoint", "compile", "skip"])
@pytest.mark.parametrize("name", ["trilevel", "depths"])
def test_other_ways_of_running_change_nothing(name, how):
    graph = ALL[name]()
    net = made(graph)
    path = next(p for p in ends(graph) if graph.decisions[p].kind != "operation")
    expected, _ = both_ways(net, path)
    if how == "checkpoint":
        net.network.checkpoint = True
    elif how == "skip":
        net.network.skip = False
    else:
        net.compile(backend="eager")
    # Compiled passes do not join sums.
    assert_same(both_ways(net, path)[0], expected)


def test_shared_decisions_stand_at_one_option_in_all_places():
    cell = tn.share("cell", tn.choice(a=tn.conv(3, 3), b=tn.conv(1, 3), c=tn.seq()), weights=False)
    graph = tn.lower(tn.seq(cell, tn.relu(), cell, tn.conv(1, 2)), (3, 5, 5))
    net = made(graph)

    assert_same(*both_ways(net, "cell"))


def test_a_decision_that_is_out_of_play_has_one_output():
    inner = tn.repeat(tn.conv(3, 3), (1, 2), name="depth")
    graph = tn.lower(tn.choice(deep=inner, plain=tn.conv(1, 3), name="way"), (3, 5, 5))
    net = tn.compile_supernet(graph)
    with torch.no_grad():
        net.logits("way").copy_(torch.tensor([0.0, 9.0]))
    (path,) = [p for p in graph.decisions if p != "way"]
    outputs = net.network.outputs_at_exits(torch.rand(1, 3, 5, 5), net.mixture(), path)

    assert set(outputs) == {1, 2}
    assert outputs[1] is outputs[2]


def test_after_pruning_the_rest_has_ends():
    net = made(planted())
    x = torch.rand(1, 3, 6, 6, dtype=torch.float64)
    before = net.network.outputs_at_exits(x, mixed(net), TRUNK, options=["a", "b"])
    net.prune({TRUNK: [o for o in net.graph.decisions[TRUNK].options if o not in ("a", "b")]})
    after = net.eval().network.outputs_at_exits(x, mixed(net), TRUNK)

    assert list(after) == list(before) == ["a", "b"]
    with pytest.raises(tn.errors.RelaxationError, match="dropped for good"):
        net.network.outputs_at_exits(x, mixed(net), TRUNK, options=["a-a"])


def test_what_is_no_end_is_refused():
    net = made(ALL["trilevel"]())
    x, mixture = torch.rand(1, 3, 8, 8, dtype=torch.float64), mixed(net)
    width = next(p for p, d in net.graph.decisions.items() if d.kind == "width")
    for path, options, message in (
        ("nowhere", None, "got nowhere"),
        (width, None, "a decision of width"),
        ("trunk", ["z"], "got z; at trunk"),
        ("trunk", [], "got none; at trunk"),
    ):
        with pytest.raises(tn.errors.SpaceError, match=message):
            net.network.outputs_at_exits(x, mixture, path, options=options)


def test_plans_of_ends_are_remembered_and_forgotten():
    net = made(planted())
    plan, alive = net.network.plan, mixed(net).alive
    first = plan.exits(TRUNK, ("a", "b"), alive)

    assert plan.exits(TRUNK, ("a", "b"), alive) is first
    for option in net.graph.decisions[TRUNK].options:
        plan.exits(TRUNK, (option,), alive)
    assert plan.exits(TRUNK, ("a", "b"), alive) is first
    net.prune({TRUNK: "a-a"})
    assert plan.exits(TRUNK, ("a", "b"), alive) is not first
