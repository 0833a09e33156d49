"""Options that are dropped for good: which ones may be, and what that leaves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from trinas._core.errors import CheckpointError, SpaceError
from trinas.graph import Graph
from trinas.space.decision import Decision, Option


def droppable(decision: Decision, gone: Collection[Option]) -> bool:
    """Whether `gone` may leave `decision`: as many as are derived have to remain."""
    return sum(option not in gone for option in decision.derivable) >= decision.keep


def slots_of(
    graph: Graph,
    options: Mapping[str, Iterable[Option] | Option],
    already: Mapping[str, Collection[Option]],
    *,
    inputs: bool = True,
) -> list[int]:
    """The slots of options that are to be dropped, checked.

    Args:
        graph: the space.
        options: what to drop, by decision.
        already: what was dropped before.
        inputs: whether inputs of a cell's steps have logits of their own.

    Raises:
        SpaceError: no such decision or option, a decision that has no logits of its own or
            is a width, or too little left to derive.
    """
    slots = []
    fixed = ("width",) if inputs else ("width", "inputs")
    for path, given in options.items():
        named = (given,) if isinstance(given, str | int) else tuple(given)
        decision = graph.decisions.get(path)
        if decision is None or decision.kind in fixed:
            raise SpaceError(
                "options of operations, paths, depths and learned inputs are dropped",
                got=path if decision is None else f"{path}, a decision of {decision.kind}",
                fix="See graph.decisions. Narrower widths share their weights with wider ones.",
            )
        for option in named:
            if option not in decision.options:
                raise SpaceError(
                    "an option that is dropped is one of its decision",
                    got=option,
                    at=path,
                    fix=f"There are {', '.join(map(str, decision.options))}.",
                )
            slots.append(graph.offsets[path] + decision.index(option))
        if not droppable(decision, {*named, *already.get(path, ())}):
            few = decision.keep > 1
            raise SpaceError(
                f"{decision.keep} options that can be derived are left in this decision"
                if few
                else "an option that can be derived is left in every decision",
                got=f"{'too many' if few else 'all'} of "
                f"{', '.join(map(str, decision.derivable))} dropped",
                at=path,
                fix=f"Keep {decision.keep if few else 'one'} of them.",
            )
    return slots


def require_fitting(
    own: Mapping[str, Any], state: Mapping[str, Any], gone: tuple[str, ...]
) -> None:
    """Refuse a state that is not what is left of a supernet.

    Args:
        own: the state of the supernet.
        state: the one to load.
        gone: beginnings of the names that pruning would remove.

    Raises:
        CheckpointError: parameters are missing, too many or of another shape.
    """
    kept = {name: value for name, value in own.items() if not name.startswith(gone)}
    wrong = list(kept.keys() ^ state.keys())
    wrong += [
        name
        for name in kept.keys() & state.keys()
        if isinstance(kept[name], Tensor) and kept[name].shape != getattr(state[name], "shape", 0)
    ]
    if wrong:
        raise CheckpointError(
            "the state of a pruned supernet holds what was left of it, in its shapes",
            got=f"{len(wrong)} missing, too many or of another shape, as {min(wrong)}",
            fix="Load what Supernet.state_dict gave, into a supernet of the same settings.",
        )
