"""What every part keeps to, driven from one table of all of them."""

import copy
import importlib
import inspect
import io
import pkgutil

import attrs
import pytest
import torch
from comparing import plain
from torch.nn import functional as F

import trinas as tn
from trinas._core.errors import CheckpointError
from trinas.search.scoring import DrawNetwork, Score

SHAPE = (1, 6, 6)
STEPS = 6


def graph():
    c = tn.width(values=(2, 4))
    slot = tn.choice(conv1=tn.conv_bn_relu(1, c), conv3=tn.conv_bn_relu(3, c), name="slot")
    return tn.lower(tn.seq(tn.repeat(tn.seq(slot, tn.conv(1, 2)), (1, 2)), tn.conv(3, 1)), SHAPE)


GRAPH = graph()


def batch(step, stream=0):
    generator = torch.Generator().manual_seed(1000 * stream + step)
    return tuple(torch.rand(2, *SHAPE, generator=generator) for _ in range(2))


WEIGHTS = tn.weights(tn.sgd(0.05, momentum=0.9), passes=("sampled", "widest"))
ARCHITECTURE = tn.architecture(tn.adam(0.3))
BOTH = (WEIGHTS, ARCHITECTURE)


@attrs.frozen(eq=False)
class Case:
    """A part, and those that it works beside."""

    part: tn.Part
    beside: tuple[tn.Part, ...] = ()

    @property
    def parts(self):
        return (*self.beside, self.part)


def learned(signal, sampled):
    passes = ("sampled", "narrowest")
    return tn.architecture(tn.adam(0.3), signal=signal, sampled=sampled, passes=passes, clip=1.0)


def cosine(optimiser):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)


def shared_odds(mixture):
    return mixture.odds.square().sum()


def is_late(step):
    return step.number >= 2


def tell_number(step):
    step.tell(number=step.number)


TABLE = {
    "weights": Case(WEIGHTS),
    "weights, schedule": Case(tn.weights(tn.adam(1e-2), schedule=tn.CosineDecay(), clip=1.0)),
    "weights, exits": Case(tn.weights(tn.adam(1e-2), exits=0.5, wait=0.4)),
    "weights, scheduler": Case(tn.weights(tn.adam(1e-2), scheduler=cosine)),
    **{
        f"architecture, {signal}, {sampled}": Case(
            learned(getattr(tn.signals, signal)(), getattr(tn.signals, sampled)()), (WEIGHTS,)
        )
        for signal in ("gradient", "unrolled", "exits")
        for sampled in ("differences", "straight_through")
    },
    "expected_cost": Case(tn.expected_cost(target=2e4, weight=1.0, every=2), BOTH),
    "ordered": Case(tn.ordered(1.0), BOTH),
    "entropy": Case(tn.entropy(1.0), BOTH),
    "term": Case(tn.term(shared_odds, weight=1.0), BOTH),
    "prune": Case(tn.prune(after=1), BOTH),
    "stop_when": Case(tn.stop_when(is_late), BOTH),
    "watch": Case(tn.watch(tell_number), BOTH),
    "average": Case(tn.average(0.5), (WEIGHTS,)),
    "DrawNetwork": Case(DrawNetwork()),
    "Score": Case(
        Score(tuple(tn.enumerate_genotypes(GRAPH))[:STEPS], data=batch, batches=2, seed=0)
    ),
}


class Loop:
    """A loop of a user's own: no engine."""

    def __init__(self, parts):
        self.net = tn.compile_supernet(GRAPH, seed=0, init_std=0.05)
        self.task = tn.Task(self.net, F.mse_loss)
        self.working = [part.start(self.task) for part in parts]
        self.told = []
        self.number = 0

    def go(self, steps):
        for number in range(self.number, self.number + steps):
            step = tn.Step.of(
                self.task,
                batch(number),
                batch(number, 1),
                parts=self.working,
                progress=number / STEPS,
                number=number,
                steps=STEPS,
                seed=number,
            )
            for moment in ("before", "update", "after"):
                for part in self.working:
                    getattr(part, moment)(step)
            step.finish()
            self.told.append(plain([step.facts, step.stops]))
        self.number += steps
        return self

    def state(self):
        return {
            "number": self.number,
            "model": self.net.state_dict(),
            "parts": [part.state_dict() for part in self.working],
        }

    def load(self, state):
        self.number = state["number"]
        self.task.load(state["model"])
        for part in self.working:
            part.refresh()
        for part, saved in zip(self.working, state["parts"]):
            part.load_state_dict(saved)
        return self


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# -- the table is whole ------------------------------------------------------------------


def subclasses(kind):
    for found in kind.__subclasses__():
        yield found
        yield from subclasses(found)


def test_every_part_is_in_the_table():
    for module in pkgutil.walk_packages(tn.search.__path__, "trinas.search."):
        importlib.import_module(module.name)
    there = {kind for kind in subclasses(tn.Part) if kind.__module__.startswith("trinas.")}

    assert {type(case.part) for case in TABLE.values()} == there


