"""From a space to its graph.

Three paths travel along. Where a node stands names it; shared decisions and shared
weights are named by the key of their `Share` instead. Widths become variables named by
the place where they are decided (`trinas.space.binding`).

Each kind of node has a method that lowers it. Those with parts are generators: they yield
the lowering of a part and are sent the name of its output. So spaces may be nested as
deeply as memory allows, whatever the recursion limit of Python.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from trinas._core.collector import paused_collector
from trinas._core.declared import declared_at
from trinas._core.errors import ShapeError
from trinas.graph.builder import INPUT, Builder
from trinas.graph.ir import Graph, Source
from trinas.graph.passes import remove_dead
from trinas.graph.place import Place, is_transparent, item_labels, numbered, width_labels
from trinas.space.binding import bind_widths
from trinas.space.checks import whole
from trinas.space.decision import Decision
from trinas.space.nodes import (
    Cell,
    Choice,
    Node,
    Op,
    Parallel,
    Repeat,
    Residual,
    Seq,
    Share,
    Stack,
    Tree,
    Trellis,
    as_node,
)
from trinas.space.operation import OperationSpec
from trinas.space.shape import Shape
from trinas.space.values import Symbol, Value, Var, Width

History: TypeAlias = tuple[str, ...]

# The name of an output, or a lowering under way that will return it.
Task: TypeAlias = "str | Generator[Task, str, str]"
Steps: TypeAlias = Generator[Task, str, str]


def lower(space: Node | OperationSpec, in_shape: Sequence[int]) -> Graph:
    """The graph of `space` for inputs of shape `in_shape`.

    All shapes are worked out here, before any tensor exists. Lowering takes time
    proportional to the size of the graph and sets no limit to the depth of a space.

    Args:
        space: what the words of trinas built.
        in_shape: ``(channels, height, width)`` or ``(features,)``, without the batch.

    Raises:
        ShapeError: two parts do not fit; the message names both.
        SpaceError: two parts have one path, or a shared decision differs between places.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> print(graph.text, end="")
    decision slot: operation {a, b}
    input -> 3x16x16
    slot/a = conv(kernel=3, channels=8)(input) -> 8x16x16
    slot/b = conv(kernel=1, channels=8)(input) -> 8x16x16
    slot = mix[slot](a: slot/a, b: slot/b) -> 8x16x16
    output slot
    """
    root = as_node(space)
    numbers = tuple(in_shape) if isinstance(in_shape, Sequence) else (in_shape,)
    if not isinstance(in_shape, Sequence) or not numbers or any(not whole(n, 1) for n in numbers):
        raise ShapeError(
            "an input shape is (channels, height, width) or (features,), each at least 1",
            got=numbers,
            at=declared_at(),
            fix="Leave the batch out.",
        )
    with paused_collector():
        lowering = _Lowering(root, Builder(Shape.of(*numbers)))
        place = Place() if is_transparent(root) else Place().child(root.label)
        output = _run(lowering.emit(root, (INPUT,), place))
        return remove_dead(lowering.builder.finish(output))


def _run(task: Task) -> str:
    """Drive nested lowerings with a stack of our own."""
    if isinstance(task, str):
        return task
    waiting: list[Steps] = []
    result: Any = None  # a generator is started by sending it None
    while True:
        try:
            part = task.send(result)
        except StopIteration as stop:
            result = stop.value
            if not waiting:
                return result
            task = waiting.pop()
        else:
            if isinstance(part, str):
                result = part
            else:
                waiting.append(task)
                task, result = part, None


class _Lowering:
    """One run of `lower`: a method per kind of node, each returning its output's name."""

    def __init__(self, space: Node, builder: Builder) -> None:
        self.builder = builder
        self._bound = bind_widths(space)
        # What the widths in reach are called. All uses of a width lie inside the node that it
        # is decided at, and of that node one place is lowered after the other.
        self._values: dict[Symbol, Value] = {}
        self._rules: dict[type[Node], Callable[..., Task]] = {
            Op: self._op,
            Seq: self._seq,
            Choice: self._choice,
            Repeat: self._repeat,
            Residual: self._residual,
            Parallel: self._parallel,
            Cell: self._cell,
            Stack: self._stack,
            Tree: self._tree,
            Trellis: self._trellis,
            Share: self._share,
        }

    def emit(self, node: Node, xs: History, place: Place) -> Task:
        """Lower `node` at `place`, fed by the last of `xs` (cells look further back)."""
        if self._bound:
            if labels := width_labels(node, self._bound):
                place = place._replace(width_labels=iter(labels))
            self._decide_widths(node, place)
        return self._rules[type(node)](node, xs, place)

    def _decide_widths(self, node: Node, place: Place) -> None:
        """Register the decisions about the widths that are decided at `node`."""
        for width in self._bound.get(id(node), ()):
            self._values[width] = self._bind(width, place, node.declared)

    def _bind(self, width: Width, place: Place, declared: str | None) -> Value:
        if len(width.values) == 1:
            return width.values[0]
        path = place.child(next(place.width_labels)).decisions
        decision = Decision(path, "width", width.values)
        self.builder.decide(decision, shared=place.shared, declared=declared)
        return Var(path, width.values)

    def _op(self, node: Op, xs: History, place: Place) -> str:
        operation = node.operation
        if self._values and operation.symbols:
            operation = operation.bind(self._values)
        return self.builder.operation(
            place.path,
            operation,
            xs[-1],
            weights=place.weights,
            shared=place.shares_weights,
            declared=node.declared,
        )

    def _seq(self, node: Seq, xs: History, place: Place) -> Task:
        return self._items(node, xs, place, iter(item_labels(node))) if node.items else xs[-1]

    def _items(self, node: Seq, xs: History, place: Place, labels: Iterator[str]) -> Steps:
        for item in node.items:
            if isinstance(item, Seq) and item.name is None:
                self._decide_widths(item, place)
                xs = ((yield self._items(item, xs, place, labels)),)
            else:
                xs = ((yield self.emit(item, xs, place.child(next(labels)))),)
        return xs[-1]

    def _choice(self, node: Choice, xs: History, place: Place) -> Steps:
        if len(node.options) == 1:
            ((label, option),) = node.options
            return (yield self.emit(option, xs, place.child(label)))
        labels = tuple([label for label, _ in node.options])
        decision = self.builder.decide(
            Decision(place.decisions, "operation", labels, node.search_only),
            shared=place.shared,
            declared=node.declared,
        )
        sources, paths = [], []
        for label, option in node.options:
            inside = place.child(label)
            sources.append(Source((yield self.emit(option, xs, inside)), label))
            paths.append(inside.path)
        return self.builder.pick(
            place.path, decision, sources, labels=paths, declared=node.declared
        )

    def _repeat(self, node: Repeat, xs: History, place: Place) -> Steps:
        decision = None
        if len(node.counts) > 1:
            order = tuple(range(-1, len(node.counts) - 1))
            decision = self.builder.decide(
                Decision(place.decisions, "depth", node.counts, order=order),
                shared=place.shared,
                declared=node.declared,
            )
        results = [xs[-1]]
        for index in range(max(node.counts)):
            xs = ((yield self.emit(node.body, xs, place.item(index))),)
            results.append(xs[-1])
        if decision is None:
            return results[-1]
        sources = [Source(results[count], count) for count in node.counts]
        labels = [f"{place.path} at depth {count}" for count in node.counts]
        return self.builder.pick(
            place.path, decision, sources, labels=labels, declared=node.declared
        )

    def _residual(self, node: Residual, xs: History, place: Place) -> Steps:
        if isinstance(node.body, Seq) and node.body.name is None:
            self._decide_widths(node.body, place)
            body = yield self._seq(node.body, xs, place)
        else:
            body = yield self.emit(node.body, xs, place.child(node.body.label))
        skip = xs[-1]
        if node.skip is not None:
            skip = yield self.emit(node.skip, xs, place.child("skip"))
        return self.builder.total(
            place.path, (skip, body), coefs=(1.0, node.scale), declared=node.declared
        )

    def _parallel(self, node: Parallel, xs: History, place: Place) -> Steps:
        labels = numbered("branch" if is_transparent(b) else b.label for b in node.branches)
        results = []
        for label, branch in zip(labels, node.branches):
            results.append((yield self.emit(branch, xs, place.child(label))))
        if node.merge == "concat":
            return self.builder.concat(place.path, results, declared=node.declared)
        coefs = (1 / len(results),) * len(results) if node.merge == "mean" else ()
        kind = "product" if node.merge == "product" else "sum"
        return self.builder.total(
            place.path, results, coefs=coefs, kind=kind, declared=node.declared
        )

    def _stack(self, node: Stack, xs: History, place: Place) -> Steps:
        history = xs[-1:] * node.memory
        for item, label in zip(node.items, numbered(item.label for item in node.items)):
            result = yield self.emit(item, history, place.child(label))
            history = (*history, result)[-node.memory :]
        return history[-1]

    def _share(self, node: Share, xs: History, place: Place) -> Steps:
        before = len(self.builder.asked)
        output = yield self.emit(node.body, xs, place.share(node.key, node.weights))
        self.builder.agree_on_share(node.key, before, place.path, node.declared)
        return output

    def _cell(self, node: Cell, xs: History, place: Place) -> Steps:
        count = len(node.inputs)
        xs = (xs[:1] * count + xs)[-count:]
        results = []
        for i, (x, prepare) in enumerate(zip(xs, node.inputs)):
            if prepare is not None:
                x = yield self.emit(prepare, (x,), place.child(f"in[{i}]"))
            results.append(x)
        edges = dict(node.edges)
        for j in range(count, count + node.steps):
            ends = []
            for i in range(j):
                inside = place.child(f"edge[{i},{j}]")
                ends.append((yield self.emit(edges[i, j], (results[i],), inside)))
            results.append(self._step(node, j, ends, place.child(f"node[{j}]")))
        steps = results[count:]
        if node.merge == "last":
            return steps[-1]
        if node.merge == "sum":
            return self.builder.total(place.path, steps, declared=node.declared)
        return self.builder.concat(place.path, steps, declared=node.declared)

    def _step(self, node: Cell, j: int, ends: Sequence[str], place: Place) -> str:
        if node.keep is None or node.keep >= j:
            return self.builder.total(place.path, ends, declared=node.declared)
        decision = self.builder.decide(
            Decision(place.decisions, "inputs", tuple(range(j)), keep=node.keep),
            shared=place.shared,
            declared=node.declared,
        )
        sources = [Source(end, i) for i, end in enumerate(ends)]
        return self.builder.pick(
            place.path, decision, sources, labels=ends, kind="keep", declared=node.declared
        )

    def _tree(self, node: Tree, xs: History, place: Place) -> Steps:
        blocks = dict(node.options)
        limits = {**dict(node.at_most), **dict(node.exit_at)}  # beyond an exit no path ends
        exits: list[tuple[str, ...]] = []
        results: dict[tuple[str, ...], str] = {}
        starts = blocks if node.first is None else (node.first,)
        pending: list[tuple[str, ...]] = [(label,) for label in reversed(starts) if limits[label]]
        while pending:
            path = pending.pop()
            fed = xs if len(path) == 1 else (results[path[:-1]],)
            results[path] = yield self.emit(blocks[path[-1]], fed, place.child("-".join(path)))
            if all(path.count(label) == n for label, n in node.exit_at):
                exits.append(path)
            pending.extend(
                (*path, label) for label in reversed(blocks) if path.count(label) < limits[label]
            )
        return self._exit(node, exits, results, place)

    def _exit(
        self,
        node: Tree | Trellis,
        exits: Sequence[tuple[str, ...]],
        results: Mapping[tuple[str, ...], str],
        place: Place,
    ) -> str:
        """Decide at which of the `exits` the path space ends."""
        if len(exits) == 1:
            return results[exits[0]]
        names = {path: index for index, path in enumerate(exits)}
        order = tuple(
            next((names[p[:k]] for k in range(len(p) - 1, 0, -1) if p[:k] in names), -1)
            for p in exits
        )
        labels = tuple("-".join(path) for path in exits)
        decision = self.builder.decide(
            Decision(
                place.decisions, "path", labels, order=order if isinstance(node, Tree) else None
            ),
            shared=place.shared,
            declared=node.declared,
        )
        return self.builder.pick(
            place.path,
            decision,
            [Source(results[path], label) for path, label in zip(exits, labels)],
            labels=[f"{place.path}/{label}" for label in labels],
            declared=node.declared,
        )

    def _trellis(self, node: Trellis, xs: History, place: Place) -> Steps:
        labels = [label for label, _ in node.options]
        wanted = dict(node.exit_at)
        limits = {**dict(node.at_most), **wanted}
        results: dict[tuple[str, ...], str] = {}
        exits: list[tuple[str, ...]] = []
        for spot in itertools.product(*(range(limits[label] + 1) for label in labels)):
            key = tuple(f"{label}{n}" for label, n in zip(labels, spot))
            arrivals: list[Source] = []
            inside = place.child("-".join(key))
            for position, (label, block) in enumerate(node.options):
                before = tuple(
                    f"{name}{n - (i == position)}" for i, (name, n) in enumerate(zip(labels, spot))
                )
                start = sum(spot) == 1 and spot[position] and node.first in (None, label)
                if start or before in results:
                    fed = xs if start else (results[before],)
                    end = yield self.emit(block, fed, inside.child(label))
                    arrivals.append(Source(end, label))
            if not arrivals:
                continue
            results[key] = self._arrive(node, arrivals, inside)
            if all(wanted.get(name, n) == n for name, n in zip(labels, spot)):
                exits.append(key)
        return self._exit(node, exits, results, place)

    def _arrive(self, node: Trellis, arrivals: Sequence[Source], place: Place) -> str:
        if len(arrivals) == 1:
            return arrivals[0].node
        options = tuple(source.option for source in arrivals if source.option is not None)
        decision = self.builder.decide(
            Decision(place.decisions, "path", options),
            shared=place.shared,
            declared=node.declared,
        )
        return self.builder.pick(
            place.path,
            decision,
            arrivals,
            labels=[s.node for s in arrivals],
            declared=node.declared,
        )
