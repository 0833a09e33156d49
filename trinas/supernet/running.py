"""One forward pass: what each step of a plan computes.

Legend: N batch, C channels, H W height and width.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from trinas.graph import Graph
from trinas.ops import Operation
from trinas.supernet.compiled import Compiled, merged
from trinas.supernet.mixing import apart, concatenated, joint_sum, scaled_sum, weighted_sum
from trinas.supernet.mixture import Mixture
from trinas.supernet.order import Block, Live, Step
from trinas.supernet.widths import JointWidths, Masks, Slices, over_odds, selected, spread

Values: TypeAlias = Mapping[int, Tensor] | Sequence[Tensor | None]


class _Layers(Protocol):
    def __getitem__(self, key: str) -> nn.Module: ...


class Runnable(Protocol):
    """What a pass needs of a network."""

    graph: Graph
    joint_widths: JointWidths
    compiled: Compiled | None

    def slices(self, widths: Mapping[str, int], device: torch.device) -> Slices:
        """The cuts at these widths."""
        ...

    @property
    def layers(self) -> _Layers:
        """The modules by path."""
        ...


def _there(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


class Run:
    """One forward pass."""

    def __init__(self, network: Runnable, mixture: Mixture | None, device: torch.device) -> None:
        self._layers = network.layers
        self.compiled = network.compiled
        self._mixture = mixture
        self._cuts: Slices | Masks | None = None
        self._masks: Masks | None = None
        if mixture is None:
            return
        if mixture.widths is None:
            self._cuts = self._masks = Masks(network.graph, mixture, network.joint_widths)
        else:
            self._cuts = network.slices(mixture.widths, device)

    @functools.cached_property
    def _weights(self) -> Sequence[Tensor]:
        """The weights one by one: taken apart in one go, so that backward joins them in one."""
        assert self._mixture is not None
        return apart(self._mixture.weights)

    def block(self, block: Block, *inputs: Tensor) -> Tensor:
        """The result of the last step of a block; nothing is kept from other blocks."""
        run = self
        if self._masks is not None:
            # Masks made in here would belong to this block's part of the graph alone.
            run = copy.copy(self)
            run._cuts = run._masks = self._masks.afresh()
        values: dict[int, Tensor] = dict(zip(block.inputs, inputs))
        if self.compiled is None or self._masks is not None:
            for live in block.lives:
                values[live.position] = run.step(live, values)
        else:
            for region in block.regions:
                values[region.lives[-1].position] = self._region(region, values)
        return values[block.lives[-1].position]

    def _region(self, region: Block, values: Mapping[int, Tensor]) -> Tensor:
        *before, last = region.lives
        if not before or self.compiled is None:
            return self.step(last, values)
        steps = [live.step for live in region.lives]
        modules = [self._layers[s.key] if s.operation is not None else None for s in steps]
        cuts = [self._cuts.cut(s) if s.searched and self._cuts is not None else None for s in steps]
        scores = [self._scores(s) if c is not None else [] for s, c in zip(steps, cuts)]
        inputs = [values[i] for i in region.inputs]
        try:
            return self.compiled(region, modules, cuts, scores, inputs)
        except Exception as error:
            _note(error, last.step)
            raise

    def step(self, live: Live, values: Values) -> Tensor:
        """The result of one step."""
        try:
            return self._step(live, [_there(values[i]) for i in live.inputs])
        except Exception as error:
            _note(error, live.step)
            raise

    def _step(self, live: Live, inputs: list[Tensor]) -> Tensor:
        kind = live.step.kind
        if kind == "op":
            return self._op(live.step, inputs[0])
        if kind == "mix":
            return self._mix(live, inputs)
        if kind == "concat":
            return concatenated(inputs)
        coefs = live.coefs
        if kind == "keep" and self._mixture is not None:
            if self._mixture.learned_inputs:
                return self._keep(live, inputs)
            coefs = tuple(self._mixture.host[slot] for slot in live.slots)
        return self._joint(inputs, coefs, live.mixed) if live.mixed else merged(kind, inputs, coefs)

    def _op(self, step: Step, x: Tensor) -> Tensor:
        module, operation = self._layers[step.key], step.operation
        if operation is None or not step.searched or self._cuts is None:
            return module(x)
        if self._masks is not None and not (operation.channelwise or operation.adds_channels):
            return self._apart(step, operation, self._masks, x)
        y = operation.run(module, x, self._cuts.cut(step))
        for weight in self._scores(step):
            y = y * weight.to(y.dtype)
        return y

    def _apart(self, step: Step, operation: Operation, masks: Masks, x: Tensor) -> Tensor:
        """An operation at each setting of the widths around it, mixed by their odds."""
        total: Tensor | None = None
        for weight, cut in masks.settings(step):
            y = operation.run(self._layers[step.key], selected(x, cut.ins), cut)
            y = y * weight.to(y.dtype)
            y = spread(y, cut.outs, step.y.numbers()[0])
            total = y if total is None else total + y
        total = _there(total)
        odds = masks.odds(step)
        if odds is None:
            return total
        # Who reads it weighs each channel by its odds, which are in it already.
        odds = odds.to(total.dtype).reshape(-1, *[1] * (total.dim() - 2))
        return over_odds(total, odds)

    def output(self, step: Step, y: Tensor) -> Tensor:
        """The result of the network, whose last step this is."""
        return y if self._masks is None else self._masks.result(step, y)

    def _scores(self, step: Step) -> list[Tensor]:
        """The (unit) weights of the widths in force, by which a result takes their gradient."""
        mixture = self._mixture
        if mixture is None or mixture.widths is None:
            return []
        found = []
        for path in step.makes:
            if path in mixture.scored:
                decision = mixture.graph.decisions[path]
                slot = mixture.graph.offsets[path] + decision.index(mixture.widths[path])
                found.append(self._weights[slot])
        return found

    def _mix(self, live: Live, inputs: list[Tensor]) -> Tensor:
        mixture = self._mixture
        assert mixture is not None
        if len(inputs) == 1:
            return self._joint(inputs, (), live.slots)
        # What does not take part is here because nothing is skipped; its gradient is that
        # of what is.
        weights = [
            self._weights[slot] if mixture.alive[slot] else self._weights[slot].detach()
            for slot in live.slots
        ]
        return weighted_sum(weights, inputs)

    def _joint(
        self, inputs: list[Tensor], coefs: tuple[float, ...], slots: tuple[int | None, ...]
    ) -> Tensor:
        """A sum with mixtures of one input each in it, or one such mixture alone."""
        mixture = self._mixture
        assert mixture is not None
        factors = coefs or (1.0,) * len(inputs)
        values = [1.0 if slot is None else mixture.host[slot] for slot in slots]
        if not mixture.weights.requires_grad:  # and they need not be taken apart
            return scaled_sum(inputs, [f * v for f, v in zip(factors, values)])
        weights = [
            None if slot is None or not mixture.alive[slot] else self._weights[slot]
            for slot in slots
        ]
        return joint_sum(inputs, factors, weights, values)

    def _keep(self, live: Live, inputs: list[Tensor]) -> Tensor:
        """A sum weighed by what stays, with mixtures of one input each in it or without."""
        mixture = self._mixture
        assert mixture is not None
        mixed = live.mixed or (None,) * len(inputs)
        places = [[s for s in pair if s is not None] for pair in zip(live.slots, mixed)]
        values = [math.prod(mixture.host[slot] for slot in slots) for slots in places]
        if not mixture.weights.requires_grad:
            return scaled_sum(inputs, values)
        weights = [self._product(slots) for slots in places]
        return joint_sum(inputs, (1.0,) * len(inputs), weights, values)

    def _product(self, slots: list[int]) -> Tensor | None:
        """The product of some weights; None where none of them takes a gradient."""
        assert self._mixture is not None
        alive = [bool(self._mixture.alive[slot]) for slot in slots]
        if not any(alive):
            return None
        weights = [self._weights[slot] for slot in slots]
        own = [w if there else w.detach() for w, there in zip(weights, alive)]
        return functools.reduce(operator.mul, own)


def _note(error: Exception, step: Step) -> None:
    place = f", declared at {step.declared}" if step.declared else ""
    error.add_note(f"while running node {step.node}{place}")
