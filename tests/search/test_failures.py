"""What goes wrong in a search is said at once, with its place, and harms nothing."""

import copy
import math

import attrs
import pytest
import torch
from torch.nn import functional as F

import trinas as tn
from trinas.search import DivergenceError, StepReport

CONFIG = tn.SearchConfig(pretrain_steps=2, search_steps=4, weight_lr=1e-2, arch_lr=1e-2)


def space():
    return tn.seq(
        tn.choice(a=tn.conv(3, 2), b=tn.conv(1, 2), name="slot"), tn.dropout(0.3), tn.conv(3, 1)
    )


def net_of(space, relax=None):
    torch.manual_seed(0)
    return tn.compile_supernet(tn.lower(space, (1, 6, 6)), relax)


def batches(stream):
    def batch(step):
        generator = torch.Generator().manual_seed(100 * stream + step)
        return tuple(torch.rand(2, 1, 6, 6, generator=generator) for _ in range(2))

    return batch


def search(*, loss=F.l1_loss, train=None, valid=None, config=CONFIG, net=None):
    return tn.Search(net or net_of(space()), loss, train or batches(0), valid or batches(1), config)


def training(*, loss=F.l1_loss, train=None, config=None):
    torch.manual_seed(0)
    config = config or tn.TrainConfig(steps=4, lr=1e-2)
    model = tn.build(tn.lower(tn.seq(tn.conv(3, 2), tn.dropout(), tn.conv(3, 1)), (1, 6, 6)))
    return tn.Training(model, loss, train or batches(0), config)


# -- numbers that are none ---------------------------------------------------------------


