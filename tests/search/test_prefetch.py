"""Batches ahead: the same as without, errors where they belong, no thread left behind."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from contextlib import contextmanager, nullcontext, suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import trinas as tn
from trinas._core.errors import ConfigError
from trinas.search.prefetch import _Loader

LONG = 60  # seconds after which a test has failed; none takes them

Labelled = namedtuple("Labelled", ["x", "y"])


def numbers(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(step))
    return x, x * step


def same(a: tuple, b: tuple) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b))


@pytest.fixture
def workers() -> Callable[[], list[threading.Thread]]:
    """Threads of this test; what an earlier one left to the garbage collector is not counted."""
    before = threading.enumerate()
    return lambda: [
        thread
        for thread in threading.enumerate()
        if "trinas-prefetch" in thread.name and thread not in before
    ]


class Recorder:
    """Batches that note for which steps, and where, they were computed."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def __call__(self, step: int) -> tuple[torch.Tensor, int]:
        with self._changed:
            self.steps.append(step)
            self.threads.add(threading.current_thread().name)
            self._changed.notify_all()
        return torch.full((1,), float(step)), step

    def wait_for(self, step: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: step in self.steps, LONG)


class Gate(Recorder):
    """A recorder that works only as far as it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)

    def __call__(self, step: int) -> tuple[torch.Tensor, int]:
        batch = super().__call__(step)
        assert self.permits.acquire(timeout=LONG)
        return batch


# --- the same batches -----------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), max_size=25), st.integers(1, 5))
def test_any_sequence_of_steps_gives_the_same_batches(steps, ahead):
    """Forwards, backwards, twice the same, jumps."""
    with tn.prefetch(numbers, ahead=ahead) as batches:
        for step in steps:
            assert same(batches(step), numbers(step))


@pytest.mark.parametrize("start", [0, 7])
def test_every_step_in_a_row_is_computed_once(start):
    """Also after a jump, as when a run is resumed."""
    recorder = Recorder()
    with tn.prefetch(recorder, ahead=3) as batches:
        batches(100)
        recorder.wait_for(103)
        recorder.steps.clear()
        assert [batches(step)[1] for step in range(start, start + 20)] == [
            *range(start, start + 20)
        ]

    ran = recorder.steps
    assert ran == [*range(start, start + len(ran))]
    assert 20 <= len(ran) <= 23


def test_a_search_and_a_training_are_the_same_with_and_without():
    graph = tn.lower(tn.choice(a=tn.conv(3, 1), b=tn.conv(1, 1), name="slot"), (1, 4, 4))

    def weights(wrap) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = tn.compile_supernet(graph)
        config = tn.SearchConfig(pretrain_steps=2, search_steps=4, weight_lr=0.01)
        list(tn.Search(net, F.l1_loss, wrap(numbers), wrap(lambda s: numbers(s + 50)), config))
        model = tn.build(graph, tn.derive(net), inherit=net)
        list(tn.Training(model, F.l1_loss, wrap(numbers), tn.TrainConfig(steps=4, lr=0.01)))
        return [*net.state_dict().values(), *model.state_dict().values()]

    plain, ahead = weights(lambda batches: batches), weights(tn.prefetch)
    tensors = [value for value in plain if isinstance(value, torch.Tensor)]

    assert len(tensors) > 3
    assert same(tensors, [value for value in ahead if isinstance(value, torch.Tensor)])


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    with tn.prefetch(numbers) as batches:
        batches(3)

    assert torch.equal(torch.random.get_rng_state(), before)


# --- ahead, and no further ------------------------------------------------------------------------


def test_all_is_computed_in_one_thread_of_its_own(workers):
    recorder = Recorder()
    with tn.prefetch(recorder) as batches:
        assert workers() == []  # before the first batch there is nothing to do
        for step in (0, 1, 9, 2):
            batches(step)
        assert len(workers()) == 1

    assert len(recorder.threads) == 1
    assert threading.current_thread().name not in recorder.threads


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_it_works_while_nobody_asks_and_stops_in_time(ahead):
    recorder = Recorder()
    with tn.prefetch(recorder, ahead=ahead) as batches:
        batches(0)
        recorder.wait_for(ahead)
        batches(1)
        recorder.wait_for(ahead + 1)

    assert recorder.steps == [*range(ahead + 2)]


def test_what_was_queued_in_vain_is_not_computed():
    """A jump, while step 1 is in the making: 2 and 3 are never begun."""
    gate = Gate()
    with tn.prefetch(gate, ahead=3) as batches:
        gate.permits.release()
        batches(0)
        gate.wait_for(1)
        for _ in range(9):
            gate.permits.release()
        batches(50)
        gate.wait_for(53)

    assert gate.steps == [0, 1, 50, 51, 52, 53]


def test_a_step_asked_for_again_comes_before_what_is_queued_and_loses_nothing():
    gate = Gate()
    with tn.prefetch(gate, ahead=3) as batches:
        gate.permits.release()
        batches(0)
        gate.wait_for(1)
        for _ in range(9):
            gate.permits.release()
        batches(0)
        gate.wait_for(3)

    assert gate.steps == [0, 1, 0, 2, 3]


def test_memory_holds_no_more_batches_than_promised():
    """Counted by objects that batches carry; the one in the making may be the last."""
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Load:
        pass

    def batches(step):
        nonlocal most
        load = Load()
        alive.add(load)
        most = max(most, len(alive))
        return torch.zeros(1), load

    with tn.prefetch(batches, ahead=2) as ahead:
        for step in [*range(20), *range(50, 60), *range(5)]:
            ahead(step)
    gc.collect()

    assert 2 <= most <= 4  # two ahead, the one in use, and one of before a jump
    assert len(alive) == 0


# --- errors ---------------------------------------------------------------------------------------


class BrokenError(Exception):
    pass


def broken_at(*bad: int):
    def batches(step):
        if step in bad:
            raise BrokenError(step)
        return numbers(step)

    return batches


def test_an_error_comes_up_at_its_step_and_at_no_other():
    with tn.prefetch(broken_at(2, 5)) as batches:
        for step in (0, 1):
            assert same(batches(step), numbers(step))
        for _ in range(2):
            with pytest.raises(BrokenError, match="2") as caught:
                batches(2)
            assert type(caught.value) is BrokenError
            assert caught.traceback[-1].name == "batches"
        assert same(batches(3), numbers(3))
        assert same(batches(4), numbers(4))


def test_steps_beyond_the_last_may_fail_unheard():
    data = [numbers(step) for step in range(4)]
    with tn.prefetch(data.__getitem__, ahead=3) as batches:
        assert all(same(batches(step), data[step]) for step in range(4))
        with pytest.raises(IndexError):
            batches(4)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, StopIteration, MemoryError])
def test_errors_of_all_kinds_pass_unchanged(error):
    raised = error("as it was")

    def batches(step):
        raise raised

    with tn.prefetch(batches) as ahead, pytest.raises(error) as caught:
        ahead(0)
    assert caught.value is raised


def test_an_error_does_not_keep_batches_alive():
    """No ring of error, frame and task, that only the garbage collector would find."""
    gc.collect()
    gc.disable()
    try:
        batches = tn.prefetch(broken_at(0))
        gone = weakref.ref(batches)
        with suppress(BrokenError):
            batches(0)
        del batches
        assert gone() is None
    finally:
        gc.enable()


# --- the thread -----------------------------------------------------------------------------------


def test_closing_ends_the_thread_and_waits_for_it(workers):
    recorder = Recorder()
    batches = tn.prefetch(recorder)
    batches(0)
    (thread,) = workers()
    batches.close()

    assert not thread.is_alive()
    batches.close()  # twice does no harm


def test_closed_batches_are_computed_when_they_are_asked_for(workers):
    recorder = Recorder()
    with tn.prefetch(recorder) as batches:
        batches(0)
    del recorder.steps[:]

    assert [batches(step)[1] for step in (4, 5, 0)] == [4, 5, 0]
    assert recorder.steps == [4, 5, 0]
    assert recorder.threads == {*recorder.threads, threading.current_thread().name}
    assert workers() == []


def test_no_thread_outlives_the_object(workers):
    """Neither one that waits nor one in the middle of a batch."""
    for gate in (None, Gate()):
        batches = tn.prefetch(gate or numbers)
        if gate is not None:
            gate.permits.release()
        batches(0)
        (thread,) = workers()
        if gate is not None:
            gate.wait_for(1)
        gone = weakref.ref(batches)
        del batches
        assert gone() is None
        if gate is not None:
            gate.permits.release()
        thread.join(LONG)
        assert not thread.is_alive()
        if gate is not None:
            assert gate.steps == [0, 1]  # what was queued behind it is dropped


def test_it_closes_after_an_error_in_the_block(workers):
    def fail() -> None:
        with tn.prefetch(numbers) as batches:
            batches(0)
            raise BrokenError

    with pytest.raises(BrokenError):
        fail()
    assert workers() == []


def test_a_program_ends_although_nobody_closed():
    code = (
        "import torch, trinas as tn\n"
        "batches = tn.prefetch(lambda step: (torch.rand(3), step))\n"
        "print(batches(4)[1])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


def test_it_cannot_be_pickled():
    with tn.prefetch(numbers) as batches, pytest.raises(TypeError, match="pickle"):
        pickle.dumps(batches)


# --- devices --------------------------------------------------------------------------------------


def nested(step: int):
    counts: defaultdict = defaultdict(list, a=torch.ones(2) * step)
    return (
        torch.zeros(2),
        {
            "pair": Labelled(torch.ones(1), [torch.ones(3), "text"]),
            "ordered": OrderedDict(z=(torch.ones(1), None), a=3),
            "counts": counts,
        },
    )


def shape_of(value):
    """Types and everything but tensors."""
    if isinstance(value, torch.Tensor):
        return torch.Tensor
    if isinstance(value, dict):
        return type(value), {key: shape_of(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value), [shape_of(part) for part in value]
    return value


def devices_in(value) -> set[str]:
    if isinstance(value, torch.Tensor):
        return {value.device.type}
    if isinstance(value, dict):
        value = tuple(value.values())
    return set().union(*map(devices_in, value)) if isinstance(value, tuple | list) else set()


@pytest.mark.parametrize("device", ["meta", torch.device("cpu"), None])
def test_nested_batches_are_moved_as_they_are_nested(device):
    with tn.prefetch(nested, device=device) as batches:
        batch = batches(3)

    assert shape_of(batch) == shape_of(nested(3))
    assert devices_in(batch) == {torch.device(device or "cpu").type}


def test_batches_already_there_are_passed_on_untouched():
    kept = {step: nested(step) for step in range(3)}
    with tn.prefetch(kept.__getitem__) as batches:
        assert batches(0) is kept[0]
    with tn.prefetch(kept.__getitem__, device="cpu") as batches:
        assert batches(0)[0] is kept[0][0]


@pytest.mark.parametrize("device", ["toaster", "cuda:99", 3.5])
def test_devices_that_cannot_be_used(device):
    with pytest.raises(ConfigError, match="a device is one that torch can use here; got"):
        tn.prefetch(numbers, device=device)


class FakeStream:
    """Writes down what a CUDA stream is told, in order."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: FakeStream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> str:
        self.log.append(f"event on {self.name}")
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


