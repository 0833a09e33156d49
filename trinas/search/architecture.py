"""The part that learns the architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from trinas._core.errors import ConfigError
from trinas.search import validators as check
from trinas.search.estimators import Differences
from trinas.search.exits import KINDS, Exits, on_drawn_paths
from trinas.search.loading import require_dict
from trinas.search.optimisers import OptimiserLike, adam, descend, make_optimiser
from trinas.search.part import Part, Working
from trinas.search.report import spreads_of
from trinas.search.setting import Pass, Policy, Setting, passes_of
from trinas.search.signal import Estimate, Estimator, Signal
from trinas.search.signals import Gradient
from trinas.search.step import Step
from trinas.search.task import Task
from trinas.supernet import Mixture


def _estimator(owner: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    if not hasattr(value, "start"):
        raise ConfigError(
            "sampled is an estimator",
            got=repr(value)[:80],
            at=type(owner).__name__,
            fix="Give trinas.signals.differences() or trinas.signals.straight_through().",
        )


@attrs.frozen
class Architecture(Part):
    """See `architecture`."""

    optimiser: OptimiserLike = attrs.field(repr=check.shown)
    signal: Signal = attrs.field(validator=check.function)
    sampled: Estimator = attrs.field(validator=_estimator)
    passes: tuple[str | Policy, ...] = attrs.field(validator=[check.passes, check.mixed_passes])
    clip: float | None = attrs.field(default=None, validator=check.optional(check.positive))
    wait: float = attrs.field(default=0.0, validator=check.below_1)

    def start(self, task: Task) -> ArchitectureAtWork:
        """Make the optimiser."""
        return ArchitectureAtWork(self, task)


def architecture(
    optimiser: OptimiserLike = adam(3e-4, betas=(0.5, 0.999)),  # noqa: B008  # frozen
    *,
    signal: Signal = Gradient(),  # noqa: B008  # frozen
    sampled: Estimator = Differences(),  # noqa: B008  # frozen
    passes: tuple[str | Policy, ...] = ("sampled", "widest", "narrowest"),
    clip: float | None = None,
    wait: float = 0.0,
) -> Architecture:
    """Learn the architecture: one step of an optimiser on the other half of the data.

    The gradient of decisions that are mixed is that of `signal`, of decisions that are drawn that
    of `sampled`; all terms of the chain (`expected_cost`, `ordered`, ...) come on top.

    Args:
        optimiser: `adam`, `sgd`, `optimiser`, or any function from parameters to an optimiser of
            torch.
        signal: `signals.gradient`, `signals.unrolled` or `signals.exits`.
        sampled: `signals.differences` or `signals.straight_through`.
        passes: what `signal` looks at, as in `weights`; not ``"network"``, which mixes nothing.
        clip: largest norm of the gradients, or None.
        wait: share of the search (`Supernet.progress`, below 1) before which paths and depths
            stand still, so that exits are compared when they have been trained (Auto-DeepLab,
            Section 5.1, waits for half of the search); no longer than the radius of their
            relaxation is 0.

    Raises:
        ConfigError: a setting is out of its range.

    >>> import trinas as tn
    >>> part = tn.architecture(tn.adam(3e-4, weight_decay=1e-3), signal=tn.signals.unrolled())
    >>> part.signal
    Unrolled(rate=None)
    """
    return Architecture(optimiser, signal, sampled, passes, clip, wait)


class ArchitectureAtWork(Working):
    """An `Architecture` at work."""

    def __init__(self, part: Architecture, task: Task) -> None:
        super().__init__(task)
        self.part = part
        self._drawn = any(net.architecture.drawn for net in task.nets.values())
        self._mixed = any(net.architecture.mixed for net in task.nets.values())
        self._estimator = part.sampled.start() if self._drawn else None
        # Without architecture parameters (a space of one network) there is nothing to optimise,
        # and torch refuses an empty list.
        if task.arch:
            self.optimisers = {"architecture": make_optimiser(part.optimiser, task.arch)}

    def update(self, step: Step) -> None:
        """Lines 17 to 23 of Algorithm 1.

        All gradients are taken at the same point, then all parameters move.
        """
        if not self.optimisers:
            return
        (optimiser,) = self.optimisers.values()
        optimiser.zero_grad(set_to_none=True)
        leaf = step.setting.leaf()
        loss = self._signal(step, leaf)
        estimate = self._estimate(step)
        if loss is None:
            loss = torch.zeros((), device=self.task.device) if estimate is None else estimate.loss
        objective = self._objective(step, leaf, estimate)
        if objective.requires_grad:
            objective.backward()
        self._hold()
        step.undo.keep_optimiser(optimiser)
        unsound = descend(
            optimiser,
            clip=self.part.clip,
            scaler=self.task.scaler,
            what="gradient of the architecture",
            at=step.place,
        )
        step.tell(arch_loss=loss + unsound, spread=spreads_of(step.setting))

    def _signal(self, step: Step, leaf: Setting) -> Tensor | None:
        """Gradients by the weights of the leaf; None where no decision takes any from there."""
        scored = self._estimator is None and self._drawn
        if not (self._mixed or scored):
            return None
        # Scored widths take gradients of their own, others are the same pass where they are equal.
        passes = passes_of(leaf, self.part.passes, step.rng, merge=not scored)
        return self.part.signal(step, passes if scored else _without_scores(passes))

    def _estimate(self, step: Step) -> Estimate | None:
        """The gradient of drawn decisions: where exits are told apart, on paths that are drawn."""
        if self._estimator is None:
            return None
        if not isinstance(self.part.signal, Exits):
            return self._estimator(step)
        setting = step.setting
        step.use(on_drawn_paths(setting, step.rng))
        try:
            return self._estimator(step)
        finally:
            step.use(setting)

    def _objective(self, step: Step, leaf: Setting, estimate: Estimate | None) -> Tensor:
        """What has the gradient that was found, by the logits, and the terms'."""
        total = torch.zeros((), device=self.task.device)
        for net, mixture, cut in zip(step.setting.nets, step.setting.mixtures, leaf.mixtures):
            if cut.weights.grad is not None:
                found = cut.weights.grad.detach()
                if self._estimator is not None:
                    found = torch.where(net.architecture.is_drawn, 0.0, found)
                total = total + (mixture.weights * found).sum()
        if estimate is not None:
            for mixture, found in zip(step.setting.mixtures, estimate.gradients):
                total = total + (mixture.odds * self._scaled(found)).sum()
        terms = step.terms()
        return total if terms is None else total + self._scaled(terms)

    def _hold(self) -> None:
        """Paths and depths take no step before their time."""
        for net in self.task.nets.values():
            for group in net.architecture.groups if net.progress < self.part.wait else ():
                radius = getattr(net.architecture.relax[group.kind], "radius", None)
                # Where it rules options out, the noise of the first logits would choose.
                if group.kind in KINDS and (radius is None or not radius(net.progress)):
                    net.architecture.get_parameter(group.name).grad = None

    def _scaled(self, value: Tensor) -> Tensor:
        """As large as gradients of losses in float16 are made."""
        return value if self.task.scaler is None else self.task.scaler.scale(value)

    def memory(self) -> Mapping[str, Any]:
        """What the estimator knows."""
        return {} if self._estimator is None else {"estimator": dict(self._estimator.memory())}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take that up."""
        if self._estimator is None:
            super().remember(memory)
        else:
            self._estimator.remember(require_dict(memory.get("estimator"), "estimator"))

    def plan(self) -> Mapping[str, Any]:
        """Signals, passes, and the relaxations that they are of."""
        relaxations = {
            f"{name}: {kind}" if name else kind: type(relaxation).__name__
            for name, net in self.task.nets.items()
            for kind, relaxation in net.architecture.relax.items()
        }
        return {
            "signal": type(self.part.signal).__name__,
            "sampled": type(self.part.sampled).__name__,
            "wait": self.part.wait,
            "arch_passes": [p if isinstance(p, str) else "own" for p in self.part.passes],
            "relaxations": relaxations,
        }


def _without_scores(passes: Sequence[Pass]) -> list[Pass]:
    def plain(mixture: Mixture) -> Mixture:
        return attrs.evolve(mixture, scored=frozenset())

    return [attrs.evolve(one, setting=one.setting.changed(plain)) for one in passes]
