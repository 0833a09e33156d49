"""The passes of a step: which there are, and that none is run twice for nothing."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trinas as tn
from trinas.search.estimators import Differences
from trinas.search.setting import PASSES, Pass, passes_of

SHAPE = (1, 6, 6)
SANDWICH = ("sampled", "widest", "narrowest", "random", "random")


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return tuple(torch.rand(2, *SHAPE, generator=generator) for _ in range(2))


def supernet(width=4, relax=None):
    slot = tn.choice(a=tn.conv_bn_relu(3, width), b=tn.conv_bn_relu(1, width), name="slot")
    return tn.compile_supernet(tn.lower(tn.seq(slot, tn.conv(1, 1)), SHAPE), relax, seed=0)


def two():
    return tn.width(values=(2, 4))


def counted(net):
    """The forward passes of a supernet, as they come."""
    passes = []
    net.network.register_forward_hook(lambda *_: passes.append(1))
    return passes


def passes_in(net, method, *, steps=1, pretrain=0):
    passes = counted(net)
    list(tn.run(method, net, F.mse_loss, batch, batch, steps=steps, pretrain=pretrain))
    return len(passes)


def method(signal="gradient", sampled="differences", passes=SANDWICH):
    given = getattr(tn.signals, signal)(), getattr(tn.signals, sampled)()
    return tn.chain(
        tn.weights(tn.sgd(0.1), passes=passes),
        tn.architecture(tn.adam(0.01), signal=given[0], sampled=given[1], passes=passes),
    )


# -- counts ------------------------------------------------------------------------------


@pytest.mark.parametrize("sampled", ["differences", "straight_through"])
@pytest.mark.parametrize(("signal", "number"), [("gradient", 2), ("unrolled", 3)])
def test_without_widths_every_pass_is_run_once(signal, sampled, number):
    """One over each half of the data, and one more for the step that is unrolled."""
    assert passes_in(supernet(), method(signal, sampled)) == number
    assert passes_in(supernet(), method(signal, sampled), pretrain=3) == number + 3


def test_a_search_by_its_config_does_so_too():
    net = supernet()
    passes = counted(net)
    config = tn.SearchConfig(pretrain_steps=2, search_steps=3)
    list(tn.Search(net, F.mse_loss, batch, batch, config))

    # The mixture and two networks; the mixture, a network, and the mixture of the architecture.
    assert len(passes) == 2 * 3 + 3 * 3


def test_a_network_and_a_random_search_run_one_pass_a_step():
    net = supernet(two())
    passes = counted(net)
    config = tn.RandomSearchConfig(train_steps=3, candidates=2, score_batches=2)
    list(tn.RandomSearch(net, F.mse_loss, batch, batch, config))
    assert len(passes) == 3 + 2 * 2

    layer, passes = nn.Conv2d(1, 1, 1), []
    layer.register_forward_hook(lambda *_: passes.append(1))
    list(tn.Training(layer, F.mse_loss, batch, tn.TrainConfig(steps=3)))
    assert len(passes) == 3


def test_equal_widths_are_one_pass():
    """Of two widths a sample is the widest or the narrowest, and so is each random one."""
    passes = passes_in(supernet(two()), tn.weights(tn.sgd(0.1), passes=SANDWICH), steps=4)

    assert passes == 4 * 2


def test_equal_draws_are_one_pass():
    net = supernet(two())
    task = tn.Task(net, F.mse_loss)
    passes = counted(net)
    estimate = Differences(16).start()(tn.Step.of(task, batch(0)))

    assert len(passes) == 2
    assert estimate.gradients[0].any()


def test_draws_of_what_is_not_in_use_are_one_pass():
    """Widths of the operation that was not drawn."""
    inside = tn.seq(tn.conv(3, two()), tn.conv(1, 1))
    space = tn.seq(tn.choice(a=inside, b=tn.conv(1, 1), name="slot"), tn.relu())
    net = tn.compile_supernet(tn.lower(space, SHAPE), tn.relax.GumbelSoftmax(), seed=0)
    passes = counted(net)
    Differences(32).start()(tn.Step.of(tn.Task(net, F.mse_loss), batch(0)))

    assert len(passes) == 3  # a of 2, a of 4, b


# -- one counts for all ------------------------------------------------------------------


@pytest.mark.parametrize("passes", [SANDWICH, ("random", "random", "widest"), ("widest",) * 3])
def test_a_pass_counts_as_often_as_it_was_asked_for(passes):
    net = supernet(two())
    task = tn.Task(net, F.mse_loss)
    task.train_mode()
    setting = task.draw(torch.Generator().manual_seed(3))
    merged = passes_of(setting.detached(), passes, random.Random(5))
    rng = random.Random(5)
    apart = [Pass(p, setting.detached().changed(lambda m, p=p: PASSES[p](m, rng))) for p in passes]
    assert sum(one.times for one in merged) == len(apart) == len(passes)
    assert len(merged) < len(apart)

    sums = []
    for found in (merged, apart):
        other = tn.Task(copy.deepcopy(net), F.mse_loss)
        (twin,) = other.nets.values()
        loss = 0.0
        for one in found:
            same = tn.Setting((twin,), one.setting.mixtures)
            loss += other.descend(batch(0), Pass("", same, one.times), at="here").item()
        sums.append((loss, [p.grad for p in other.weights.values()]))

    assert sums[0][0] == pytest.approx(sums[1][0])
    torch.testing.assert_close(sums[0][1], sums[1][1], rtol=1e-4, atol=1e-6)


def test_without_widths_what_is_alike_counts_once():
    """Or a rate would mean another step for every name in the list."""
    losses = []
    for passes in (("sampled",), SANDWICH):
        run = tn.run(tn.weights(tn.sgd(0.1), passes=passes), supernet(), F.mse_loss, batch, steps=2)
        losses.append([report.loss for report in run])

    assert losses[0] == losses[1]


def test_passes_of_paths_and_networks_are_their_own():
    depth = tn.seq(tn.repeat(tn.conv_bn_relu(3, 1), (1, 2)), tn.conv(1, 1))
    net = tn.compile_supernet(tn.lower(depth, SHAPE), seed=0)
    rule = tn.weights(tn.sgd(0.1), passes=("sampled", "widest", "path", "network"))

    assert passes_in(net, rule) == 3


def test_a_policy_of_ones_own_is_a_pass():
    seen = []

    def own(mixture, rng):
        seen.append(rng.random())
        return mixture.with_widths("widest")

    assert passes_in(supernet(two()), tn.weights(tn.sgd(0.1), passes=("widest", own)), steps=2) == 4
    assert len(set(seen)) == 2


def test_messages_name_the_pass_where_there_are_several():
    def loss(prediction, target):
        return prediction.sum() / 0.0

    for width, name in ((4, r"at search step 1\."), (two(), "step 1, widest widths")):
        rule = tn.weights(tn.sgd(0.1), passes=("widest", "narrowest"))
        run = tn.run(rule, supernet(width), loss, batch, steps=1)
        with pytest.raises(tn.errors.DivergenceError, match=name):
            run.advance()


def test_networks_are_drawn_of_what_is_left():
    space = tn.seq(
        tn.cell(2, lambda i, j: tn.choice(a=tn.conv(3, 1), b=tn.conv(1, 1), c=tn.relu()), keep=1),
        tn.tree(d=tn.conv(1, 1), at_most={"d": 3}),
    )
    net = tn.compile_supernet(tn.lower(space, SHAPE), seed=0)
    inside = [p for p, d in net.graph.decisions.items() if d.kind == "operation"]
    (trunk,) = [p for p, d in net.graph.decisions.items() if d.kind == "path"]
    net.prune({**{path: ["a"] for path in inside}, trunk: ["d-d"]})
    setting = tn.Task(net, F.mse_loss).draw(torch.Generator().manual_seed(0))
    rng, seen = random.Random(0), set()
    for _ in range(30):
        network, path = passes_of(setting.detached(), ("network", "path"), rng)
        for one in (network, path):
            with one.setting.held():
                net(batch(0)[0])
        seen.add(path.setting.mixtures[0].by_path()[trunk].index(1.0))

    assert seen == {0, 2}
