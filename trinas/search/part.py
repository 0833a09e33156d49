"""The contract of a part: what a search is made of.

A part is two things. The description is frozen data, written by the user: which optimiser,
which rate. `Part.start` puts it to work on a `Task`; what comes out holds state and has one
method for each moment of a step, called in the order of the chain:

    before    rates, before anything is computed
    update    the work: passes, gradients, steps of optimisers
    term      what the part adds to the objective of the architecture
    after     a look at what came out; state of its own is changed by `Step.commit`

Nothing of this needs an engine: a `Step` can be made by hand, see `Step.of`.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import attrs
import torch
from torch import Tensor

from trinas._core.errors import CheckpointError, ConfigError
from trinas.search.loading import load_optimiser
from trinas.search.step import Step
from trinas.search.task import Task

_SAME = "Load what state_dict gave, into a run of the same method."


class Working:
    """A part at work. Every method does nothing until a part says otherwise.

    Attributes:
        optimisers: by name; engines save them and take their steps back.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    def works_in(self, phase: str) -> bool:
        """Whether it has something to do in a phase; not in pretraining."""
        return phase != "pretrain"

    def before(self, step: Step) -> None:
        """Prepare a step: set rates. Done again where a step is done again."""

    def update(self, step: Step) -> None:
        """Do the work."""

    def term(self, step: Step) -> Tensor | None:
        """What is added to the objective of the architecture; no dimensions, differentiable."""

    def after(self, step: Step) -> None:
        """Look at what came out; state of the part's own is changed by ``step.commit``."""

    def refresh(self) -> None:
        """Take notice that layers were removed from the model."""

    def plan(self) -> Mapping[str, Any]:
        """Settings under which alone a saved state has a meaning, as plain values."""
        return {}

    def memory(self) -> Mapping[str, Any]:
        """State besides optimisers: tensors and plain values."""
        return {}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take up what `memory` gave.

        Raises:
            CheckpointError: it is none of this part's.
        """
        if memory:
            raise CheckpointError(
                "a part without memory has none in a checkpoint",
                got=", ".join(map(str, memory))[:80],
                at=type(self).__name__,
                fix=_SAME,
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the part needs to go on: tensors and plain values only."""
        optimisers = {name: o.state_dict() for name, o in self.optimisers.items()}
        return {"optimisers": optimisers, "memory": dict(self.memory())}

    def load_state_dict(self, state: Any) -> None:
        """Go on from what `state_dict` gave, with the settings of this part.

        Where it does not fit, the part is as it was.

        Raises:
            CheckpointError: it does not fit.
        """
        given = state if isinstance(state, dict) else {}
        known = all(isinstance(given.get(key), dict) for key in ("optimisers", "memory"))
        if not known or set(state["optimisers"]) != set(self.optimisers):
            raise CheckpointError(
                "the state of a part holds its optimisers and its memory",
                got=repr(state)[:80],
                at=type(self).__name__,
                fix=_SAME,
            )
        before = copy.deepcopy(self.state_dict())
        try:
            self._load(state)
        except BaseException:
            self._load(before)
            raise

    def _load(self, state: Mapping[str, Any]) -> None:
        for name, optimiser in self.optimisers.items():
            load_optimiser(optimiser, state["optimisers"][name], f"optimiser of the {name}")
        self.remember(state["memory"])


class Part(abc.ABC):
    """The description of a part: frozen settings."""

    @abc.abstractmethod
    def start(self, task: Task) -> Working:
        """Put it to work on a task."""


W = TypeVar("W", bound=Working)


@attrs.frozen
class Chain:
    """Parts in order: a method of search. Made by `chain`."""

    parts: tuple[Part, ...]

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)


def chain(*parts: Part | Chain) -> Chain:
    """A method, of its parts: each step of a run goes through them in this order.

    Args:
        parts: parts, or chains of them, which are taken apart.

    Raises:
        ConfigError: something else.

    >>> import trinas as tn
    >>> first_order = tn.chain(
    ...     tn.weights(tn.sgd(0.025, momentum=0.9, weight_decay=3e-4)),
    ...     tn.architecture(tn.adam(3e-4, betas=(0.5, 0.999), weight_decay=1e-3)),
    ... )
    >>> len(tn.chain(first_order, tn.prune(after=200)).parts)
    3
    """
    flat: list[Part] = []
    for part in parts:
        if not isinstance(part, Part | Chain):
            raise ConfigError(
                "a chain is made of parts",
                got=part if isinstance(part, str | int | float) else f"a {type(part).__name__}",
                fix="Use trinas.weights(...), trinas.architecture(...) and the like.",
            )
        flat += part.parts if isinstance(part, Chain) else (part,)
    return Chain(tuple(flat))
