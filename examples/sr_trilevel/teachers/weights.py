"""Files of published weights: tensors by name, whatever the training tool put around them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from trinas import errors

_WRAPPERS = ("params_ema", "params", "state_dict", "model")


# What torch.load raises for text, web pages, and files that are cut short.
_NO_WEIGHTS = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The file's tensors by name, out of the wrapping that training tools put around them.

    Only tensors are read (`torch.load(..., weights_only=True)`), onto the CPU; nothing in the file
    is executed.

    Raises:
        CheckpointError: the file is missing or unreadable, or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise errors.CheckpointError(
            "the file of weights cannot be read", got=str(error), at=path
        ) from None
    except _NO_WEIGHTS as error:
        raise errors.CheckpointError(
            "a file of weights is one that torch.save wrote, of tensors alone",
            got=f"something else ({type(error).__name__})",
            at=path,
            fix="A web page saved in its place is none, nor is a download that was cut short.",
        ) from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise errors.CheckpointError(
            "a file of weights maps names to tensors", got=type(content).__name__, at=path
        )
    return {re.sub(r"^module\.", "", str(name)): tensor for name, tensor in content.items()}


def unknown_network(
    state: Mapping[str, Tensor], known: Iterable[str], *, at: str | Path
) -> errors.CheckpointError:
    """The error for weights of a network that nothing here recognises."""
    *others, last = known
    shown = ", ".join(list(state)[:6]) + (", ..." if len(state) > 6 else "")
    return errors.CheckpointError(
        "the weights belong to no network known here",
        got=f"{len(state)} tensors named {shown}",
        at=at,
        fix=f"Known are {', '.join(others)} and {last}.",
    )


def misfit(name: str, error: Exception, *, at: str | Path) -> errors.CheckpointError:
    """The error for weights that have a network's names but not its shapes."""
    return errors.CheckpointError(
        f"the weights look like {name} but do not fit it", got=str(error), at=at
    )
