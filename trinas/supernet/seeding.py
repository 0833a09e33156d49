"""Initial values that one seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trinas._core.errors import ConfigError


@contextmanager
def seeded(seed: int | None, device: torch.device | None = None) -> Iterator[None]:
    """Inside, torch's global generators start from `seed`; afterwards they stand as before.

    Args:
        seed: a whole number from 0 to 2**63 - 1; with None nothing is done.
        device: an accelerator whose generator is meant besides that of the CPU.

    Raises:
        ConfigError: no such number.

    >>> with seeded(0):
    ...     x = torch.rand(1)
    >>> with seeded(0):
    ...     y = torch.rand(1)
    >>> x == y
    tensor([True])
    """
    if seed is None:
        yield
        return
    require_seed(seed)
    devices = [device.index or 0] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def require_seed(seed: object, *, at: str | None = None) -> None:
    """Check that torch takes a seed.

    Raises:
        ConfigError: it is no whole number from 0 to 2**63 - 1.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ConfigError(
            "a seed is a whole number from 0 to 2**63 - 1",
            got=seed,
            at=at,
            fix="Convert other kinds of integers with int(...).",
        )