def bad_from(step, value=math.nan, stream=0):
    def batch(number):
        x, y = batches(stream)(number)
        return x * (value if number >= step else 1.0), y

    return batch


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (
            {"train": bad_from(1)},
            "is finite at every step; got nan; at pretrain step 2. Lower",
        ),
        ({"train": bad_from(3, math.inf)}, "got nan; at search step 4. Lower the"),
        ({"valid": bad_from(4)}, "loss is finite .* got nan; at search step 5. Lower"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_search(data, place):
    with pytest.raises(DivergenceError, match=place):
        list(search(**data))


def test_it_stops_a_second_order_search_too():
    config = attrs.evolve(CONFIG, order=2)

    with pytest.raises(DivergenceError, match="at search step 5"):
        list(search(valid=bad_from(4), config=config))


def test_it_stops_a_training():
    with pytest.raises(DivergenceError, match="got nan; at train step 3"):
        list(training(train=bad_from(2)))


def steep(prediction, target):
    """A finite loss whose gradient is not."""
    return (prediction - prediction.detach()).abs().sqrt().mean()


@pytest.mark.parametrize("make", [search, training])
def test_a_gradient_that_is_not_finite_reaches_no_weight(make):
    run = make(loss=steep)
    owner = run.net if isinstance(run, tn.Search) else run.model
    with pytest.raises(DivergenceError, match=r"gradient.* is finite at every step; got nan"):
        run.advance()

    assert all(torch.isfinite(p).all() for p in owner.parameters())
    assert run.step == 0


def test_a_report_does_not_pass_on_what_is_not_finite():
    """On an accelerator nothing waits for a loss, so it is looked at when it is read."""
    report = StepReport("search", 7, 9, 0.5, 1e-3, loss=torch.tensor(math.inf))

    with pytest.raises(DivergenceError, match="got inf; at search step 7"):
        _ = report.loss
    assert math.isnan(report.arch_loss)
    assert math.isnan(report.cost)


def test_logits_that_are_not_finite_name_the_step():
    run = search()
    run.advance()
    with torch.no_grad():
        run.net.logits("slot").fill_(math.nan)

    with pytest.raises(tn.errors.RelaxationError, match="at slot") as caught:
        run.advance()
    assert caught.value.__notes__ == ["in pretrain step 2"]


# -- data and losses ---------------------------------------------------------------------

X = torch.rand(2, 1, 6, 6)


@pytest.mark.parametrize(
    ("batch", "error", "text"),
    [
        (X, tn.errors.DataError, r"a pair of .*; got a Tensor; at train\(0\)\. train gives"),
        (None, tn.errors.DataError, r"got a NoneType; at train\(0\)"),
        ((X, X, X), tn.errors.DataError, r"got a tuple of Tensor, Tensor, Tensor; at train\(0\)"),
        ((), tn.errors.DataError, r"got a tuple of nothing"),
        ((X, X.to("meta")), tn.errors.DataError, r"got a tensor on meta, the network on cpu; at t"),
        (
            (X, X[:, :, :1]),
            tn.errors.ShapeError,
            r"target \(2, 1, 1, 6\), prediction \(2, 1, 6, 6\)",
        ),
        (
            (X, X.mean((1, 2, 3))),
            tn.errors.ShapeError,
            r"target \(2,\), pred.* at \w+ step 1.*tuple",
        ),
    ],
)
@pytest.mark.parametrize("make", [search, training])
def test_batches_that_cannot_be_used(make, batch, error, text):
    with pytest.raises(error, match=text):
        make(train=lambda step: batch).advance()


def test_the_architectures_data_are_checked_too():
    with pytest.raises(tn.errors.DataError, match=r"got a Tensor; at valid\(2\)"):
        list(search(valid=lambda step: X))


def test_lists_are_pairs_too():
    assert list(search(train=lambda step: [X, X]))


@pytest.mark.parametrize(
    ("loss", "error", "text"),
    [
        (
            lambda p, y: (p - y).abs(),
            tn.errors.ShapeError,
            r"no dimensions; got shape \(2, 1, 6, 6\)",
        ),
        (lambda p, y: (p - y).sum().item(), tn.errors.ShapeError, r"got a float; .*Take its mean"),
        (lambda p, y: (p - y).detach().sum(), tn.errors.DataError, r"depends on the prediction"),
    ],
)
@pytest.mark.parametrize("make", [search, training])
def test_losses_that_cannot_be_used(make, loss, error, text):
    with pytest.raises(error, match=text):
        make(loss=loss).advance()


def test_class_numbers_are_left_to_the_loss():
    pool = tn.seq(tn.global_avg_pool(), tn.flatten(), tn.linear(3))
    net = net_of(tn.seq(tn.choice(a=tn.conv(3, 4), b=tn.conv(1, 4)), pool))
    data = lambda step: (X, torch.tensor([0, 2]))  # noqa: E731

    assert list(search(net=net, train=data, valid=data, loss=F.cross_entropy))


def test_targets_in_a_tuple_are_left_to_the_loss():
    data = lambda step: (X, (X[:, :, :1], 2.0))  # noqa: E731
    run = search(train=data, valid=data, loss=lambda p, y: (p - y[0]).abs().mean() * y[1])

    assert list(run)


# -- settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"search_steps": 0}, "search_steps is greater than 0; got 0; at SearchConfig"),
        ({"search_steps": 2.5}, "search_steps is a whole number; got 2.5"),
        ({"pretrain_steps": -1}, "pretrain_steps is at least 0; got -1"),
        ({"order": 3}, "order is 1 or 2; got 3"),
        ({"arch_lr": 0.0}, "arch_lr is greater than 0"),
        ({"weight_lr": math.nan}, "weight_lr is greater than 0; got nan"),
        ({"unroll_lr": -1.0}, "unroll_lr is greater than 0"),
        ({"clip": 0}, "clip is greater than 0"),
        ({"arch_betas": (1.0, 0.9)}, r"arch_betas are two numbers in \[0, 1\)"),
        ({"search_passes": ()}, r"search_passes are names of passes, at least one; got \(\)"),
        ({"pretrain_passes": ("wide",)}, "pretrain_passes .* Give a tuple of sampled, widest"),
        ({"search_passes": "soft"}, "search_passes are names of passes"),
        ({"autocast": torch.float64}, r"autocast is torch\.bfloat16, torch\.float16 or None"),
        ({"sampled": "agd"}, "sampled is one of differences, straight_through; got 'agd'"),
        ({"draws": 1}, "draws is at least 2"),
        ({"seed": 10**23}, r"seed is at least 0 and below 2\*\*63"),
        ({"seed": -1}, "seed is at least 0"),
        ({"order_penalty": math.inf}, "order_penalty is at least 0"),
    ],
)
def test_settings_out_of_range(settings, text):
    with pytest.raises(tn.search.ConfigError, match=text):
        tn.SearchConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"target": 0}, "target is greater than 0"),
        ({"metric": "flops"}, "metric is one of params, macs; got 'flops'; at CostControl"),
        ({"band": (2.0, 1.0)}, "band is a pair, the lower end first"),
        ({"every": 0}, "every is greater than 0"),
        ({"share_structure": 2.0}, r"share_structure is a share, in \[0, 1\]"),
    ],
)
def test_cost_settings_out_of_range(settings, text):
    with pytest.raises(tn.search.ConfigError, match=text):
        tn.CostControl(**{"target": 1.0, **settings})


