"""The boxes of a drawing while it is being made, and which nodes they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import attrs

from trinas.graph import Source
from trinas.viz import style
from trinas.viz.outline import Region
from trinas.viz.scene import Box, Frame, Group, Member
from trinas.viz.view import View


@attrs.define
class Draft:
    """A group in the making."""

    path: str
    items: list[Item]
    notes: tuple[str, ...] = ()
    frame: Frame = "part"


Item: TypeAlias = str | Draft
"""A box, by id, or a group."""


@attrs.define(eq=False)
class Sheet:
    """One connected part of a drawing.

    Attributes:
        view: what is drawn.
        deep: whether every node gets a box of its own.
        boxes: the boxes by id.
        unit: graph node to the id of the box it is part of.
        keys: id of a box that stands for a cell or a shared part, to its key.
        references: key of such a part to the region that shows it first.
        skips: ``(node, position)`` of an option that does nothing, to the id of its box.
        flow: id of a block of a tree to the weight that passes through it.
    """

    view: View
    deep: bool = False
    boxes: dict[str, Box] = attrs.field(factory=dict)
    unit: dict[str, str] = attrs.field(factory=dict)
    keys: dict[str, str] = attrs.field(factory=dict)
    references: dict[str, Region] = attrs.field(factory=dict)
    skips: dict[tuple[str, int], str] = attrs.field(factory=dict)
    flow: dict[str, float | None] = attrs.field(factory=dict)

    def put(self, box: Box, nodes: Sequence[str]) -> str:
        """Add a box that stands for `nodes`, and return its id."""
        self.boxes[box.id] = attrs.evolve(box, faint=self.view.live.isdisjoint(nodes))
        self.unit.update(dict.fromkeys(nodes, box.id))
        return box.id

    def fed_from(self, nodes: Sequence[str]) -> list[Source]:
        """What comes into a set of nodes from outside."""
        inner = set(nodes)
        graph = self.view.graph
        return [s for n in nodes for s in graph.sources(n) if s.node not in inner]

    def exit_of(self, nodes: Sequence[str]) -> str:
        """The node of a set whose result leaves it."""
        inner, graph = set(nodes), self.view.graph
        for node in reversed(nodes):
            if node == graph.output or not inner.issuperset(graph.nx.successors(node)):
                return node
        return nodes[-1]

    def change(self, nodes: Sequence[str]) -> str:
        """How the channels change from the input of `nodes` to their result."""
        graph = self.view.graph
        sources = self.fed_from(nodes)
        y = graph.vertex(self.exit_of(nodes))["shape"]
        x = graph.vertex(sources[0].node)["shape"] if sources else y
        return style.spell_change(x, y)

    def freeze(self, items: Sequence[Item], above: str = "") -> tuple[Member, ...]:
        """The finished boxes and groups; titles are relative to the group `above`."""
        drafts = [item for item in items if isinstance(item, Draft)]
        short = {item.path.rpartition("/")[2] for item in drafts}
        members: list[Member] = []
        for item in items:
            if isinstance(item, str):
                members.append(self.boxes[item])
                continue
            title = item.path.rpartition("/")[2]
            if len(short) < len(drafts):
                title = item.path.removeprefix(f"{above}/")
            inner = self.freeze(item.items, item.path)
            faint = all(m.faint for m in inner)
            members.append(Group(item.path, title, inner, item.notes, item.frame, faint))
        return tuple(members)


def merge_runs(sheet: Sheet, items: Sequence[Item]) -> list[Item]:
    """One box for instances of one shared part that directly follow each other.

    An instance joins the one before it if nothing else feeds it than that one and what
    feeds that one already (cells look two results back).
    """
    merged: list[Item] = []
    times: dict[str, int] = {}
    for item in items:
        last = merged[-1] if merged else None
        if isinstance(item, str) and isinstance(last, str) and _continues(sheet, last, item):
            times[last] = times.get(last, 1) + 1
            for node in [n for n, unit in sheet.unit.items() if unit == item]:
                sheet.unit[node] = last
            notes = sheet.boxes[item].notes
            sheet.boxes[last] = attrs.evolve(sheet.boxes[last], notes=notes)
        else:
            merged.append(item)
    for key, count in times.items():
        box = sheet.boxes[key]
        sheet.boxes[key] = attrs.evolve(box, title=f"{box.title} ×{count}")
    return merged


def _continues(sheet: Sheet, last: str, item: str) -> bool:
    if item not in sheet.keys or sheet.keys[item] != sheet.keys.get(last):
        return False
    return _feeders(sheet, item) <= _feeders(sheet, last) | {last}


def _feeders(sheet: Sheet, box: str) -> set[str | None]:
    nodes = [n for n, unit in sheet.unit.items() if unit == box]
    return {sheet.unit.get(source.node) for source in sheet.fed_from(nodes)}
