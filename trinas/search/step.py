"""One step under way: what its parts read, what they tell, and what is changed at its end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trinas._core.errors import ConfigError
from trinas.search.batches import Batch
from trinas.search.setting import Setting
from trinas.search.task import Task
from trinas.search.undo import Undo

if TYPE_CHECKING:
    from trinas.search.part import Working


class Step:
    """One step.

    Attributes:
        task: what is worked on.
        phase: its name, such as ``pretrain`` or ``search``.
        number: of the step within its phase, from 0.
        steps: of the phase.
        place: phase and number within the run, for messages.
        rng: of what is drawn on the host.
        parts: all parts at work.
        undo: what takes the step back if it fails.
        facts: what parts told, by name; a report is made of them.
        stops: whether a part asked the run to end with this step.
    """

    def __init__(
        self,
        task: Task,
        *,
        phase: str,
        number: int,
        steps: int,
        place: str,
        setting: Callable[[], Setting],
        data: Sequence[Callable[[], Batch]],
        rng: random.Random,
        parts: Sequence[Working],
        undo: Undo,
    ) -> None:
        self.task = task
        self.phase = phase
        self.number = number
        self.steps = steps
        self.place = place
        self._draw = setting
        self._setting: Setting | None = None
        self.rng = rng
        self.parts = parts
        self.undo = undo
        self.facts: dict[str, Any] = {}
        self.stops = False
        self._data = data
        self._batches: dict[int, Batch] = {}
        self._changes: list[Callable[[], object]] = []
        self._last: list[Callable[[], object]] = []

    @classmethod
    def of(
        cls,
        task: Task,
        train: Batch,
        valid: Batch | None = None,
        *,
        parts: Sequence[Working] = (),
        progress: float = 0.0,
        number: int = 0,
        steps: int = 1,
        seed: int = 0,
    ) -> Step:
        """A step for a loop of one's own; see the example.

        Args:
            task: what is worked on.
            train: the batch of the weights.
            valid: the batch of the architecture; that of the weights where None.
            parts: those at work, whose terms the architecture descends on, too.
            progress: share of the search done.
            number: of the step, from 0.
            steps: how many there are.
            seed: of what is drawn in this step.

        >>> import torch, trinas as tn
        >>> net = tn.compile_supernet(tn.lower(tn.choice(a=tn.conv(3, 1), b=tn.relu()), (1, 6, 6)))
        >>> task = tn.Task(net, torch.nn.functional.mse_loss)
        >>> weights = tn.weights(tn.sgd(0.1)).start(task)
        >>> architecture = tn.architecture(tn.adam(0.01)).start(task)
        >>> batch = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
        >>> for number in range(3):
        ...     step = tn.Step.of(task, batch, progress=number / 3, seed=number)
        ...     weights.update(step)
        ...     architecture.update(step)
        ...     step.finish()
        >>> sorted(step.facts)
        ['arch_loss', 'loss', 'spread']
        """
        task.train_mode()
        for net in task.nets.values():
            net.progress = progress
        generator = torch.Generator(task.device).manual_seed(seed)
        other = train if valid is None else valid
        return cls(
            task,
            phase="search",
            number=number,
            steps=steps,
            place=f"step {number + 1}",
            setting=lambda: task.draw(generator),
            data=(lambda: train, lambda: other),
            rng=random.Random(seed),
            parts=parts,
            undo=Undo(task.model, keeps=False),
        )

    @property
    def share(self) -> float:
        """Share of the steps of the phase that are done before this one, in [0, 1)."""
        return self.number / self.steps

    @property
    def setting(self) -> Setting:
        """How the decisions stand in this step; differentiable unless in pretraining.

        The logits stand still until the end of a step, so one relaxation, and one transfer to the
        host, serves all of it.
        """
        if self._setting is None:
            self._setting = self._draw()
        return self._setting

    def use(self, setting: Setting) -> None:
        """Run this step at another setting than that of the logits."""
        self._setting = setting

    @property
    def train(self) -> Batch:
        """The batch of the weights, taken when it is first asked for."""
        return self._batch(0)

    @property
    def valid(self) -> Batch:
        """The batch of the architecture."""
        return self._batch(1)

    @property
    def updates(self) -> bool:
        """Whether an optimiser stepped."""
        return self.undo.stepped

    def _batch(self, which: int) -> Batch:
        if which >= len(self._data):
            raise ConfigError(
                "a part reads the data that the run has", got="valid=None", at=self.place
            )
        if which not in self._batches:
            self._batches[which] = self._data[which]()
        return self._batches[which]

    def terms(self) -> Tensor | None:
        """The sum of what the parts add to the objective of the architecture."""
        total: Tensor | None = None
        for part in self.parts:
            term = part.term(self)
            if term is not None:
                total = term if total is None else total + term
        return total

    def tell(self, **facts: Any) -> None:
        """Say something to the report of this step: tensors stay where they are until read."""
        self.facts.update(facts)

    def commit(self, change: Callable[[], object], *, last: bool = False) -> None:
        """Change state of a part's own when the whole step has succeeded, and only then.

        Nothing interrupts these changes; if one fails, the memories of all parts are set back.

        Args:
            change: called without arguments.
            last: it comes behind all others, as it cannot be taken back; it does not fail.
        """
        (self._last if last else self._changes).append(change)

    def finish(self) -> None:
        """Make the step count: change what was to be changed, in order.

        An engine does so; in a loop of one's own it is the last call of a step.
        """
        for change in (*self._changes, *self._last):
            change()
        self._changes, self._last = [], []
        if self.task.scaler is not None and self.updates:
            self.task.scaler.update()
