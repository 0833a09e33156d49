"""Random search with weight sharing: draws, single-path steps, scores, the best of them."""

import copy
import io
import math
import random

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import IN_SHAPE, small_spaces
from torch import nn
from torch.nn import functional as F

import trinas as tn
from trinas.search import DivergenceError, candidates
from trinas.search.scoring import Score
from trinas.supernet.build import inherit_weights

CONFIG = tn.RandomSearchConfig(train_steps=4, candidates=5, weight_lr=1e-2)


def space():
    """42 networks: a slot with widths in a trunk of one or two cells, and normalisation."""
    c = tn.width(values=(2, 4))
    slot = tn.choice(conv1=tn.conv(1, c), conv3=tn.conv(3, c), skip=tn.conv(5, c), name="slot")
    cell = tn.residual(tn.seq(slot, tn.batch_norm(), tn.relu(), tn.conv(1, 4)))
    trunk = tn.repeat(cell, (1, 2), name="trunk")
    return tn.seq(tn.conv(3, 4, name="stem"), trunk, tn.dropout(0.2), tn.conv(3, 1, name="tail"))


def compiled(space, in_shape=(1, 8, 8)):
    torch.manual_seed(0)
    return tn.compile_supernet(tn.lower(space, in_shape))


def batches(stream):
    """Blurring as a task: a pure function of the step."""

    def batch(step):
        generator = torch.Generator().manual_seed(1000 * stream + step)
        x = torch.rand(4, 1, 8, 8, generator=generator)
        return x, F.avg_pool2d(x, 3, 1, 1)

    return batch


def make(config=CONFIG, *, net=None, loss=F.l1_loss, train=None, valid=None, **changes):
    config = attrs.evolve(config, **changes)
    return tn.RandomSearch(
        net or compiled(space()), loss, train or batches(0), valid or batches(1), config
    )


def done(search):
    return [(r.phase, r.step, r.total, r.lr, r.loss, r.genotype) for r in search]


def state_of(module):
    return {
        name: t.clone() for name, t in module.state_dict().items() if isinstance(t, torch.Tensor)
    }


def built(net, genotype):
    """The network by itself, in double precision, with the weights of the supernet."""
    plain = tn.build(net.graph, genotype).double().train()
    inherit_weights(plain, net, genotype)
    return plain


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# -- reports -----------------------------------------------------------------------------


def test_reports_tell_each_step_once():
    search = make()
    reports = list(search)

    assert [r.phase for r in reports] == ["train"] * 4 + ["score"] * 5
    assert [r.step for r in reports] == list(range(1, 10))
    assert {r.total for r in reports} == {search.total} == {9}
    assert [r.lr for r in reports] == [1e-2, 5e-3, 2.5e-3, 1.25e-3] + [0.0] * 5
    assert tuple(r.genotype for r in reports[4:]) == search.candidates
    assert all(math.isfinite(r.loss) for r in reports)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        reports[0].step = 5


def test_the_ranking_is_that_of_the_reports():
    search = make()
    scores = {r.genotype: r.loss for r in search if r.phase == "score"}

    assert dict(search.ranking) == scores
    assert [loss for _, loss in search.ranking] == sorted(scores.values())
    assert search.best == min(scores, key=scores.get)
    assert tn.Genotype.from_json(search.best.to_json(), search.net.graph) == search.best


def test_of_equal_scores_the_first_candidate_wins():
    search = make(loss=lambda p, y: 0 * p.sum())
    list(search)

    assert [genotype for genotype, _ in search.ranking] == list(search.candidates)


def test_there_is_a_ranking_of_what_is_scored_so_far():
    search = make()
    assert search.ranking == []
    with pytest.raises(
        tn.errors.ConfigError, match=r"got 0 of 9 steps done.* begins after 4 steps"
    ):
        _ = search.best
    for _ in range(6):
        search.advance()

    assert [g for g, _ in sorted(search.ranking, key=lambda e: search.candidates.index(e[0]))] == (
        list(search.candidates[:2])
    )


# -- training ----------------------------------------------------------------------------


