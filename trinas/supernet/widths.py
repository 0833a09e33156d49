"""Which channels are in force: cuts for superkernels, masks for soft widths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from trinas._core.errors import SpaceError
from trinas.graph import Graph
from trinas.ops import Cut
from trinas.ops.spec import Selection
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
_APART_LIMIT = 256


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
        self._equal: dict[tuple[int, int], tuple[Counted, list[bool]]] = {}

    def counts(self, segment: Value) -> Counted:
        """The widths behind a piece, and its channels at each of their joint settings."""
        if segment not in self._counts:
            variables = joint_variables((segment,), at=str(segment))
            values = [substitute(segment, a) for a in assignments(variables)]
            self._counts[segment] = variables, [int(v) for v in values if isinstance(v, int)]
        return self._counts[segment]

    def equal(self, step: Step) -> tuple[Counted, list[bool]]:
        """The widths around a step: channels of its result, and whether both sides agree."""
        key = (step.x_pieces, step.y_pieces)
        if key not in self._equal:
            x, y = step.x.channels, step.y.channels
            variables = joint_variables((x, y), at=step.node)
            pairs = [(substitute(x, a), substitute(y, a)) for a in assignments(variables)]
            counts = [n for _, n in pairs if isinstance(n, int)]
            self._equal[key] = (variables, counts), [m == n for m, n in pairs]
        return self._equal[key]


class Masks:
    """Soft widths for one pass at full width: every channel counts by the odds that it is there.

    A tensor holds all its channels as they come, and is weighed where they meet: at the input of
    an operation that adds them up, and at the output of the network. In between each goes its
    way alone, so that normalisation sees it as it would be, whatever its odds.

    One-hot weights give the result of the cuts. Otherwise what is behind one width is the mean over
    its values, exactly; several widths count as independent, and so do a skip that is an identity
    or a convolution and what it convolves.
    """

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
        """Nothing is cut; the input of what adds its channels up is weighed.

        Raises:
            SpaceError: an operation that is called channelwise and has other channels.
        """
        adds = step.operation is not None and step.operation.adds_channels
        if not adds and set(step.x.symbols) != set(step.y.symbols):
            raise SpaceError(
                "a channelwise operation has the searched channels of its input",
                got=f"{step.operation} from {step.x} to {step.y}",
                at=step.node,
                fix="Take channelwise off it.",
            )
        mask = self._channels(step.x_pieces, step.x) if adds and step.x.symbols else None
        return Cut(None, None, self._odds_of_equal(step), step.weights, mask)

    def result(self, step: Step, y: Tensor) -> Tensor:
        """The result of a step, (N, C, ...), with its channels weighed."""
        return Cut(mask=self.odds(step)).masked(y)

    def settings(self, step: Step) -> Iterator[tuple[Tensor, Cut]]:
        """The joint settings of the widths around a step that count: odds and cuts.

        Raises:
            SpaceError: there are too many to run them one by one.
        """
        variables = joint_variables((step.x.channels, step.y.channels), at=step.node)
        if joint_size(variables) > _APART_LIMIT:
            raise SpaceError(
                "an operation that says nothing of its channels runs once for each setting of "
                f"soft widths around it, at most {_APART_LIMIT}",
                got=f"{joint_size(variables)} settings around {step.operation}",
                at=step.node,
                fix="Set channelwise or adds_channels on it where that is true.",
            )
        joint = self._joint(variables)
        learns = self._weights.requires_grad and torch.is_grad_enabled()
        host = self._mixture.host
        for number, setting in enumerate(assignments(variables)):
            widths = {v.path: int(str(setting[v])) for v in variables}
            slots = [self._slot(v) + v.values.index(widths[v.path]) for v in variables]
            if learns or all(host[slot] for slot in slots):
                yield joint[number], Slices(variables, widths, joint.device).cut(step)

    def odds(self, step: Step) -> Tensor | None:
        """The odds of every channel of the result, (C,); None where all are there."""
        return self._channels(step.y_pieces, step.y) if step.y.symbols else None

    def _channels(self, number: int, shape: Shape) -> Tensor:
        """The odds of every channel of a shape, given with the number of its pieces, (C,)."""
        if number not in self._masks:
            parts = [self._segment(segment) for segment in shape.segments]
            self._masks[number] = torch.cat(parts)
        return self._masks[number]

    def _segment(self, segment: Value) -> Tensor:
        variables, counts = self._numbers.counts(segment)
        return _present(self._joint(variables), counts, largest(segment))

    def _slot(self, variable: Var) -> int:
        return self._graph.offsets[variable.path]

    def _joint(self, variables: tuple[Var, ...]) -> Tensor:
        """Weights of all joint assignments of `variables`, in the order of `assignments`."""
        joint = self._weights.new_ones(1)
        for variable in variables:
            start = self._slot(variable)
            own = self._weights[start : start + len(variable.values)]
            joint = (joint[:, None] * own[None, :]).flatten()
        return joint

    def _odds_of_equal(self, step: Step) -> bool | Tensor:
        key = (step.x_pieces, step.y_pieces)
        if key not in self._same:
            (variables, counts), agree = self._numbers.equal(step)
            if all(agree) or not any(agree):
                self._same[key] = agree[0]
            else:
                joint = self._joint(variables)
                equal = joint * torch.tensor(agree, device=joint.device)
                width = largest(step.y.channels)
                self._same[key] = over_odds(
                    _present(equal, counts, width), _present(joint, counts, width)
                )
        return self._same[key]


def selected(x: Tensor, channels: Selection) -> Tensor:
    """The channels of (N, C, ...) that are there."""
    if channels is None:
        return x
    return x.narrow(1, 0, channels) if isinstance(channels, int) else x.index_select(1, channels)


def spread(y: Tensor, channels: Selection, width: int) -> Tensor:
    """The inverse of `selected`: (N, width, ...) with zeros in all other channels."""
    if channels is None:
        return y
    full = y.new_zeros(y.shape[0], width, *y.shape[2:])
    if isinstance(channels, int):
        channels = torch.arange(channels, device=y.device)
    return full.index_copy(1, channels, y)


def _present(joint: Tensor, counts: list[int], width: int) -> Tensor:
    """The odds that each of `width` channels is there, where a setting has so many, (width,)."""
    distinct = sorted(set(counts))
    places = torch.tensor([distinct.index(n) for n in counts], device=joint.device)
    merged = joint.new_zeros(len(distinct)).index_add(0, places, joint)
    channels = torch.arange(width, device=joint.device)
    kept = channels[None, :] < torch.tensor(distinct, device=joint.device)[:, None]
    return merged @ kept.to(joint)


def over_odds(value: Tensor, odds: Tensor) -> Tensor:
    """What is divided by the odds of its being there; as it is where it never is."""
    return value / torch.where(odds > 0, odds, 1.0)
