"""Which line of the user's code we are working for."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from types import FrameType


def declared_at() -> str:
    """``file:line`` of the nearest caller outside trinas, for messages.

    Code that attrs generates for the classes of trinas counts as trinas.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame):
        frame = frame.f_back
    return _place(frame.f_code.co_filename, frame.f_lineno)


@lru_cache(maxsize=1024)  # a space written in a loop asks for one line over and over
def _place(file: str, line: int) -> str:
    return f"{os.path.basename(file)}:{line}"


def _is_ours(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "")
    return module.startswith("trinas.") or frame.f_code.co_filename.startswith("<attrs generated")