@settings(max_examples=30)
@given(space=small_spaces(), seed=st.integers(0, 5), clip=st.sampled_from([1e-2, 1e3]))
def test_a_step_is_one_of_plain_adam_on_the_drawn_network(space, seed, clip):
    """The drawn network is built by itself and trained without trinas."""
    net = compiled(tn.seq(tn.conv(1, 4), space, name="whole"), IN_SHAPE).double()
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(3, *IN_SHAPE, generator=generator).double() for _ in range(2))
    before = {name: p.detach().clone() for name, p in net.network.named_parameters()}
    start = copy.deepcopy(net)
    config = attrs.evolve(CONFIG, seed=seed, clip=clip, candidates=1)
    search = tn.RandomSearch(net, F.mse_loss, lambda _: (x, y), lambda _: (x, y), config)
    genotype = search.advance().genotype

    plain = built(start, genotype)
    optimiser = torch.optim.Adam(plain.parameters(), lr=config.weight_lr)
    F.mse_loss(plain(x), y).backward()
    nn.utils.clip_grad_norm_(plain.parameters(), clip)
    optimiser.step()
    stepped = built(net, genotype)
    for (name, expected), found in zip(plain.named_parameters(), stepped.parameters()):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=name)
    used = set(dict(plain.named_modules()))
    for name, parameter in net.network.named_parameters():
        if name.rpartition(".")[0] not in used:
            assert torch.equal(parameter, before[name]), name


def test_steps_by_hand():
    """Three options of one number each; Adam written out, with a count for each number."""
    slot = tn.choice(a=tn.conv(1, 1, bias=False), b=tn.conv(1, 1, bias=False), name="slot")
    net = compiled(tn.seq(slot, tn.conv(1, 1, bias=False, name="tail")), (1, 1, 1)).double()
    numbers = {
        key: float(net.network.layers[key].weight.detach()) for key in ("slot/a", "slot/b", "tail")
    }
    data = lambda step: (torch.full((1, 1, 1, 1), 1.0 + step, dtype=torch.float64),) * 2  # noqa: E731
    memory = {key: (0.0, 0.0, 0) for key in numbers}
    search = make(net=net, train=data, valid=data, train_steps=12, clip=0.5, loss=F.mse_loss)
    picked = set()
    for step in range(12):
        report = search.advance()
        key, x = f"slot/{report.genotype['slot']}", 1.0 + step
        picked.add(key)
        a, t = numbers[key], numbers["tail"]
        error = a * t * x - x
        assert report.loss == pytest.approx(error**2)
        grads = {key: 2 * error * t * x, "tail": 2 * error * a * x}
        scale = min(1.0, 0.5 / (math.hypot(*grads.values()) + 1e-6))
        for name, gradient in grads.items():
            m, v, n = memory[name]
            m, v, n = (
                0.9 * m + 0.1 * scale * gradient,
                0.999 * v + 1e-3 * (scale * gradient) ** 2,
                n + 1,
            )
            memory[name] = m, v, n
            move = (m / (1 - 0.9**n)) / (math.sqrt(v / (1 - 0.999**n)) + 1e-8)
            numbers[name] -= report.lr * move
        for name, number in numbers.items():
            assert float(net.network.layers[name].weight.detach()) == pytest.approx(
                number, rel=1e-9
            ), name

    assert picked == {"slot/a", "slot/b"}


def test_a_network_that_learns_nothing_changes_nothing():
    slot = tn.choice(a=tn.relu(), b=tn.conv(3, 1), name="slot")
    search = make(net=compiled(slot), train_steps=10)
    idle = 0
    for _ in range(10):
        before = state_of(search.net)
        if search.advance().genotype["slot"] == "a":
            assert_same(state_of(search.net), before)
            idle += 1

    assert 0 < idle < 10


def test_only_weights_are_trained():
    search = make()
    search.net.progress = 0.5
    before = {name: p.clone() for name, p in search.net.arch_parameters().items()}
    list(search)

    assert_same({name: p.data for name, p in search.net.arch_parameters().items()}, before)
    assert search.net.progress == 0.5


def test_frozen_weights_stay():
    net = compiled(space())
    frozen = net.network.layers["stem"].weight.requires_grad_(False)
    before = frozen.clone()
    list(make(net=net))

    assert torch.equal(frozen, before)


# -- draws -------------------------------------------------------------------------------


