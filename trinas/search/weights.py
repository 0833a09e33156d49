"""The part that trains the weights of a model."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from trinas._core.errors import CheckpointError, ConfigError
from trinas.search import validators as check
from trinas.search.exits import descend_at_exits, ends_of
from trinas.search.loading import load_part
from trinas.search.optimisers import OptimiserLike, adam, descend, forget, make_optimiser
from trinas.search.part import Part, Working
from trinas.search.schedules import LrSchedule, constant
from trinas.search.setting import ONE_NETWORK, Pass, Policy, passes_of
from trinas.search.step import Step
from trinas.search.task import Task

Scheduler: TypeAlias = Callable[[torch.optim.Optimizer], LRScheduler]


@attrs.frozen
class Weights(Part):
    """See `weights`."""

    optimiser: OptimiserLike = attrs.field(repr=check.shown)
    passes: tuple[str | Policy, ...] = attrs.field(validator=check.passes)
    pretrain_passes: tuple[str | Policy, ...] = attrs.field(validator=check.passes)
    schedule: LrSchedule = attrs.field(default=constant, validator=check.function, repr=check.shown)
    scheduler: Scheduler | None = attrs.field(
        default=None, validator=check.optional(check.function), repr=check.shown
    )
    clip: float | None = attrs.field(default=None, validator=check.optional(check.positive))
    exits: float | None = attrs.field(default=None, validator=check.optional(check.share))
    wait: float = attrs.field(default=0.0, validator=check.below_1)

    def start(self, task: Task) -> WeightsAtWork:
        """Make the optimiser."""
        return WeightsAtWork(self, task)


def weights(
    optimiser: OptimiserLike = adam(1e-4),  # noqa: B008  # frozen
    *,
    passes: tuple[str | Policy, ...] = ("sampled", "widest", "narrowest"),
    pretrain_passes: tuple[str | Policy, ...] | None = None,
    schedule: LrSchedule = constant,
    scheduler: Scheduler | None = None,
    clip: float | None = None,
    exits: float | None = None,
    wait: float = 0.0,
) -> Weights:
    """Train the weights: one step of an optimiser along the gradients summed over some passes.

    Args:
        optimiser: `adam`, `sgd`, `optimiser`, or any function from parameters to an optimiser of
            torch. Parameter groups have names of parameters in the model.
        passes: what a step runs, by name (see `trinas.search.setting.PASSES`) or as functions
            ``(mixture, rng) -> mixture``; what would run twice runs once.
        pretrain_passes: the same of a step of pretraining; those of the search where None.
        schedule: share of the phase to a factor on all learning rates.
        scheduler: instead of that, what makes a scheduler of torch; it is stepped once a step.
        clip: largest norm of all gradients together, or None.
        exits: None for the loss at the mixture; else that of paths and depths is the expected
            loss over their exits, as in `trinas.search.signals.exits`, and this is the share of the
            deepest exits in it, on top of their odds, which falls to 0 after `wait`. Of several
            such decisions one has all its exits in a pass; the others are drawn. Where there is
            one and nothing else to decide, passes of one network are left out.
        wait: share of the search (`Supernet.progress`, below 1) before which exits count evenly
            instead of by their odds, as in `architecture`.

    Raises:
        ConfigError: a setting is out of its range, or there are both kinds of schedule.

    Source: the passes are the sandwich rule of slimmable networks (Yu and Huang, 2019); their
    gradients are summed into one step, where Algorithm 1 of Trilevel NAS writes one step each in
    pretraining.

    >>> import trinas as tn
    >>> part = tn.weights(tn.sgd(0.025, momentum=0.9), schedule=tn.CosineDecay(0.04), clip=5.0)
    >>> part.passes
    ('sampled', 'widest', 'narrowest')
    """
    if scheduler is not None and schedule is not constant:
        raise ConfigError(
            "learning rates follow a schedule or a scheduler",
            got="both",
            at="weights",
            fix="Leave one of them out.",
        )
    first = passes if pretrain_passes is None else pretrain_passes
    return Weights(optimiser, passes, first, schedule, scheduler, clip, exits, wait)


class WeightsAtWork(Working):
    """A `Weights` at work.

    Attributes:
        lr: the learning rate of the first group, as of the last step.
    """

    def __init__(self, part: Weights, task: Task) -> None:
        super().__init__(task)
        self.part = part
        self.optimiser = make_optimiser(part.optimiser, task.weights)
        self.optimisers = {"weights": self.optimiser}
        self._ends = [] if part.exits is None else ends_of(tuple(task.nets.values()))
        self._passes = [self._of_use(passes) for passes in (part.passes, part.pretrain_passes)]
        self._rates = [group["lr"] for group in self.optimiser.param_groups]
        self._scheduler = None
        if part.scheduler is not None:
            self._scheduler = _checked(part.scheduler(self.optimiser))

    def works_in(self, phase: str) -> bool:
        """Wherever something is trained."""
        return phase != "score"

    @property
    def lr(self) -> float:
        """The learning rate of the first group, as of the last step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def before(self, step: Step) -> None:
        """Set the learning rates."""
        step.undo.keep_settings(self.optimiser)
        if self._scheduler is None:
            factor = self.part.schedule(step.share)
            if not 0 <= factor < math.inf:
                raise ConfigError(
                    "a schedule gives a finite factor of at least 0", got=factor, at=step.place
                )
            for group, rate in zip(self.optimiser.param_groups, self._rates):
                group["lr"] = rate * factor
        step.tell(lr=self.lr)

    def update(self, step: Step) -> None:
        """Lines 7 to 9 and 14 to 16 of Algorithm 1: descend on the loss summed over the passes."""
        task, pretraining = self.task, step.phase == "pretrain"
        passes = self._passes[pretraining]
        # To None, not to zero: optimisers pass over what has no gradient.
        self.optimiser.zero_grad(set_to_none=True)
        losses = [
            self._descend(step, one) for one in passes_of(step.setting.detached(), passes, step.rng)
        ]
        step.undo.keep_optimiser(self.optimiser)
        unsound = descend(
            self.optimiser,
            clip=self.part.clip,
            scaler=task.scaler,
            what="gradient of the weights",
            at=step.place,
        )
        step.tell(loss=torch.stack(losses).sum() + unsound)
        if self._scheduler is not None:
            step.commit(self._follow)

    def _of_use(self, passes: tuple[str | Policy, ...]) -> tuple[str | Policy, ...]:
        """Without those of one network, where a pass has all networks as its exits."""
        count = sum(len(net.graph.decisions) for net in self.task.nets.values())
        left = tuple(p for p in passes if p not in ONE_NETWORK)
        return left or passes if count == len(self._ends) == 1 else passes

    def _descend(self, step: Step, one: Pass) -> Tensor:
        """One pass: at the mixture, or at all exits of a decision."""
        live = [end for end in self._ends if end.is_open(one.setting)]
        if self.part.exits is None or not live:
            return self.task.descend(step.train, one, at=step.place)
        return descend_at_exits(step, one, live, self.part.exits, self.part.wait)

    def _follow(self) -> None:
        """Take the scheduler one step on."""
        assert self._scheduler is not None
        with warnings.catch_warnings():
            if self.task.scaler is not None:  # which may have left out a step, the first one too
                warnings.filterwarnings("ignore", ".*lr_scheduler.step", UserWarning)
            self._scheduler.step()

    def refresh(self) -> None:
        """Forget the parameters that are gone."""
        forget(self.optimiser, self.task.weights.values())

    def memory(self) -> Mapping[str, Any]:
        """The scheduler's state, where there is one, and the settings that it changes."""
        if self._scheduler is None:
            return {}
        groups = [
            {key: group[key] for key in _SCHEDULED if key in group}
            for group in self.optimiser.param_groups
        ]
        return {"scheduler": self._scheduler.state_dict(), "settings": groups}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take up the scheduler's state, if there was a scheduler."""
        if not memory or (self._scheduler is None and set(memory) == {"scheduler", "settings"}):
            return
        if self._scheduler is None:
            super().remember(memory)
            return
        state, groups = memory.get("scheduler"), memory.get("settings")
        own = self.memory()
        if _form(state) != _form(own["scheduler"]) or _form(groups) != _form(own["settings"]):
            raise CheckpointError(
                "the scheduler of a checkpoint fits what it is loaded into",
                got=repr(state)[:80],
                at=type(self._scheduler).__name__,
                fix="Resume with the scheduler that it was saved with.",
            )
        load_part(self._scheduler, copy.deepcopy(state), "scheduler")
        for group, settings in zip(self.optimiser.param_groups, groups or []):
            group.update(settings)

    def plan(self) -> Mapping[str, Any]:
        """The passes."""
        names = [
            [p if isinstance(p, str) else "own" for p in passes]
            for passes in (self.part.pretrain_passes, self.part.passes)
        ]
        return {"pretrain_passes": names[0], "passes": names[1], "exits": self.part.exits}


# What schedulers of torch change in the groups of an optimiser.
_SCHEDULED = ("lr", "momentum", "betas", "weight_decay")


def _checked(scheduler: Any) -> LRScheduler:
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            "a scheduler is one of torch that steps by itself",
            got=f"a {type(scheduler).__name__}",
            at="weights",
            fix="Give a function from an optimiser to such a scheduler.",
        )
    return scheduler


def _form(state: Any) -> Any:
    """Keys and kinds of values: what two states of one scheduler have in common."""
    if isinstance(state, dict):
        return {key: _form(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_form(value) for value in state]
    return "number" if isinstance(state, int | float) else type(state).__name__
