"""Lays the members of a drawing out in lanes, and joins the lanes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from trinas.viz.fold import fold
from trinas.viz.scene import Arrow, Box, Direction, Group, Member, Scene, boxes


def lay_out(
    members: Sequence[Member],
    arrows: Sequence[Arrow],
    direction: Direction,
    title: str | None,
    extra: Sequence[Member] = (),
) -> Scene:
    """The scene of a main line of `members`, and of `extra` members beside it."""
    lanes = fold(members, arrows, direction, extra)
    lane_of = {box.id: n for n, lane in enumerate(lanes) for box in boxes(lane)}
    turns = []
    for n in range(1, len(lanes)):
        between = [a for a in arrows if (lane_of[a.tail], lane_of[a.head]) == (n - 1, n)]
        turns.append(between[0] if len(between) == 1 else None)
    within = [
        attrs.evolve(a, back=True) if lane_of[a.tail] != lane_of[a.head] else a
        for a in arrows
        if a not in turns
    ]
    return Scene(tuple(lanes), tuple(within), tuple(turns), direction, title)


def with_entries(
    members: Sequence[Member], arrows: Sequence[Arrow]
) -> tuple[list[Member], list[Arrow]]:
    """Give groups that are entered twice, as residual ones are, a point to enter at."""
    changed: list[Member] = []
    for member in members:
        if isinstance(member, Group):
            member, arrows = _with_entry(member, arrows)
        changed.append(member)
    return changed, list(arrows)


def _with_entry(group: Group, arrows: Sequence[Arrow]) -> tuple[Group, Sequence[Arrow]]:
    inside = {box.id for box in boxes((group,))}
    entering = {
        n: a
        for n, a in enumerate(arrows)
        if a.head in inside and a.tail not in inside and not a.hidden
    }
    tails = {a.tail for a in entering.values()}
    doors = {
        member.id
        for member in group.members
        if not {a.head for a in entering.values()}.isdisjoint(b.id for b in boxes((member,)))
    }
    if group.frame == "part" and len(tails) == 1 and len(doors) > 1:
        entry = Box(f"{group.id}#entry", kind="merge", look="point")
        # The first one leads into the body, the others past it.
        first = min(entering)
        arrows = [
            attrs.evolve(a, tail=entry.id, straight=n == first) if n in entering else a
            for n, a in enumerate(arrows)
        ]
        arrows.append(Arrow(tails.pop(), entry.id, straight=True))
        group = attrs.evolve(group, members=(entry, *group.members))
    inner, arrows = with_entries(group.members, arrows)
    return attrs.evolve(group, members=tuple(inner)), arrows
