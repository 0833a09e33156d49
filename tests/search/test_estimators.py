"""Gradients of drawn decisions against enumeration: `p_k (E[L | k] - E[L])`."""

import itertools

import pytest
import torch
from torch.nn import functional as F

import trinas as tn

TINY = (1, 6, 6)


def chain_of_two(norm):
    """Two widths in a row, which meet in the second convolution."""
    first, second = tn.width(values=(1, 3)), tn.width(values=(1, 2, 4))
    norms = [tn.batch_norm()] if norm else []
    return tn.seq(
        tn.conv(3, first, bias=False), *norms, tn.relu(), tn.conv(3, second), *norms, tn.relu(),
        tn.conv(1, 1),
    )  # fmt: skip


def shared():
    """One width and one set of weights at two places."""
    block = tn.share("block", tn.conv(3, tn.width(values=(1, 4))), weights=True)
    return tn.seq(tn.conv(1, 4), tn.parallel(block, tn.seq(tn.relu(), block)), tn.conv(1, 1))


def inside_options():
    """A width inside one of two drawn operations: it is often not in use."""
    inside = tn.seq(tn.conv(3, tn.width(values=(1, 4)), name="in"), tn.conv(1, 2))
    return tn.seq(tn.choice(a=inside, b=tn.conv(1, 2), name="slot"), tn.relu(), tn.conv(1, 1))


SPACES = {
    "chain": lambda: chain_of_two(norm=False),
    "chain with batch norm": lambda: chain_of_two(norm=True),
    "shared weights": shared,
    "inside a drawn option": inside_options,
}


def batch_of(number):
    generator = torch.Generator().manual_seed(number)
    return tuple(torch.randn(4, *TINY, generator=generator) for _ in range(2))


def task_of(space, seed=0):
    graph = tn.lower(space, TINY)
    net = tn.compile_supernet(graph, tn.relax.GumbelSoftmax(), init_std=0.7, seed=seed)
    return tn.Task(net, F.mse_loss)


def enumerated(task, batch):
    """The gradient by all logits, from the loss of every outcome of the drawn decisions."""
    (net,) = task.nets.values()
    decisions = net.architecture.drawn
    expected = torch.zeros(())
    logits = {d.path: net.logits(d.path) for d in decisions}
    odds = {path: row.softmax(0) for path, row in logits.items()}
    net.train()
    for outcome in itertools.product(*(d.options for d in decisions)):
        picked = {d.path: option for d, option in zip(decisions, outcome)}
        with torch.no_grad(), tn.batch_statistics(net):
            loss = F.mse_loss(net(batch[0], at=tn.Genotype.of(net.graph, picked)), batch[1])
        chance = torch.ones(())
        for decision, option in zip(decisions, outcome):
            chance = chance * odds[decision.path][decision.index(option)]
        expected = expected + chance * loss
    return torch.autograd.grad(expected, list(net.arch_parameters().values()))


def estimated(task, batch, estimator, steps):
    """The same by an estimator, averaged over many steps; and the variance of one."""
    (net,) = task.nets.values()
    found = []
    for number in range(steps):
        step = tn.Step.of(task, batch, seed=number)
        estimate = estimator(step)
        (mixture,) = step.setting.mixtures
        objective = (mixture.odds * estimate.gradients[0]).sum()
        gradients = torch.autograd.grad(objective, list(net.arch_parameters().values()))
        found.append(torch.cat([g.flatten() for g in gradients]))
    rows = torch.stack(found)
    return rows.mean(0), rows.std(0) / steps**0.5


def informed(task, batch):
    """An estimator whose model knows some steps on other data: good at some, bad at others."""
    estimator = tn.signals.differences(4).start()
    for number in range(12):
        step = tn.Step.of(task, batch_of(100 + number), seed=10_000 + number)
        estimator(step)
        step.finish()
    return estimator


