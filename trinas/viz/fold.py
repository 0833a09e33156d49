"""Breaks a long chain into lanes, so that it fills a page and not a ribbon.

The page is A4, upright or on its side, whichever suits better. Sizes are estimates in
points; only the choice of the number of lanes hangs on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs

from trinas.viz.scene import Arrow, Box, Direction, Group, Member, boxes

_PAGE = (780.0, 540.0)
_MOST_LANES = 10
_GAP, _SIDE_GAP, _LANE_GAP = 22.0, 18.0, 40.0
_GOOD_ENOUGH = 0.8
_WORTH_A_BREAK = 1.15

Lane = tuple[Member, ...]


def fold(
    members: Sequence[Member],
    arrows: Sequence[Arrow],
    direction: Direction,
    extra: Sequence[Member] = (),
) -> list[Lane]:
    """The lanes of a drawing.

    Args:
        members: the main line in order of flow. It may be broken wherever a single arrow
            leads on.
        arrows: the arrows of the drawing.
        direction: lanes are columns for ``TB`` and rows for ``LR``.
        extra: members that get a lane each, behind the others.
    """
    pieces = [_Piece.of(piece, arrows, direction) for piece in _pieces(members, arrows)]
    rest = [[_Piece.of((member,), arrows, direction)] for member in extra]
    best, scale = [*_split(pieces, 1), *rest], 0.0
    for count in range(1, min(_MOST_LANES, len(pieces)) + 1):
        lanes = [*_split(pieces, count), *rest]
        # Another break has to pay: a line in one piece reads best.
        if _page_scale(lanes) > _WORTH_A_BREAK * scale:
            best, scale = lanes, _page_scale(lanes)
        if scale >= _GOOD_ENOUGH:
            break
    return [tuple(m for piece in lane for m in piece.members) for lane in best]


def _pieces(members: Sequence[Member], arrows: Sequence[Arrow]) -> list[Lane]:
    """The members, joined where more than one arrow leads from one side to the other."""
    place = {box.id: n for n, member in enumerate(members) for box in boxes((member,))}
    spans = [(place[a.tail], place[a.head]) for a in arrows if a.tail in place and a.head in place]
    pieces: list[list[Member]] = []
    for n, member in enumerate(members):
        if n == 0 or sum(tail < n <= head for tail, head in spans) == 1:
            pieces.append([])
        pieces[-1].append(member)
    return [tuple(piece) for piece in pieces]


@attrs.frozen
class _Piece:
    """Members that stay together: lengths rank by rank, and breadth across the flow."""

    members: Lane
    ranks: tuple[float, ...]
    breadth: float

    @property
    def length(self) -> float:
        return sum(self.ranks)

    @classmethod
    def of(cls, members: Lane, arrows: Sequence[Arrow], direction: Direction) -> _Piece:
        inside = {box.id: box for box in boxes(members)}
        lengths, breadth = [], 0.0
        for rank in _ranks(inside, arrows):
            sizes = [_box_size(box, direction) for box in rank]
            names = {box.id for box in rank}
            labels = [a.label for a in arrows if a.tail in names and not a.at_head]
            lengths.append(max(along for along, _ in sizes) + _GAP + _label(labels, direction))
            breadth = max(breadth, sum(across + _SIDE_GAP for _, across in sizes))
        frames = sum(isinstance(member, Group) for member in members)
        lengths[0] += 30.0 * frames
        return cls(members, tuple(lengths), breadth + (15.0 if frames else 0.0))


def _split(pieces: Sequence[_Piece], count: int) -> list[list[_Piece]]:
    """At most `count` lanes whose longest is as short as possible."""
    low = max((piece.length for piece in pieces), default=0.0)
    high = sum(piece.length for piece in pieces)
    while high - low > 1.0:
        limit = (low + high) / 2
        if len(_cut(pieces, limit)) <= count:
            high = limit
        else:
            low = limit
    return _cut(pieces, high)


def _cut(pieces: Sequence[_Piece], limit: float) -> list[list[_Piece]]:
    """Lanes filled one after the other up to `limit`."""
    lanes: list[list[_Piece]] = []
    used = 0.0
    for piece in pieces:
        if not lanes or used + piece.length > limit + 1e-6:
            lanes.append([])
            used = 0.0
        lanes[-1].append(piece)
        used += piece.length
    return lanes


def _page_scale(lanes: Sequence[Sequence[_Piece]]) -> float:
    """How large the drawing can be printed, 1 for full size."""
    columns = [[length for piece in lane for length in piece.ranks] for lane in lanes]
    # All lanes have their ranks in common.
    along = sum(max(at) for at in itertools.zip_longest(*columns, fillvalue=0.0))
    across = sum(max(piece.breadth for piece in lane) + _LANE_GAP for lane in lanes)
    long, short = max(along, across, 1.0), max(min(along, across), 1.0)
    return min(_PAGE[0] / long, _PAGE[1] / short)


def _label(labels: Sequence[str], direction: Direction) -> float:
    """The room that the labels of arrows take between two ranks."""
    longest = max((len(label) for label in labels), default=0)
    if not longest:
        return 0.0
    return 14.0 if direction == "TB" else 5.0 * longest + 10.0


def _box_size(box: Box, direction: Direction) -> tuple[float, float]:
    """Length and breadth of one box."""
    if box.look in ("point", "hidden"):
        return 2.0, 2.0
    texts = [5.0 * len(text) for text in (*box.notes, *(row.text for row in box.rows))]
    width = max(6.3 * len(box.title + box.sub), *texts, 8.0) + (40 if box.rows else 15)
    height = (14.0 if box.title else 4.0) + 11.0 * len(box.notes) + 14.0 * len(box.rows) + 7
    return (height, width) if direction == "TB" else (width, height)


def _ranks(inside: dict[str, Box], arrows: Sequence[Arrow]) -> list[list[Box]]:
    """Boxes by their longest distance from the entrance."""
    within = [a for a in arrows if a.tail in inside and a.head in inside]
    rank = dict.fromkeys(inside, 0)
    for _ in inside:
        moved = [a for a in within if rank[a.head] <= rank[a.tail] < len(inside)]
        for arrow in moved:
            rank[arrow.head] = max(rank[arrow.head], rank[arrow.tail] + 1)
        if not moved:
            break
    rows: list[list[Box]] = [[] for _ in range(max(rank.values(), default=0) + 1)]
    for key, box in inside.items():
        rows[rank[key]].append(box)
    return rows
