"""The engine behind every search and training: steps, reports, exact resume.

A run is an iterator. It does one step, yields a frozen report, and does nothing else: no
printing, no files. A step is done whole or not at all: an error or an interruption anywhere in
it, in the user's data or loss too, leaves the state from before it, from which the same step is
done again bit for bit.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch

from trinas._core.errors import ConfigError, TrinasError
from trinas.search.loading import plain_dtype
from trinas.search.part import Chain, Part, Working
from trinas.search.phase import Phase, numbered, phase_at
from trinas.search.precision import precision
from trinas.search.saving import load_state, state_of
from trinas.search.setting import Setting
from trinas.search.step import Step
from trinas.search.stream import Stream
from trinas.search.task import Task
from trinas.search.undo import Undo, uninterrupted
from trinas.supernet.seeding import seeded

R = TypeVar("R")


class Run(Generic[R]):
    """A run in progress: iterate over it, one report a step. Made by `run`.

    Args:
        method: the parts.
        task: what they work on.
        phases: in order.
        train: batches of the weights.
        valid: batches of the architecture, or None.
        seed: of everything that is drawn.
        report: makes the report of a step that is done.
        what: the run is, for messages.

    Attributes:
        task: what is worked on.
        step: how many steps are done.
        total: how many there are.
        parts: the parts at work, in the order of the method.
        names: of the parts, each of its own.
        streams: where its batches come from.
        generator: of what is drawn on the device; `rng` of what is drawn on the host.
    """

    what_next = "Make one of more steps, or go on with Training."

    def __init__(
        self,
        method: Chain,
        task: Task,
        phases: Sequence[Phase],
        *,
        train: Any,
        valid: Any,
        seed: int,
        report: Callable[[Step, int, int], R],
        what: str = "run",
    ) -> None:
        self.method = method
        self.task = task
        self.phases = tuple(phases)
        self.step = 0
        self.total = sum(phase.steps for phase in phases)
        self.streams = [
            Stream(data, name=name, seed=seed, device=task.device)
            for data, name in ((train, "train"), (valid, "valid"))
            if data is not None
        ]
        self._report = report
        self.what = what
        self._seed = seed
        self.generator = torch.Generator(task.device).manual_seed(seed)
        self.rng = random.Random(seed)
        self._undo = Undo(task.model)
        with torch.inference_mode(False):
            self.parts: tuple[Working, ...] = tuple(part.start(task) for part in method)
        self.names = numbered(type(part).__name__ for part in method)

    def __iter__(self) -> Iterator[R]:
        """Do the steps that are left."""
        while self.step < self.total:
            yield self.advance()

    def part(self, kind: type[Part]) -> Any:
        """The part of a kind at work, such as ``run.part(trinas.search.Average)``.

        Raises:
            ConfigError: the method has none.
        """
        for description, working in zip(self.method, self.parts):
            if isinstance(description, kind):
                return working
        raise ConfigError(
            "a part at work is one of the method's",
            got=kind.__name__,
            fix=f"It has {', '.join(type(p).__name__ for p in self.method)}.",
        )

    def advance(self) -> R:
        """Do one step and report it.

        Raises:
            ConfigError: all steps are done, or the network was moved to another device.
            DataError: a batch that is no pair of an input and a target on the device of the
                network, or data that ran out.
            ShapeError: a target of another shape than the prediction, or a loss with dimensions.
            DivergenceError: a loss or a gradient that is not finite. On an accelerator a report
                says so when its loss is read, behind the update.
            RelaxationError: logits that are not finite.
        """
        with torch.inference_mode(False), torch.enable_grad(), precision(self.task.device, None):
            return self._advance()

    def _advance(self) -> R:
        self.take_back()
        self._check_readiness()
        phase, number = phase_at(self.phases, self.step)
        step = self._step_of(phase, number)
        done = self.step
        self._begin()
        try:
            with seeded(phase.seed(self._seed, self.step, number), self.task.device):
                self._do(step, phase)
            with uninterrupted():
                self._commit(step)
        except BaseException as error:
            if self.step == done:
                with uninterrupted():
                    self.take_back()
            if isinstance(error, TrinasError):
                error.add_note(f"in {step.place}")
            raise
        return self._report(step, self.step, self.total)

    def _do(self, step: Step, phase: Phase) -> None:
        """The moments of a step; nothing of it is for good yet."""
        working = [part for part in self.parts if part.works_in(phase.name)]
        self.task.train_mode()
        if phase.progress is not None:
            for net in self.task.nets.values():
                net.progress = phase.progress(step.share)
        for part in working:
            part.before(step)
        for part in working:
            part.update(step)
        for part in working:
            part.after(step)

    def _commit(self, step: Step) -> None:
        """Make a step count."""
        for part in self.parts:
            self._undo.keep_call(functools.partial(part.remember, dict(part.memory())))
        step.finish()
        for stream in self.streams:
            stream.done()
        self.step += 1
        self._undo.clear()
        if step.stops:
            self.total = self.step
        if self.step == self.total and self.phases[-1].progress is not None:
            for net in self.task.nets.values():
                net.progress = 1.0

    def _begin(self) -> None:
        """Keep what a step changes."""
        self._undo.begin()
        for put_back, state in (
            (self.generator.set_state, self.generator.get_state()),
            (self.rng.setstate, self.rng.getstate()),
            (self.task.set_back, self.task.stand()),
        ):
            self._undo.keep_call(functools.partial(put_back, state))

    def take_back(self) -> None:
        """Undo a step that was begun and did not end; whoever reads a state does so first."""
        if self._undo.armed:
            self._undo.restore()

    def _check_readiness(self) -> None:
        if self.step >= self.total:
            raise ConfigError(
                f"a {self.what} has the steps of its config",
                got=f"a call after all {self.total}",
                fix=self.what_next,
            )
        self.task.require_unmoved()

    def _step_of(self, phase: Phase, number: int) -> Step:
        def draw() -> Setting:
            with torch.set_grad_enabled(phase.learns):
                return self.task.draw(self.generator)

        at = self.step
        return Step(
            self.task,
            phase=phase.name,
            number=number,
            steps=phase.steps,
            place=f"{phase.name} step {at + 1}",
            setting=draw,
            data=[lambda stream=stream: stream.take(at) for stream in self.streams],
            rng=self.rng,
            parts=self.parts,
            undo=self._undo,
        )

    # -- checkpoints ---------------------------------------------------------------------

    def plan(self) -> dict[str, Any]:
        """The settings that decide what steps there are and what they draw, as plain values."""
        found: dict[str, Any] = {f"{phase.name}_steps": phase.steps for phase in self.phases}
        found |= {"seed": self._seed, "autocast": plain_dtype(self.task.autocast)}
        for part in self.parts:
            found |= part.plan()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on: tensors and plain values only.

        The tensors are those of the run, which goes on changing them: save it, or copy it.
        """
        self.take_back()
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, with the rates and weights of terms of this run's method.

        Where it does not fit, the run is as it was (but for options that it had pruned).

        Raises:
            CheckpointError: it lacks entries, or was saved for another space, under other
                steps, passes, signals, relaxations, seed or precision, by another version, or on
                another kind of device.
        """
        self.take_back()
        with torch.inference_mode(False):
            load_state(self, state)