def test_every_function_that_makes_a_part_is_in_the_table():
    makers = [
        name
        for name, value in vars(tn.search).items()
        if inspect.isfunction(value)
        and inspect.isclass(made := inspect.get_annotations(value, eval_str=True).get("return"))
        and issubclass(made, tn.Part)
    ]

    assert len(makers) >= 10
    assert {name.partition(",")[0] for name in TABLE} >= set(makers)


def test_every_signal_is_in_the_table():
    makers = [name for name, value in vars(tn.signals).items() if inspect.isfunction(value)]
    made = {name for text in TABLE for name in text.split(", ")}

    assert len(makers) >= 4
    assert made >= set(makers)


# -- what they keep to -------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_it_works_in_a_loop_of_ones_own(name):
    """And it does something there: without it the loop is another."""
    case = TABLE[name]
    one, without = Loop(case.parts).go(STEPS), Loop(case.beside).go(STEPS)

    assert len(one.told) == STEPS
    left = [one.told, plain(one.net.state_dict()), plain(one.working[-1].state_dict())]
    right = [without.told, plain(without.net.state_dict()), plain(tn.Working.state_dict(EMPTY))]
    assert left != right


EMPTY = tn.Working(tn.Task(torch.nn.Linear(1, 1), F.mse_loss))