def test_decisions_are_drawn_evenly_not_networks():
    """Nine of ten networks have the long path; one draw in two has it."""
    deep = tn.choice({f"k{i}": tn.conv(1, 1) for i in range(9)}, name="deep")
    net = compiled(tn.choice(short=tn.conv(1, 1), long=deep, name="slot"), (1, 2, 2))
    data = lambda step: (torch.zeros(1, 1, 2, 2),) * 2  # noqa: E731
    search = make(net=net, train=data, valid=data, train_steps=300)
    drawn = [search.advance().genotype["slot"] for _ in range(300)]

    assert 0.4 < drawn.count("long") / 300 < 0.6


@settings(max_examples=30)
@given(space=small_spaces(), wanted=st.integers(1, 30), seed=st.integers(0, 3))
def test_candidates_are_different_networks_of_the_space(space, wanted, seed):
    net = compiled(tn.seq(tn.conv(1, 4), space, name="whole"), IN_SHAPE)
    found = make(net=net, candidates=wanted, seed=seed).candidates
    everything = list(tn.enumerate_genotypes(net.graph))

    assert len(set(found)) == len(found)
    assert set(found) <= set(everything)
    if wanted >= len(everything):
        assert list(found) == everything
    else:  # a rare network may be missed by so many draws, a common one not
        assert 1 <= len(found) <= wanted


def test_a_space_of_exactly_so_many_networks_is_enumerated():
    net = compiled(space())
    assert tn.cardinality(space()) == 6 + 6 * 6
    assert make(net=net, candidates=42).candidates == tuple(tn.enumerate_genotypes(net.graph))
    drawn = make(net=net, candidates=41).candidates
    assert len(drawn) == 41
    assert list(drawn) != [g for g in tn.enumerate_genotypes(net.graph) if g in drawn]


def test_the_seed_decides_all_draws_and_nothing_else_does():
    one, two, other = (make(seed=seed) for seed in (0, 0, 1))
    torch.rand(3)

    assert one.candidates == two.candidates != other.candidates
    assert done(one) == done(two) != done(other)
    # More steps, or more candidates, leave the draws that were there.
    assert make(train_steps=9, candidates=8).candidates[:5] == make().candidates
    longer = make(candidates=8)
    assert [r.genotype for r in longer][:4] == [r.genotype for r in make()][:4]


def test_options_that_are_searched_only_are_not_drawn():
    slot = tn.choice(a=tn.conv(1, 1), none=tn.zero(), name="slot", search_only=("none",))
    search = make(net=compiled(slot))

    assert {r.genotype["slot"] for r in search} == {"a"}


# -- scores ------------------------------------------------------------------------------


@settings(max_examples=30)
@given(space=small_spaces(), score_batches=st.integers(1, 3))
def test_a_score_is_the_mean_loss_of_the_network_built_by_itself(space, score_batches):
    """With the statistics of the batch, as no network of the space has running ones."""
    net = compiled(tn.seq(tn.conv(1, 4), space, name="whole"), IN_SHAPE).double()

    def data(step):
        generator = torch.Generator().manual_seed(step)
        return tuple(torch.rand(3, *IN_SHAPE, generator=generator).double() for _ in range(2))

    search = make(
        net=net, train=data, valid=data, train_steps=2, candidates=3, score_batches=score_batches
    )
    list(search)

    for genotype, score in search.ranking:
        plain = built(net, genotype)  # in training mode: there is no dropout in these spaces
        with torch.no_grad():
            losses = [F.l1_loss(plain(x), y) for x, y in map(data, range(score_batches))]
        assert score == pytest.approx(float(torch.stack(losses).mean()), rel=1e-9)


def test_scoring_leaves_no_trace():
    """Neither in running statistics (also of searched widths) nor in modes and gradients."""
    search = make(train_steps=3)
    for _ in range(3):
        search.advance()
    before = state_of(search.net)
    gradients = [p.grad for p in search.net.weight_parameters()]
    buffers = {name: id(b) for name, b in search.net.named_buffers()}
    list(search)

    assert_same(state_of(search.net), before)
    assert all(p.grad is g for p, g in zip(search.net.weight_parameters(), gradients))
    assert {name: id(b) for name, b in search.net.named_buffers()} == buffers
    assert not any(module.training for module in search.net.modules())
    assert any("running_mean" in name for name in before)


