"""What a search or a training checks of the checkpoint that it goes on from."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trinas._core.errors import CheckpointError


def require_keys(state: Any, keys: Collection[str], what: str, *, of: str) -> None:
    """Check that a checkpoint has the entries it needs.

    Args:
        state: the checkpoint.
        keys: what it holds.
        what: it is one of, for the message.
        of: the class that gives such a state.

    Raises:
        CheckpointError: it is no dictionary, or lacks some.
    """
    present = set(state) if isinstance(state, dict) else set[str]()
    missing = [key for key in keys if key not in present]
    if missing:
        raise CheckpointError(
            f"a checkpoint of a {what} holds all of its state",
            got=f"one without {', '.join(missing)}",
            fix=f"Load what {of}.state_dict gave.",
        )


def require_dict(value: Any, name: str) -> dict[str, Any]:
    """An entry that is a dictionary.

    Raises:
        CheckpointError: it is none.
    """
    if not isinstance(value, dict):
        raise CheckpointError(
            f"the {name} of a checkpoint is a dictionary", got=type(value).__name__
        )
    return value


def require_plan(saved: Any, own: Mapping[str, Any], what: str, *, free: str) -> None:
    """Check that a checkpoint was saved under the settings that decide what is still to come.

    Args:
        saved: those in the checkpoint.
        own: those of the config, plain values.
        what: a search or a training, for the message.
        free: the settings that may change, for the message.

    Raises:
        CheckpointError: naming the first that differs.
    """
    for name, value in own.items():
        before = saved.get(name) if isinstance(saved, dict) else None
        if before != value:
            raise CheckpointError(
                f"a {what} resumes with the steps and the draws it was planned for",
                got=f"{name} {before}",
                at=f"a config of {name} {value}",
                fix=f"Use the config it was saved with; {free} may change.",
            )


def load_part(part: Any, state: Any, name: str) -> None:
    """Load the state of a module or optimiser.

    Raises:
        CheckpointError: it does not fit.
    """
    try:
        part.load_state_dict(state)
    except CheckpointError:
        raise
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"the {name} of a checkpoint fits what it is loaded into",
            got=" ".join(str(error).split())[:200],
            fix="Build it from the same space, model and settings.",
        ) from error


def plain_dtype(dtype: torch.dtype | None) -> str | None:
    """A dtype as a word, for a checkpoint of plain values."""
    return None if dtype is None else str(dtype)


def as_lists(value: Any) -> Any:
    """Nested tuples as lists, so that a checkpoint loads with ``weights_only=True``."""
    return [as_lists(v) for v in value] if isinstance(value, tuple) else value


def as_tuples(value: Any) -> Any:
    """What `as_lists` was given."""
    return tuple(as_tuples(v) for v in value) if isinstance(value, list) else value


def require_step(step: Any, total: int, what: str) -> None:
    """Check how far a checkpoint says it is.

    Raises:
        CheckpointError: it is no number of steps of such a run.
    """
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= total:
        raise CheckpointError(
            f"a checkpoint says how many steps of its {what} are done",
            got=repr(step),
            at=f"a {what} of {total} steps",
        )


def require_random_state(state: Any, generator: torch.Generator) -> None:
    """Check the state of a generator before it is set.

    Raises:
        CheckpointError: it is none of a generator of this kind.
    """
    own = generator.get_state()
    if not isinstance(state, Tensor) or (state.dtype, state.shape) != (own.dtype, own.shape):
        raise CheckpointError(
            "the generator of a checkpoint is the state of one of the same kind",
            got=f"{tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__,
            at=f"a state of {tuple(own.shape)} bytes",
        )


def python_random_state(state: Any) -> Any:
    """What `random.Random.setstate` takes, of what a checkpoint holds.

    Raises:
        CheckpointError: it is none.
    """
    found = as_tuples(state)
    try:
        random.Random().setstate(found)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise CheckpointError(
            "the rng of a checkpoint is the state of one of Python's generators",
            got=" ".join(str(error).split())[:200],
        ) from None
    return found


def load_optimiser(optimiser: torch.optim.Optimizer, state: Any, name: str) -> None:
    """Load the state of an optimiser, which goes on with a copy and with its own settings.

    torch takes the tensors of a state as they are, and checks no shapes; its fused kernels then
    read and write wherever that leads.

    Args:
        optimiser: of the same kind as the one that saved.
        state: what that gave.
        name: of the optimiser, for messages.

    Raises:
        CheckpointError: it does not fit.
    """
    wrong = _misfit(optimiser, state)
    if wrong is not None:
        raise CheckpointError(
            f"the {name} of a checkpoint fits what it is loaded into",
            got=wrong,
            fix="Build it from the same space, model and settings.",
        )
    own = [
        {k: v for k, v in group.items() if k != "params" and _is_setting(optimiser, k)}
        for group in optimiser.param_groups
    ]
    load_part(optimiser, copy.deepcopy(state), name)
    for group, settings in zip(optimiser.param_groups, own):
        group.update(settings)


def _is_setting(optimiser: torch.optim.Optimizer, key: str) -> bool:
    """Whether an entry of a group is the user's; some optimisers keep counters of theirs there."""
    arguments = inspect.signature(type(optimiser)).parameters
    unknown = any(a.kind is a.VAR_KEYWORD for a in arguments.values())
    return unknown or key in arguments or key in _SCHEDULERS


# What schedulers of torch keep in groups: rates, too.
_SCHEDULERS = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")

_MOMENTS = {"Adam": ("step", "exp_avg", "exp_avg_sq"), "AdamW": ("step", "exp_avg", "exp_avg_sq")}

# What these remember of a parameter is a number, or has its shape.
_ELEMENTWISE = (*_MOMENTS, "SGD", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax")


def _misfit(optimiser: torch.optim.Optimizer, state: Any) -> str | None:
    """In what a state does not fit; a parameter that never had a gradient has none."""
    if not isinstance(state, dict) or not {"state", "param_groups"} <= set(state):
        return "no state of an optimiser"
    groups, moments = state["param_groups"], state["state"]
    known = isinstance(groups, list) and all(isinstance(g, dict) for g in groups)
    if not isinstance(moments, dict) or not known or len(groups) != len(optimiser.param_groups):
        return "a state of other groups"
    for group, own in zip(groups, optimiser.param_groups):
        numbers = group.get("params", [])
        if len(numbers) != len(own["params"]):
            return f"{len(numbers)} parameters, not {len(own['params'])}"
        for number, parameter in zip(numbers, own["params"]):
            wrong = _wrong_entry(optimiser, moments.get(number), parameter, number)
            if wrong is not None:
                return wrong
    return None


def _wrong_entry(
    optimiser: torch.optim.Optimizer, entry: Any, parameter: Tensor, number: int
) -> str | None:
    if entry is None:
        return None
    needed: Sequence[str] = _MOMENTS.get(type(optimiser).__name__, ())
    if not isinstance(entry, dict) or not set(needed) <= set(entry):
        return f"parameter {number} without its moments"
    if type(optimiser).__name__ not in _ELEMENTWISE:
        return None
    for key, moment in entry.items():
        shape = getattr(moment, "shape", ())
        if (key in needed[1:] or shape) and shape != parameter.shape:
            return f"moments of shape {tuple(shape)} for a parameter of {tuple(parameter.shape)}"
    return None