ESTIMATORS = {
    "leave one out": lambda *_: tn.signals.differences(4, "leave_one_out").start(),
    "additive": informed,
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_differences_have_no_bias(name, space):
    task, batch = task_of(SPACES[space]()), batch_of(1)
    truth = torch.cat([g.flatten() for g in enumerated(task, batch)])
    estimator = ESTIMATORS[name](task, batch)
    mean, error = estimated(task, batch, estimator, steps=400)

    assert truth.abs().max() > 1e-3
    # Four standard errors: by chance one in ten thousand numbers is further off.
    assert ((mean - truth).abs() <= 4 * error + 1e-7).all(), (mean, truth, error)
    assert (mean - truth).norm() < 0.25 * truth.norm()


def test_a_model_far_from_the_truth_brings_no_bias():
    """What it says is taken off and added again, exactly; widths that are not in use included."""
    task, batch = task_of(SPACES["inside a drawn option"]()), batch_of(1)
    truth = torch.cat([g.flatten() for g in enumerated(task, batch)])
    estimator = informed(task, batch)
    far = torch.tensor([0.5, -0.3])
    estimator.remember({**estimator.memory(), "fitted": far, "fit": torch.ones(2)})
    mean, error = estimated(task, batch, estimator, steps=500)

    assert far.abs().min() > 3 * truth.abs().max()
    assert ((mean - truth).abs() <= 4 * error + 1e-7).all(), (mean, truth, error)


def test_the_model_learns_only_from_steps_that_count():
    task, batch = task_of(SPACES["chain"]()), batch_of(1)
    estimator = tn.signals.differences(4).start()
    step = tn.Step.of(task, batch)
    first = estimator(step)
    assert estimator.memory() == {}
    again = estimator(tn.Step.of(task, batch))
    assert torch.equal(first.gradients[0], again.gradients[0])
    step.finish()
    assert len(estimator.memory()["losses"]) == 4


def test_with_many_widths_the_model_has_less_variance():
    """Eight widths side by side: most of what a loss says is about the others."""
    arms = [tn.seq(tn.conv(3, tn.width(values=(1, 4))), tn.conv(1, 1)) for _ in range(8)]
    task, batch = task_of(tn.parallel(*arms)), batch_of(1)
    spread = {}
    for name, make in ESTIMATORS.items():
        estimator = make(task, batch)
        if name == "additive":
            for number in range(40):
                step = tn.Step.of(task, batch_of(200 + number), seed=20_000 + number)
                estimator(step)
                step.finish()
        _, error = estimated(task, batch, estimator, steps=60)
        spread[name] = error.norm()

    assert spread["additive"] < 0.6 * spread["leave one out"]


def test_a_search_goes_on_with_the_model_it_had():
    """Bit for bit, and a step that failed leaves the model alone."""

    def search(fails=None):
        net = tn.compile_supernet(tn.lower(chain_of_two(norm=True), TINY), seed=0)

        def loss(prediction, target):
            if fails is not None and fails.pop("now", False):
                raise KeyboardInterrupt
            return F.mse_loss(prediction, target)

        config = tn.SearchConfig(search_steps=6, seed=1)
        return tn.Search(net, loss, batch_of, lambda step: batch_of(50 + step), config)

    whole, first, second = search(), search(fails := {}), search()
    for _ in whole:
        pass
    for report in first:
        if report.step == 3:
            break
    fails["now"] = True
    with pytest.raises(KeyboardInterrupt):
        next(iter(first))
    second.load_state_dict(first.state_dict())
    for _ in second:
        pass
    state, expected = second.state_dict(), whole.state_dict()
    memory = state["parts"]["Architecture"]["memory"]["estimator"]

    assert len(memory["losses"]) == 24
    assert all(torch.equal(v, memory[k]) for k, v in
               expected["parts"]["Architecture"]["memory"]["estimator"].items())  # fmt: skip
    assert all(torch.equal(v, state["model"][k]) for k, v in expected["model"].items()
               if isinstance(v, torch.Tensor))  # fmt: skip


def test_straight_through_is_biased():
    """What drove widths the wrong way: the check above can fail."""
    task, batch = task_of(SPACES["chain"]()), batch_of(1)
    (net,) = task.nets.values()
    truth = torch.cat([g.flatten() for g in enumerated(task, batch)])
    found = []
    for number in range(200):
        step = tn.Step.of(task, batch, seed=number)
        loss = task.loss_at(batch, step.setting, at="here")
        gradients = torch.autograd.grad(loss, list(net.arch_parameters().values()))
        found.append(torch.cat([g.flatten() for g in gradients]))
    rows = torch.stack(found)

    assert (rows.mean(0) - truth).norm() > 0.5 * truth.norm()


def test_forward_passes_leave_statistics_alone():
    task, batch = task_of(SPACES["chain with batch norm"]()), batch_of(1)
    before = {name: b.clone() for name, b in task.model.named_buffers()}
    tn.signals.differences(4).start()(tn.Step.of(task, batch))

    assert all(torch.equal(b, before[name]) for name, b in task.model.named_buffers())
    assert all(p.grad is None for p in task.model.parameters())


def test_more_draws_have_less_variance():
    task, batch = task_of(SPACES["chain"]()), batch_of(1)
    _, few = estimated(task, batch, tn.signals.differences(2).start(), steps=150)
    _, many = estimated(task, batch, tn.signals.differences(8).start(), steps=150)

    assert many.norm() < 0.7 * few.norm()


def test_decisions_that_are_not_in_use_stay():
    """A width in a branch of weight zero gets no gradient, so its logits do not wander."""
    inside = tn.seq(tn.conv(3, tn.width(values=(1, 4)), name="in"), tn.conv(1, 2))
    space = tn.seq(tn.choice(a=inside, b=tn.conv(1, 2), name="slot"), tn.conv(1, 1))
    net = tn.compile_supernet(tn.lower(space, TINY), seed=0)
    with torch.no_grad():
        net.logits("slot").copy_(torch.tensor([-5.0, 5.0]))
    task = tn.Task(net, F.mse_loss)
    estimate = tn.signals.differences(4).start()(tn.Step.of(task, batch_of(1)))

    assert not estimate.gradients[0].any()


def width_task(norm):
    """One width of 1 or 8 between two convolutions, both trained on a target made by 8 kernels."""
    kernels = [
        torch.randn(*shape, generator=torch.Generator().manual_seed(5))
        for shape in ((6, 3, 3, 3), (3, 6, 3, 3))
    ]

    def batch(number):
        x = torch.randn(8, 3, 10, 10, generator=torch.Generator().manual_seed(number))
        hidden = torch.conv2d(x, kernels[0], padding=1).relu()
        return x, 0.3 * torch.conv2d(hidden, kernels[1], padding=1)

    width = tn.width(values=(1, 8))
    norms = [tn.batch_norm()] if norm else []
    space = tn.seq(tn.conv(3, width, bias=False), *norms, tn.relu(), tn.conv(3, 3))
    net = tn.compile_supernet(tn.lower(space, (3, 10, 10)), init_std=0.0, seed=0)
    task = tn.Task(net, F.mse_loss)
    weights = tn.weights(tn.adam(1e-2), passes=("widest", "narrowest")).start(task)
    for number in range(150):
        weights.update(tn.Step.of(task, batch(number), seed=number))
    return task, batch(9999)


@pytest.mark.parametrize("norm", [False, True])
def test_the_gradient_of_a_trained_width_has_sign_and_size(norm):
    """Where the straight-through estimate is of the wrong sign, or zero behind batch norm."""
    task, batch = width_task(norm)
    (truth,) = enumerated(task, batch)
    mean, _ = estimated(task, batch, tn.signals.differences(4).start(), steps=300)

    assert truth[0, 1] < -1  # wide is better by far
    assert mean[1] == pytest.approx(truth[0, 1].item(), rel=0.1)
