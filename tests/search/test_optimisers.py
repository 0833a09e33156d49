"""Optimisers and schedulers are torch's and the user's: against loops in plain torch."""

import io
import itertools

import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedulers

import trinas as tn

STEPS = 6


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1))


def matrices():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.Linear(8, 36, bias=False))


def words():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4, sparse=True))


def images(step):
    generator = torch.Generator().manual_seed(step)
    return torch.rand(3, 1, 8, 8, generator=generator), torch.rand(3, 1, 6, 6, generator=generator)


def rows(step):
    x, y = images(step)
    return x, y.flatten(1)


def numbers(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randint(5, (3,), generator=generator), torch.rand(3, 4, generator=generator)


# All classes of torch.optim: their settings, and what they optimise if not `net`.
OPTIMISERS = {
    "SGD": ({"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, net, images),
    "Adam": ({"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}, net, images),
    "AdamW": ({"lr": 0.01, "weight_decay": 0.1}, net, images),
    "NAdam": ({"lr": 0.01, "weight_decay": 0.1}, net, images),
    "RAdam": ({"lr": 0.01, "weight_decay": 0.1}, net, images),
    "Adamax": ({"lr": 0.01, "weight_decay": 0.1}, net, images),
    "RMSprop": ({"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9, "centered": True}, net, images),
    "Adagrad": ({"lr": 0.1, "weight_decay": 0.1, "lr_decay": 0.1}, net, images),
    "Adadelta": ({"lr": 1.0, "weight_decay": 0.1}, net, images),
    "Adafactor": ({"lr": 0.01, "weight_decay": 0.1}, net, images),
    "ASGD": ({"lr": 0.1, "weight_decay": 0.01, "t0": 2}, net, images),
    "Rprop": ({"lr": 0.01}, net, images),
    "Muon": ({"lr": 0.01}, matrices, rows),
    "SparseAdam": ({"lr": 0.01}, words, numbers),
}
OPTIMISERS = {name: row for name, row in OPTIMISERS.items() if hasattr(optim, name)}
REFUSED = {"LBFGS"}


def training(rule, model, data, **settings):
    config = tn.TrainConfig(steps=STEPS, lr=1.0, schedule=lambda share: 1.0, clip=None)
    if not settings:
        return tn.Training(model, F.mse_loss, data, config, optimiser=rule)
    method = tn.weights(rule, passes=("sampled",), **settings)
    return tn.run(method, model, F.mse_loss, data, steps=STEPS)


def looped(made, model, data, scheduler=None):
    """A loop in plain torch; its losses, and the rates of all groups."""
    losses, rates = [], []
    for step in range(STEPS):
        rates.append([group["lr"] for group in made.param_groups])
        x, y = data(step)
        loss = F.mse_loss(model(x), y)
        made.zero_grad()
        loss.backward()
        made.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses, rates


def went(run):
    """A run to its end; its losses, and the rates of all groups."""
    losses, rates = [], []
    while run.step < run.total:
        optimiser = run.parts[0].optimiser
        losses.append(run.advance().loss)
        rates.append([group["lr"] for group in optimiser.param_groups])
    return losses, rates


def same(left, right):
    ours, theirs = left.state_dict(), right.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed(make, stop):
    """A run that was saved after some steps and ended elsewhere: its losses."""
    first, second = make(), make()
    start = [first.advance().loss for _ in range(stop)]
    second.load_state_dict(through_a_file(first.state_dict()))
    return start + [report.loss for report in second], second


# -- classes -----------------------------------------------------------------------------


def test_every_class_of_torch_is_here():
    classes = {
        name
        for name, value in vars(optim).items()
        if isinstance(value, type) and issubclass(value, optim.Optimizer)
    }

    assert classes - {"Optimizer"} == OPTIMISERS.keys() | REFUSED


@pytest.mark.parametrize("name", OPTIMISERS)
def test_weights_move_as_in_plain_torch_and_resume_exactly(name):
    settings, model, data = OPTIMISERS[name]
    kind = getattr(optim, name)
    rule = tn.optimiser(kind, **settings)
    ours, theirs = model(), model()
    losses, _ = went(training(rule, ours, data))
    fused = {"fused": True} if name in ("Adam", "AdamW") else {}
    expected, _ = looped(kind(theirs.parameters(), **settings, **fused), theirs, data)

    assert losses == expected
    assert same(ours, theirs)
    assert not same(ours, model())
    for stop in (1, 4):
        again, run = resumed(lambda: training(rule, model(), data), stop)
        assert again == expected
        assert same(run.model, theirs)


@pytest.mark.parametrize("kind", ["SGD", "SparseAdam"])
def test_gradients_are_clipped_together_as_in_plain_torch(kind):
    settings, model, data = OPTIMISERS[kind]
    ours, theirs = model(), model()
    config = tn.TrainConfig(steps=2, schedule=lambda share: 1.0, clip=1e-2)
    rule = tn.optimiser(getattr(optim, kind), **settings)
    list(tn.Training(ours, F.mse_loss, data, config, optimiser=rule))
    made = getattr(optim, kind)(theirs.parameters(), **settings)
    for step in range(2):
        x, y = data(step)
        made.zero_grad()
        F.mse_loss(theirs(x), y).backward()
        gradients = [p.grad for p in theirs.parameters()]
        norm = sum(g.to_dense().square().sum() for g in gradients).sqrt()
        assert norm > 1e-2
        for p, gradient in zip(theirs.parameters(), gradients):
            p.grad = gradient * (1e-2 / (norm + 1e-6))
        made.step()

    for mine, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def supernet():
    space = tn.choice(a=tn.conv(3, 1), b=tn.conv(1, 1), c=tn.relu(), name="slot")
    return tn.compile_supernet(tn.lower(space, (1, 6, 6)), tn.relax.Softmax(), seed=0)


def pairs(step):
    _, y = images(step)
    return y.roll(1, 2), y


@pytest.mark.parametrize("name", [n for n, row in OPTIMISERS.items() if row[1] is net])
def test_the_architecture_moves_as_in_plain_torch_and_resumes_exactly(name):
    settings, kind = OPTIMISERS[name][0], getattr(optim, name)

    def make():
        method = tn.chain(
            tn.weights(tn.sgd(1e-30)), tn.architecture(tn.optimiser(kind, **settings))
        )
        return tn.run(method, supernet(), F.mse_loss, pairs, pairs, steps=STEPS)

    run = make()
    losses = [report.arch_loss for report in run]
    plain = supernet().train()
    arch = list(plain.arch_parameters().values())
    fused = {"fused": True} if name in ("Adam", "AdamW") else {}
    made, expected = kind(arch, **settings, **fused), []
    for step in range(STEPS):
        x, y = pairs(step)
        loss = F.mse_loss(plain(x), y)
        made.zero_grad()
        loss.backward()
        made.step()
        expected.append(loss.item())

    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    mine = run.task.nets[""].arch_parameters()
    torch.testing.assert_close(list(mine.values()), arch, rtol=1e-4, atol=1e-5)
    _, again = resumed(make, 3)
    assert same_arch(again, run)


def same_arch(left, right):
    logits = (run.task.nets[""].logits("slot") for run in (left, right))
    return torch.equal(*logits)


# -- groups ------------------------------------------------------------------------------


def test_groups_by_patterns_of_names_are_those_of_plain_torch():
    groups = {"*.bias": {"weight_decay": 0.0, "lr": 0.3}, "1.*": {"momentum": 0.5}}
    rule = tn.optimiser(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1, groups=groups)
    ours, theirs = net(), net()
    run = tn.Training(
        ours,
        F.mse_loss,
        images,
        tn.TrainConfig(steps=STEPS, schedule=lambda share: 1 - share, clip=None),
        optimiser=rule,
    )
    losses, rates = went(run)
    named = dict(theirs.named_parameters())
    made = optim.SGD(
        [
            {"params": [p for n, p in named.items() if n.endswith("bias")], **groups["*.bias"]},
            {"params": [named["1.weight"]], "momentum": 0.5},
            {"params": [named["0.weight"], named["3.weight"]]},
        ],
        lr=0.1,
        momentum=0.9,
        weight_decay=0.1,
    )
    falling = schedulers.LambdaLR(made, lambda step: 1 - step / STEPS)
    expected, wanted = looped(made, theirs, images, falling)

    assert losses == expected
    torch.testing.assert_close(torch.tensor(rates), torch.tensor(wanted))
    assert rates[0] == [0.3, 0.1, 0.1]
    assert same(ours, theirs)


def test_groups_of_the_architecture_have_names_too():
    c = tn.width(values=(1, 2))
    space = tn.seq(tn.choice(a=tn.conv(3, c), b=tn.conv(1, c), name="slot"), tn.conv(1, 1))
    model = tn.compile_supernet(tn.lower(space, (1, 6, 6)), seed=0)
    names = [name for name in tn.Task(model, F.mse_loss).arch if "alpha" in name]
    groups = {names[0]: {"lr": 0.0}, "architecture.*": {"lr": 0.5}}
    method = tn.chain(tn.weights(), tn.architecture(tn.sgd(0.1, groups=groups)))
    before = {name: p.clone() for name, p in model.arch_parameters().items()}
    list(tn.run(method, model, F.mse_loss, pairs, pairs, steps=2))
    moved = {n for n, p in model.arch_parameters().items() if not torch.equal(p, before[n])}

    assert moved == {n for n in before if f"architecture.{n}" != names[0]}
    assert moved


def test_a_pattern_that_fits_no_name_is_refused():
    rule = tn.optimiser(optim.SGD, lr=0.1, groups={"*.bios": {"lr": 1.0}})

    with pytest.raises(tn.search.ConfigError, match=r"that fits some; got '\*\.bios'.*0\.weight"):
        training(rule, net(), images)


def test_what_is_in_no_group_has_the_settings_of_all():
    made = tn.sgd(0.1, groups={"0.*": {"lr": 0.2}})(dict(net().named_parameters()))

    assert [(len(g["params"]), g["lr"]) for g in made.param_groups] == [(2, 0.2), (4, 0.1)]


def test_groups_that_are_changed_later_change_no_rule():
    groups = {"*": {"lr": 0.2}}
    rule = tn.sgd(0.1, groups=groups)
    groups["*"]["lr"] = 9.0

    assert rule(dict(net().named_parameters())).param_groups[0]["lr"] == 0.2


# -- factories ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        optim.Adam,
        lambda parameters: optim.RMSprop(parameters, lr=0.01),
        lambda parameters: optim.SGD([{"params": [p], "lr": 0.1} for p in parameters]),
    ],
    ids=["class", "function", "groups"],
)
def test_any_function_of_parameters_makes_one(rule):
    ours, theirs = net(), net()
    losses, _ = went(training(rule, ours, images))
    expected, _ = looped(rule(list(theirs.parameters())), theirs, images)

    assert losses == expected
    assert same(ours, theirs)
    assert resumed(lambda: training(rule, net(), images), 3)[0] == expected


def test_an_optimiser_of_ones_own_that_keeps_counters_in_its_groups_resumes_exactly():
    class Falling(optim.Optimizer):
        """A rate that falls with a counter in the group, as free of schedules as some are."""

        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr, "k": 0})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                group["k"] += 1
                for p in group["params"]:
                    p -= group["lr"] / group["k"] * p.grad

    def make(lr=0.1):
        return training(tn.optimiser(Falling, lr=lr), net(), images)

    expected = went(make())[0]
    again, run = resumed(make, 3)
    assert again == expected
    assert run.parts[0].optimiser.param_groups[0]["k"] == STEPS

    first, second = make(), make(lr=0.2)  # a rate may change for the rest
    first.advance()
    second.load_state_dict(first.state_dict())
    second.advance()
    (group,) = second.parts[0].optimiser.param_groups
    assert (group["lr"], group["k"]) == (0.2, 2)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (tn.optimiser(optim.LBFGS), r"steps along gradients at hand; got a LBFGS\. Give trinas"),
        (lambda parameters: None, "got a NoneType"),
        (optim.SGD(net().parameters(), 0.1), "got a SGD, which makes none"),
        (lambda parameters: optim.SGD(net().parameters(), 0.1), "parameters that it is given"),
        (tn.optimiser(optim.SGD, lr=0.1, beta=2), "an optimiser takes its settings; got .*beta"),
        (tn.optimiser(optim.SGD, lr=-1.0), "takes its settings; got Invalid learning rate: -1.0"),
    ],
    ids=["closures", "nothing", "made", "others", "unknown", "negative"],
)
def test_what_is_no_such_optimiser_is_refused(rule, text):
    with pytest.raises(tn.search.ConfigError, match=text):
        training(rule, net(), images)


# -- schedulers --------------------------------------------------------------------------


def in_turn(optimiser):
    parts = [schedulers.ConstantLR(optimiser, 0.5, 2), schedulers.ExponentialLR(optimiser, 0.9)]
    return schedulers.SequentialLR(optimiser, parts, milestones=[2])


def chained(optimiser):
    parts = [schedulers.LinearLR(optimiser, 0.1, 1, 3), schedulers.ExponentialLR(optimiser, 0.9)]
    return schedulers.ChainedScheduler(parts, optimiser)


# All classes of torch.optim.lr_scheduler.
SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [1, 4]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: schedulers.LinearLR(o, 0.1, 1.0, 4),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, STEPS, 2.0),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, STEPS),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 2),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.3, STEPS),  # and momentum
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.3, 2),
    "SequentialLR": in_turn,
    "ChainedScheduler": chained,
}
SCHEDULERS_REFUSED = {"ReduceLROnPlateau"}


