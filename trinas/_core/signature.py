"""Signatures that are worked out once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def signed(function: _F) -> _F:
    """The same function, knowing its signature.

    Every call of a `torch.autograd.Function` asks for that of its ``forward``, which takes longer
    to find out than a small ``forward`` to run.

    >>> signed(lambda x, y=1: x).__signature__
    <Signature (x, y=1)>
    """
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # as PEP 362 says
    return function