def test_a_short_warm_up_is_no_burst():
    with pytest.raises(tn.search.ConfigError, match=r"warmup lies in \[0, 1\); got 1.0"):
        tn.CosineDecay(warmup=1.0)
    assert tn.CosineDecay(warmup=1e-4)(0.0) == 1.0


def test_there_has_to_be_something_to_train():
    idle = tn.choice(a=tn.relu(), b=tn.tanh())

    with pytest.raises(tn.search.ConfigError, match="a search trains weights; got Graph"):
        search(net=net_of(idle))
    with pytest.raises(tn.search.ConfigError, match="there are weights to train; got Network"):
        tn.Training(
            tn.build(tn.lower(tn.relu(), (1, 6, 6))), F.l1_loss, batches(0), tn.TrainConfig(steps=1)
        )


@pytest.mark.parametrize("order", [1, 2])
def test_a_winner_without_weights_ends_well(order):
    net = net_of(tn.choice(a=tn.relu(), b=tn.conv(3, 1), name="slot"))
    with torch.no_grad():
        net.logits("slot").copy_(torch.tensor([5.0, -5.0]))

    assert len(list(search(net=net, config=attrs.evolve(CONFIG, order=order)))) == 6


@pytest.mark.parametrize("order", [1, 2])
def test_frozen_weights_stay(order):
    net = net_of(space())
    frozen = net.network.layers["conv"].weight.requires_grad_(False)
    before = frozen.clone()
    list(search(net=net, config=attrs.evolve(CONFIG, order=order)))

    assert torch.equal(frozen, before)


@pytest.mark.parametrize("order", [1, 2])
def test_passes_that_no_architecture_gradient_comes_from(order):
    w = tn.width(values=(2, 4))
    changes = {
        "search_passes": ("widest",),
        "arch_passes": ("widest",),
        "sampled": "straight_through",
        "order": order,
    }
    config = attrs.evolve(CONFIG, **changes)
    net = net_of(tn.seq(tn.conv(3, w), tn.conv(3, 1)))
    before = net.logits("conv[0]/width").clone()
    list(search(net=net, config=config))

    assert torch.equal(net.logits("conv[0]/width"), before)


@pytest.mark.parametrize("make", [search, training])
def test_a_step_too_many(make):
    run = make()
    list(run)

    with pytest.raises(tn.search.ConfigError, match=r"the steps of its config; got a call after"):
        run.advance()


def test_a_network_that_moved_away():
    run = search()
    run.net.to("meta")

    with pytest.raises(tn.search.ConfigError, match=r"others, on meta; at a run on cpu"):
        run.advance()