def test_statistics_come_back_after_an_error():
    bad = iter([True, False])
    search = make(train_steps=0, loss=lambda p, y: p.mean() * (math.nan if next(bad) else 1.0))
    before = state_of(search.net)
    with pytest.raises(DivergenceError, match="at score step 1"):
        search.advance()

    assert_same(state_of(search.net), before)
    assert search.step == 0
    assert search.advance().step == 1
    assert len(search.ranking) == 1


def test_dropout_is_off_where_candidates_are_scored():
    search = make(train_steps=0)
    first = done(search)
    other = make(train_steps=0)
    for part in other.net.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.9

    assert done(other) == first


def test_scoring_batches_are_asked_for_once():
    asked = []

    def valid(step):
        asked.append(step)
        return batches(1)(step)

    list(make(valid=valid, score_batches=3))

    assert asked == [0, 1, 2]


def test_the_best_of_a_tiny_space_is_found():
    """Blurring takes a 3x3 kernel; the targets are beyond what a sigmoid gives."""

    def data(step):
        x, y = batches(0)(step)
        return x, 2 * y

    slot = tn.choice(point=tn.conv(1, 1), blur=tn.conv(3, 1), none=tn.seq(), name="slot")
    last = tn.choice(keep=tn.seq(), squash=tn.sigmoid(), name="last")
    search = make(
        net=compiled(tn.seq(slot, last)),
        train_steps=300,
        weight_lr=2e-2,
        candidates=99,
        train=data,
        valid=data,
    )
    list(search)

    assert len(search.ranking) == 6
    assert dict(search.best) == {"slot": "blur", "last": "keep"}
    assert search.ranking[0][1] < 0.5 * search.ranking[2][1]


# -- budget ------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_the_budget_holds_for_what_is_trained_and_scored(metric):
    graph = tn.lower(space(), (1, 8, 8))
    count = getattr(tn.cost, metric)
    costs = sorted(count(graph, genotype) for genotype in tn.enumerate_genotypes(graph))
    limit = costs[9]
    reports = list(make(train_steps=30, candidates=50, within=tn.Budget(limit, metric)))
    seen = [count(graph, r.genotype) for r in reports]

    assert max(seen) == limit
    assert sorted(seen[30:]) == [cost for cost in costs if cost <= limit]
    assert max(count(graph, r.genotype) for r in make(train_steps=30)) > limit


def test_fewer_candidates_where_the_budget_holds_no_more():
    graph = tn.lower(space(), (1, 8, 8))
    costs = sorted(tn.cost.macs(graph, genotype) for genotype in tn.enumerate_genotypes(graph))
    search = make(train_steps=0, candidates=20, within=tn.Budget(costs[4]))

    assert len(search.candidates) == len(list(search)) == sum(c <= costs[4] for c in costs) < 20


@pytest.mark.parametrize(
    ("candidates", "looked_at"), [(42, "all 42 networks"), (5, "1000 random networks")]
)
def test_a_budget_that_nothing_keeps(candidates, looked_at):
    text = rf"none among {looked_at}; the cheapest costs \d,\d+ macs; at a limit of 10\. Raise"
    with pytest.raises(tn.errors.ConfigError, match=text):
        make(candidates=candidates, within=tn.Budget(10))


def test_a_draw_that_finds_nothing_takes_a_candidate(monkeypatch):
    graph = tn.lower(space(), (1, 8, 8))
    cheapest = min(tn.cost.macs(graph, genotype) for genotype in tn.enumerate_genotypes(graph))
    search = make(candidates=42, train_steps=6, within=tn.Budget(cheapest))
    monkeypatch.setattr(candidates, "DRAWS", 0)

    assert {r.genotype for r in search} == set(search.candidates)
    assert len(search.candidates) == 1


# -- runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(10))
def test_resumed_equals_uninterrupted(stop):
    whole = make(score_batches=2)
    expected = done(whole)
    first = make(score_batches=2)
    for _ in range(stop):
        first.advance()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    torch.rand(17)
    second = make(score_batches=2, net=tn.compile_supernet(tn.lower(space(), (1, 8, 8))))
    second.load_state_dict(torch.load(file, weights_only=True))

    assert done(second) == expected[stop:]
    assert second.ranking == whole.ranking
    assert_same(state_of(second.net), state_of(whole.net))


