"""Which channels are in force: cuts for superkernels, masks for soft widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from trinas._core.errors import SpaceError
from trinas.graph import Graph
from trinas.ops import Cut
from trinas.space.shape import Shape
from trinas.space.values import (
    Symbol,
    Value,
    Var,
    assignments,
    joint_size,
    largest,
    substitute,
    symbols,
)
from trinas.supernet.mixture import Mixture
from trinas.supernet.order import Step

_JOINT_LIMIT = 2**18


def joint_variables(values: tuple[Value, ...], at: str | None = None) -> tuple[Var, ...]:
    """The widths that decide `values` together.

    Raises:
        SpaceError: they have too many joint settings to go through one by one.
    """
    found = tuple(dict.fromkeys(s for v in values for s in symbols(v)))
    if joint_size(found) > _JOINT_LIMIT:
        raise SpaceError(
            f"the widths that meet in one place have at most {_JOINT_LIMIT} joint settings",
            got=f"{joint_size(found)} of {len(found)} widths",
            at=at,
            fix="Give them fewer candidates, or put a convolution of one width between.",
        )
    return tuple(s for s in found if isinstance(s, Var))


class Slices:
    """Cuts where every width is a number.

    Args:
        variables: the widths of the network.
        widths: the numbers, by path.
        device: for positions of channels.
    """

    def __init__(
        self, variables: Sequence[Var], widths: Mapping[str, int], device: torch.device
    ) -> None:
        self._numbers = dict(widths)
        self._device = device
        self._widths: dict[Symbol, Value] = {v: widths[v.path] for v in variables}
        self._known: dict[int, tuple[int, int | Tensor | None]] = {}
        self._cuts: dict[str, Cut] = {}

    def hold_for(self, widths: Mapping[str, int], device: torch.device) -> bool:
        """Whether these are the cuts of a pass with `widths` on `device`."""
        return self._numbers == widths and self._device == device

    def cut(self, step: Step) -> Cut:
        """The cut of one step."""
        cut = self._cuts.get(step.node)
        if cut is None:
            x_count, ins = self._known.get(step.x_pieces) or self._select(step.x_pieces, step.x)
            y_count, outs = self._known.get(step.y_pieces) or self._select(step.y_pieces, step.y)
            cut = self._cuts[step.node] = Cut(ins, outs, x_count == y_count, step.weights)
        return cut

    def _select(self, number: int, shape: Shape) -> tuple[int, int | Tensor | None]:
        pieces = []
        for segment in shape.segments:
            used = substitute(segment, self._widths)
            if not isinstance(used, int):
                raise TypeError(f"no width in force for {used}")
            pieces.append((largest(segment), used))
        total = sum(used for _, used in pieces)
        chosen: int | Tensor | None = total
        if all(full == used for full, used in pieces):
            chosen = None
        elif any(full != used for full, used in pieces[:-1]):
            chosen = self._index(pieces)
        # else all but the last piece are full, which leaves one run from the start.
        self._known[number] = (total, chosen)
        return total, chosen

    def _index(self, pieces: list[tuple[int, int]]) -> Tensor:
        """Positions of the channels in use; `pieces` holds (full, used) in order."""
        channels, start = [], 0
        for full, used in pieces:
            channels += range(start, start + used)
            start += full
        with torch.inference_mode(False):  # kept for later passes, which may be trained
            return torch.tensor(channels, device=self._device)


Counted: TypeAlias = tuple[tuple[Var, ...], list[int]]


class JointWidths:
    """What the joint settings of widths come to: plain numbers, worked out once a network."""

    def __init__(self) -> None:
        self._counts: dict[Value, Counted] = {}
        self._equal: dict[tuple[int, int], Counted] = {}

    def counts(self, segment: Value) -> Counted:
        """The widths behind a piece, and its channels at each of their joint settings."""
        if segment not in self._counts:
            variables = joint_variables((segment,), at=str(segment))
            values = [substitute(segment, a) for a in assignments(variables)]
            self._counts[segment] = variables, [int(v) for v in values if isinstance(v, int)]
        return self._counts[segment]

    def equal(self, step: Step) -> Counted:
        """The widths around a step, and whether both sides agree at each joint setting."""
        key = (step.x_pieces, step.y_pieces)
        if key not in self._equal:
            x, y = step.x.channels, step.y.channels
            variables = joint_variables((x, y), at=step.node)
            agree = [int(substitute(x, a) == substitute(y, a)) for a in assignments(variables)]
            self._equal[key] = variables, agree
        return self._equal[key]


class Masks:
    """Masks for one pass at full width, soft or hard as the weights are."""

    def __init__(self, graph: Graph, mixture: Mixture, joint: JointWidths) -> None:
        self._graph = graph
        self._mixture = mixture
        self._weights = mixture.weights
        self._numbers = joint
        self._masks: dict[int, Tensor] = {}
        self._same: dict[tuple[int, int], bool | Tensor] = {}

    def afresh(self) -> Masks:
        """The same masks with none made yet."""
        return Masks(self._graph, self._mixture, self._numbers)

    def cut(self, step: Step) -> Cut:
        """Nothing is cut; only the odds of equal widths matter."""
        return Cut(None, None, self._odds_of_equal(step), step.weights)

    def channels(self, step: Step) -> Tensor:
        """The weight of every channel of the full-width result, (C,)."""
        if step.y_pieces not in self._masks:
            parts = [self._segment(segment) for segment in step.y.segments]
            self._masks[step.y_pieces] = torch.cat(parts)
        return self._masks[step.y_pieces]

    def _segment(self, segment: Value) -> Tensor:
        variables, counts = self._numbers.counts(segment)
        joint = self._joint(variables)
        channels = torch.arange(largest(segment), device=joint.device)
        kept = channels[None, :] < torch.tensor(counts, device=joint.device)[:, None]
        return joint @ kept.to(joint)

    def _joint(self, variables: tuple[Var, ...]) -> Tensor:
        """Weights of all joint assignments of `variables`, in the order of `assignments`."""
        joint = self._weights.new_ones(1)
        for variable in variables:
            start = self._graph.offsets[variable.path]
            own = self._weights[start : start + len(variable.values)]
            joint = (joint[:, None] * own[None, :]).flatten()
        return joint

    def _odds_of_equal(self, step: Step) -> bool | Tensor:
        key = (step.x_pieces, step.y_pieces)
        if key not in self._same:
            variables, agree = self._numbers.equal(step)
            if all(agree) or not any(agree):
                self._same[key] = bool(agree[0])
            else:
                joint = self._joint(variables)
                self._same[key] = (joint * torch.tensor(agree).to(joint)).sum()
        return self._same[key]
