"""What data are, and what a batch is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch

from trinas._core.errors import DataError
from trinas.search.nested import each_tensor, tensors_in

Batch: TypeAlias = tuple[Any, Any]
"""An input and a target: tensors, or tuples, lists and dictionaries of them."""

Batches: TypeAlias = Callable[[int], Batch]
"""Input and target of a step: a pure function of its number, so that a run can resume.

A target of floating point numbers has the shape of the prediction; other targets are left to
the loss.
"""

Data: TypeAlias = Batches | Iterable[Batch]
"""What a run takes its batches from: a function of the step, or anything that can be gone
through again and again, such as a ``torch.utils.data.DataLoader``."""


def pair_of(batch: Any, place: str) -> Batch:
    """A batch, checked.

    Args:
        batch: what the data gave.
        place: which one it is, for messages.

    Raises:
        DataError: it is no pair of an input and a target.
    """
    known = isinstance(batch, tuple | list) and len(batch) == 2
    if not known or next(tensors_in(batch[0]), None) is None:
        raise DataError(
            "a batch is a pair of an input tensor and a target",
            got=described(batch),
            at=place,
            fix=f"{place.partition('(')[0].partition(',')[0]} gives both. An input may be a "
            "tuple or a dictionary of tensors.",
        )
    return batch[0], batch[1]


def brought_to(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return each_tensor(batch, lambda tensor: tensor.to(device, non_blocking=True))


def usable(batch: Batch) -> Batch:
    """The batch, of which backward may keep tensors; those of inference mode are copied."""
    if not any(tensor.is_inference() for tensor in tensors_in(batch)):
        return batch
    return each_tensor(batch, torch.clone)


def require_device(batch: Batch, device: torch.device, place: str) -> None:
    """Check that a batch lies where the network does.

    Raises:
        DataError: it does not.
    """
    for tensor in tensors_in(batch):
        if tensor.device.type != device.type:
            raise DataError(
                "batches lie on the device of the network",
                got=f"a tensor on {tensor.device}, the network on {device}",
                at=place,
                fix="Move both, the network before its Search or Training is made.",
            )


def described(value: object) -> str:
    """What kind of thing it is, for a message."""
    if isinstance(value, tuple | list):
        inside = ", ".join(type(part).__name__ for part in value)
        return f"a {type(value).__name__} of {inside or 'nothing'}"
    return f"a {type(value).__name__}"
