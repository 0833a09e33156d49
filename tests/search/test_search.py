"""The loop of Algorithm 1."""

import math
import re

import attrs
import pytest
import torch
from torch.nn import functional as F

import trinas as tn
from trinas.search.report import spreads
from trinas.search.setting import Pass


def space(width=True):
    c = tn.width(values=(2, 4)) if width else 4
    slot = tn.choice(conv1=tn.conv_relu(1, c), conv3=tn.conv_relu(3, c), name="slot")
    cell = tn.residual(tn.seq(slot, tn.conv(1, 4)), scale=0.5)
    trunk = tn.tree(a=cell, b=tn.conv(3, 4), first="a", at_most={"a": 2, "b": 1}, name="trunk")
    return tn.seq(tn.conv(3, 4, name="stem"), trunk, tn.conv(3, 1, name="tail"))


def batches(stream):
    """Blurring as a task: a pure function of the step."""

    def batch(step):
        generator = torch.Generator().manual_seed(1000 * stream + step)
        x = torch.rand(2, 1, 8, 8, generator=generator)
        return x, F.avg_pool2d(x, 3, 1, 1)

    return batch


CONFIG = tn.SearchConfig(
    pretrain_steps=3,
    search_steps=8,
    weight_lr=1e-2,
    arch_lr=1e-2,
    pretrain_passes=("widest", "narrowest", "random", "random"),
    search_passes=("sampled", "widest", "narrowest"),
    arch_passes=("sampled", "widest", "narrowest"),
    paths="mixture",
    cost=tn.CostControl(target=1e4, weight=0.1, every=4),
)


def make(config=CONFIG, seed=0, **compile_settings):
    torch.manual_seed(seed)
    net = tn.compile_supernet(tn.lower(space(), (1, 8, 8)), **compile_settings)
    return tn.Search(net, F.l1_loss, batches(0), batches(1), config)


def losses(search):
    return [(r.phase, r.step, r.loss, r.arch_loss, r.cost, r.cost_weight) for r in search]


def same(left, right):
    return [a == b or (a != a and b != b) for p, q in zip(left, right) for a, b in zip(p, q)].count(
        False
    ) == 0 and len(left) == len(right)


def test_reports_tell_each_step_once():
    reports = list(make())

    assert [r.phase for r in reports] == ["pretrain"] * 3 + ["search"] * 8
    assert [r.step for r in reports] == list(range(1, 12))
    assert {r.total for r in reports} == {11}
    assert all(math.isfinite(r.loss) for r in reports)
    assert all(math.isnan(r.arch_loss) for r in reports[:3])
    assert all(math.isfinite(r.arch_loss) and r.cost > 0 for r in reports[3:])
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        reports[0].step = 5


def test_pretraining_leaves_the_architecture_alone():
    search = make()
    before = {n: p.clone() for n, p in search.net.arch_parameters().items()}
    for _ in range(3):
        search.advance()

    assert all(torch.equal(before[n], p) for n, p in search.net.arch_parameters().items())
    search.advance()
    assert any(not torch.equal(before[n], p) for n, p in search.net.arch_parameters().items())


def test_radius_follows_the_share_of_steps_done():
    search = make()
    seen = []
    for report in search:
        seen.append(report.progress)

    assert seen == [0.0] * 3 + [k / 8 for k in range(7)] + [1.0]


