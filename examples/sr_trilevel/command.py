"""What the command-line tools share: how they end, and where they compute."""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import torch

import trinas
from examples.sr_trilevel.checkpoint import terminating_as_interrupt
from trinas import errors

FAILED = 2
INTERRUPTED = 130


def parser_of(tool: str, about: str | None) -> argparse.ArgumentParser:
    """A parser without arguments yet, for a module of this package.

    Args:
        tool: name of the module.
        about: its docstring, whose first paragraph says what it does; the rest follows the options.
    """
    first, _, rest = (about or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=f"python -m examples.sr_trilevel.{tool}",
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def ending(
    work: Callable[[], object], interrupted: Callable[[], str] = lambda: "interrupted"
) -> int:
    """Do the work of a tool; its exit status.

    Args:
        work: what the tool does.
        interrupted: what to say after Ctrl-C or SIGTERM.

    Returns:
        0, or 2 after an error, or 130 when interrupted; the error stands on stderr.

    >>> ending(lambda: None)
    0
    """
    try:
        with terminating_as_interrupt():
            work()
    except (errors.TrinasError, OSError) as error:
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        print(f"error: {error}{notes}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"\n{interrupted()}", file=sys.stderr)
        return INTERRUPTED
    return 0


def environment(device: torch.device) -> dict[str, str]:
    """When and where something is computed, as results want to tell.

    >>> sorted(environment(torch.device("cpu")))
    ['date', 'hardware', 'torch', 'trinas']
    """
    here = f"{os.cpu_count()} CPU cores, {platform.machine()}"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else here,
        "torch": torch.__version__.split("+")[0],
        "trinas": trinas.__version__,
    }


def minutes(text: str) -> float:
    """What ``--minutes`` takes: a number from 0 on.

    >>> minutes("2.5")
    2.5
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"minutes are a number from 0 on; got {text}")
    return value


def device_named(name: str | None) -> torch.device:
    """The device of this name; the best there is where None.

    Raises:
        DataError: it cannot be used.

    >>> device_named("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise errors.DataError(
            "a device is one that torch can use here",
            got=name,
            at=str(error).splitlines()[0],
            fix="Leave --device out for the best there is.",
        ) from None
    return device
