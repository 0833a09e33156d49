"""Where a loader was left, and what it has of its own: what exact resume of data rests on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from trinas._core.errors import CheckpointError


@runtime_checkable
class Stateful(Protocol):
    """A loader that says where it is, and goes on from there."""

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        ...


@attrs.frozen(eq=False)
class Place:
    """Where a loader was left: all that the next batch depends on.

    Attributes:
        epoch: number of the epoch, from 0.
        index: how many batches of it were taken.
        total: how many were taken of all epochs.
        began: states of the loader's own generators as the epoch began; None before the first.
        now: the same before the next batch is taken; None where they are as they should be.
        loader: what a `Stateful` loader says.
    """

    epoch: int = 0
    index: int = 0
    total: int = 0
    began: list[Tensor] | None = None
    now: list[Tensor] | None = None
    loader: Any = None

    @classmethod
    def of(cls, state: dict[str, Any], loader: Any, name: str) -> Place:
        """The place that `as_dict` gave.

        Args:
            state: what it gave.
            loader: that it is a place of.
            name: of the data, for messages.

        Raises:
            CheckpointError: it is none, or of a loader with other generators.
        """
        for key in ("epoch", "index", "total"):
            value = state.get(key)
            if type(value) is not int or value < 0:
                raise CheckpointError(
                    "a checkpoint says how far its data were gone through", got=repr(value), at=name
                )
        began, now = (_states(state.get(key), loader, name) for key in ("began", "now"))
        if now is None or (began is None and state["total"]):
            raise CheckpointError("a place has all its states", got=repr(state)[:60], at=name)
        return cls(state["epoch"], state["index"], state["total"], began, now, state.get("loader"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, tensors, and what the loader says."""
        return attrs.asdict(self, recurse=False)


def said_by(loader: Any) -> Any:
    """What a loader says of where it is; nothing where it has no state."""
    return copy.deepcopy(loader.state_dict()) if isinstance(loader, Stateful) else None


def own_generators(loader: Any) -> list[torch.Generator]:
    """The generators that a loader and its samplers have of their own."""
    samplers = [getattr(loader, name, None) for name in ("sampler", "batch_sampler")]
    owners = [loader, *samplers, getattr(samplers[1], "sampler", None)]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def states_of(loader: Any) -> list[Tensor]:
    """How these generators stand."""
    return [generator.get_state() for generator in own_generators(loader)]


def set_states(loader: Any, states: Sequence[Tensor] | None) -> None:
    """Set them back to there."""
    for generator, state in zip(own_generators(loader), states or ()):
        generator.set_state(state)


def _states(value: Any, loader: Any, name: str) -> list[Tensor] | None:
    if value is None:
        return None
    own = own_generators(loader)
    try:
        found = [state.cpu() for state in value]
        for generator, state in zip(own, found, strict=True):
            torch.Generator(generator.device).set_state(state)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise CheckpointError(
            "a checkpoint has the states of the generators of its loader",
            got=repr(value)[:60],
            at=f"{name}, a loader with {len(own)}",
        ) from None
    return found