def test_it_ends_one_hot_and_the_derived_network_is_the_supernet():
    search = make()
    list(search)
    net = search.net.eval()
    model = tn.build(net.graph, tn.derive(net), inherit=net).eval()
    x, _ = batches(2)(0)
    final = spreads(net.graph, net.odds())

    assert final["operation"].entropy == final["path"].entropy == 0.0
    assert final["operation"].decided == final["path"].decided == 1.0
    # Every option but one is dead; widths are drawn, so none of theirs ever is.
    options = sum(len(d.options) - 1 for d in net.graph.decisions.values() if d.kind == "operation")
    assert final["operation"].dead == options
    assert final["width"].dead == final["width"].decided == 0
    assert 0.9 < final["width"].entropy < 1.0
    torch.testing.assert_close(model(x), net(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_same_seed_same_everything(order):
    config = attrs.evolve(CONFIG, order=order, search_steps=4, pretrain_steps=1)
    one, two = make(config), make(config)

    assert same(losses(one), losses(two))
    assert tn.derive(one.net) == tn.derive(two.net)
    assert tn.derive(one.net).to_json() == tn.derive(two.net).to_json()
    assert not same(losses(make(config)), losses(make(attrs.evolve(config, seed=1))))


@pytest.mark.parametrize("stop", [2, 3, 6])
def test_resumed_equals_uninterrupted(stop, tmp_path):
    whole = make()
    expected = losses(whole)
    first = make()
    for _ in range(stop):
        first.advance()
    torch.save(first.state_dict(), tmp_path / "c.pt")
    second = make(seed=7)
    second.load_state_dict(torch.load(tmp_path / "c.pt", weights_only=True))

    assert same(losses(second), expected[stop:])
    assert tn.derive(second.net) == tn.derive(whole.net)


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("pretrain_steps", 4, "pretrain_steps 3"),
        ("search_steps", 10, "search_steps 8"),
        ("pretrain_passes", ("widest",), "pretrain_passes ['widest', 'narrowest', 'random', "),
        ("search_passes", ("widest", "narrowest"), "passes ['sampled', 'widest', 'narrowest']"),
        ("order", 2, "signal Gradient; at a config of signal Unrolled"),
        ("paths", "exits", "exits None; at a config of exits 0.5"),
        ("sampled", "straight_through", "sampled Differences; at a config of sampled Straight"),
        ("seed", 1, "seed 0"),
        ("autocast", torch.bfloat16, "autocast None"),
    ],
)
def test_checkpoints_of_other_plans_are_refused(name, value, got):
    state = make().state_dict()
    text = f"the draws it was planned for; got {got}"

    with pytest.raises(tn.errors.CheckpointError, match=re.escape(text)):
        make(attrs.evolve(CONFIG, **{name: value})).load_state_dict(state)


def test_a_checkpoint_of_another_relaxation_is_refused():
    state = make(relax=tn.relax.Softmax()).state_dict()
    text = (
        r"got relaxations \{.*'operation': 'Softmax'.*at a config of .*'operation': 'Sparsestmax'"
    )

    with pytest.raises(tn.errors.CheckpointError, match=text):
        make().load_state_dict(state)


def test_a_cost_that_is_switched_on_for_the_rest_has_its_weight():
    before = make(attrs.evolve(CONFIG, cost=None))
    before.advance()
    search = make()
    search.load_state_dict(before.state_dict())
    assert search.cost_weight == CONFIG.cost.weight

    search.cost_weight = 0.7  # adjusted meanwhile
    again = make()
    again.load_state_dict(search.state_dict())
    assert again.cost_weight == 0.7


def test_checkpoints_of_other_spaces_are_refused():
    state = make().state_dict()
    other = tn.compile_supernet(tn.lower(space(width=False), (1, 8, 8)))
    search = tn.Search(other, F.l1_loss, batches(0), batches(1), CONFIG)
    with pytest.raises(ValueError, match="supernet of its own space"):
        search.load_state_dict(state)


def test_second_order_gradient_is_that_of_finite_differences():
    """d/d alpha of L_valid(w - xi grad_w L_train(w, alpha), alpha), numerically."""
    torch.manual_seed(0)
    graph = tn.lower(
        tn.seq(tn.choice(a=tn.conv(1, 2), b=tn.conv(3, 2), name="s"), tn.conv(3, 1)), (1, 6, 6)
    )
    net = tn.compile_supernet(graph, tn.relax.Softmax(), init_std=0.5).double()
    train, valid = (
        (x.double(), y.double())
        for x, y in ((x[..., :6, :6], y[..., :6, :6]) for x, y in (batches(0)(0), batches(1)(0)))
    )
    alpha = net.arch_parameters()["alpha_2"]

    def unrolled(flat):
        with torch.no_grad():
            alpha.copy_(flat.reshape(1, 2))
        names = [n for n, _ in net.network.named_parameters()]
        weights = [p.detach().clone().requires_grad_() for p in net.network.parameters()]
        run = lambda ws, x: torch.func.functional_call(  # noqa: E731
            net.network, dict(zip(names, ws)), (x, net.mixture().detached())
        )
        inner = torch.autograd.grad(F.mse_loss(run(weights, train[0]), train[1]), weights)
        moved = [w - 0.3 * g for w, g in zip(weights, inner)]
        return F.mse_loss(run(moved, valid[0]), valid[1]).item()

    start = alpha.detach().clone().flatten()
    numeric = []
    for k in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[k] = 1e-5
        numeric.append((unrolled(start + step) - unrolled(start - step)) / 2e-5)
    with torch.no_grad():
        alpha.copy_(start.reshape(1, 2))
    mixture = net.mixture()
    leaf = mixture.leaf()
    step = tn.Step.of(tn.Task(net, F.mse_loss), train, valid)
    tn.signals.unrolled(0.3)(step, [Pass("sampled", tn.Setting((net,), (leaf,)))])
    (exact,) = torch.autograd.grad(mixture.weights, alpha, leaf.weights.grad)

    torch.testing.assert_close(
        exact[0], torch.tensor(numeric, dtype=torch.float64), rtol=1e-5, atol=1e-9
    )


