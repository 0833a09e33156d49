"""Parts that watch a run and act: pruning, ending early, a function of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs

from trinas._core.errors import CheckpointError
from trinas.search import validators as check
from trinas.search.part import Part, Working
from trinas.search.patience import Patience
from trinas.search.step import Step
from trinas.search.task import Task
from trinas.space.decision import Option
from trinas.supernet import Supernet

Watcher: TypeAlias = Callable[[Step], Any]


@attrs.frozen
class Prune(Part):
    """See `prune`."""

    after: int = attrs.field(validator=[check.whole, check.positive])

    def start(self, task: Task) -> PruneAtWork:
        """Begin to count."""
        return PruneAtWork(self, task)


def prune(after: int) -> Prune:
    """Drop options for good that had no weight for so many steps in a row.

    Memory follows the search down (`Supernet.prune`). Without this part nothing is dropped: an
    option at zero costs no time as it is, and comes back where the others fall.

    Args:
        after: how many steps, at least 1.

    Raises:
        ConfigError: fewer.

    >>> prune(after=200)
    Prune(after=200)
    """
    return Prune(after)


class PruneAtWork(Working):
    """A `Prune` at work."""

    def __init__(self, part: Prune, task: Task) -> None:
        super().__init__(task)
        self._patience = [Patience(net, part.after) for net in task.nets.values()]

    def after(self, step: Step) -> None:
        """Count one more step, and drop what is due."""
        for net, mixture, patience in zip(step.setting.nets, step.setting.mixtures, self._patience):
            counts = patience.counted(mixture.host)
            step.commit(lambda p=patience, c=counts: setattr(p, "counts", c))
            options = patience.exhausted(counts, net.pruned)
            if options:
                step.commit(lambda n=net, o=options: _drop(step, n, o), last=True)
                step.tell(pruned=options)

    def memory(self) -> Mapping[str, Any]:
        """For every option the steps that it had no weight."""
        return {"idle": [list(patience.counts) for patience in self._patience]}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take them up."""
        idle = memory.get("idle")
        known = isinstance(idle, list) and len(idle) == len(self._patience)
        given: list[Any] = idle if isinstance(idle, list) and known else [None]
        for patience, counts in zip(self._patience, given):
            whole = isinstance(counts, list) and all(type(count) is int for count in counts)
            if not whole or len(counts) != len(patience.counts):
                raise CheckpointError(
                    "a checkpoint counts idle steps for every option",
                    got=repr(counts)[:80],
                    at=f"a space of {len(patience.counts)} options",
                )
        for patience, counts in zip(self._patience, given):
            patience.counts = list(counts)


def _drop(step: Step, net: Supernet, options: Mapping[str, list[Option]]) -> None:
    net.prune(options)
    step.task.refresh()
    for part in step.parts:
        part.refresh()
    step.undo.forget_copies()


@attrs.frozen
class StopWhen(Part):
    """See `stop_when`."""

    rule: Watcher = attrs.field(validator=check.function, repr=check.shown)

    def start(self, task: Task) -> StopAtWork:
        """Nothing to prepare."""
        return StopAtWork(self, task)


def stop_when(rule: Watcher) -> StopWhen:
    """End the run with the first step of the search that a rule is true of.

    Args:
        rule: of the step; what was told so far is in ``step.facts``, the decisions in
            ``step.setting``.

    >>> decided = stop_when(lambda step: all(s.decided == 1 for s in step.facts["spread"].values()))
    """
    return StopWhen(rule)


class StopAtWork(Working):
    """A `StopWhen` at work."""

    def __init__(self, part: StopWhen, task: Task) -> None:
        super().__init__(task)
        self.part = part

    def after(self, step: Step) -> None:
        """Ask."""
        step.stops = step.stops or bool(self.part.rule(step))


@attrs.frozen
class Watch(Part):
    """See `watch`."""

    function: Watcher = attrs.field(validator=check.function, repr=check.shown)

    def start(self, task: Task) -> WatchAtWork:
        """Nothing to prepare."""
        return WatchAtWork(self, task)


def watch(function: Watcher) -> Watch:
    """Call a function at the end of every step.

    Args:
        function: of the step; what it says by ``step.tell(name=value)`` is in ``report.facts``.

    >>> paths = watch(lambda step: step.tell(derived=[net.derive() for net in step.setting.nets]))
    """
    return Watch(function)


class WatchAtWork(Working):
    """A `Watch` at work."""

    def __init__(self, part: Watch, task: Task) -> None:
        super().__init__(task)
        self.part = part

    def works_in(self, phase: str) -> bool:
        """Everywhere."""
        return True

    def after(self, step: Step) -> None:
        """Call it."""
        self.part.function(step)
