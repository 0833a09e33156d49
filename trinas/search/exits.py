"""Expected losses over the exits of trees and the depths of repeats, and their gradients."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from trinas.search import validators as check
from trinas.search.checks import loss_of
from trinas.search.precision import precision
from trinas.search.setting import Pass, Setting
from trinas.search.step import Step
from trinas.search.task import Task
from trinas.space.decision import Decision, Option
from trinas.supernet import Mixture, Supernet, batch_statistics
from trinas.supernet.exits import options_to_run

KINDS = ("path", "depth")
"""Decisions whose options are exits."""


@attrs.frozen(eq=False)
class End:
    """A mixed decision of paths or depths.

    Attributes:
        number: of its supernet.
        decision: of that supernet.
        order: for each option the one that it goes on from, -1 where there is none.
    """

    number: int
    decision: Decision
    order: tuple[int, ...]

    def odds(self, setting: Setting) -> dict[Option, float]:
        """The weights of the options."""
        mixture = setting.mixtures[self.number]
        start = mixture.graph.offsets[self.decision.path]
        return {o: mixture.host[start + k] for k, o in enumerate(self.decision.options)}

    def shares(self, setting: Setting, lean: float, *, even: bool) -> dict[Option, float]:
        """How much each option counts in the training of the network's weights.

        Args:
            setting: how the decisions stand.
            lean: share that goes, evenly, to the exits that no other living one goes on from.
            even: whether the rest goes to all living ones alike, instead of by their weights.
        """
        odds = self.odds(setting)
        options, mixture = self.decision.options, setting.mixtures[self.number]
        start = mixture.graph.offsets[self.decision.path]
        living = [k for k in range(len(options)) if mixture.alive[start + k]]
        if even:
            gone = mixture.pruned.get(self.decision.path, ())
            living = [k for k, option in enumerate(options) if option not in gone]
            odds = {o: (k in living) / len(living) for k, o in enumerate(options)}
        inner: set[int] = set()
        for k in living:
            while k >= 0 and self.order[k] not in inner:
                k = self.order[k]
                inner.add(k)
        last = {options[k] for k in living if k not in inner}
        return {o: (1 - lean) * q + lean * (o in last) / len(last) for o, q in odds.items()}

    def is_open(self, setting: Setting) -> bool:
        """Whether it takes part, with several options."""
        mixture, path = setting.mixtures[self.number], self.decision.path
        start = mixture.graph.offsets[path]
        several = sum(mixture.alive[start : start + len(self.decision.options)]) > 1
        return several and path in setting.nets[self.number].network.active(mixture)


def ends_of(nets: Sequence[Supernet]) -> list[End]:
    """The mixed decisions of paths or depths of all supernets."""
    found = []
    for number, net in enumerate(nets):
        drawn = {decision.path for decision in net.architecture.drawn}
        for group in net.architecture.groups:
            if group.kind in KINDS:
                own = [d for d in group.decisions if d.path not in drawn]
                found += [End(number, decision, group.order) for decision in own]
    return found


def drawn_apart(
    setting: Setting,
    shares: Mapping[End, Mapping[Option, float]],
    one: End | None,
    rng: random.Random,
) -> Setting:
    """The setting with all these decisions but one settled, each drawn by its shares."""
    for end, odds in shares.items():
        if end is not one:
            picked = rng.choices(list(odds), list(odds.values()))[0]
            setting = setting.picking(end.number, {end.decision.path: picked})
    return setting


def on_drawn_paths(setting: Setting, rng: random.Random) -> Setting:
    """The setting with all mixed paths and depths settled, each drawn by its weights."""
    shares = {end: end.odds(setting) for end in ends_of(setting.nets) if end.is_open(setting)}
    return drawn_apart(setting, shares, None, rng)


def losses_at_exits(
    task: Task,
    batch: tuple[Any, Any],
    setting: Setting,
    end: End,
    options: Sequence[Option] | None = None,
    *,
    at: str,
    keep: bool,
) -> dict[Option, Tensor]:
    """The loss with one decision at each of its options in turn.

    Where the model is the supernet it is one pass, with a tail for each option
    (`Network.outputs_at_exits`); of a larger model it is one pass an option.

    Args:
        task: model and loss.
        batch: input and target.
        setting: how the other decisions stand.
        end: the decision.
        options: of it; those that have weight, or take a gradient, where None.
        at: phase and step, for messages.
        keep: whether the passes are kept for a backward pass.

    Raises:
        ShapeError: see `trinas.search.checks.loss_of`; so for DivergenceError and DataError.
    """
    (x, y), path = batch, end.decision.path
    net, mixture = setting.nets[end.number], setting.mixtures[end.number]
    outputs: Mapping[Option, Any] = {}
    with precision(task.device, task.autocast):
        with torch.set_grad_enabled(keep):
            if task.model is net:
                outputs = net.network.outputs_at_exits(x, mixture, path, options=options)
            else:
                for option in options_to_run(mixture, path, options):
                    with setting.picking(end.number, {path: option}).held():
                        outputs = {**outputs, option: task.model(x)}
        return {
            option: loss_of(task.loss, output, y, at=f"{at}, {path} at {option}")
            for option, output in outputs.items()
        }


def expected(losses: Mapping[Option, Tensor], odds: Mapping[Option, float]) -> Tensor:
    """The mean of losses by these odds."""
    values = torch.stack(list(losses.values()))
    return (torch.tensor([odds[option] for option in losses]).to(values) * values).sum()


def descend_at_exits(
    step: Step, one: Pass, ends: Sequence[End], lean: float, wait: float
) -> Tensor:
    """Add the gradient of the expected loss over the exits of one decision to the weights.

    Args:
        step: of pretraining or search.
        one: how all decisions stand.
        ends: the decisions that are open; the others but one are drawn.
        lean: share of the deepest exits, until `wait`; it falls to 0 at the end.
        wait: share of the search before which the others count evenly.

    Returns:
        That loss, as often as the pass counts.
    """
    task, setting = step.task, one.setting
    progress = max(net.progress for net in setting.nets)
    if progress >= wait:
        lean *= (1 - progress) / (1 - wait)
    shares = {end: end.shares(setting, lean, even=progress < wait) for end in ends}
    end = ends[0] if len(ends) == 1 else step.rng.choice(ends)
    apart = drawn_apart(setting, shares, end, step.rng)
    counting = [option for option, share in shares[end].items() if share]
    at = f"{step.place}, {one.name}" if one.name else step.place
    losses = losses_at_exits(task, step.train, apart, end, counting, at=at, keep=True)
    return task.backward(one.times * expected(losses, shares[end]))


@attrs.frozen
class Exits:
    """See `trinas.search.signals.exits`."""

    most: int = attrs.field(default=4, validator=[check.whole, check.positive])

    def __call__(self, step: Step, passes: Sequence[Pass]) -> Tensor:
        """One pass with several ends for each decision of paths, in each of the passes."""
        ends = ends_of(passes[0].setting.nets)
        losses = [self._descend(step, one, ends) for one in passes]
        return torch.stack(losses).sum()

    def _descend(self, step: Step, one: Pass, ends: Sequence[End]) -> Tensor:
        task, setting = step.task, one.setting
        learning = any(map(_asks, setting.nets, setting.mixtures))
        inputs = [*setting.weights, *task.arch.values()]
        at = f"{step.place}, {one.name}" if one.name else step.place
        live = [end for end in ends if end.is_open(setting)]
        if not live:
            return task.descend(step.valid, one, at=step.place, inputs=inputs)
        chosen = live if len(live) <= self.most else step.rng.sample(live, self.most)
        odds = {end: end.odds(setting) for end in live}
        found = []
        for end in chosen:
            apart = drawn_apart(setting, odds, end, step.rng)
            with batch_statistics(task.model):
                losses = losses_at_exits(task, step.valid, apart, end, at=at, keep=learning)
                mean = one.times / len(chosen) * expected(losses, odds[end])
                found.append(task.backward(mean, inputs))
            self._add(task, setting, end, losses, one.times * len(live) / len(chosen))
        return torch.stack(found).sum()

    @staticmethod
    def _add(
        task: Task, setting: Setting, end: End, losses: Mapping[Option, Tensor], times: float
    ) -> None:
        """By its weight, the gradient of an expected loss is the loss at an option."""
        mixture = setting.mixtures[end.number]
        start = mixture.graph.offsets[end.decision.path]
        slots = [start + end.decision.index(option) for option in losses]
        values = times * torch.stack(list(losses.values())).detach()
        if task.scaler is not None:
            values = task.scaler.scale(values)
        gradient = torch.zeros_like(mixture.weights)
        gradient[slots] = values.to(gradient)
        had = mixture.weights.grad
        mixture.weights.grad = gradient if had is None else had + gradient


def _asks(net: Supernet, mixture: Mixture) -> bool:
    """Whether anything but mixed paths and depths takes a gradient through the network.

    Drawn widths do only where they are scored.
    """
    drawn = {decision.path for decision in net.architecture.drawn}
    without = (*KINDS, "width")
    return bool(mixture.scored) or any(
        group.kind not in without or (decision.path in drawn) == (group.kind in KINDS)
        for group in net.architecture.groups
        for decision in group.decisions
    )
