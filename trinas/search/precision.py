"""The precision of what a run computes, whatever is in force around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def precision(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast to a dtype, or none, whatever is in force outside and was left there.

    Torch keeps weights that it has cast until the outermost autocast ends. They would be of an
    earlier step inside an autocast of the user's, and behind an interruption that left one open.
    """
    depth = torch.autocast_increment_nesting()
    try:
        torch.clear_autocast_cache()
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            yield
    finally:
        torch.clear_autocast_cache()
        while torch.autocast_decrement_nesting() >= depth:
            pass
