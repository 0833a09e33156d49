"""Draws a cell the way papers do: numbered nodes, operations on the edges."""

from __future__ import annotations

from collections.abc import Iterator

from trinas.space import Decision
from trinas.space.decision import Option
from trinas.viz import style
from trinas.viz.outline import CellPlan
from trinas.viz.scene import Arrow, Box, Group, Row
from trinas.viz.view import View, live_nodes, spell_options

_MOST_ROWS = 5


def cell_group(view: View, plan: CellPlan) -> tuple[Group, list[Arrow]]:
    """The group of one cell, and its arrows."""
    drawing = _CellDrawing(view, plan)
    arrows = [arrow for j in plan.steps for arrow in drawing.step(j)]
    arrows += drawing.exit()
    boxes = (*drawing.nodes(), *drawing.tables.values())
    return Group(plan.key, plan.key, boxes, drawing.notes(), "detail"), arrows


class _CellDrawing:
    def __init__(self, view: View, plan: CellPlan) -> None:
        self.view, self.plan = view, plan
        self.graph = view.facts.graph
        known = view.picks is not None or view.weights is not None
        self.live = live_nodes(self.graph, view.allows) if known else frozenset(self.graph)
        self.tables: dict[tuple[int, int], Box] = {}
        self.uniform = self._uniform_options()

    def notes(self) -> tuple[str, ...]:
        """What holds for every edge of an undecided cell."""
        if not self.view.is_open:
            return ()
        notes = [] if self.uniform is None else [f"every edge: {spell_options(self.uniform)}"]
        keeps = {d.keep for j in self.plan.steps if (d := self._keep(j)) is not None}
        notes += [f"every node keeps {n} of its edges" for n in sorted(keeps)]
        return tuple(notes)

    def nodes(self) -> Iterator[Box]:
        """The inputs, the steps, and the output where it is a node of its own."""
        count = self.plan.inputs
        for i in range(count):
            text, sub = ("c", f"k-{count - i}") if count > 1 else ("in", "")
            yield Box(self._id(i), text, sub=sub, kind="end", look="round")
        last = self.plan.steps[-1] if self.plan.merge == "last" else None
        for j in self.plan.steps:
            if self._drawn(j):
                notes = ("out",) if j == last else ()
                kind = "end" if j == last else "merge"
                title, faint = str(j - count if count > 1 else j), self._node(j) not in self.live
                yield Box(self._id(j), title, notes, kind=kind, look="round", faint=faint)
        if last is None:
            notes = (self.plan.merge,)
            yield Box(self._id("out"), "c", notes, sub="k", kind="end", look="round")

    def exit(self) -> Iterator[Arrow]:
        """The arrows into the output."""
        if self.plan.merge == "last":
            return
        for j in self.plan.steps:
            if self._drawn(j):
                faint = self._node(j) not in self.live
                yield Arrow(self._id(j), self._id("out"), faint=faint, kind="merge")

    def step(self, j: int) -> Iterator[Arrow]:
        """The arrows into step `j`."""
        if not self._drawn(j):
            return
        keep = self._keep(j)
        for i, source in enumerate(self.graph.sources(self._node(j))):
            kept = keep is None or self.view.picks is None or self.view.allows(keep, i)
            if kept or self.view.is_open:
                yield from self._edge(i, j, source.node, kept)

    def _edge(self, i: int, j: int, source: str, kept: bool) -> Iterator[Arrow]:
        tail, head = self._id(i), self._id(j)
        place = f"{self.plan.path}/edge[{i},{j}]"
        decision = self.view.facts.decision(source) if source == place else None
        faint = not kept or self._node(j) not in self.live
        if decision is None:
            label, kind = self._fixed(place, source)
            yield Arrow(tail, head, label, kind=kind, faint=faint)
        elif not self.view.is_open:
            picked = (self.view.picks or {})[decision.path]
            kind = self.view.facts.kind(f"{place}/{picked}")
            yield Arrow(tail, head, str(picked), kind=kind, faint=faint or kind == "zero")
        elif self.uniform is not None:
            yield Arrow(tail, head, faint=faint)
        else:
            self.tables[i, j] = self._table(i, j, decision)
            table = self.tables[i, j].id
            yield Arrow(tail, table, faint=faint)
            yield Arrow(table, head, faint=faint)

    def _table(self, i: int, j: int, decision: Decision) -> Box:
        """The options of one edge, with their weights."""
        place = f"{self.plan.path}/edge[{i},{j}]"
        rows = self._strongest([self._row(place, decision, o) for o in decision.options])
        return Box(self._id(f"{i},{j}"), rows=rows, kind="skip", path=place)

    def _strongest(self, rows: list[Row]) -> tuple[Row, ...]:
        """All rows, or where they are many those of the largest weights."""
        ranked = sorted(rows, key=lambda row: row.weight or 0.0, reverse=True)
        if self.view.weights is None or len(rows) <= _MOST_ROWS:
            return tuple(rows)
        shown, rest = ranked[: _MOST_ROWS - 1], ranked[_MOST_ROWS - 1 :]
        weight = sum(row.weight or 0.0 for row in rest)
        return (*(row for row in rows if row in shown), Row(f"{len(rest)} more", "skip", weight))

    def _row(self, place: str, decision: Decision, option: Option) -> Row:
        weight = self.view.weight(decision, option)
        faint = not self.view.allows(decision, option)
        return Row(str(option), self.view.facts.kind(f"{place}/{option}"), weight, faint)

    def _fixed(self, place: str, source: str) -> tuple[str, str]:
        """Words and kind of an edge without a decision."""
        region = self.view.facts.region(place)
        if region is None:
            return "skip", "skip"
        nodes = list(region.nodes())
        operations = [n for n in nodes if self.graph.vertex(n)["op"] is not None]
        label = region.children[0].label if len(region.children) == 1 else ""
        if not label:
            label = " · ".join(style.spell_operation(self.graph.operation(n)) for n in operations)
        return label, style.kind_of_nodes(self.graph, nodes)

    def _uniform_options(self) -> Decision | None:
        """The decision of the edges, where all are alike and nothing sets them apart."""
        if not self.view.is_open or self.view.weights is not None or self.view.picks is not None:
            return None
        found = [
            self.view.facts.decision(source.node)
            for j in self.plan.steps
            for source in self.graph.sources(self._node(j))
        ]
        alike = len({None if d is None else d.options for d in found}) == 1
        return found[0] if alike else None

    def _drawn(self, j: int) -> bool:
        return self.view.is_open or self._node(j) in self.live

    def _keep(self, j: int) -> Decision | None:
        return self.view.facts.decision(self._node(j))

    def _node(self, j: int) -> str:
        return f"{self.plan.path}/node[{j}]"

    def _id(self, part: int | str) -> str:
        return f"{self.plan.key}#{part}"
