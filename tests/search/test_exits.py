"""Paths and depths from the losses at their exits: against enumeration, and planted ones found."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trinas as tn
from trinas.bench import Passes, planted
from trinas.search.exits import ends_of
from trinas.search.setting import passes_of

SHAPE = (2, 5, 5)


def slot():
    return tn.choice(small=tn.conv(1, 3), large=tn.conv(3, 3))


def tree(*layers, share=False):
    """A tree of mixed operations between stem and head."""
    block = tn.seq(slot(), *layers, tn.tanh())
    if share:
        block = tn.share("block", block, weights=True)
    trunk = tn.tree(a=block, b=tn.conv(1, 3), at_most={"a": 2, "b": 1}, name="trunk")
    return tn.seq(tn.conv(3, 3), trunk, *layers, tn.conv(1, 2))


def depths():
    """Paths alone: nothing else takes a gradient."""
    return tn.seq(tn.conv(3, 3), tn.repeat(tn.conv(3, 3), (1, 2, 3)), tn.tanh(), tn.conv(1, 2))


def two():
    """Two repeats in a row, the second without an end of its own for the first."""
    block = tn.seq(tn.conv(3, 3), tn.tanh())
    return tn.seq(
        tn.conv(1, 3), tn.repeat(block, (1, 3), name="first"),
        tn.repeat(block, (1, 2), name="second"), tn.conv(1, 2),
    )  # fmt: skip


def nested():
    """A repeat in one of the two exits of a tree."""
    inner = tn.repeat(tn.seq(tn.conv(3, 3), tn.tanh()), (1, 2), name="inner")
    trunk = tn.tree(a=tn.conv(1, 3), b=inner, at_most={"a": 1, "b": 1}, name="trunk")
    return tn.seq(tn.conv(3, 3), trunk, tn.conv(1, 2))


SINGLE = {
    "tree": tree,
    "batch norm": lambda: tree(tn.batch_norm()),
    "shared weights": lambda: tree(tn.batch_norm(), share=True),
    "depths": depths,
}
SEVERAL = {"two": two, "nested": nested}


class Around(nn.Module):
    """A module with a supernet in it."""

    def __init__(self, net):
        super().__init__()
        self.stem, self.net, self.head = nn.Conv2d(2, 2, 1), net, nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.head(self.net(self.stem(x)))


def batch_of(number=1):
    generator = torch.Generator().manual_seed(number)
    return tuple(torch.randn(4, *SHAPE, generator=generator) for _ in range(2))


def task_of(space, *, around=False, relax=None, **settings):
    chosen = tn.relax.Softmax() if relax is None else relax
    net = tn.compile_supernet(tn.lower(space, SHAPE), chosen, init_std=0.5, seed=0)
    torch.manual_seed(0)
    return tn.Task(Around(net) if around else net, F.mse_loss, **settings)


def expected_loss(task, mixture, batch):
    """From a pass for every joint outcome of paths and depths."""
    ends = ends_of(tuple(task.nets.values()))
    (net,) = task.nets.values()
    total = torch.zeros(())
    for options in itertools.product(*(end.decision.options for end in ends)):
        chance, picked = torch.ones(()), {}
        for end, option in zip(ends, options):
            path = end.decision.path
            chance = chance * mixture.weights[net.graph.offsets[path] + end.decision.index(option)]
            picked[path] = option
        with tn.batch_statistics(task.model), net.held(mixture.picking(picked)):
            total = total + chance * F.mse_loss(task.model(batch[0]), batch[1])
    return total


def gradients(task, loss):
    found = torch.autograd.grad(loss, list(task.arch.values()))
    return torch.cat([g.flatten() for g in found])


def signalled(task, signal, seed=0):
    """What a signal makes of one step: its loss, and the gradient by the logits."""
    step = tn.Step.of(task, batch_of(), seed=seed)
    leaf = step.setting.leaf()
    loss = signal(step, passes_of(leaf, ("sampled",), step.rng))
    objective = sum(
        (mixture.weights * cut.weights.grad).sum()
        for mixture, cut in zip(step.setting.mixtures, leaf.mixtures)
    )
    return loss, gradients(task, objective)


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("space", SINGLE)
def test_the_gradient_is_that_of_enumeration(space, around):
    task = task_of(SINGLE[space](), around=around)
    before = {name: b.clone() for name, b in task.model.named_buffers()}
    loss, found = signalled(task, tn.signals.exits())
    (net,) = task.nets.values()
    truth = expected_loss(task, net.mixture(), batch_of())

    torch.testing.assert_close(loss, truth.detach())
    torch.testing.assert_close(found, gradients(task, truth), atol=1e-6, rtol=1e-4)
    assert found.abs().max() > 1e-3
    assert all(torch.equal(b, before[name]) for name, b in task.model.named_buffers())
    assert all(p.grad is None for p in task.weights.values())


def test_the_gradient_of_the_mixture_is_another():
    """The check above can fail."""
    task = task_of(tree(tn.batch_norm()))
    _, exact = signalled(task, tn.signals.exits())
    _, mixed = signalled(task, tn.signals.gradient())

    assert (exact - mixed).norm() > 0.2 * exact.norm()


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("space", SEVERAL)
def test_of_several_decisions_it_has_no_bias(space, most):
    task = task_of(SEVERAL[space]())
    (net,) = task.nets.values()
    truth = gradients(task, expected_loss(task, net.mixture(), batch_of()))
    rows = torch.stack([signalled(task, tn.signals.exits(most), s)[1] for s in range(200)])
    error = rows.std(0) / len(rows) ** 0.5

    assert truth.abs().max() > 1e-4
    assert ((rows.mean(0) - truth).abs() <= 4 * error + 1e-7).all()


def test_without_paths_it_is_the_gradient():
    task = task_of(tn.seq(slot(), tn.conv(1, 2)))
    found = [signalled(task, signal()) for signal in (tn.signals.exits, tn.signals.gradient)]

    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_drawn_widths_keep_their_straight_through_gradient():
    width = tn.width(values=(1, 4))
    block = tn.seq(tn.conv(3, width), tn.conv(1, 2))
    space = tn.repeat(block, (1, 2), name="depth")
    net = tn.compile_supernet(tn.lower(space, SHAPE), seed=0)
    task = tn.Task(net, F.mse_loss)
    part = tn.architecture(
        tn.adam(0.1), signal=tn.signals.exits(), sampled=tn.signals.straight_through()
    ).start(task)
    before = {name: p.detach().clone() for name, p in task.arch.items()}
    part.update(tn.Step.of(task, batch_of()))

    assert all(not torch.equal(p, before[name]) for name, p in task.arch.items())


def test_a_loss_that_knows_the_architecture_is_heard():
    """What of a loss depends on the logits directly takes part in their gradient."""
    task = task_of(depths())
    (net,) = task.nets.values()
    task.loss = lambda x, y: F.mse_loss(x, y) + sum(p.square().sum() for p in task.arch.values())
    *_, logits = net.arch_parameters().values()
    task_part = tn.architecture(tn.sgd(1.0), signal=tn.signals.exits()).start(task)
    before = logits.detach().clone()
    mixture = net.mixture()
    truth = gradients(task, expected_loss(task, mixture, batch_of()) + logits.square().sum())
    task_part.update(tn.Step.of(task, batch_of()))

    torch.testing.assert_close(before - logits.detach(), truth.view_as(before))


def test_weights_descend_on_the_expected_loss_with_the_deepest_exits_on_top():
    task, batch = task_of(tree(tn.batch_norm())), batch_of()
    (net,) = task.nets.values()
    net.progress = 0.5
    part = tn.weights(tn.sgd(1.0), passes=("sampled",), exits=0.4).start(task)
    mixture, lean = net.mixture().detached(), 0.4 * 0.5
    last = ("a-a-b", "a-b-a", "b-a-a")
    total = torch.zeros(())
    for option, q in zip(net.graph.decisions["trunk"].options, net.odds()["trunk"]):
        share = (1 - lean) * q + lean * (option in last) / 3
        with tn.batch_statistics(net):
            output = net(batch[0], at=mixture.picking({"trunk": option}))
        total = total + share * F.mse_loss(output, batch[1])
    named = dict(task.weights)
    truth = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    before = {name: p.detach().clone() for name, p in named.items()}
    part.update(tn.Step.of(task, batch, progress=0.5))

    for (name, weight), gradient in zip(named.items(), truth):
        step = torch.zeros_like(weight) if gradient is None else gradient
        torch.testing.assert_close(before[name] - weight.detach(), step, atol=1e-5, rtol=1e-4)


def test_exits_count_evenly_while_paths_wait():
    """Whatever their logits start with; what was pruned stays out."""
    net = tn.compile_supernet(tn.lower(depths(), SHAPE), seed=0)
    path = "repeat"
    with torch.no_grad():
        net.logits(path).copy_(torch.tensor([0.0, 9.0, 0.0]))
    net.prune({path: [1]})
    net.progress = 1.0
    (end,) = ends_of((net,))
    setting = tn.Setting((net,), (net.mixture(),))

    assert end.shares(setting, 0.0, even=False) == {1: 0, 2: 1, 3: 0}
    assert end.shares(setting, 0.5, even=True) == {1: 0, 2: 0.25, 3: 0.75}


def test_paths_stand_still_while_they_wait():
    task = task_of(tree())
    (net,) = task.nets.values()
    part = tn.architecture(tn.adam(0.1), signal=tn.signals.exits(), wait=0.5).start(task)
    moved = []
    for progress in (0.4, 0.5):
        before = {path: net.logits(path).detach().clone() for path in net.graph.decisions}
        part.update(tn.Step.of(task, batch_of(), progress=progress))
        moved.append({p for p, row in before.items() if not torch.equal(row, net.logits(p))})

    assert moved[0] == set(net.graph.decisions) - {"trunk"}
    assert moved[1] == set(net.graph.decisions)


def test_a_decided_path_costs_what_the_mixture_does():
    """No tails where one exit is left."""
    task = task_of(depths(), relax=tn.relax.Sparsestmax())
    (net,) = task.nets.values()
    torch.nn.init.zeros_(net.logits("repeat"))
    spent = []
    for progress in (0.0, 1.0):
        net.logits("repeat").data[0] = progress
        step = tn.Step.of(task, batch_of(), progress=progress)
        passes = passes_of(step.setting.leaf(), ("sampled",), step.rng)
        with Passes(net) as count:
            tn.signals.exits()(step, passes)
        spent.append(count.spent)

    # The trunk of stem and three blocks; a head for each of three exits. Nothing but paths
    # learns, so that it runs without a backward pass.
    assert spent[0] == pytest.approx((4 + 3 * 2) / (4 + 2))
    assert spent[1] == 3


@pytest.mark.parametrize(("task", "seed"), [("path-3-cost", 0), ("depth-4-cost", 1)])
def test_a_planted_depth_is_found_by_default(task, seed):
    benchmark = planted(task)
    work = benchmark.task(seed)
    charge = benchmark.charge
    cost = tn.CostControl(
        target=charge.target, weight=charge.weight, share_structure=charge.structure
    )
    config = tn.SearchConfig(pretrain_steps=80, search_steps=260, cost=cost, seed=seed)
    for _ in tn.Search(*work, config):
        pass

    assert benchmark.accepts(tn.derive(work.net))
    assert all(max(row) > 0.9 for row in work.net.odds().values())
