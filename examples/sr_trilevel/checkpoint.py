"""A run's folder over time: stopping between steps, checkpoints, and runs before this one."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch

from examples.sr_trilevel.writing import writing
from trinas import errors

try:
    import fcntl
except ImportError:  # not where there is no POSIX
    fcntl = None

CHECKPOINT = "checkpoint.pt"

_PARTS = ("identity", "search", "training")

# What torch.load raises for files that are cut short, garbled, or something else altogether.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


@attrs.define
class Stop:
    """Whether somebody asked for an end."""

    asked: bool = False


@contextmanager
def stopping_between_steps() -> Iterator[Stop]:
    """Within it Ctrl-C and SIGTERM (a job scheduler's goodbye) ask, and do not interrupt.

    A step that is cut in two cannot be resumed exactly: the weights have moved and the
    architecture has not. A second signal does not wait for the end of the step.
    """
    stop = Stop()

    def ask(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping after this step; once more: at once\n")

    with _handled(ask, signal.SIGINT, signal.SIGTERM):
        yield stop


@contextmanager
def terminating_as_interrupt() -> Iterator[None]:
    """Within it SIGTERM ends a run as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt, signal.SIGTERM):
        yield


@contextmanager
def _handled(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run; the last good one stays until the new one is whole.

    Raises:
        OSError: it cannot be written, for want of room perhaps.
    """
    with writing(folder / CHECKPOINT) as aside:
        try:
            torch.save(dict(state), aside)
        except RuntimeError as error:  # torch's own, for whatever the system says
            raise OSError(f"{folder / CHECKPOINT} cannot be written: {_line(error)}") from None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """A folder for one run at a time: while the block lasts, no other process gets it.

    Raises:
        ConfigError: another one has it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.ConfigError(
                "one run at a time works in a folder",
                got="another process that does",
                at=folder,
                fix="Wait for it, or give another --out.",
            ) from None
        except OSError:
            pass  # a file system without such locks
        yield
    finally:
        os.close(handle)


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read the checkpoint of a run: tensors and plain values, nothing is executed.

    Raises:
        CheckpointError: there is none, or the file is damaged or something else.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise errors.CheckpointError(
            "--resume needs a checkpoint",
            got="none",
            at=path,
            fix="Start without --resume, or give the --out of the run to go on with.",
        )
    fix = "Start anew without --resume, or put a copy of a sound checkpoint there."
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise errors.CheckpointError(
            "a checkpoint cannot be read", got=_line(error), at=path, fix=fix
        ) from None
    if not isinstance(state, dict) or not all(part in state for part in _PARTS):
        raise errors.CheckpointError(
            f"a checkpoint holds {', '.join(_PARTS)}", got=_contents(state), at=path, fix=fix
        )
    return state


def check_identity(saved: Any, mine: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with other settings than those a run was started with.

    Raises:
        CheckpointError: naming the first that differs, with both values.
    """
    before = saved if isinstance(saved, Mapping) else {}
    for what, value in mine.items():
        if before.get(what) != value:
            raise errors.CheckpointError(
                f"a run resumes with its own {what}",
                got=_difference(before.get(what), value),
                at=folder / CHECKPOINT,
                fix="Use the command line the run was started with, or another --out.",
            )


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Within it, state that does not fit is told as the checkpoint's fault.

    Raises:
        CheckpointError: in place of what a module or an optimiser makes of such state.
    """
    path = folder / CHECKPOINT
    try:
        yield
    except errors.CheckpointError as error:
        at = path if error.at is None else f"{error.at}, {path}"
        raise errors.CheckpointError(error.rule, got=error.got, at=at, fix=error.fix) from None
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise errors.CheckpointError(
            "a checkpoint fits the program that reads it",
            got=_line(error),
            at=path,
            fix="Resume with the version of the code that wrote it.",
        ) from None


def set_aside(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Move what an earlier run left into `previous`, so that a folder never mixes two runs.

    A finished run that lies there stays, and `previous-2` is taken, or the next.

    Returns:
        Where it went, or None if there was nothing.
    """
    left = [folder / name for name in (CHECKPOINT, *names) if (folder / name).exists()]
    if not left:
        return None
    aside, number = folder / "previous", 1
    while (aside / "results.json").exists():
        number += 1
        aside = folder / f"previous-{number}"
    aside.mkdir(exist_ok=True)
    for name in (CHECKPOINT, *names):
        (aside / name).unlink(missing_ok=True)
    for path in left:
        path.replace(aside / path.name)
    return aside


def _line(error: Exception) -> str:
    """An error in one line, whatever torch makes of it."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else '-'}"


def _contents(state: object) -> str:
    if not isinstance(state, dict):
        return type(state).__name__
    return ", ".join(map(str, list(state)[:6])) or "nothing"


def _difference(saved: object, mine: object) -> str:
    """The first line in which two texts differ."""
    for old, new in zip(str(saved).splitlines(), str(mine).splitlines()):
        if old != new:
            return f"{old.strip()} in the checkpoint, {new.strip()} now"
    return f"{saved} in the checkpoint, {mine} now"
