"""A step is done whole or not at all, wherever it is interrupted."""

import copy
import io
import random
import signal
import statistics
import threading
import time

import attrs
import pytest
import torch
from comparing import plain
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import trinas as tn
from trinas.search import DivergenceError

SHAPE = (1, 6, 6)


class Trap:
    """Raises at the n-th call from one place; counts those from all of them."""

    def __init__(self, place=None, at=0, error=None):
        self.place, self.at, self.error = place, at, error
        self.counts = {}

    def __call__(self, place):
        self.counts[place] = self.counts.get(place, 0) + 1
        if place == self.place and self.counts[place] == self.at:
            raise self.error


class Loader:
    """A shuffled loader that may be interrupted at a batch."""

    def __init__(self, trap, place):
        data = [torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(k)) for k in (1, 2)]
        self.loader = DataLoader(TensorDataset(*data), 2, shuffle=True)
        self.trap, self.place = trap, place

    def __iter__(self):
        for batch in self.loader:
            self.trap(self.place)
            yield batch


def function(trap, place):
    def batch(step):
        trap(place)
        generator = torch.Generator().manual_seed(1000 * len(place) + step)
        return tuple(torch.rand(2, *SHAPE, generator=generator) for _ in range(2))

    return batch


def loss_of(trap):
    def loss(prediction, target):
        trap("loss")
        return F.mse_loss(prediction, target)

    return loss


def trapped(kind, trap, place):
    """An optimiser that is interrupted behind its work."""

    class Trapped(kind):
        def step(self, closure=None):
            super().step(closure)
            trap(place)

    return Trapped


def hooked(model, trap):
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda *_: trap("hook"))
    return model


def space():
    c = tn.width(values=(2, 4))
    slot = tn.choice(
        conv1=tn.conv_bn_relu(1, c), conv3=tn.conv_bn_relu(3, c), none=tn.conv(1, c), name="slot"
    )
    return tn.seq(tn.repeat(tn.seq(slot, tn.dropout(0.2), tn.conv(1, 2)), (1, 2)), tn.conv(3, 1))


def supernet(relax=None):
    return tn.compile_supernet(tn.lower(space(), SHAPE), relax, seed=0, init_std=0.05)


class Around(nn.Module):
    """A module with a supernet in it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))
        self.net = supernet(tn.relax.Softmax())
        self.head = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.head(self.net(self.stem(x)))


def watched(trap, *, changes=True):
    """What looks at a step behind all others, and changes something at its end."""

    def look(step):
        trap("watch")
        if changes:
            step.commit(lambda: trap("commit"))

    return tn.watch(look)


def own_term(trap):
    def value(mixture):
        trap("term")
        return mixture.odds.square().sum()

    return tn.term(value, 0.1)


CONFIG = tn.SearchConfig(
    pretrain_steps=1,
    search_steps=5,
    cost=tn.CostControl(target=2e4, weight=0.1, every=2),
    order_penalty=0.1,
    prune_after=2,
    arch_lr=0.3,
    draws=2,
)


def search(trap, **changes):
    parts = tn.chain(own_term(trap), tn.average(0.5), watched(trap))
    return tn.Search(
        hooked(supernet(), trap),
        loss_of(trap),
        Loader(trap, "train"),
        function(trap, "valid"),
        attrs.evolve(CONFIG, **changes),
        watch=parts,
    )


def second_order(trap):
    return search(trap, order=2, search_passes=("sampled",), search_steps=3)


def half(trap):
    """In float16 losses are scaled; the first steps overflow and are left out."""
    return search(trap, autocast=torch.float16)


def scheduler(trap, steps):
    class Following(torch.optim.lr_scheduler.OneCycleLR):
        def step(self, epoch=None):
            super().step(epoch)
            if self.last_epoch > 0:  # not as it is made
                trap("scheduler")

    return lambda optimiser: Following(optimiser, max_lr=0.1, total_steps=steps)


def module(trap):
    """DARTS on a module around a supernet, with optimisers and a scheduler of its own."""
    method = tn.chain(
        tn.weights(
            tn.optimiser(trapped(torch.optim.SGD, trap, "optimiser"), lr=0.05, momentum=0.9),
            passes=("sampled",),
            scheduler=scheduler(trap, 4),
        ),
        tn.architecture(
            tn.optimiser(trapped(torch.optim.Adam, trap, "arch optimiser"), lr=0.1),
            signal=tn.signals.unrolled(),
            passes=("sampled",),
        ),
        own_term(trap),
        tn.expected_cost(target=2e4, every=2),
        tn.average(0.5),
        watched(trap),
    )
    return tn.run(
        method,
        hooked(Around(), trap),
        loss_of(trap),
        Loader(trap, "train"),
        Loader(trap, "valid"),
        steps=3,
        pretrain=1,
    )


def training(trap):
    torch.manual_seed(0)
    model = tn.build(tn.lower(tn.seq(tn.conv_bn_relu(3, 2), tn.dropout(), tn.conv(3, 1)), SHAPE))
    return tn.Training(
        hooked(model, trap),
        loss_of(trap),
        Loader(trap, "train"),
        tn.TrainConfig(steps=5),
        optimiser=tn.optimiser(trapped(torch.optim.NAdam, trap, "optimiser"), lr=0.05),
        watch=tn.chain(tn.average(0.9), watched(trap)),
    )


def random_search(trap):
    return tn.RandomSearch(
        hooked(supernet(), trap),
        loss_of(trap),
        Loader(trap, "train"),
        Loader(trap, "valid"),
        tn.RandomSearchConfig(train_steps=3, candidates=3, score_batches=2),
    )


RUNS = {
    "search": search,
    "second order": second_order,
    "float16": half,
    "module": module,
    "training": training,
    "random search": random_search,
}
VARIANTS = ("second order", "float16")  # of the search
EVERY = ("train", "loss", "hook", "watch", "commit")
PLACES = {
    "search": (*EVERY, "valid", "term"),
    "second order": (*EVERY, "valid", "term"),
    "float16": (*EVERY, "valid", "term"),
    "module": (*EVERY, "valid", "term", "optimiser", "arch optimiser", "scheduler"),
    "training": (*EVERY, "optimiser"),
    "random search": ("train", "valid", "loss", "hook"),
}


# -- what a state is ---------------------------------------------------------------------


def state_of(run):
    state = plain(run.state_dict())
    for place in state["data"]:  # where a loader was never opened, that it was is all that differs
        place.pop("began", None)
    if isinstance(run, tn.RandomSearch):  # the rate has no meaning any more where it scores
        for group in state["parts"]["Weights"]["optimisers"]["weights"]["param_groups"]:
            group.pop("lr")
    return state


def differing(left, right, path=""):
    """Where two states differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = left.keys() | right.keys()
        return [d for k in keys for d in differing(left.get(k), right.get(k), f"{path}/{k}")]
    return [] if left == right else [path]


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