def test_the_order_of_work_on_cuda_streams(monkeypatch):
    """With streams that only write down: the copy is awaited, and its memory kept, by who asks."""
    log: list[str] = []
    step, copies = FakeStream("step", log), FakeStream("copies", log)
    current = [step]

    class Card(torch.Tensor):
        is_cuda, device = True, torch.device("cuda", 0)

        def record_stream(self, stream):
            log.append(f"memory kept for {stream.name}")

    class Host(torch.Tensor):
        def pin_memory(self):
            log.append("pinned")
            return self

        def to(self, device, non_blocking):
            log.append(f"copied to {device} on {current[-1].name}, non-blocking {non_blocking}")
            return self.as_subclass(Card)

    class Made(Card):
        def to(self, device, non_blocking):
            return self

    @contextmanager
    def on(stream):
        current.append(stream)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current[-1])
    load = _Loader(lambda step: (torch.ones(2).as_subclass(Host), step), Card.device, copies)

    loaded = load(7)
    assert log == [
        "pinned",
        "copied to cuda:0 on copies, non-blocking True",
        "event on copies",
    ]
    del log[:]
    assert loaded.handed_over()[1] == 7
    assert log == ["step waits for event of copies", "memory kept for step"]
    log.clear()
    _Loader(lambda step: (torch.ones(2).as_subclass(Made), step), Card.device, copies)(7)
    assert log[0] == "copies waits for step", "what the batches made there is done first"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("stream", [False, True])
