"""What a run prints and writes, and how it is stopped, piece by piece."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import threading

import pytest
import torch

import trinas as tn
from examples.sr_trilevel import checkpoint, outputs
from examples.sr_trilevel.checkpoint import (
    alone_in,
    load_checkpoint,
    restoring,
    save_checkpoint,
    set_aside,
    stopping_between_steps,
    terminating_as_interrupt,
)
from examples.sr_trilevel.outputs import Progress, Row, write_table
from examples.sr_trilevel.writing import writing

PROTOCOL = "x4, as everybody does"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes by a second a look."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now


def reports(phase="train", total=24, first=1):
    for step in range(first, total + 1):
        yield tn.StepReport(
            phase=phase, step=step, total=total, progress=step / total, lr=1.0, loss=torch.ones(())
        )


def progress(psnrs=None):
    return Progress(lambda: next(psnrs) if psnrs else 20.0, lambda share: share / 2)


def tick(monkeypatch, seconds):
    monkeypatch.setattr(outputs, "time", Clock(seconds))


# --- progress -------------------------------------------------------------------------------------


def test_in_a_log_a_line_for_every_twelfth(monkeypatch, capsys):
    tick(monkeypatch, 0.001)
    passed = list(progress(iter(range(30))).follow(reports()))
    lines = capsys.readouterr().out.splitlines()

    assert len(passed) == 24
    assert len(lines) == 12
    assert lines[0] == "   train  2/24  left 00:00  PSNR  0.00 dB  loss 1.0000"
    assert lines[-1].startswith("   train 24/24  left 00:00  PSNR 11.00 dB")


def test_in_a_log_no_silence_is_longer_than_minutes(monkeypatch, capsys):
    tick(monkeypatch, 200.0)
    list(progress().follow(reports(total=1200)))

    assert len(capsys.readouterr().out.splitlines()) > 300


def test_the_time_left_is_that_of_the_steps_left(monkeypatch, capsys):
    tick(monkeypatch, 10.0)
    list(progress().follow(reports(total=1000, first=998)))
    assert capsys.readouterr().out.splitlines() == [
        "   train 1000/1000  left 00:00  PSNR 20.00 dB  loss 1.0000"
    ]
    list(progress().follow(reports(total=8)))
    lines = capsys.readouterr().out.splitlines()
    assert "1/8  left --:--" in lines[0], "one step tells nothing of the others"
    assert "left 02:00" in lines[3], "three looks a step"
    assert "left 00:00" in lines[-1]


def test_timing_counts_steps_and_not_what_happens_between(monkeypatch, capsys):
    tick(monkeypatch, 10.0)
    watching = progress()

    def both():
        yield from reports("pretrain", total=3)
        yield from reports("search", total=5)

    for _ in watching.follow(both()):
        outputs.time.monotonic()  # what saving takes, for instance
    for _ in watching.follow(reports("search", total=2)):
        pass

    assert watching.timing == {  # every step is shown, and looks at the clock twice
        "pretrain": {"steps": 3, "seconds": 60.0},
        "search": {"steps": 7, "seconds": 140.0},
    }


@pytest.mark.parametrize("saving", [True, False])
def test_timing_has_what_an_accelerator_had_queued(saving, monkeypatch, capsys):
    """Steps return at once there; reading a loss waits for all of them."""
    tick(monkeypatch, 0.0)
    monkeypatch.setattr(outputs, "SECONDS_BETWEEN_SAVES", 0.0 if saving else 1e9)
    queued = 0.0

    def wait():
        nonlocal queued
        outputs.time.now, queued = outputs.time.now + queued, 0.0

    class Queued:
        phase, total, progress = "train", 40, 0.5

        def __init__(self, step):
            nonlocal queued
            self.step, queued = step, queued + 3.0

        @property
        def loss(self):
            wait()
            return 1.0

    watching = Progress(lambda: wait() or 20.0, float)
    for _ in watching.follow(Queued(step) for step in range(1, 41)):
        if watching.time_to_save():
            wait()

    assert watching.timing == {"train": {"steps": 40, "seconds": 120.0}}


def test_on_a_terminal_one_line_is_rewritten_and_the_last_of_a_phase_stays(monkeypatch):
    tick(monkeypatch, 0.3)
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr(outputs.shutil, "get_terminal_size", lambda: os.terminal_size((55, 20)))

    def both():
        yield from reports("pretrain", total=12)
        yield from reports("search", total=12)

    list(progress().follow(both()))
    shown = screen.getvalue()

    assert shown.count("\n") == 2
    assert shown.endswith("\n")
    for line in shown.split("\n")[0].split("\r")[1:]:
        assert len(line) == 54
    assert "pretrain 12/12" in shown.split("\n")[0].split("\r")[-1]
    assert "radius 0.50" in shown.split("\n")[1].split("\r")[-1]


def test_on_a_terminal_the_line_moves_between_measurements(monkeypatch):
    """PSNR is measured as seldom as in a log."""
    tick(monkeypatch, 0.3)
    screen, measured = Screen(), []
    monkeypatch.setattr("sys.stdout", screen)
    follow = Progress(lambda: measured.append(1) or 20.0, float).follow
    list(follow(reports(total=240)))

    assert len(measured) == 12
    assert screen.getvalue().count("\r") > 60


def test_sparsity_and_cost_are_shown_where_there_are_some(monkeypatch, capsys):
    tick(monkeypatch, 0.001)
    spread = {"operation": tn.search.Spread(entropy=0.5, alive=0.25, decided=0.5)}
    report = tn.StepReport(
        phase="search", step=1, total=1, progress=0.5, lr=1.0, spread=spread, cost=torch.ones(())
    )
    list(progress().follow([report]))

    assert "radius 0.25  alive  25%  cost 1.00  loss nan" in capsys.readouterr().out


# --- tables ---------------------------------------------------------------------------------------


def test_the_table(tmp_path):
    rows = [
        Row("bicubic", 28.421, 0.8104, 0, None, PROTOCOL),
        Row("trained", 29.0, 0.85, 123_456, 1_234_567_890, PROTOCOL),
    ]
    facts = {
        "recipe": "demo",
        "seed": 3,
        "search_steps": 1000,
        "finetune_steps": 0,
        "train_steps": 20,
        "teacher": None,
        "held_out": list("abcdefg"),
        "path": "a-a",
        "one_hot": {"alpha": True, "beta": False},
        "supernet_minus_derived": 1.5e-7,
    }
    write_table(tmp_path, rows, facts)
    text = (tmp_path / "results.md").read_text()

    assert "| bicubic | 28.42 | +0.00 | 0.8104 | 0 | - |" in text
    assert "| trained | 29.00 | +0.58 | 0.8500 | 123,456 | 1.235 G |" in text
    assert "Recipe demo, seed 3: 1,000 steps of search and 20 of training; target: the HR" in text
    assert "Held out: a, b, c, d, e and 2 more. Protocol: x4, as everybody does." in text
    assert "alpha one-hot: yes, beta one-hot: no;" in text
    assert "at most 1.5e-07" in text
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["rows"][1]["macs"] == 1_234_567_890
    assert written["held_out"] == list("abcdefg")


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_the_second_does_not(number, capfd):
    before = signal.getsignal(number)
    with stopping_between_steps() as stop:
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked
        assert "stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)

    assert signal.getsignal(number) is before


def test_sigterm_is_an_interrupt():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminating_as_interrupt():
        signal.raise_signal(signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_signals_are_left_alone():
    seen = []

    def work():
        with stopping_between_steps() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [(False, signal.getsignal(signal.SIGINT))]


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    state = {"identity": {"seed": 0}, "search": {"w": torch.arange(3)}, "training": None}
    save_checkpoint(tmp_path, state)
    loaded = load_checkpoint(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert loaded["identity"] == {"seed": 0}
    assert torch.equal(loaded["search"]["w"], torch.arange(3))


def test_a_failure_while_saving_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"identity": 1, "search": 1, "training": 1})

    def half(state, path):
        path.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, {"identity": 2, "search": 2, "training": 2})

    assert load_checkpoint(tmp_path)["identity"] == 1


def test_a_checkpoint_executes_nothing(tmp_path):
    """A file that would run code when unpickled is refused."""
    torch.save({"identity": math.sqrt, "search": print, "training": os.system},
               tmp_path / "checkpoint.pt")  # fmt: skip

    with pytest.raises(tn.errors.CheckpointError, match="cannot be read; got UnpicklingError"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("rng"), "got KeyError: 'rng'; at {path}. Resume with"),
        (RuntimeError("a\nb"), "got RuntimeError: a; at {path}. Resume with"),
        (
            tn.errors.CheckpointError("rule", got=3, at="here", fix="Fix it."),
            "rule; got 3; at here, {path}. Fix it.",
        ),
        (tn.errors.CheckpointError("rule", got=3), "rule; got 3; at {path}"),
    ],
)
def test_state_that_does_not_fit_is_told_with_the_file(tmp_path, error, told):
    with pytest.raises(tn.errors.CheckpointError) as caught, restoring(tmp_path):
        raise error

    assert told.format(path=tmp_path / "checkpoint.pt") in str(caught.value)


def test_only_a_runs_own_files_are_set_aside(tmp_path):
    assert set_aside(tmp_path, ("a.txt",)) is None
    for name in ("checkpoint.pt", "a.txt", "mine.txt"):
        (tmp_path / name).write_text(name)

    assert set_aside(tmp_path, ("a.txt", "b.txt")) == tmp_path / "previous"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "previous"]
    (tmp_path / "b.txt").write_text("later")
    set_aside(tmp_path, ("a.txt", "b.txt"))
    assert [path.name for path in (tmp_path / "previous").iterdir()] == ["b.txt"]


def test_a_folder_is_for_one_run_at_a_time(tmp_path):
    with alone_in(tmp_path):
        with pytest.raises(tn.errors.ConfigError, match="one run at a time"), alone_in(tmp_path):
            pass
        (tmp_path / "other").mkdir()
        with alone_in(tmp_path / "other"):
            pass
    with alone_in(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_checkpoint_for_which_there_is_no_room(tmp_path, monkeypatch):
    """torch raises an error of its own then."""
    (tmp_path / "checkpoint.pt").write_text("the last good one")

    def full(state, path):
        path.write_text("half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"checkpoint\.pt cannot be written: RuntimeError: .enforce"):
        save_checkpoint(tmp_path, {})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the last good one"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    no_file = pytest.raises(OSError, match="is no file that can be replaced")
    with no_file, writing(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder").is_dir()


def test_a_finished_run_that_was_set_aside_stays_there(tmp_path):
    names = ("config.json", "results.json")
    for number, left in enumerate((names, names[:1], names[:1], names, names[:1])):
        for name in left:
            (tmp_path / name).write_text(f"{number}")
        set_aside(tmp_path, names)

    files = tmp_path.rglob("*.json")
    found = {file.relative_to(tmp_path).as_posix(): file.read_text() for file in files}
    assert found == {
        "previous/config.json": "0",
        "previous/results.json": "0",
        "previous-2/config.json": "3",
        "previous-2/results.json": "3",
        "previous-3/config.json": "4",
    }
