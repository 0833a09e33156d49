"""Optimisers of the user's choice: factories, and steps along clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from trinas._core.errors import ConfigError
from trinas.search import validators as check
from trinas.search.checks import require_finite

Settings: TypeAlias = Mapping[str, Any]


def _items(groups: Mapping[str, Settings] | None) -> tuple[tuple[str, Settings], ...]:
    found = {} if groups is None else groups
    if not isinstance(found, Mapping) or not all(isinstance(s, Mapping) for s in found.values()):
        raise ConfigError(
            "groups are patterns of names to settings",
            got=repr(groups)[:80],
            fix='Write groups={"*.bias": {"weight_decay": 0.0}}.',
        )
    return tuple((pattern, dict(settings)) for pattern, settings in found.items())


@attrs.frozen
class Optimiser:
    """A way to make an optimiser: its class, its settings, and those of groups of parameters.

    Attributes:
        kind: a class of `torch.optim`, or one like them.
        settings: its arguments.
        groups: patterns of parameter names (as file names have them, ``*.bias``) to settings
            that differ there; the first pattern that fits a name counts.

    >>> rule = Optimiser(torch.optim.SGD, {"lr": 0.1}, {"*bias": {"weight_decay": 0.5}})
    >>> made = rule(dict(nn.Linear(2, 3).named_parameters()))
    >>> [(len(g["params"]), g["weight_decay"]) for g in made.param_groups]
    [(1, 0.5), (1, 0)]
    """

    kind: type[torch.optim.Optimizer] = attrs.field(repr=check.shown)
    settings: Settings
    groups: tuple[tuple[str, Settings], ...] = attrs.field(default=None, converter=_items)

    def __call__(self, named: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters.

        Raises:
            ConfigError: a pattern fits no name, or torch refuses the settings.
        """
        left = dict(named)
        made: list[dict[str, Any]] = []
        for pattern, settings in self.groups:
            names = [name for name in left if fnmatchcase(name, pattern)]
            if not names:
                raise ConfigError(
                    "a group of parameters is named by a pattern that fits some",
                    got=repr(pattern),
                    fix=f"Names are as {', '.join(list(named)[:3])}.",
                )
            made.append({"params": [left.pop(name) for name in names], **settings})
        if left:
            made.append({"params": list(left.values())})
        if not callable(self.kind):
            raise ConfigError("an optimiser has a class of torch.optim", got=repr(self.kind))
        try:
            return self.kind(made, **self.settings)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "an optimiser takes its settings",
                got=str(error),
                at=self.kind.__name__,
            ) from None


OptimiserLike: TypeAlias = Optimiser | Callable[[Iterable[Tensor]], torch.optim.Optimizer]
"""An `Optimiser`, or any function from parameters to an optimiser of torch."""


def optimiser(
    kind: type[torch.optim.Optimizer],
    *,
    groups: Mapping[str, Settings] | None = None,
    **settings: Any,
) -> Optimiser:
    """Any optimiser of torch, with groups of parameters by name.

    Args:
        kind: its class.
        groups: patterns of names to settings that differ there; the first that fits counts.
        settings: its arguments.

    >>> optimiser(torch.optim.AdamW, lr=1e-3, groups={"*.bias": {"weight_decay": 0.0}}).settings
    {'lr': 0.001}
    """
    return Optimiser(kind, settings, groups)  # type: ignore[arg-type]  # the converter's type


def adam(lr: float, *, groups: Mapping[str, Settings] | None = None, **settings: Any) -> Optimiser:
    """Adam; with ``weight_decay`` as DARTS has it for the architecture.

    >>> adam(3e-4, betas=(0.5, 0.999)).settings["lr"]
    0.0003
    """
    return optimiser(torch.optim.Adam, groups=groups, lr=_rate(lr), **settings)


def sgd(lr: float, *, groups: Mapping[str, Settings] | None = None, **settings: Any) -> Optimiser:
    """Stochastic gradient descent; ``momentum``, ``weight_decay`` and so on as torch has them.

    >>> sgd(0.025, momentum=0.9, weight_decay=3e-4).kind.__name__
    'SGD'
    """
    return optimiser(torch.optim.SGD, groups=groups, lr=_rate(lr), **settings)


def _rate(lr: float) -> float:
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < math.inf:
        raise ConfigError("a learning rate is a finite number greater than 0", got=lr)
    return float(lr)


def make_optimiser(rule: OptimiserLike, named: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """What a rule makes of named parameters.

    Raises:
        ConfigError: it makes no optimiser of torch, or one that asks for closures.
    """
    if isinstance(rule, Optimiser):
        made: Any = _fused(rule, named)(named)
    else:
        made = rule(list(named.values())) if callable(rule) else None
    if not isinstance(made, torch.optim.Optimizer) or isinstance(made, torch.optim.LBFGS):
        raise ConfigError(
            "an optimiser is one of torch that steps along gradients at hand",
            got=f"a {type(made).__name__}"
            if callable(rule)
            else f"a {type(rule).__name__}, which makes none",
            fix="Give trinas.adam(...), trinas.optimiser(CLASS, ...), or a function from "
            "parameters to such an optimiser.",
        )
    given = {id(p) for p in named.values()}
    if any(id(p) not in given for group in made.param_groups for p in group["params"]):
        raise ConfigError(
            "an optimiser moves the parameters that it is given, or some of them",
            got="one with others",
            at=type(made).__name__,
            fix="Make it of the argument of the function, not of model.parameters().",
        )
    return made


def _fused(rule: Optimiser, named: Mapping[str, Tensor]) -> Optimiser:
    """Adam in one kernel where torch has it, unless that was said."""
    said = {"fused", "foreach", "capturable", "differentiable"} & set(rule.settings)
    there = all(p.device.type in ("cpu", "cuda") for p in named.values())
    if rule.kind not in (torch.optim.Adam, torch.optim.AdamW) or said or not there:
        return rule
    return attrs.evolve(rule, settings={**rule.settings, "fused": True}, groups=dict(rule.groups))


def descend(
    optimiser: torch.optim.Optimizer,
    *,
    clip: float | None,
    scaler: torch.amp.GradScaler | None,
    what: str,
    at: str,
) -> Tensor:
    """One step along the gradients, clipped together.

    Args:
        optimiser: whose parameters have them.
        clip: their largest norm, or None.
        scaler: of losses in float16; it leaves out a step whose gradients overflowed.
        what: the gradients' name in a message.
        at: phase and step.

    Returns:
        Zero, or NaN where the gradients are not finite: added to a loss it makes a report tell,
        where a device has steps queued and nobody looks at a norm.

    Raises:
        DivergenceError: the norm is not finite, on the CPU, before anything moves.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    if scaler is not None and all(p.grad is None for p in parameters):
        return torch.zeros((), device=parameters[0].device)  # it refuses to step along nothing
    if scaler is not None:
        scaler.unscale_(optimiser)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients])
    if clip is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    if scaler is not None:
        scaler.step(optimiser)
        return torch.zeros_like(norm)
    require_finite(norm, what, at=at)
    optimiser.step()
    return 0.0 * norm


def forget(optimiser: torch.optim.Optimizer, kept: Iterable[Tensor]) -> None:
    """Take all other parameters out of an optimiser, with what it remembers of them."""
    ids = {id(p) for p in kept}
    for group in optimiser.param_groups:
        group["params"] = [p for p in group["params"] if id(p) in ids]
    for parameter in [p for p in optimiser.state if id(p) not in ids]:
        del optimiser.state[parameter]
