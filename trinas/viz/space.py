"""Draws a space as it is written: a tree of frames, not yet a network."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import attrs

from trinas.space import IN, Node, OperationSpec, Shape, Value
from trinas.space.binding import bind_widths
from trinas.space.nodes import (
    Cell,
    Choice,
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
from trinas.space.values import symbols
from trinas.viz import style
from trinas.viz.lanes import lay_out
from trinas.viz.scene import Arrow, Box, Direction, Frame, Group, Look, Member, Scene

_LARGEST_BLOCK = 12
_MERGE_SIGNS = {"sum": "+", "product": "×", "mean": "mean"}


def space_scene(
    space: Node | OperationSpec,
    direction: Direction | None,
    title: str | None,
    *,
    deep: bool = False,
) -> Scene:
    """The scene of a space: see `trinas.draw`."""
    root = as_node(space)
    drawing = _SpaceDrawing(root, deep)
    members = drawing.flow([root])
    return lay_out(members, drawing.arrows, direction or "TB", title)


@attrs.frozen
class _Ends:
    """Where arrows enter and leave a member: boxes, and frames to stop at."""

    entry: str
    exit: str
    entry_frame: str | None = None
    exit_frame: str | None = None


class _SpaceDrawing:
    def __init__(self, root: Node, deep: bool) -> None:
        self.arrows: list[Arrow] = []
        self._deep = deep
        self._bound = bind_widths(root)
        self._ends: dict[str, _Ends] = {}
        self._count = 0
        self._seen: set[str] = set()
        self._rules: dict[type[Node], Callable[..., Member]] = {
            Op: self._op,
            Seq: self._string,
            Stack: self._string,
            Choice: self._choice,
            Repeat: self._repeat,
            Residual: self._residual,
            Parallel: self._parallel,
            Cell: self._cell,
            Tree: self._paths,
            Trellis: self._paths,
            Share: self._share,
        }

    # ------------------------------------------------------------ one after another

    def flow(self, nodes: Sequence[Node]) -> list[Member]:
        """Members for nodes in a row, joined by arrows; equal neighbours are one."""
        members: list[Member] = []
        times: list[int] = []
        previous: Node | None = None
        for node in _flatten(nodes):
            if members and self._absorb(members, node):
                previous = None
                continue
            if _same_share(previous, node):
                times[-1] += 1
                continue
            if previous is not None and _form(previous) == _form(node):
                times[-1] += 1
                continue
            previous = node
            members.append(self._visit(node, node.label))
            times.append(1)
        members = [_times(m, f"{n}") if n > 1 else m for m, n in zip(members, times)]
        for tail, head in itertools.pairwise(members):
            self._join(tail, head)
        return members

    def _join(self, tail: Member, head: Member) -> None:
        a, b = self._ends[tail.id], self._ends[head.id]
        self.arrows.append(
            Arrow(a.exit, b.entry, straight=True, from_group=a.exit_frame, to_group=b.entry_frame)
        )

    def _absorb(self, members: list[Member], node: Node) -> bool:
        """Let an unnamed activation or normalisation join the box before it."""
        last = members[-1]
        if (
            self._deep
            or not isinstance(node, Op)
            or node.name is not None
            or type(node.operation).registered not in style.FOLLOWERS
            or not isinstance(last, Box)
            or last.kind == "block"
            or last.look != "box"
        ):
            return False
        members[-1] = attrs.evolve(last, notes=style.with_follower(last.notes, node.operation.kind))
        return True

    # ------------------------------------------------------------ kinds of nodes

    def _visit(self, node: Node, label: str) -> Member:
        if not self._deep and not isinstance(node, Op) and _is_block(node):
            return self._box(label, _channel_notes(node), _kind(node))
        return self._rules[type(node)](node, label)

    def _op(self, node: Op, label: str) -> Member:
        words = style.spell_operation(node.operation)
        title, notes = (words, ()) if label == node.operation.kind else (label, (words,))
        kind = style.kind_of_operation(node.operation)
        return self._box(title, (*notes, *_channel_notes(node)), kind)

    def _string(self, node: Seq | Stack, label: str) -> Member:
        if not node.children:
            return self._box(label if node.name or label != "seq" else "identity", (), "skip")
        members = self.flow(node.children)
        if len(members) == 1 and node.name is None:
            return _titled(members[0], label) if label != node.label else members[0]
        memory = node.memory if isinstance(node, Stack) else 1
        notes = (f"each takes the last {memory} results",) if memory > 1 else ()
        group = self._group(label, members, notes, node)
        first, last = self._ends[members[0].id], self._ends[members[-1].id]
        self._ends[group.id] = _Ends(first.entry, last.exit, first.entry_frame, last.exit_frame)
        return group

    def _choice(self, node: Choice, label: str) -> Member:
        members = [self._visit(option, name) for name, option in node.options]
        notes = [f"{name} is only searched" for name in node.search_only]
        return self._alternatives(label, members, notes, node)

    def _repeat(self, node: Repeat, label: str) -> Member:
        bare = isinstance(node.body, Seq) and node.body.name is None
        body = self._visit(node.body, label if label != "repeat" or bare else node.body.label)
        return _times(body, " or ".join(map(str, node.counts)))

    def _residual(self, node: Residual, label: str) -> Member:
        entry = self._box("", (), "merge", look="point")
        body = self.flow([node.body])
        plus = self._box("+", (), "merge", look="circle")
        if body:
            self._join(entry, body[0])
        start = self._ends[(body or [entry])[-1].id]
        factor = f"×{node.scale:g}" if node.scale != 1.0 else ""
        self.arrows.append(
            Arrow(start.exit, plus.id, factor, at_head=True, straight=True,
                  from_group=start.exit_frame)
        )  # fmt: skip
        members = [entry, *body, plus]
        if node.skip is None:
            self.arrows.append(Arrow(entry.id, plus.id))
        else:
            skip = self._visit(node.skip, "skip")
            self._join(entry, skip)
            self._join(skip, plus)
            members.insert(-1, skip)
        group = self._group(label, members, (), node)
        self._ends[group.id] = _Ends(entry.id, plus.id)
        return group

    def _parallel(self, node: Parallel, label: str) -> Member:
        entry = self._box("", (), "merge", look="point")
        sign = _MERGE_SIGNS.get(node.merge)
        merge = self._box(sign or "concat", (), "merge", look="circle" if sign else "round")
        branches = [self._visit(branch, branch.label) for branch in node.branches]
        for branch in branches:
            self._join(entry, branch)
            self._join(branch, merge)
        group = self._group(label, [entry, *branches, merge], (), node)
        self._ends[group.id] = _Ends(entry.id, merge.id)
        return group

    def _cell(self, node: Cell, label: str) -> Member:
        counts = Counter(_form(edge) for _, edge in node.edges)
        first = {_form(edge): edge for _, edge in reversed(node.edges)}
        members = [_times(self._visit(first[f], "edge"), str(n)) for f, n in counts.items()]
        result = {"concat": "concatenated", "sum": "added up", "last": "the last leaves"}
        notes = [f"inputs: {len(node.inputs)}, nodes: {node.steps}, {result[node.merge]}"]
        if node.keep is not None:
            notes.append(f"every node keeps {node.keep} edges")
        return self._alternatives(label, members, notes, node, frame="part")

    def _paths(self, node: Tree | Trellis, label: str) -> Member:
        members = [self._visit(block, name) for name, block in node.options]
        limits = ", ".join(f"{count} × {name}" for name, count in node.at_most)
        first = "" if node.first is None else f"; starts with {node.first}"
        notes = [f"{type(node).__name__.lower()}: at most {limits}{first}"]
        if node.exit_at:
            ends = ", ".join(f"{count} × {name}" for name, count in node.exit_at)
            notes.append(f"ends behind {ends}")
        return self._alternatives(label, members, notes, node)

    def _share(self, node: Share, label: str) -> Member:
        if node.key in self._seen:
            return self._box(label, (f"as {node.key} above",), "block")
        self._seen.add(node.key)
        what = "decisions and weights" if node.weights else "decisions"
        member = self._visit(node.body, label)
        return attrs.evolve(member, notes=(*member.notes, f"shares {what}"))

    # ------------------------------------------------------------ parts

    def _alternatives(
        self,
        label: str,
        members: Sequence[Member],
        notes: Sequence[str],
        node: Node,
        *,
        frame: Frame = "choice",
    ) -> Member:
        # Unseen points before and behind keep the alternatives side by side.
        start = self._box("", (), "merge", look="hidden")
        end = self._box("", (), "merge", look="hidden")
        for member in members:
            inner = self._ends[member.id]
            self.arrows.append(Arrow(start.id, inner.entry, hidden=True))
            self.arrows.append(Arrow(inner.exit, end.id, hidden=True))
        group = self._group(label, [start, *members, end], notes, node, frame)
        self._ends[group.id] = _Ends(start.id, end.id, group.id, group.id)
        return group

    def _group(
        self,
        label: str,
        members: Sequence[Member],
        notes: Sequence[str],
        node: Node,
        frame: Frame = "part",
    ) -> Group:
        widths = [
            f"{width.name or 'width'} {', '.join(map(str, width.values))}"
            for part in _same_place(node)
            for width in self._bound.get(id(part), ())
        ]
        return Group(self._fresh(label), label, tuple(members), (*notes, *widths), frame)

    def _box(self, title: str, notes: Sequence[str], kind: str, *, look: Look = "box") -> Box:
        box = Box(self._fresh(title), title, tuple(notes), kind=kind, look=look)
        self._ends[box.id] = _Ends(box.id, box.id)
        return box

    def _fresh(self, label: str) -> str:
        self._count += 1
        return f"{self._count} {label}".strip()


def _flatten(nodes: Sequence[Node]) -> Iterator[Node]:
    """Unnamed sequences opened up, as paths open them."""
    for node in nodes:
        if isinstance(node, Seq) and node.name is None and node.items:
            yield from _flatten(node.items)
        else:
            yield node


def _same_place(node: Node) -> Iterator[Node]:
    """`node`, and the unnamed sequences in it, whose widths are decided at its path."""
    yield node
    for child in node.children:
        if isinstance(child, Seq) and child.name is None:
            yield from _same_place(child)


def _same_share(previous: Node | None, node: Node) -> bool:
    return isinstance(previous, Share) and isinstance(node, Share) and previous.key == node.key


def _times(member: Member, count: str) -> Member:
    return member if count == "1" else attrs.evolve(member, title=f"{member.title} ×{count}")


def _titled(member: Member, title: str) -> Member:
    return attrs.evolve(member, title=title)


def _form(thing: object) -> object:
    """What a node says, equal for nodes that say the same of different widths."""
    if isinstance(thing, Node):
        fields = [f.name for f in attrs.fields(type(thing)) if f.name != "declared"]
        return (type(thing), *(_form(getattr(thing, name)) for name in fields))
    if isinstance(thing, tuple):
        return tuple(_form(part) for part in thing)
    return str(thing)


def _is_block(node: Node) -> bool:
    """Whether a node decides nothing but widths and is small enough for one box."""
    inner = [node, *_below(node)]
    plain = all(isinstance(n, Op | Seq | Residual | Parallel) for n in inner)
    parts = sum(isinstance(n, Residual | Parallel) for n in inner)
    operations = sum(isinstance(n, Op) for n in inner)
    return plain and parts <= 1 and 0 < operations <= _LARGEST_BLOCK


def _below(node: Node) -> Iterator[Node]:
    for child in node.children:
        yield child
        yield from _below(child)


def _kind(node: Node) -> str:
    inner = [node, *_below(node)]
    kinds = {style.kind_of_operation(n.operation) for n in inner if isinstance(n, Op)}
    if any(isinstance(n, Residual) or _adds(n) for n in inner):
        kinds.add("residual")
    return style.most_telling(kinds)


def _adds(node: Node) -> bool:
    return isinstance(node, Parallel) and node.merge != "concat"


def _channel_notes(node: Node) -> tuple[str, ...]:
    """The channels that leave a block, where its operations set them."""
    value = _channels(node)
    if value is None or IN in symbols(value):
        return ()
    return (f"→ {style.spell_channels(value)}",)


def _channels(node: Node) -> Value | None:
    if isinstance(node, Op):
        settings = (getattr(node.operation, name, None) for name in ("channels", "features"))
        return next((value for value in settings if value is not None), None)
    if isinstance(node, Parallel) and node.merge == "concat":
        parts = [_channels(branch) for branch in node.branches]
        known = [part for part in parts if part is not None]
        return Shape(tuple(known)).channels if len(known) == len(parts) else None
    children = (node.body,) if isinstance(node, Residual) else node.children
    found = (_channels(child) for child in reversed(children))
    return next((value for value in found if value is not None), None)
