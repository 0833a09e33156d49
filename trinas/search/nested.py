"""Tensors in nested tuples, lists and dictionaries: what data, predictions and targets are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dictionaries.

    >>> import torch
    >>> [x.item() for x in tensors_in({"a": torch.tensor(1), "b": (torch.tensor(2), "c")})]
    [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part)


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting, of the same types, with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        made = copy.copy(value)  # a subclass may need more than its items
        made.update({key: each_tensor(part, change) for key, part in value.items()})
        return made
    if isinstance(value, tuple | list):
        parts = [each_tensor(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