# -- checkpoints -------------------------------------------------------------------------


def without(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: without(s, "rng"), r"all of its state; got one without rng\. Load what Search"),
        (lambda s: [], "got one without format, plan"),
        (lambda s: {**s, "device": "cuda"}, r"got a checkpoint from cuda; at a search on cpu"),
        (
            lambda s: with_part(s, "Architecture", {}),
            r"the state of a part holds its optimisers and its memory; got \{\}",
        ),
        (
            lambda s: with_part(
                s, "Architecture", {"optimisers": {"architecture": {}}, "memory": {}}
            ),
            "optimiser of the architecture of a checkpoint",
        ),
        (lambda s: {**s, "parts": {}}, "all parts with optimisers; got none of Weights, Archit"),
        (lambda s: {"net": {}, "weight_optimiser": {}}, "form 'trinas run 2'; got form None"),
        (lambda s: {**s, "format": "trinas run 1"}, "got form 'trinas run 1'"),
        (lambda s: {**s, "model": without(s["model"], "architecture.alpha_2")}, "got .*alpha_2"),
    ],
)
def test_checkpoints_that_do_not_fit(change, text):
    run = search()

    with pytest.raises(tn.errors.CheckpointError, match=text):
        run.load_state_dict(change(run.state_dict()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: without(s, "model"), r"a training holds .* without model\. Load what Training"),
        (lambda s: {**s, "model": {}}, "the model of a checkpoint fits what it is loaded into"),
        (lambda s: with_part(s, "Weights", None), "the state of a part holds its optimisers"),
        (
            lambda s: {**s, "plan": {**s["plan"], "train_steps": 3}},
            r"planned for; got train_steps 3; at a config of train_steps 4\. Use the config it was "
            r"saved with; rates, schedules, clips, terms and prune may change",
        ),
        (lambda s: {**s, "plan": {**s["plan"], "seed": 1}}, "got seed 1; at a config of seed 0"),
        (
            lambda s: {**s, "plan": {**s["plan"], "autocast": "torch.bfloat16"}},
            "got autocast torch.bfloat16; at a config of autocast None",
        ),
        (lambda s: {**s, "plan": None}, "got train_steps None"),
    ],
)
def test_training_checkpoints_that_do_not_fit(change, text):
    run = training()

    with pytest.raises(tn.errors.CheckpointError, match=text):
        run.load_state_dict(change(run.state_dict()))


def with_part(state, name, changed):
    return {**state, "parts": {**state["parts"], name: changed}}


def moments(state, change):
    """The state with the moments of one parameter changed, or without them."""
    part = state["parts"]["Weights"]
    saved = part["optimisers"]["weights"]
    first = next(iter(saved["state"]))
    changed = without(saved["state"], first)
    if change is not None:
        changed[first] = change(saved["state"][first])
    optimisers = {"weights": {**saved, "state": changed}}
    return with_part(state, "Weights", {**part, "optimisers": optimisers})


@pytest.mark.parametrize("make", [search, training])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda e: {**e, "exp_avg": torch.zeros(3)}, r"moments of shape \(3,\) for a parameter of"),
        (lambda e: {**e, "exp_avg_sq": None}, r"moments of shape \(\)"),
        (lambda e: without(e, "exp_avg"), "parameter 0 without its moments"),
        (None, None),
    ],
)
def test_moments_that_do_not_fit_are_refused(make, change, text):
    """torch takes them, and its fused kernel reads beyond them."""
    run = make()
    run.advance()
    state = moments(run.state_dict(), change)
    again = make()
    if text is None:  # a parameter that had no gradient yet has none
        again.load_state_dict(state)
        return
    with pytest.raises(tn.errors.CheckpointError, match=text):
        again.load_state_dict(state)