def test_prefetched_batches_change_nothing():
    expected = done(make(score_batches=2))
    with tn.prefetch(batches(0)) as train, tn.prefetch(batches(1)) as valid:
        assert done(make(train=train, valid=valid, score_batches=2)) == expected


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    search = make()
    torch.manual_seed(3)
    list(search)

    assert torch.equal(torch.rand(1), expected)


def test_what_operations_draw_is_new_in_every_step_and_the_same_for_all_candidates():
    reports = list(make(loss=lambda p, y: p.sum() * 0 + torch.rand(())))

    assert len({r.loss for r in reports if r.phase == "train"}) == 4
    assert len({r.loss for r in reports if r.phase == "score"}) == 1


def test_the_mode_of_the_supernet_is_set_in_every_step():
    other = make()
    for _ in range(2):
        other.net.eval()
        other.advance()

    assert done(other) == done(make())[2:]


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_lr": 1e-3},
        {"weight_schedule": tn.CosineDecay()},
        {"clip": 1e-9},
        {"score_batches": 2},
        {"autocast": torch.bfloat16},
        {"train_steps": 0},
    ],
)
def test_every_setting_changes_the_scores(changes):
    searches = make(), make(**changes)
    for search in searches:
        list(search)

    assert searches[0].candidates == searches[1].candidates
    assert searches[0].ranking != searches[1].ranking


def test_a_space_of_one_network():
    search = make(net=compiled(tn.conv(3, 1)))

    assert [r.phase for r in search] == ["train"] * 4 + ["score"]
    assert dict(search.best) == {}


# -- what goes wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train_steps": -1}, "train_steps is at least 0; got -1; at RandomSearchConfig"),
        ({"train_steps": 2.5}, "train_steps is a whole number; got 2.5"),
        ({"candidates": 0}, "candidates is greater than 0; got 0"),
        ({"candidates": True}, "candidates is a whole number; got True"),
        ({"score_batches": 0}, "score_batches is greater than 0"),
        ({"weight_lr": math.nan}, "weight_lr is greater than 0; got nan"),
        ({"clip": 0}, "clip is greater than 0"),
        ({"within": 1e6}, r"within is a Budget or None; got 1000000.0; .*Give Budget\(limit"),
        ({"autocast": torch.float64}, r"autocast is torch\.bfloat16, torch\.float16 or None"),
        ({"seed": -1}, "seed is at least 0"),
    ],
)
def test_settings_out_of_range(changes, text):
    with pytest.raises(tn.errors.ConfigError, match=text):
        tn.RandomSearchConfig(**changes)


def test_budgets_out_of_range():
    with pytest.raises(tn.errors.ConfigError, match="limit is greater than 0; got 0; at Budget"):
        tn.Budget(0)
    with pytest.raises(tn.errors.ConfigError, match="metric is one of params, macs; got 'flops'"):
        tn.Budget(1, "flops")


def test_parts_that_make_no_search():
    net = compiled(space())

    with pytest.raises(tn.errors.ConfigError, match="works on a supernet; got a Conv2d"):
        make(net=nn.Conv2d(1, 1, 1))
    with pytest.raises(tn.errors.ConfigError, match="is set up by a RandomSearchConfig"):
        tn.RandomSearch(net, F.l1_loss, batches(0), batches(1), tn.SearchConfig())
    with pytest.raises(tn.errors.ConfigError, match="a search trains weights; got Graph"):
        make(net=compiled(tn.choice(a=tn.relu(), b=tn.tanh())))
    pruned = compiled(tn.choice(a=tn.conv(1, 1), b=tn.conv(3, 1), name="slot"))
    pruned.prune({"slot": ["a"]})
    with pytest.raises(tn.errors.ConfigError, match="got a supernet without a; at slot"):
        make(net=pruned)