FINAL = {}


def final(name):
    """The end of the uninterrupted run, and how often each place was passed by each step."""
    if name not in FINAL:
        trap = Trap()
        run = RUNS[name](trap)
        counts = [dict(trap.counts) for _ in run]
        FINAL[name] = state_of(run), counts
    return FINAL[name]


# -- every place -------------------------------------------------------------------------

ERRORS = [
    KeyboardInterrupt("stop"),
    RuntimeError("out of something"),
    DivergenceError("a loss is finite", got="nan"),
    SystemExit(1),
]


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name in RUNS for place in PLACES[name]]
)
def test_a_step_is_whole_or_not_at_all(name, place):
    expected, counts = final(name)
    number = counts[-1][place]
    middle = number // 2 + 1
    for at in [middle] if name in VARIANTS else sorted({1, middle, number}):
        error = ERRORS[at % len(ERRORS)]
        trap = Trap(place, at, error)
        run = RUNS[name](trap)
        step = next(step for step, passed in enumerate(counts) if passed.get(place, 0) >= at)
        for _ in range(step):
            run.advance()
        before = state_of(run)
        model = plain(copy.deepcopy(run.task.model.state_dict()))
        with pytest.raises(type(error)) as caught:
            run.advance()
        assert caught.value is error
        assert run.step == step
        assert plain(run.task.model.state_dict()) == model
        assert differing(before, state_of(run)) == []

        runs = [run]
        if at not in (1, number):
            runs.append(RUNS[name](Trap()))
            runs[1].load_state_dict(saved(run.state_dict()))
        for one in runs:
            list(one)
            assert differing(expected, state_of(one)) == [], (at, one is run)


@pytest.mark.parametrize("name", RUNS)
def test_all_places_are_passed(name):
    assert set(final(name)[1][-1]) == set(PLACES[name])


def test_a_step_that_drops_options_is_whole_too():
    """The run must really drop some, or this file says nothing about it."""
    run = search(Trap())
    dropped = [report.facts.get("pruned") for report in run]

    assert any(dropped)
    assert run.net.pruned


@pytest.mark.parametrize("place", ["watch", "commit"])
def test_an_error_in_a_step_that_drops_options_drops_none(place):
    expected, _ = final("search")
    clean = search(Trap())
    due = next(r.step for r in clean if "pruned" in r.facts)
    # The watcher is called in pretraining, too, so its calls are the steps.
    run = search(Trap(place, due, RuntimeError("late")))
    with pytest.raises(RuntimeError, match="late"):
        list(run)

    assert run.step == due - 1
    assert not run.net.pruned
    list(run)
    assert differing(expected, state_of(run)) == []


def test_what_two_optimisers_move_is_taken_back():
    def make(trap):
        torch.manual_seed(0)
        method = tn.chain(tn.weights(tn.sgd(0.1, momentum=0.9)), tn.weights(tn.adam(0.1)))
        watch = watched(trap, changes=False)
        data = function(trap, "train")
        return tn.run(tn.chain(method, watch), Around(), F.mse_loss, data, data, steps=3)

    whole, torn = make(Trap()), make(Trap("watch", 2, RuntimeError("now")))
    list(whole)
    with pytest.raises(RuntimeError, match="now"):
        list(torn)
    list(torn)

    assert differing(state_of(whole), state_of(torn)) == []