def test_second_order_differs_from_first():
    results = []
    for order in (1, 2):
        search = make(attrs.evolve(CONFIG, order=order, unroll_lr=0.5))
        list(search)
        results.append(search.net.arch_parameters()["alpha_2"].detach().clone())

    assert not torch.allclose(*results)


def test_cost_weight_leads_to_a_cheaper_network():
    dear, cheap = (
        make(attrs.evolve(CONFIG, search_steps=40, cost=tn.CostControl(target=1e4, weight=w)))
        for w in (0.0, 50.0)
    )
    for search in (dear, cheap):
        list(search)
    macs = [tn.cost.macs(s.net.graph, tn.derive(s.net)) for s in (dear, cheap)]

    assert macs[1] < macs[0]


@pytest.mark.parametrize(("target", "factor"), [(6e3, 4.0), (1e12, 0.25)])
def test_the_controller_follows_the_derived_network(target, factor):
    search = make(attrs.evolve(CONFIG, cost=tn.CostControl(target=target, weight=1e-9, every=4)))
    search.net.logits("trunk").data[-1] = 9.0  # a long path
    list(search)

    assert search.cost_weight == pytest.approx(1e-9 * factor)


def test_order_penalty_shortens_paths():
    search = make(attrs.evolve(CONFIG, search_steps=40, cost=None, order_penalty=10.0))
    list(search)

    assert tn.derive(search.net)["trunk"] == "a"


def test_each_pass_changes_the_result():
    one = losses(make())
    for passes in (("widest",), ("sampled", "widest"), ("sampled",)):
        assert not same(one, losses(make(attrs.evolve(CONFIG, search_passes=passes))))
    assert not same(one, losses(make(attrs.evolve(CONFIG, pretrain_passes=("narrowest",)))))


def test_soft_widths_search_behind_masks():
    relax = {"width": tn.relax.Sparsestmax()}
    search = make(
        attrs.evolve(CONFIG, search_passes=("sampled",), arch_passes=("sampled",)), relax=relax
    )
    reports = list(search)

    assert reports[-1].spread["width"].decided <= 1.0
    assert all(math.isfinite(r.loss) for r in reports)
    assert all(sum(w != 0 for w in ws) == 1 for ws in search.net.weights().values())


def test_autocast_runs():
    reports = list(make(attrs.evolve(CONFIG, autocast=torch.bfloat16)))

    assert all(math.isfinite(r.loss) for r in reports)


def test_a_space_of_one_network_is_trained_alone():
    net = tn.compile_supernet(tn.lower(tn.conv(3, 1), (1, 8, 8)))
    config = tn.SearchConfig(search_steps=30, weight_lr=0.02)
    reports = list(tn.Search(net, F.l1_loss, batches(0), batches(1), config))

    assert reports[-1].loss < reports[0].loss


def test_training_from_search_starts_ahead_of_scratch():
    search = make(attrs.evolve(CONFIG, search_steps=60))
    list(search)
    net = search.net
    genotype = tn.derive(net)
    config = tn.TrainConfig(steps=10, lr=1e-3)
    first = []
    for inherit in (net, None):
        torch.manual_seed(3)
        model = tn.build(net.graph, genotype, inherit=inherit)
        first.append(next(iter(tn.Training(model, F.l1_loss, batches(3), config))).loss)

    assert first[0] < first[1]


def test_training_resumes():
    def training():
        torch.manual_seed(0)
        model = tn.build(tn.lower(tn.conv(3, 1), (1, 8, 8)))
        return tn.Training(model, F.l1_loss, batches(0), tn.TrainConfig(steps=6, lr=1e-2))

    whole = [r.loss for r in training()]
    half = training()
    start = [half.advance().loss for _ in range(3)]
    rest = training()
    rest.load_state_dict(half.state_dict())

    assert start + [r.loss for r in rest] == whole
    with pytest.raises(tn.errors.CheckpointError, match="got train_steps 6"):
        tn.Training(rest.model, F.l1_loss, batches(0), tn.TrainConfig(steps=7)).load_state_dict(
            rest.state_dict()
        )


def test_schedules():
    assert [tn.Halving()(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1, 0.5, 0.25, 0.125, 0.125]
    cosine = tn.CosineDecay(0.1, warmup=0.5)
    assert cosine(0.25) == pytest.approx(0.5)
    assert cosine(0.5) == pytest.approx(1.0)
    assert cosine(1.0) == pytest.approx(0.1)