def test_on_cuda(stream):
    """Large copies, used and dropped at once, on the default stream and on another one."""

    def large(step):
        return torch.full((1 << 22,), float(step)), {"y": torch.full((1 << 20,), -float(step))}

    own = torch.cuda.Stream() if stream else torch.cuda.current_stream()
    with tn.prefetch(large, device="cuda", ahead=3) as batches, torch.cuda.stream(own):
        sums = []
        for step in [*range(40), *range(5)]:
            x, target = batches(step)
            assert x.is_cuda
            assert target["y"].is_cuda
            sums.append((x.mean() + target["y"].mean(), (x - step).abs().max()))
            del x, target

    assert all(float(total) == 0 and float(worst) == 0 for total, worst in sums)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_batches_computed_on_cuda():
    def on_device(step):
        x = torch.full((1 << 22,), 1.0, device="cuda")
        for _ in range(50):
            x = x * 1.0
        return x * step, x

    for device in (None, "cuda"):
        with tn.prefetch(on_device, device=device) as batches:
            with torch.cuda.stream(torch.cuda.Stream()):
                worst = [(batches(step)[0] - step).abs().max() for step in range(10)]
            assert all(float(value) == 0 for value in worst)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, -1, 1.5, True, None, "2"])
def test_ahead_is_a_positive_whole_number(ahead):
    with pytest.raises(ConfigError, match="ahead is a whole number of at least 1; got") as caught:
        tn.prefetch(numbers, ahead=ahead)
    assert "pass the batches as they are" in str(caught.value)


def test_batches_are_a_function():
    with pytest.raises(
        ConfigError, match=r"a function of the step number; got a list; at prefetch\. Wrap a list"
    ):
        tn.prefetch([numbers(0)])  # type: ignore[arg-type]