def test_settings_that_an_optimiser_keeps_in_its_groups_are_taken_back():
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                group["count"] = group.get("count", 0) + 1
                group["lr"] *= 0.5
            super().step(closure)

    def make(trap):
        torch.manual_seed(0)
        return tn.run(
            tn.chain(
                tn.weights(tn.optimiser(Counting, lr=0.1)),
                watched(trap, changes=False),
            ),
            nn.Conv2d(1, 1, 3, padding=1),
            F.mse_loss,
            function(trap, "train"),
            steps=4,
        )

    whole, torn = make(Trap()), make(Trap("watch", 3, RuntimeError("now")))
    list(whole)
    with pytest.raises(RuntimeError, match="now"):
        list(torn)
    list(torn)

    assert torn.parts[0].optimiser.param_groups[0]["count"] == 4
    assert differing(state_of(whole), state_of(torn)) == []


def test_what_a_pass_borrows_is_given_back():
    """Layers of a second-order pass run on other tensors, those of scores on other statistics."""
    run = second_order(Trap())
    run.advance()
    model = run.task.model
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    for at in range(1, 12):
        run._undo.begin()
        for layer in model.modules():  # as an interruption in the midst of a pass leaves them
            for own in (layer._parameters, layer._buffers):
                own.update({k: v.detach().clone() for k, v in own.items() if v is not None})
        run.take_back()
        assert all(p is parameters[n] for n, p in model.named_parameters()), at
        assert all(b is buffers[n] for n, b in model.named_buffers())


# -- interruptions at any moment -----------------------------------------------------------


class Interrupter:
    """Sends this process SIGINT after a time, to be caught while it is armed alone."""

    def __init__(self):
        self.armed = False

    def __enter__(self):
        self.before = signal.signal(signal.SIGINT, self._interrupt)
        self.alarm = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.armed = False
        signal.signal(signal.SIGALRM, self.alarm)
        signal.signal(signal.SIGINT, self.before)

    def _interrupt(self, number, frame):
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt

    def step(self, run, delay):
        """One step, interrupted if it takes longer; whether it was."""
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, delay)
            run.advance()
            self.armed = False
        except KeyboardInterrupt:
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False


def typical_step(name):
    run, times = RUNS[name](Trap()), []
    while run.step < run.total:
        start = time.perf_counter()
        run.advance()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def interrupted_often(name, wanted, seed):
    """Runs to their ends, interrupted so many times at moments drawn at random."""
    expected, _ = final(name)
    draws, typical = random.Random(seed), typical_step(name)
    times = 0
    with Interrupter() as interrupter:
        while times < wanted:
            run = RUNS[name](Trap())
            while run.step < run.total:
                times += interrupter.step(run, max(1e-5, 1.5 * typical * draws.random()))
            assert differing(expected, state_of(run)) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", RUNS)
def test_interruptions_at_any_moment_change_nothing(name):
    interrupted_often(name, 6, seed=0)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", RUNS)
def test_hundreds_of_interruptions_change_nothing(name):
    interrupted_often(name, 200, seed=1)


@pytest.mark.parametrize("kind", ["nesting", "enabled"])
def test_an_autocast_that_was_left_open_changes_nothing(kind):
    """As an interruption inside of torch's own context leaves it; the user may be in one, too."""
    expected, _ = final("float16")
    run = half(Trap())
    run.advance()
    try:
        if kind == "nesting":  # casts of the weights are then kept from step to step
            torch.autocast_increment_nesting()
        else:
            torch.set_autocast_enabled("cpu", True)
        list(run)
    finally:
        torch.set_autocast_enabled("cpu", False)
        while kind == "nesting" and torch.autocast_decrement_nesting():
            pass

    assert differing(expected, state_of(run)) == []


def test_the_users_autocast_is_theirs_again():
    run = half(Trap())
    with torch.autocast("cpu", torch.bfloat16):
        list(run)
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") is torch.bfloat16
        assert torch.autocast_increment_nesting() == 2
        torch.autocast_decrement_nesting()

    assert not torch.is_autocast_enabled("cpu")
    assert differing(final("float16")[0], state_of(run)) == []


def test_a_signal_at_the_end_of_a_step_waits_until_the_step_counts():
    def interrupt(step):
        step.commit(lambda: signal.raise_signal(signal.SIGINT))

    run = tn.run(
        tn.chain(tn.weights(tn.sgd(0.1)), tn.watch(interrupt), tn.average(0.5)),
        nn.Conv2d(1, 1, 3, padding=1),
        F.mse_loss,
        function(Trap(), "train"),
        steps=3,
    )
    # Jobs in the background begin with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for done in (1, 2, 3):
            with pytest.raises(KeyboardInterrupt):
                run.advance()
            assert run.step == done
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_another_thread_is_the_same():
    expected, _ = final("search")
    found = []

    def work():
        run = search(Trap("loss", 9, RuntimeError("once")))
        with pytest.raises(RuntimeError, match="once"):
            list(run)
        list(run)
        found.append(state_of(run))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert differing(expected, found[0]) == []
