"""Settling the decisions of a graph, asking only for those that matter.

A walk goes from the output back to the input. It asks about a decision the first time it
reaches a part of the network that depends on it, so options that were not picked are
never looked into and the outcome holds exactly the active decisions.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from math import comb

from trinas._core.errors import GenotypeError
from trinas._core.hints import did_you_mean
from trinas.graph.ir import Graph
from trinas.space.decision import Decision, Picked, chosen


def settle(graph: Graph, pick: Callable[[Decision], Picked]) -> dict[str, Picked]:
    """Ask `pick` about every active decision; the outcomes in the order of the graph."""
    picked: dict[str, Picked] = {}
    for node in backwards(graph, picked):
        for path in graph.asks(node):
            if path not in picked:
                picked[path] = pick(graph.decisions[path])
    return {path: picked[path] for path in graph.decisions if path in picked}


def backwards(graph: Graph, picked: Mapping[str, Picked]) -> Iterator[str]:
    """The nodes that the output needs, consumers first.

    Of a decision in `picked`, only what was picked is needed. It is looked at after its
    node was given out, so `picked` may be filled on the way.
    """
    needed = {graph.output}
    for node in reversed(graph):
        if node not in needed:
            continue
        yield node
        path = graph.vertex(node)["decision"]
        kept = chosen(picked[path]) if path is not None and path in picked else None
        for source, option in graph.sources(node):
            if kept is None or option in kept:
                needed.add(source)


def check_outcome(graph: Graph, path: str, value: object) -> None:
    """Check that `value` settles the decision at `path`.

    Raises:
        GenotypeError: no such decision (near names are offered), or no such outcome.
    """
    decision = graph.decisions.get(path)
    if decision is None:
        hint = did_you_mean(path, graph.decisions) or "Was it made for another space?"
        raise GenotypeError("a genotype names decisions of its space", got=path, at=path, fix=hint)
    if decision.allows(value):
        return
    if decision.kind == "inputs":
        fix = f"Give {decision.keep} different numbers of {list(decision.options)}, ascending."
    else:
        fix = f"The options are {', '.join(map(str, decision.derivable))}."
    raise GenotypeError(
        "an outcome is one of the options of its decision", got=repr(value), at=path, fix=fix
    )


def outcomes(decision: Decision) -> list[Picked]:
    """Everything a genotype can say about one decision, in order."""
    if decision.kind == "inputs":
        numbers = (o for o in decision.options if isinstance(o, int))
        return list(itertools.combinations(numbers, decision.keep))
    return list(decision.derivable)


def outcome_count(decision: Decision) -> int:
    """How many outcomes one decision has."""
    if decision.kind == "inputs":
        return comb(len(decision.options), decision.keep)
    return len(decision.derivable)


def sample_outcomes(graph: Graph, rng: random.Random) -> dict[str, Picked]:
    """Settle every active decision at random, evenly over its own outcomes."""
    return settle(graph, lambda decision: rng.choice(outcomes(decision)))


def enumerate_outcomes(graph: Graph) -> Iterator[dict[str, Picked]]:
    """Every different way to settle the active decisions, in a fixed order.

    Works like an odometer: each walk replays a prefix of outcomes and then takes first
    ones, and the last position that can still advance is advanced.
    """
    prefix: list[int] | None = []
    while prefix is not None:
        picked, digits = _replay(graph, prefix)
        yield picked
        prefix = _advance(digits)


def _replay(graph: Graph, prefix: list[int]) -> tuple[dict[str, Picked], list[tuple[int, int]]]:
    """One walk; also which outcome of how many each decision got, in the order asked."""
    digits: list[tuple[int, int]] = []

    def pick(decision: Decision) -> Picked:
        digit = prefix[len(digits)] if len(digits) < len(prefix) else 0
        digits.append((digit, outcome_count(decision)))
        return outcomes(decision)[digit]

    return settle(graph, pick), digits


def _advance(digits: list[tuple[int, int]]) -> list[int] | None:
    while digits and digits[-1][0] + 1 == digits[-1][1]:
        digits.pop()
    if not digits:
        return None
    return [digit for digit, _ in digits[:-1]] + [digits[-1][0] + 1]
