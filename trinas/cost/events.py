"""When is a part of the network there? Events over decisions, and their exact probability.

A node is part of the derived network if some consumer is, and the decision in between
picks it. Such events share decisions (all nodes on one path of a tree depend on the same
exit; a shared cell decides once for many places), so probabilities must not simply be
multiplied or added. They are kept as decision diagrams: an event is 0, 1, or a test of
one variable with one event per outcome. Equal events are the same diagram, tests come in
one fixed order, and the probability follows exactly by one pass from the leaves.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trinas.graph import Graph
from trinas.space.decision import Option

NEVER = 0
ALWAYS = 1


class Events:
    """All events of one graph.

    Variables are decisions; for a decision that keeps several inputs, each input is a
    variable of its own (kept or not).

    Attributes:
        of_node: the event that a node is part of the network.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        # A diagram is (variable, children); 0 and 1 stand for never and always.
        self._diagrams: list[tuple[int, tuple[int, ...]]] = [(-1, ()), (-1, ())]
        self._ids: dict[tuple[int, tuple[int, ...]], int] = {}
        self._variables: dict[tuple[str, int], int] = {}
        self._slots: list[tuple[int, ...]] = []
        self._memo: dict[tuple[str, int, int], int] = {}
        self.of_node: dict[str, int] = self._node_events()

    def _node_events(self) -> dict[str, int]:
        graph = self._graph
        events = dict.fromkeys(graph, NEVER)
        events[graph.output] = ALWAYS
        for node in reversed(list(graph)):
            here = events[node]
            vertex = graph.vertex(node)
            for source in graph.sources(node):
                event = here
                if vertex["decision"] is not None and source.option is not None:
                    picked = self._picks(vertex["decision"], source.option)
                    event = self._combine("and", here, picked)
                events[source.node] = self.either(events[source.node], event)
        return events

    def _picks(self, path: str, option: Option) -> int:
        decision = self._graph.decisions[path]
        index = decision.index(option)
        start = self._graph.offsets[path]
        if decision.kind == "inputs":
            variable = self._variable(path, index, (start + index,))
            return self._diagram(variable, (NEVER, ALWAYS))
        count = len(decision.options)
        variable = self._variable(path, 0, tuple(range(start, start + count)))
        return self._diagram(variable, tuple(int(k == index) for k in range(count)))

    def _variable(self, path: str, part: int, slots: tuple[int, ...]) -> int:
        if (path, part) not in self._variables:
            self._variables[path, part] = len(self._slots)
            self._slots.append(slots)
        return self._variables[path, part]

    def _diagram(self, variable: int, children: tuple[int, ...]) -> int:
        if all(child == children[0] for child in children):
            return children[0]
        key = (variable, children)
        if key not in self._ids:
            self._ids[key] = len(self._diagrams)
            self._diagrams.append(key)
        return self._ids[key]

    def either(self, left: int, right: int) -> int:
        """The event that one of two happens."""
        return self._combine("or", left, right)

    def _combine(self, how: str, left: int, right: int) -> int:
        """And, or: with a stack of our own, as spaces may be nested deeply."""
        stack = [(left, right)]
        while stack:
            a, b = stack[-1]
            if self._known(how, a, b) is not None:
                stack.pop()
                continue
            variable, pairs = self._split(a, b)
            unknown = [pair for pair in pairs if self._known(how, *pair) is None]
            if unknown:
                stack.extend(unknown)
                continue
            children = tuple(self._result(how, *pair) for pair in pairs)
            self._memo[how, min(a, b), max(a, b)] = self._diagram(variable, children)
            stack.pop()
        return self._result(how, left, right)

    def _split(self, left: int, right: int) -> tuple[int, list[tuple[int, int]]]:
        """The variable that is tested first, and what is left to combine for each outcome."""
        a, b = self._diagrams[left], self._diagrams[right]
        # The variable met first is tested first; the other diagram waits.
        variable = min(a[0], b[0])
        count = len((a if a[0] == variable else b)[1])
        lefts = a[1] if a[0] == variable else (left,) * count
        rights = b[1] if b[0] == variable else (right,) * count
        return variable, list(zip(lefts, rights))

    def _known(self, how: str, left: int, right: int) -> int | None:
        neutral, absorbing = (ALWAYS, NEVER) if how == "and" else (NEVER, ALWAYS)
        if left == right or right == neutral:
            return left
        if left == neutral:
            return right
        if absorbing in (left, right):
            return absorbing
        return self._memo.get((how, min(left, right), max(left, right)))

    def _result(self, how: str, left: int, right: int) -> int:
        known = self._known(how, left, right)
        assert known is not None
        return known

    def levels(self, wanted: Iterable[int]) -> list[tuple[list[int], Tensor, Tensor]]:
        """What it takes to compute the wanted diagrams, in layers that depend on earlier ones.

        Each layer holds diagrams with equally many children and slots: their numbers, the
        slots of the weights that go with the children, and the children's numbers. A
        kept-or-not variable has two children but one slot, that of being kept.
        """
        depth = {NEVER: 0, ALWAYS: 0}
        layers: dict[tuple[int, int, int], list[int]] = {}
        # Children have smaller numbers than what is made of them.
        for number in sorted(self._below(wanted)):
            variable, children = self._diagrams[number]
            depth[number] = 1 + max(depth[child] for child in children)
            key = (depth[number], len(children), len(self._slots[variable]))
            layers.setdefault(key, []).append(number)
        result = []
        for key in sorted(layers):
            numbers = layers[key]
            slots = [self._slots[self._diagrams[n][0]] for n in numbers]
            children = [self._diagrams[n][1] for n in numbers]
            result.append((numbers, torch.tensor(slots), torch.tensor(children)))
        return result

    def _below(self, wanted: Iterable[int]) -> set[int]:
        """The diagrams that `wanted` are made of, themselves included."""
        found: set[int] = set()
        pending = list(wanted)
        while pending:
            number = pending.pop()
            if number > ALWAYS and number not in found:
                found.add(number)
                pending.extend(self._diagrams[number][1])
        return found

    def __len__(self) -> int:
        return len(self._diagrams)
