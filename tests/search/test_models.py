"""Models are the user's: any module, with supernets somewhere in it or without."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trinas as tn

STEPS = 3


def supernet(channels, seed, *, widths=True, relax=None):
    c = tn.width(values=(2, 3)) if widths else 3
    slot = tn.choice(conv=tn.conv_bn_relu(3, c), point=tn.conv_bn_relu(1, c), name="slot")
    graph = tn.lower(tn.seq(slot, tn.conv(1, channels)), (channels, 6, 6))
    return tn.compile_supernet(graph, relax, seed=seed, init_std=0.1)


class Around(nn.Module):
    """Fixed layers before, between and behind two supernets."""

    def __init__(self, gives="tensor", **settings):
        super().__init__()
        self.gives = gives
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.stem = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2))
            self.first = supernet(2, 2, **settings)
            self.between = nn.Conv2d(2, 4, 1)
            self.second = supernet(4, 3, **settings)
            self.head = nn.Linear(4 * 6 * 6, 3)

    def forward(self, x):
        inner = self.first(self.stem(x))
        features = self.second(self.between(inner).relu())
        classes = self.head(features.flatten(1))
        return {
            "tensor": classes,
            "tuple": (classes, [inner, features]),
            "dict": {"classes": classes, "more": {"inner": inner, "features": features}},
        }[self.gives]


def labelled(stream):
    def batch(step):
        generator = torch.Generator().manual_seed(1000 * stream + step)
        x = torch.randn(4, 1, 6, 6, generator=generator)
        return x, torch.randint(3, (4,), generator=generator)

    return batch


def of_tuple(prediction, target):
    classes, (inner, features) = prediction
    return F.cross_entropy(classes, target) + 0.1 * (inner.mean() ** 2 + features.mean() ** 2)


def of_dict(prediction, target):
    more = prediction["more"]
    return of_tuple((prediction["classes"], (more["inner"], more["features"])), target)


LOSSES = {"tensor": F.cross_entropy, "tuple": of_tuple, "dict": of_dict}


def method(signal="gradient", **settings):
    return tn.chain(
        tn.weights(tn.adam(1e-2), **settings),
        tn.architecture(tn.adam(5e-2), signal=getattr(tn.signals, signal)()),
        tn.expected_cost(1e4, weight=0.1),
    )


def search(model, loss=None, *, signal="gradient", steps=STEPS, pretrain=1):
    loss = LOSSES[model.gives] if loss is None else loss
    data = labelled(0), labelled(1)
    return tn.run(method(signal), model, loss, *data, steps=steps, pretrain=pretrain)


def values(model):
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().clone() for name, value in found.items()}


def changed(model, before):
    return {name for name, value in values(model).items() if not torch.equal(value, before[name])}


# -- what is around a supernet -----------------------------------------------------------


@pytest.mark.parametrize("signal", ["gradient", "unrolled"])
@pytest.mark.parametrize("gives", LOSSES)
def test_everything_around_two_supernets_is_trained(gives, signal):
    model = Around(gives)
    before = values(model)
    reports = list(search(model, signal=signal))

    outside = ("stem", "between", "head")
    learned = {n for n, _ in model.named_parameters() if n.startswith(outside)}
    assert changed(model, before) >= learned
    for name, net in (("first", model.first), ("second", model.second)):
        arch = {f"{name}.architecture.{n}" for n in net.arch_parameters()}
        assert len(arch) == 2
        assert changed(model, before) >= arch
        assert tn.derive(net)["slot"] in ("conv", "point")
    assert [report.phase for report in reports] == ["pretrain", *["search"] * STEPS]


def test_outputs_of_any_form_are_the_same_search():
    def alone(prediction, target):
        classes = prediction["classes"] if isinstance(prediction, dict) else prediction
        classes = classes[0] if isinstance(classes, tuple) else classes
        return F.cross_entropy(classes, target)

    ends = []
    for gives in LOSSES:
        model = Around(gives)
        list(search(model, alone))
        ends.append(values(model))

    assert all(torch.equal(v, end[name]) for end in ends for name, v in ends[0].items())


def test_a_search_of_two_supernets_is_its_loop_in_plain_torch():
    model = Around(widths=False, relax=tn.relax.Softmax())
    plain = copy.deepcopy(model)
    chain = tn.chain(
        tn.weights(tn.sgd(0.05, momentum=0.9)), tn.architecture(tn.optimiser(torch.optim.SGD, lr=1))
    )
    run = tn.run(chain, model, F.cross_entropy, labelled(0), labelled(1), steps=STEPS)
    losses = [(report.loss, report.arch_loss) for report in run]

    arch = [*plain.first.arch_parameters().values(), *plain.second.arch_parameters().values()]
    ids = {id(p) for p in arch}
    outer = torch.optim.SGD([p for p in plain.parameters() if id(p) not in ids], 0.05, 0.9)
    inner = torch.optim.SGD(arch, 1)
    expected = []
    for step in range(STEPS):
        (x, y), (u, v) = labelled(0)(step), labelled(1)(step)
        loss = F.cross_entropy(plain(x), y)
        outer.zero_grad()
        loss.backward()
        outer.step()
        other = F.cross_entropy(plain(u), v)
        inner.zero_grad()
        other.backward()
        inner.step()
        expected.append((loss.item(), other.item()))

    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6, msg=name)


def test_a_supernet_may_be_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = supernet(1, 0)
            self.head = nn.Linear(36, 3)

        def forward(self, x):
            return self.head(self.net(self.net(x)).flatten(1))

    model = Twice()
    before = values(model)
    list(tn.run(method(), model, F.cross_entropy, labelled(0), labelled(1), steps=STEPS))

    assert {"head.weight", "net.architecture.alpha_2"} <= changed(model, before)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_search_around_two_supernets_is_resumed_exactly(stop):
    whole = search(Around("dict"))
    expected = [(r.loss, r.arch_loss) for r in whole]
    first = search(Around("dict"))
    start = [first.advance() for _ in range(stop)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = search(Around("dict"))
    second.load_state_dict(torch.load(file, weights_only=True))
    rest = list(second)

    assert str([(r.loss, r.arch_loss) for r in [*start, *rest]]) == str(expected)
    assert not changed(second.task.model, values(whole.task.model))


def test_what_was_found_takes_the_place_of_the_supernets():
    model = Around("dict").train()
    list(search(model))
    for name in ("first", "second"):
        net = getattr(model, name)
        setattr(model, name, tn.build(net.graph, tn.derive(net), inherit=net))
    before = values(model)
    config = tn.TrainConfig(steps=2, lr=1e-2)
    list(tn.Training(model, of_dict, labelled(0), config))

    assert changed(model, before) >= {name for name, _ in model.named_parameters()}


# -- losses ------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["gradient", "unrolled"])
def test_a_loss_may_look_at_the_model_and_its_architecture(signal):
    """What it says of either counts: here nothing else does."""
    model = Around()
    logits = model.first.logits("slot")
    head = model.head.bias

    def loss(prediction, target):
        own = model.first.logits("slot")[0] + model.head.bias[0]
        return own + 0.0 * prediction.sum()

    before = logits.detach().clone(), head.detach().clone()
    chain = tn.chain(
        tn.weights(tn.sgd(0.1), passes=("widest",)),
        tn.architecture(tn.sgd(0.1), signal=getattr(tn.signals, signal)(), passes=("widest",)),
    )
    list(tn.run(chain, model, loss, labelled(0), labelled(1), steps=2))

    moved = model.first.logits("slot") - before[0], model.head.bias - before[1]
    torch.testing.assert_close(moved[0], torch.tensor([-0.2, 0.0]))
    torch.testing.assert_close(moved[1], torch.tensor([-0.2, 0.0, 0.0]))


@pytest.mark.parametrize(
    "target", [None, {"class": torch.tensor([0, 1, 2, 0])}, ["a word", torch.ones(1)]], ids=repr
)
def test_targets_are_the_losss(target):
    seen = []

    def loss(prediction, given):
        seen.append(given)
        return prediction.square().mean()

    def batch(step):
        return labelled(0)(step)[0], target

    list(tn.run(method(), Around(), loss, batch, batch, steps=1))

    assert all(given is target for given in seen)
    assert seen


# -- frozen parts ------------------------------------------------------------------------


def freeze_layers(model):
    """Frozen: a layer outside, one in a supernet, and the architecture of the other."""
    inner = model.first.network.layers["conv"]
    frozen = [model.between, inner]
    for layer in frozen:
        layer.requires_grad_(False)
    arch = model.second.arch_parameters()
    for parameter in arch.values():
        parameter.requires_grad_(False)
    return {
        *(f"between.{n}" for n, _ in model.between.named_parameters()),
        *(f"first.network.layers.conv.{n}" for n, _ in inner.named_parameters()),
        *(f"second.architecture.{n}" for n in arch),
    }


def freeze_statistics(model):
    """In evaluation mode: all norms, whose scales and shifts still learn."""
    model.train()
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for _, norm in norms:
        norm.eval()
    return {f"{name}.{buffer}" for name, norm in norms for buffer, _ in norm.named_buffers()}


def freeze_norms(model):
    """By their parameters alone: their statistics stay, too."""
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for _, norm in norms:
        norm.requires_grad_(False)
    return {f"{name}.{key}" for name, norm in norms for key in norm.state_dict()}


FREEZES = [freeze_layers, freeze_statistics, freeze_norms]
DECAYED = tn.optimiser(torch.optim.AdamW, lr=1e-2, weight_decay=0.5)


@pytest.mark.parametrize("signal", ["gradient", "unrolled"])
@pytest.mark.parametrize("freeze", FREEZES)
def test_what_is_frozen_stays_bit_for_bit_in_a_search(freeze, signal):
    model = Around()
    frozen = freeze(model)
    before = values(model)
    chain = tn.chain(
        tn.weights(DECAYED),
        tn.architecture(tn.adam(1e-2, weight_decay=0.5), signal=getattr(tn.signals, signal)()),
        tn.average(0.5),
    )
    run = tn.run(chain, model, F.cross_entropy, labelled(0), labelled(1), steps=STEPS, pretrain=1)
    list(run)

    assert frozen <= before.keys()
    assert not changed(model, before) & frozen
    assert "head.weight" in changed(model, before)
    with run.part(tn.search.Average).in_force():
        assert not changed(model, before) & frozen


@pytest.mark.parametrize("freeze", FREEZES)
def test_the_same_moves_where_it_is_not_frozen(freeze):
    """Or the test above could not fail."""
    frozen = freeze(Around())
    model = Around()
    before = values(model)
    list(search(model))

    assert frozen <= changed(model, before)


@pytest.mark.parametrize("freeze", FREEZES)
def test_what_is_frozen_stays_bit_for_bit_in_a_training(freeze):
    model = Around()
    frozen = {name for name in freeze(model) if not name.startswith("second.arch")}
    before = values(model)
    list(
        tn.Training(model, F.cross_entropy, labelled(0), tn.TrainConfig(steps=3), optimiser=DECAYED)
    )

    assert not changed(model, before) & frozen
    assert "head.weight" in changed(model, before)


def test_norms_in_evaluation_mode_still_learn_their_scales():
    model = Around()
    freeze_statistics(model)
    before = values(model)
    list(search(model))

    assert {"stem.1.weight", "stem.1.bias"} <= changed(model, before)


def test_dropout_in_evaluation_mode_stays_off():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Dropout(0.9))
    plain = copy.deepcopy(model)
    model[2].eval()
    config = tn.TrainConfig(steps=2)
    losses = [r.loss for r in tn.Training(model, F.cross_entropy, labelled(0), config)]

    x, y = labelled(0)(0)
    assert losses[0] == F.cross_entropy(plain[:2](x), y).item()
    assert not model[2].training


# -- training of any module --------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        rows, (hidden, _) = self.cells(x[:, 0])
        return self.head(rows[:, -1] + hidden[0])


class Tied(nn.Module):
    """One weight at two places, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.layer.weight
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.again(self.layer(x[:, 0]).tanh()).mean(1)[:, :3]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        rows = self.norm(x[:, 0])
        mixed, _ = self.attention(rows, rows, rows)
        return mixed.mean(1)[:, :3]


MODULES = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 3)),
    "recurrent": Recurrent,
    "tied": Tied,
    "attention": Attention,
    "around supernets": lambda: Around(widths=False, relax=tn.relax.Softmax()),
}


@pytest.mark.parametrize("name", MODULES)
def test_training_of_any_module_is_its_loop_in_plain_torch(name):
    torch.manual_seed(0)
    model = MODULES[name]()
    plain = copy.deepcopy(model)
    config = tn.TrainConfig(steps=4, lr=1e-2, schedule=lambda share: 1 - share, clip=None)
    losses = [report.loss for report in tn.Training(model, F.cross_entropy, labelled(0), config)]

    arch = {n for n, _ in plain.named_parameters() if ".architecture." in n}
    weights = [p for n, p in plain.named_parameters() if n not in arch]
    optimiser = torch.optim.Adam(weights, lr=1e-2, fused=True)
    expected = []
    for step in range(4):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 4)
        x, y = labelled(0)(step)
        loss = F.cross_entropy(plain(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        expected.append(loss.item())

    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=0)
    for (key, mine), theirs in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7, msg=key)
    assert (
        changed(model, values(MODULES[name]())) >= {n for n, _ in model.named_parameters()} - arch
    )
