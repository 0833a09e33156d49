"""The study of signals, in small: does it measure what it says?"""

import random

import pytest
import torch

from benchmarks import sampled, signals, straight_through
from benchmarks.measure import Options
from benchmarks.sampled import Settings, Step

QUICK = Options(quick=True, peers=False)


@pytest.fixture(scope="module")
def rows():
    return signals.measure(QUICK)


def test_every_signal_has_a_row_in_every_study(rows):
    names = {row["estimator"] for row in rows if row["study"] == "widths, frozen weights"}
    searched = {row["estimator"] for row in rows if row["study"] == "search"}

    assert names == {*signals.SIGNALS, *signals.SOFT}
    assert searched == set(signals.ONE)
    assert {label for one in signals.SEARCHES for label in one.signals} == set(signals.FIVE)


def test_costs_are_those_of_the_passes(rows):
    cost = {row["estimator"]: row["passes"] for row in rows if row["study"] == "search"}

    assert cost[signals.AGD] == 3
    assert cost["one decision at a time"] == len(sampled.WIDTHS)
    assert cost["leave one out, 2 draws"] == 2
    assert cost[signals.MODEL] == 4


def test_the_right_widths_of_a_chain_are_right():
    task = sampled.chain(3, seed=1)
    settings = Settings(pretrain=120)
    net = task.supernet().train()
    net.load_state_dict(sampled.pretrained(task, settings)[0])

    assert sampled.confirmed(task, net) == 1.0


def test_what_is_enumerated_at_frozen_weights_is_the_gradient_by_autograd():
    task = signals.interacting(norm=True)
    table = signals.Table(task, task.supernet().train(), batches=2)
    logits = table.p.log().requires_grad_()
    first, second = (part.softmax(0) for part in logits.split(4))
    expected = (first[:, None] * second * table.table.mean(0).view(4, 4)).sum()

    torch.testing.assert_close(table.exact(), torch.autograd.grad(expected, logits)[0])


def test_passes_of_a_signal_leave_running_statistics_alone():
    task = sampled.one_width(0, norm=True)
    net = task.supernet().train()
    before = {name: b.clone() for name, b in net.named_buffers() if "running" in name}
    step = Step(task, net, net.mixture(), task.batch(0), random.Random(0))
    step.losses([(0,), (3,)])
    step.straight_through()

    assert before
    for name, buffer in net.named_buffers():
        if name in before:
            torch.testing.assert_close(buffer, before[name], rtol=0.0, atol=0.0)


def test_differences_of_losses_find_the_width_that_straight_through_misses():
    task, settings = sampled.one_width(0), Settings(pretrain=40, steps=120, arch_lr=5e-2)
    ends = {}
    for label in (signals.AGD, signals.MODEL):
        _, states = sampled.search(task, signals.SIGNALS[label](), settings)
        ends[label] = states[-1].odds

    assert ends[signals.AGD] < 0.25 < 0.9 < ends[signals.MODEL]


def test_the_three_sums_behind_straight_through_gumbel():
    torch.manual_seed(0)
    options = torch.nn.ModuleList(torch.nn.Conv2d(2, 2, 1) for _ in range(3))
    x = torch.rand(1, 2, 4, 4)
    weights = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    found = {}
    for mix, _ in straight_through.MIXES.values():
        y = mix(list(options), x, weights)
        torch.testing.assert_close(y, options[1](x))
        (found[mix],) = torch.autograd.grad(y.sum(), weights)

    results = torch.stack([option(x).sum() for option in options])
    torch.testing.assert_close(found[straight_through.all_run], results)
    drawn = results * torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(found[straight_through.drawn_only], drawn)
    numbers = torch.tensor([32.0, 0.0, 32.0])
    torch.testing.assert_close(found[straight_through.as_gdas], drawn + numbers)
