"""Which line of the user's code we are working for."""

from __future__ import annotations

import os
import sys
from types import FrameType


def declared_at() -> str:
    """``file:line`` of the nearest caller outside trinas, for messages.

    Code that attrs generates for the classes of trinas counts as trinas.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def _is_ours(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "")
    return module.startswith("trinas.") or frame.f_code.co_filename.startswith("<attrs generated")
