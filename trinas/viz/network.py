"""Draws graphs at the level of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from trinas.viz import edges, style
from trinas.viz.cells import cell_group
from trinas.viz.lanes import lay_out, with_entries
from trinas.viz.outline import Region, find_cell, outline
from trinas.viz.regions import fill
from trinas.viz.scene import Arrow, Box, Direction, Group, Member, Scene, boxes
from trinas.viz.sheet import Sheet
from trinas.viz.view import View

_OUTPUT = "#output"


def network_scene(
    view: View, direction: Direction | None, title: str | None, *, deep: bool = False
) -> Scene:
    """The scene of a network or supernet.

    Args:
        view: what to draw.
        direction: of the flow; where None, ``LR`` for cells and ``TB`` for the rest.
        title: a line above the drawing.
        deep: a box for every node instead of blocks.
    """
    sheet = Sheet(view, deep)
    members = [*sheet.freeze(fill(sheet, outline(view.graph))), _output(view)]
    arrows = edges.arrows(sheet)
    arrows.append(Arrow(sheet.unit[view.graph.output], _OUTPUT, straight=True))
    details, inner_arrows = _details(view, sheet.references)
    if direction is None:
        direction = "LR" if details else "TB"
    if _only_a_reference(members, sheet):
        members, arrows = [], []
    members, arrows = with_entries(members, [*arrows, *inner_arrows])
    return lay_out(members, arrows, direction, title, details)


def _output(view: View) -> Box:
    shape = style.spell_shape(view.graph.out_shape)
    return Box(_OUTPUT, "output", (shape,), kind="end", look="round")


def _only_a_reference(members: Sequence[Member], sheet: Sheet) -> bool:
    """Whether the main line says nothing: input, one cell that is drawn anyway, output."""
    inner = [m for m in members if isinstance(m, Group) or m.look != "round"]
    return len(inner) == 1 and isinstance(inner[0], Box) and inner[0].id in sheet.keys


def _details(view: View, references: dict[str, Region]) -> tuple[list[Member], list[Arrow]]:
    """One group for every cell or shared part, however often it is used."""
    groups: list[Member] = []
    arrows: list[Arrow] = []
    waiting = dict(references)
    done: set[str] = set()
    while waiting:
        key = next(iter(waiting))
        region = waiting.pop(key)
        done.add(key)
        full = view.facts.region(region.path)
        plan = None if full is None else find_cell(view.facts, full)
        if plan is not None:
            group, inside = cell_group(view, plan)
        else:
            group, inside, more = _shared_part(view, key, region)
            waiting |= {k: r for k, r in more.items() if k not in done}
        groups.append(group)
        arrows += inside
    return groups, arrows


def _shared_part(
    view: View, key: str, region: Region
) -> tuple[Group, list[Arrow], dict[str, Region]]:
    """The group of a shared part that is no cell, its arrows, and what it refers to."""
    sheet = Sheet(view)
    entry = f"{key}#in"
    inner = sheet.freeze(fill(sheet, region), region.path)
    names = {box.id: f"{key}#{box.id}" for box in boxes(inner)}
    arrows = [edges.rename(arrow, names) for arrow in edges.arrows(sheet, outside=entry)]
    start = Box(entry, "in", kind="end", look="round")
    members = (start, *(_rename(member, names, key) for member in inner))
    group = Group(key, key, members, view.width_notes(region.path), "detail")
    return group, arrows, sheet.references


def _rename(member: Member, names: dict[str, str], key: str) -> Member:
    if isinstance(member, Box):
        return attrs.evolve(member, id=names[member.id])
    inner = tuple(_rename(m, names, key) for m in member.members)
    return attrs.evolve(member, members=inner, id=f"{key}#{member.id}")
