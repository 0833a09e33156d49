"""One pass with several ends: what stands before a decision once, the rest once for each option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from trinas._core.errors import SpaceError
from trinas.space.decision import Option
from trinas.supernet.mixture import Mixture
from trinas.supernet.order import Live, Order, last_reads


@attrs.frozen(eq=False)
class Exits:
    """What such a pass runs.

    Attributes:
        order: the steps, numbered anew in the order in which they run.
        outputs: position of the output at each option. Options that lead to the same, since the
            decision takes no part, have the same.
    """

    order: Order
    outputs: Mapping[Option, int]


def options_to_run(
    mixture: Mixture, path: str, options: Sequence[Option] | None
) -> tuple[Option, ...]:
    """The options of a decision that a pass with several ends takes, checked.

    Raises:
        SpaceError: no such decision, or no such options.
    """
    graph = mixture.graph
    decision = graph.decisions.get(path)
    if decision is None or decision.kind in ("width", "inputs"):
        raise SpaceError(
            "one pass has several ends at a decision of operations, paths or depths",
            got=path if decision is None else f"{path}, a decision of {decision.kind}",
            fix="See graph.decisions.",
        )
    if options is None:
        start = graph.offsets[path]
        return tuple(
            option
            for slot, option in enumerate(decision.options, start)
            if mixture.alive[slot] or mixture.host_odds[slot]
        )
    unknown = [option for option in options if option not in decision.options]
    if unknown or not options:
        raise SpaceError(
            "ends are options of their decision, one at least",
            got=unknown[0] if unknown else "none",
            at=path,
            fix=f"There are {', '.join(map(str, decision.options))}.",
        )
    return tuple(dict.fromkeys(options))


def settled(order: Order, path: str) -> Order:
    """The same steps; a mixture of this decision, of one input by now, passes it on as it is.

    So its weight need not be 1, and the others keep their gradients.
    """
    lives = tuple(
        attrs.evolve(live, step=attrs.evolve(live.step, kind="sum", slots=()), slots=())
        if live.step.kind == "mix" and live.step.decision == path
        else live
        for live in order.lives
    )
    return Order(lives, {})


def branched(
    orders: Mapping[Option, Order], path: str, output: int, regions: Mapping[int, int]
) -> Exits:
    """What these passes run, with what they have in common run once.

    A tail comes as soon as all that it reads is there, so that where nothing is kept for
    backward, memory holds one tail at a time.

    Args:
        orders: one pass for each option of the decision, see `settled`.
        path: the decision.
        output: position of the output in all of them.
        regions: for every position that of the end of its static region, see `Plan`.
    """
    behind = _behind(orders, path)
    trunk = {
        live.position: live
        for order in orders.values()
        for live in order.lives
        if live.position not in behind
    }
    waiting: dict[int, list[tuple[Option, list[Live]]]] = {}
    for option, order in orders.items():
        tail = [live for live in order.lives if live.position in behind]
        reads = [i for live in tail for i in live.inputs if i not in behind]
        waiting.setdefault(max(reads, default=-1), []).append((option, tail))
    lives = _Renumbered(regions)
    common: dict[int, int] = {}
    outputs: dict[Option, int] = {}
    for position in sorted(trunk):
        lives.add([trunk[position]], common, {})
        for option, tail in waiting.get(position, ()):
            places: dict[int, int] = {}
            lives.add(tail, places, common)
            outputs[option] = places[output]
    # Where the decision takes no part there are no tails.
    return Exits(lives.order(), {o: outputs.get(o, common.get(output, -1)) for o in orders})


def _behind(orders: Mapping[Option, Order], path: str) -> set[int]:
    """The steps whose result hangs on the decision."""
    reads: dict[int, set[int]] = {}
    behind = set()
    for order in orders.values():
        for live in order.lives:
            reads.setdefault(live.position, set()).update(live.inputs)
            if live.step.decision == path:
                behind.add(live.position)
    for position in sorted(reads):
        if reads[position] & behind:
            behind.add(position)
    return behind


class _Renumbered:
    """Steps at new positions, one after the other, with the regions of the old ones."""

    def __init__(self, regions: Mapping[int, int]) -> None:
        self._old = regions
        self._lives: list[Live] = []
        self._parts: list[tuple[int, Mapping[int, int]]] = []

    def add(self, lives: Sequence[Live], places: dict[int, int], others: Mapping[int, int]) -> None:
        """Append steps and note their positions in `places`; they may read what is in `others`."""
        for live in lives:
            inputs = tuple(places[i] if i in places else others[i] for i in live.inputs)
            places[live.position] = number = len(self._lives)
            self._parts.append((live.position, places))
            self._lives.append(attrs.evolve(live, position=number, inputs=inputs))

    def order(self) -> Order:
        """All of them."""
        # The end of a region whose start others read, too, lies in each of the tails: no region.
        regions = {
            number: places.get(self._old.get(old, old), number)
            for number, (old, places) in enumerate(self._parts)
        }
        freed = zip(self._lives, last_reads([live.inputs for live in self._lives]))
        return Order(tuple(attrs.evolve(live, frees=frees) for live, frees in freed), regions)