def bad_from(step, value=math.nan):
    return lambda number: tuple(t * (value if number >= step else 1.0) for t in batches(0)(number))


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"train": bad_from(1)}, "loss is finite at every step; got nan; at train step 2"),
        ({"valid": bad_from(1, math.inf)}, "got nan; at score step 5"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_search(data, place):
    with pytest.raises(DivergenceError, match=place) as caught:
        list(make(**data, score_batches=2))
    assert caught.value.__notes__[-1].startswith("in ")


def test_a_gradient_that_is_not_finite_reaches_no_weight():
    search = make(loss=lambda p, y: (p - p.detach()).abs().sqrt().mean())
    with pytest.raises(DivergenceError, match="gradient of the weights"):
        search.advance()

    assert all(torch.isfinite(p).all() for p in search.net.parameters())
    assert search.step == 0


def test_what_is_not_finite_is_not_passed_on():
    """On an accelerator nothing waits for a loss, so it is looked at when it is read."""
    search = make()
    list(search)
    search.part(Score).scores[1] = torch.tensor(math.nan)
    report = tn.SampleReport("score", 6, 9, search.candidates[1], 0.0, torch.tensor(math.nan))

    with pytest.raises(DivergenceError, match="got nan; at score"):
        _ = search.ranking
    with pytest.raises(DivergenceError, match="got nan; at score"):
        _ = search.best
    with pytest.raises(DivergenceError, match="got nan; at score step 6"):
        _ = report.loss


@pytest.mark.parametrize("name", ["train", "valid"])
def test_batches_that_cannot_be_used(name):
    with pytest.raises(tn.errors.DataError, match=rf"got a Tensor; at {name}\(0\)"):
        list(make(**{name: lambda step: torch.rand(2, 1, 8, 8)}))


def test_a_step_too_many():
    search = make()
    list(search)

    with pytest.raises(
        tn.errors.ConfigError, match=r"got a call after all 9\. Its result is in be"
    ):
        search.advance()


def test_a_network_that_moved_away():
    search = make()
    search.net.to("meta")

    with pytest.raises(tn.errors.ConfigError, match="others, on meta; at a run on cpu"):
        search.advance()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train_steps": 5}, "got train_steps 4; at a config of train_steps 5"),
        ({"candidates": 6}, "got candidates 5; at a config of candidates 6"),
        ({"score_batches": 2}, "got score_batches 1"),
        ({"seed": 1}, "got seed 0; at a config of seed 1"),
        (
            {"within": tn.Budget(1e9, "params")},
            r"got within None; at a config of within \[1000000000.0, 'params', 0.0\]",
        ),
    ],
)
def test_checkpoints_of_other_plans_are_refused(changes, text):
    with pytest.raises(tn.errors.CheckpointError, match=text):
        make(**changes).load_state_dict(make().state_dict())


def test_checkpoints_that_do_not_fit():
    search = make()
    state = search.state_dict()

    with pytest.raises(tn.errors.CheckpointError, match="got one without parts"):
        search.load_state_dict({k: v for k, v in state.items() if k != "parts"})
    damaged = {"optimisers": {"weights": {}}, "memory": {}}
    with pytest.raises(tn.errors.CheckpointError, match="the optimiser of the weights of a check"):
        search.load_state_dict({**state, "parts": {**state["parts"], "Weights": damaged}})
    for scores in (None, [], torch.zeros(1, 1), torch.zeros(()), torch.zeros(1)):
        score = {"optimisers": {}, "memory": {"scores": scores}}
        with pytest.raises(tn.errors.CheckpointError, match="a score for every candidate"):
            search.load_state_dict({**state, "parts": {**state["parts"], "Score": score}})
    pruned = {**state["model"], "_extra_state": {"pruned": {"slot": ["a"]}}}
    with pytest.raises(tn.errors.CheckpointError, match=r"whole space; got .* pruned at slot"):
        search.load_state_dict({**state, "model": pruned})
    with pytest.raises(tn.errors.CheckpointError, match="supernet of its own space"):
        make(net=compiled(tn.conv(3, 1))).load_state_dict(state)


def test_the_settings_of_the_config_hold_after_loading():
    first = make()
    first.advance()
    second = make(weight_lr=0.5)
    second.load_state_dict(first.state_dict())

    assert second.advance().lr == 0.25


def test_a_budget_may_ask_to_be_used():
    graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    budget = tn.Budget(1000, "params", at_least=100)
    found = candidates.find_candidates(graph, 5, rng=random.Random(0), within=budget)

    assert [budget.allows(g) for g in tn.enumerate_genotypes(graph)] == [True, False]
    assert [g["slot"] for g in found] == ["a"]
    with pytest.raises(tn.errors.ConfigError, match=r"no more than it allows; got at least 2,000"):
        tn.Budget(1000, "params", at_least=2000)
