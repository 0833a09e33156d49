"""Which channels are in force: cuts for superkernels, masks for soft widths."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from trinas.graph import Graph
from trinas.ops import Cut
from trinas.space.shape import Shape
from trinas.space.values import Symbol, Value, Var, assignments, largest, substitute, symbols
from trinas.supernet.mixture import Mixture
from trinas.supernet.plan import Step


@lru_cache(maxsize=4096)
def _index(pieces: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Positions of the channels in use; `pieces` holds (full, used) per segment."""
    parts, start = [], 0
    for full, used in pieces:
        parts.append(torch.arange(start, start + used, device=device))
        start += full
    return torch.cat(parts)


class Slices:
    """Cuts for one pass in which every width is a number."""

    def __init__(self, widths: Mapping[Symbol, Value], device: torch.device) -> None:
        self._widths = widths
        self._device = device
        self._known: dict[tuple[Value, ...], tuple[int, int | Tensor | None]] = {}

    def cut(self, step: Step, declared: Mapping[str, tuple[int | str, ...]]) -> Cut:
        """The cut of one step."""
        x_count, ins = self._selection(step.x)
        y_count, outs = self._selection(step.y)
        return Cut(ins, outs, x_count == y_count, declared)

    def _selection(self, shape: Shape) -> tuple[int, int | Tensor | None]:
        if shape.segments not in self._known:
            pieces = []
            for segment in shape.segments:
                used = substitute(segment, self._widths)
                if not isinstance(used, int):
                    raise TypeError(f"no width in force for {used}")
                pieces.append((largest(segment), used))
            total = sum(used for _, used in pieces)
            # Pieces that are all full but the last leave one run from the start.
            run = all(full == used for full, used in pieces[:-1])
            chosen: int | Tensor | None = total if run else _index(tuple(pieces), self._device)
            if all(full == used for full, used in pieces):
                chosen = None
            self._known[shape.segments] = (total, chosen)
        return self._known[shape.segments]


class Masks:
    """Masks for one pass at full width, soft or hard as the weights are."""

    def __init__(self, graph: Graph, mixture: Mixture) -> None:
        self._graph = graph
        self._weights = mixture.weights
        self._known: dict[tuple[Value, ...], Tensor] = {}
        self._same: dict[tuple[Value, Value], bool | Tensor] = {}

    def cut(self, step: Step, declared: Mapping[str, tuple[int | str, ...]]) -> Cut:
        """Nothing is cut; only the odds of equal widths matter."""
        return Cut(None, None, self._odds_of_equal(step.x.channels, step.y.channels), declared)

    def channels(self, shape: Shape) -> Tensor:
        """The weight of every channel of a full-width tensor, (C,)."""
        if shape.segments not in self._known:
            parts = [self._segment(segment) for segment in shape.segments]
            self._known[shape.segments] = torch.cat(parts)
        return self._known[shape.segments]

    def _segment(self, segment: Value) -> Tensor:
        full = largest(segment)
        variables = tuple(s for s in symbols(segment) if isinstance(s, Var))
        joint = self._joint(variables)
        counts = [substitute(segment, a) for a in assignments(variables)]
        kept = torch.arange(full)[None, :] < torch.tensor(counts)[:, None]
        return joint @ kept.to(joint)

    def _joint(self, variables: tuple[Var, ...]) -> Tensor:
        """Weights of all joint assignments of `variables`, in the order of `assignments`."""
        joint = self._weights.new_ones(1)
        for variable in variables:
            start = self._graph.offsets[variable.path]
            own = self._weights[start : start + len(variable.values)]
            joint = (joint[:, None] * own[None, :]).flatten()
        return joint

    def _odds_of_equal(self, left: Value, right: Value) -> bool | Tensor:
        if (left, right) not in self._same:
            variables = tuple(
                s for s in dict.fromkeys(symbols(left) + symbols(right)) if isinstance(s, Var)
            )
            equal = [substitute(left, a) == substitute(right, a) for a in assignments(variables)]
            if all(equal) or not any(equal):
                self._same[left, right] = equal[0]
            else:
                joint = self._joint(variables)
                self._same[left, right] = (joint * torch.tensor(equal).to(joint)).sum()
        return self._same[left, right]