@pytest.mark.parametrize("make", [search, training])
def test_a_state_can_be_loaded_again_and_again(make):
    run = make()
    for _ in range(2):
        run.advance()
    state = copy.deepcopy(run.state_dict())
    expected = [r.loss for r in run]
    for _ in range(3):
        again = make()
        again.load_state_dict(state)
        assert [r.loss for r in again] == expected


@pytest.mark.parametrize("make", [search, training])
@pytest.mark.parametrize("step", [-1, 999, "4", None, 2.5, True, math.nan])
def test_steps_that_are_none(make, step):
    with pytest.raises(tn.errors.CheckpointError, match="says how many steps of its"):
        make().load_state_dict({**make().state_dict(), "step": step})


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("data", None, "has the state of all data; got None"),
        ("data", [{"kind": "loader"}] * 2, "data of the kind .* got a state of a loader"),
        ("generator", None, "generator of a checkpoint .* got NoneType"),
        ("generator", torch.zeros(3, dtype=torch.uint8), r"got \(3,\)"),
        ("rng", None, "the rng of a checkpoint"),
        ("rng", [], "the rng of a checkpoint"),
        ("rng", [3, [1, 2], None], "the rng of a checkpoint"),
        ("Prune", {"idle": [[1]]}, "for every option; got .1.; at a space of 2 options"),
        ("Prune", {"idle": None}, "for every option"),
        ("CostControl", {"weight": "x"}, "a number from 0 on; got 'x'"),
        ("CostControl", {"weight": math.nan}, "a number from 0 on; got nan"),
    ],
)
def test_of_a_damaged_state_nothing_is_loaded(key, value, text):
    config = attrs.evolve(CONFIG, prune_after=50, cost=tn.CostControl(target=1e4, weight=0.1))
    run, again = search(config=config), search(config=config)
    run.advance()
    before = copy.deepcopy(again.net.state_dict())
    state = run.state_dict()
    if key in state:
        damaged = {**state, key: value}
    else:
        damaged = with_part(state, key, {"optimisers": {}, "memory": value})
    with pytest.raises(tn.errors.CheckpointError, match=text):
        again.load_state_dict(damaged)

    after = again.net.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items() if isinstance(v, torch.Tensor))
    assert [r.loss for r in again] == [r.loss for r in search(config=config)]


@pytest.mark.parametrize("clip", [None, 5.0])
def test_gradients_that_are_none_stop_a_training_with_and_without_a_clip(clip):
    def loss(prediction, target):  # zero, with the gradient 0 / 0
        return ((prediction - prediction.detach()) ** 2).sum().sqrt()

    run = training(loss=loss, config=tn.TrainConfig(steps=3, lr=1e-2, clip=clip))
    before = copy.deepcopy(run.model.state_dict())
    with pytest.raises(tn.errors.DivergenceError, match="gradient of the weights is finite"):
        run.advance()
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())


@pytest.mark.parametrize("make", [search, training])
def test_dropout_is_resumed_exactly(make):
    """Whatever else draws numbers in the process."""
    whole = [r.loss for r in make()]
    first, rest = make(), make()
    losses = [first.advance().loss for _ in range(2)]
    torch.rand(17)
    rest.load_state_dict(first.state_dict())

    assert losses + [r.loss for r in rest] == whole


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    run = search()
    torch.manual_seed(3)
    run.advance()

    assert torch.equal(torch.rand(1), expected)


def test_the_seed_is_that_of_dropout_too():
    one, other = (
        training(config=tn.TrainConfig(steps=2, lr=1e-2, seed=seed)).advance().loss
        for seed in (0, 1)
    )

    assert one != other


def test_the_settings_of_the_config_hold_after_loading():
    run = search()
    run.advance()
    again = search(config=attrs.evolve(CONFIG, arch_lr=0.5))
    again.load_state_dict(run.state_dict())
    again.advance()
    before = again.net.logits("slot").clone()
    again.advance()

    assert (again.net.logits("slot") - before).abs().max() > 0.1