@pytest.mark.parametrize("name", TABLE)
def test_its_state_goes_on_in_a_fresh_one(name):
    case = TABLE[name]
    whole = Loop(case.parts).go(STEPS)
    first = Loop(case.parts).go(STEPS // 2)
    second = Loop(case.parts).load(through_a_file(first.state())).go(STEPS // 2)

    assert first.told + second.told == whole.told
    assert plain(second.state()) == plain(whole.state())


@pytest.mark.parametrize("name", TABLE)
def test_a_step_that_is_not_finished_changes_nothing_of_its_own(name):
    """What is changed at the end of a step alone is changed by `Step.commit`."""
    case = TABLE[name]
    loop = Loop(case.parts).go(2)
    part = loop.working[-1]
    before = plain(part.memory())
    number = loop.number
    step = tn.Step.of(
        loop.task, batch(number), parts=loop.working, number=number, steps=STEPS, seed=number
    )
    for moment in ("before", "update", "after"):
        for one in loop.working:
            getattr(one, moment)(step)

    assert plain(part.memory()) == before


def corrupt(state):
    """States that are damaged in one place each."""
    yield "nothing", None
    yield "empty", {}
    yield "no memory", {"optimisers": state["optimisers"]}
    yield "no optimisers", {"memory": state["memory"]}
    yield "memory of another kind", {**state, "memory": [1]}
    yield "one optimiser more", {**state, "optimisers": {**state["optimisers"], "other": {}}}
    yield "more memory", {**state, "memory": {"of": "another part"}}
    for name, optimiser in state["optimisers"].items():
        yield f"{name} gone", {**state, "optimisers": {**state["optimisers"], name: {}}}
        other = {**optimiser, "param_groups": []}
        yield f"{name} without groups", {**state, "optimisers": {name: other}}
        moments = {key: {"exp_avg": torch.zeros(7)} for key in optimiser["state"]}
        other = {**optimiser, "state": moments}
        yield f"{name} with other moments", {**state, "optimisers": {name: other}}
    for key, value in state["memory"].items():
        if not isinstance(value, dict) or value:
            yield f"{key} is a word", {**state, "memory": {**state["memory"], key: "word"}}
        if isinstance(value, dict):
            for inner in value:
                changed = {**value, inner: "word"}
                yield f"{key} {inner}", {**state, "memory": {**state["memory"], key: changed}}


def refusal(part, state):
    """What is said against a state; nothing where it is taken."""
    try:
        part.load_state_dict(state)
    except CheckpointError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", TABLE)
def test_a_state_that_is_none_of_its_own_is_refused(name):
    loop = Loop(TABLE[name].parts).go(STEPS // 2)
    part = loop.working[-1]
    good = copy.deepcopy(part.state_dict())
    for what, state in corrupt(copy.deepcopy(good)):
        text = refusal(part, state)
        assert "; got " in text, what
        assert len(text) < 400
        assert plain(part.state_dict()) == plain(good), what


def test_states_of_other_parts_are_refused():
    loops = {name: Loop(case.parts).go(1) for name, case in TABLE.items()}
    states = {name: loop.working[-1].state_dict() for name, loop in loops.items()}

    def form(state):
        return {key: sorted(part) for key, part in state.items()}

    for name, loop in loops.items():
        own = form(states[name])
        others = [other for other, state in states.items() if form(state) != own]
        assert others
        for other in others:
            # A scheduler may be put in, or taken out, for the rest of a run.
            if name.startswith("weights") and other.startswith("weights"):
                continue
            if name.startswith("architecture") and other.startswith("architecture"):
                continue
            text = refusal(loop.working[-1], copy.deepcopy(states[other]))
            assert text, f"{name} takes {other}"


@pytest.mark.parametrize("name", TABLE)
def test_it_prints_shortly(name):
    case = TABLE[name]

    assert len(repr(case.part)) <= 280, repr(case.part)
    assert "\n" not in repr(case.part)
    assert type(case.part).__name__ in repr(case.part)
    assert len(repr(case.part.start(Loop(()).task))) <= 120


@pytest.mark.parametrize("name", TABLE)
def test_two_runs_may_have_it(name):
    """At the same time, too: nothing of a run is in the description."""
    case = TABLE[name]
    before, printed = copy.deepcopy(attrs.asdict(case.part, recurse=False)), repr(case.part)
    alone = Loop(case.parts).go(4)
    first, second = Loop(case.parts), Loop(case.parts)
    for _ in range(4):
        first.go(1)
        second.go(1)

    assert plain(first.state()) == plain(second.state()) == plain(alone.state())
    assert first.told == second.told == alone.told
    assert repr(case.part) == printed
    assert attrs.asdict(case.part, recurse=False) == before
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(case.part, next(iter(before), "anything"), 1)


OF_A_RUN = [name for name, case in TABLE.items() if not isinstance(case.part, Score | DrawNetwork)]


@pytest.mark.parametrize("name", OF_A_RUN)
def test_it_works_on_a_model_without_supernets(name):
    model = torch.nn.Conv2d(1, 1, 3, padding=1)
    method = tn.chain(WEIGHTS, TABLE[name].part)
    run = tn.run(method, model, F.mse_loss, batch, lambda step: batch(step, 1), steps=4)
    before = model.weight.detach().clone()
    reports = list(run)

    assert len(reports) == (3 if name == "stop_when" else 4)
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("name", [n for n in OF_A_RUN if TABLE[n].beside == BOTH])
def test_it_may_be_put_into_a_run_that_goes_on_or_taken_out(name):
    def make(*more):
        net = tn.compile_supernet(GRAPH, seed=0, init_std=0.05)
        data = batch, lambda step: batch(step, 1)
        return tn.run(tn.chain(*BOTH, *more), net, F.mse_loss, *data, steps=3)

    without, beside, again = make(), make(TABLE[name].part), make()
    without.advance()
    beside.load_state_dict(through_a_file(without.state_dict()))
    beside.advance()
    again.load_state_dict(through_a_file(beside.state_dict()))
    list(again)

    assert (beside.step, again.step) == (2, 3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tn.weights(schedule=0.5), "schedule can be called; got 0.5; at Weights"),
        (lambda: tn.weights(scheduler=0.5), "scheduler can be called; got 0.5"),
        (lambda: tn.weights(passes=("wide",)), "passes are names of passes"),
        (lambda: tn.architecture(signal="gradient"), "signal can be called; got 'gradient'"),
        (lambda: tn.architecture(sampled="draws"), r"sampled is an estimator; .*differences\(\)"),
        (lambda: tn.term(1.0), "function can be called; got 1.0; at Term"),
        (lambda: tn.entropy(float("nan")), "weight is a finite number; got nan"),
        (lambda: tn.ordered(-1), "weight is at least 0; got -1"),
        (lambda: tn.watch(None), "function can be called; got None; at Watch"),
        (lambda: tn.stop_when(True), "rule can be called; got True"),
        (lambda: tn.average(1.0), r"decay lies in \[0, 1\); got 1.0"),
        (lambda: tn.prune(after=1.5), "after is a whole number; got 1.5"),
        (lambda: tn.chain("weights"), "a chain is made of parts; got weights"),
        (lambda: tn.sgd(0.1, groups=[1]), r"groups are patterns of names to settings; got \[1\]"),
    ],
)
def test_settings_that_are_none_are_refused_where_they_are_written(make, text):
    with pytest.raises(tn.search.ConfigError, match=text):
        make()


def test_what_no_task_can_be_made_of_is_refused():
    with pytest.raises(tn.search.ConfigError, match=r"a loss is a function .* got None"):
        tn.Task(torch.nn.Linear(1, 1), None)
    with pytest.raises(tn.search.ConfigError, match=r"a lazy layer .* Run it once on a batch"):
        tn.Task(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LazyLinear(3)), F.mse_loss)


@pytest.mark.parametrize("factor", [float("nan"), -1.0])
def test_a_schedule_that_gives_no_rate_moves_nothing(factor):
    model = torch.nn.Conv2d(1, 1, 3, padding=1)
    before = model.weight.detach().clone()
    run = tn.run(
        tn.weights(tn.sgd(0.1), schedule=lambda share: factor), model, F.mse_loss, batch, steps=1
    )
    with pytest.raises(tn.search.ConfigError, match=r"finite factor of at least 0; got .*step 1"):
        run.advance()

    assert torch.equal(model.weight, before)
