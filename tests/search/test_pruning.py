"""A search that drops what has been out for long, and goes on as if it had not been there."""

import io

import pytest
import torch
from torch.nn import functional as F

import trinas as tn

X, Y = (torch.rand(2, c, 6, 6, generator=torch.Generator().manual_seed(c)) for c in (1, 2))


def search(prune_after=2, steps=12, **settings):
    torch.manual_seed(0)
    slot = dict(a=tn.conv_relu(3, 4), b=tn.conv_relu(1, 4), c=tn.resblock(4))
    cell = tn.choice(slot, name="slot")
    trunk = tn.tree(a=cell, b=tn.conv(3, 4), first="a", at_most={"a": 2, "b": 1}, name="trunk")
    graph = tn.lower(tn.seq(tn.conv(3, 4), trunk, tn.conv(3, 2)), (1, 6, 6))
    net = tn.compile_supernet(graph, init_std=0.1, generator=torch.Generator().manual_seed(1))
    config = tn.SearchConfig(
        search_steps=steps, prune_after=prune_after, weight_lr=1e-2, arch_lr=1e-2, **settings
    )
    return tn.Search(net, F.l1_loss, lambda _: (X, Y), lambda _: (X, Y), config)


def held(run):
    """Numbers the optimiser of the weights remembers."""
    state = run.state_dict()["parts"]["Weights"]["optimisers"]["weights"]["state"]
    return sum(v.numel() for entry in state.values() for k, v in entry.items() if k != "step")


def test_parameters_and_optimiser_state_shrink_as_the_search_converges():
    run = search()
    parameters, remembered = [], []
    for _ in run:
        parameters.append(sum(p.numel() for p in run.net.weight_parameters()))
        remembered.append(held(run))

    assert parameters[-1] < 0.6 * parameters[0]
    assert parameters == sorted(parameters, reverse=True)
    assert remembered[-1] == 2 * parameters[-1]
    kept = tn.build(run.net.graph, tn.derive(run.net), inherit=run.net)
    assert sum(p.numel() for p in kept.parameters()) <= parameters[-1]


def test_nothing_is_dropped_before_its_time():
    run = search(prune_after=100)
    list(run)

    assert not run.net.pruned


def test_an_option_is_dropped_after_so_many_steps_in_a_row_without_weight():
    run = search(prune_after=3)
    zeros = {}
    for _ in run:
        for path, row in run.net.weights().items():
            for option, weight in zip(run.net.graph.decisions[path].options, row):
                count = zeros.get((path, option), 0) + 1
                zeros[path, option] = 0 if weight else count
        gone = [(path, o) for path, options in run.net.pruned.items() for o in options]
        assert all(zeros[key] >= 3 for key in gone)
    assert gone


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("pause", [3, 10])
def test_a_search_resumed_is_the_search_uninterrupted(pause, order):
    whole, first = search(order=order), search(order=order)
    list(whole)
    for _ in range(pause):
        first.advance()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = search(order=order)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    list(resumed)

    assert bool(first.net.pruned) == (pause == 10)
    assert resumed.net.pruned == whole.net.pruned
    for name, value in whole.net.state_dict().items():
        if name != "_extra_state":
            assert torch.equal(resumed.net.state_dict()[name], value), name


def test_draws_are_not_counted():
    run = search(prune_after=1)
    run.net.architecture.relax["operation"] = tn.relax.GumbelSoftmax()
    run = tn.Search(run.net, F.l1_loss, run.train, run.valid, run.config)
    run.advance()

    assert not any(path.endswith("slot") for path in run.net.pruned)


def test_the_order_term_stays_finite():
    run = search(order_penalty=0.1)

    assert all(report.loss < float("inf") for report in run)
    assert run.net.pruned
    for parameter in run.net.arch_parameters().values():
        assert not parameter.isnan().any()


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_a_wrong_patience_is_refused(value):
    with pytest.raises(tn.errors.ConfigError, match="prune_after"):
        tn.SearchConfig(prune_after=value)