def test_every_scheduler_of_torch_is_here():
    classes = {
        name
        for name, value in vars(schedulers).items()
        if isinstance(value, type) and issubclass(value, schedulers.LRScheduler)
    }

    assert classes - {"LRScheduler", "_LRScheduler"} == SCHEDULERS.keys() | SCHEDULERS_REFUSED


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_follow_a_scheduler_as_in_plain_torch_and_resume_exactly(name):
    scheduler = SCHEDULERS[name]
    rule = tn.sgd(0.1, momentum=0.9, groups={"*.bias": {"lr": 0.2}})

    def make():
        return training(rule, net(), images, scheduler=scheduler)

    run = make()
    losses, after = went(run)
    theirs = net()
    made = rule(dict(theirs.named_parameters()))
    following = scheduler(made)
    expected, rates = looped(made, theirs, images, following)

    assert losses == expected
    assert same(run.task.model, theirs)
    assert after[:-1] == rates[1:]
    assert any(a != b for a, b in itertools.pairwise(rates))
    for stop in (1, 4):
        again, second = resumed(make, stop)
        assert again == expected
        assert same(second.task.model, theirs)
        assert second.parts[0].memory()["settings"] == run.parts[0].memory()["settings"]


def test_reports_tell_the_rate_of_their_step():
    run = training(tn.sgd(0.1), net(), images, scheduler=SCHEDULERS["StepLR"])

    assert [r.lr for r in run] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


@pytest.mark.parametrize(
    ("scheduler", "text"),
    [
        (schedulers.ReduceLROnPlateau, r"steps by itself; got a ReduceLROnPlateau; at weights"),
        (lambda optimiser: 0.1, "got a float"),
    ],
    ids=["a loss", "a number"],
)
def test_what_is_no_such_scheduler_is_refused(scheduler, text):
    with pytest.raises(tn.search.ConfigError, match=text):
        training(tn.sgd(0.1), net(), images, scheduler=scheduler)


def test_a_scheduler_of_another_kind_does_not_resume():
    first = training(tn.sgd(0.1), net(), images, scheduler=SCHEDULERS["StepLR"])
    first.advance()
    second = training(tn.sgd(0.1), net(), images, scheduler=SCHEDULERS["CyclicLR"])

    with pytest.raises(tn.errors.CheckpointError, match="the scheduler of a checkpoint fits"):
        second.load_state_dict(through_a_file(first.state_dict()))
