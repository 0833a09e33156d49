"""What a drawing shows, before any syntax: boxes, groups of boxes, arrows.

A scene is plain frozen data. The builders (`network`, `cells`, `space`) make one, `dot`
writes it down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias, Union

import attrs

Direction: TypeAlias = Literal["TB", "LR"]
Look: TypeAlias = Literal["box", "round", "circle", "point", "hidden"]
Frame: TypeAlias = Literal["part", "choice", "detail"]
Member: TypeAlias = Union["Box", "Group"]


@attrs.frozen
class Row:
    """One line of a table: an option, and its weight where that is known."""

    text: str
    kind: str
    weight: float | None = None
    faint: bool = False


@attrs.frozen
class Box:
    """One box.

    Attributes:
        id: unique in the scene.
        title: the large text.
        notes: lines in small grey letters below it.
        sub: a subscript behind the title.
        kind: what it stands for; `trinas.viz.style` gives every kind a colour.
        look: its outline; a ``table`` lists `rows`.
        faint: drawn as something that takes no part.
        path: where it stands in the space, shown on hovering.
    """

    id: str
    title: str = ""
    notes: tuple[str, ...] = ()
    sub: str = ""
    kind: str = "other"
    look: Look = "box"
    rows: tuple[Row, ...] = ()
    faint: bool = False
    path: str = ""


@attrs.frozen
class Group:
    """Boxes with a frame around them; ``choice`` frames hold alternatives."""

    id: str
    title: str
    members: tuple[Member, ...]
    notes: tuple[str, ...] = ()
    frame: Frame = "part"
    faint: bool = False


@attrs.frozen
class Arrow:
    """An arrow between two boxes.

    Attributes:
        label: text beside it.
        at_head: the label stands at the head and takes no room in the layout.
        strength: a weight in [0, 1], drawn as thickness and darkness; 0 is dashed.
        kind: colours it by operation where given.
        back: leads to another lane and has no say in the layout.
        hidden: only there for the layout.
        straight: pulls its two ends into one line.
        from_group, to_group: the arrow ends at the frame of that group.
    """

    tail: str
    head: str
    label: str = ""
    at_head: bool = False
    strength: float | None = None
    kind: str | None = None
    faint: bool = False
    back: bool = False
    hidden: bool = False
    straight: bool = False
    from_group: str | None = None
    to_group: str | None = None


@attrs.frozen
class Scene:
    """Everything on the page.

    Attributes:
        lanes: members side by side: columns in direction ``TB``, rows in ``LR``.
        turns: for every two neighbouring lanes the one arrow that joins them, or None.
    """

    lanes: tuple[tuple[Member, ...], ...]
    arrows: tuple[Arrow, ...]
    turns: tuple[Arrow | None, ...] = ()
    direction: Direction = "TB"
    title: str | None = None


def boxes(members: Iterable[Member]) -> Iterator[Box]:
    """All boxes, inside groups too, in order."""
    for member in members:
        if isinstance(member, Box):
            yield member
        else:
            yield from boxes(member.members)


def first_box(member: Member, arrows: Iterable[Arrow]) -> Box:
    """The box of `member` where the flow enters."""
    inside = {box.id: box for box in boxes((member,))}
    fed = {a.head for a in arrows if a.tail in inside and not a.back}
    return next((box for box in inside.values() if box.id not in fed), next(iter(inside.values())))
