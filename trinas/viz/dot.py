"""Writes a scene in the DOT language. Needs nothing but this file's own escaping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import attrs

from trinas.viz.scene import Arrow, Box, Group, Member, Scene, first_box
from trinas.viz.style import COLOURS, FAINT, INK, SOFT, grey, pen, spell_weight

FONT = "Helvetica"
_CORNER = {"shape": "point", "width": "0.01", "height": "0.01", "color": SOFT, "label": ""}
_TITLE, _NOTE, _LABEL, _ROW = 11, 9, 9, 8


class Markup(str):
    """The text of an HTML-like label, without its outer angle brackets."""

    __slots__ = ()


def to_dot(scene: Scene) -> str:
    """The DOT text of `scene`; equal scenes give equal text."""
    return "\n".join(["digraph trinas {", *_head(scene), *_body(scene), "}"]) + "\n"


def quote(text: str) -> str:
    """A double-quoted DOT string that shows `text` as it is.

    >>> print(quote('a "b"'))
    "a \\"b\\""
    """
    safe = _clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{safe}"'


def markup(text: str) -> str:
    """`text` for use inside an HTML-like label.

    >>> markup("a < b & c")
    'a &lt; b &amp; c'
    """
    pairs = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "<BR/>"}
    return "".join(pairs.get(c, c) for c in _clean(text))


def _clean(text: str) -> str:
    """Without what neither DOT nor UTF-8 can hold."""
    kept = "".join(c if c == "\n" or c.isprintable() else " " for c in text)
    return kept.encode("utf-8", "replace").decode()


def _attributes(values: Mapping[str, str]) -> str:
    if not values:
        return ""
    parts = [f"{k}={f'<{v}>' if isinstance(v, Markup) else quote(v)}" for k, v in values.items()]
    return f" [{', '.join(parts)}]"


def _head(scene: Scene) -> Iterator[str]:
    graph = {
        "rankdir": scene.direction, "newrank": "true", "compound": "true", "charset": "UTF-8",
        "bgcolor": "white", "fontname": FONT, "fontsize": "10", "fontcolor": SOFT,
        "nodesep": "0.22", "ranksep": "0.3", "pad": "0.15",
    }  # fmt: skip
    if scene.title is not None:
        label = Markup(f'<FONT POINT-SIZE="14" COLOR="{INK}">{markup(scene.title)}</FONT>')
        graph |= {"label": label, "labelloc": "t"}
    yield f"  graph{_attributes(graph)};"
    node = {
        "shape": "box", "style": "filled,rounded", "fontname": FONT, "fontsize": str(_TITLE),
        "fontcolor": INK, "height": "0.3", "width": "0.3", "margin": "0.1,0.045",
    }  # fmt: skip
    yield f"  node{_attributes(node)};"
    edge = {
        "color": SOFT, "arrowsize": "0.6", "fontname": FONT, "fontsize": str(_LABEL),
        "fontcolor": INK,
    }  # fmt: skip
    if scene.direction == "LR":
        # Beside the arrow, not across it.
        edge |= {"labelangle": "50", "labeldistance": "1.5"}
    yield f"  edge{_attributes(edge)};"


def _body(scene: Scene) -> Iterator[str]:
    lanes = scene.lanes if scene.direction == "TB" else scene.lanes[::-1]
    for n, lane in enumerate(lanes):
        yield f"  subgraph {quote(f'cluster #lane{n}')} {{"
        yield '    graph [label="", peripheries="0", margin="0"];'
        for member in lane:
            yield from _member(member, "    ")
        yield "  }"
    yield from _lanes(scene)
    for arrow in scene.arrows:
        yield f"  {_arrow(arrow)};"


def _lanes(scene: Scene) -> Iterator[str]:
    """Line up the lanes, and lead the flow from the end of one to the start of the next.

    The way goes over an invisible corner beside the next lane: an edge from there to the
    end of the lane before, drawn without a tip, and one to the start of the next.
    """
    heads = [first_box(lane[0], scene.arrows) for lane in scene.lanes]
    chain = [head.id for head in heads[:1]]
    for n, (turn, head) in enumerate(zip(scene.turns, heads[1:])):
        if turn is not None:
            corner = f"#turn{n}"
            chain.append(corner)
            yield f"  {quote(corner)}{_attributes(_CORNER)};"
            yield from _turn(turn, corner, scene, to_point=head.look == "point")
        chain.append(head.id)
    if len(chain) > 1:
        same = " -> ".join(map(quote, chain))
        yield f"  {{ rank=same; {same} [style=invis]; }}"


def _turn(turn: Arrow, corner: str, scene: Scene, *, to_point: bool) -> Iterator[str]:
    leave, enter = {"TB": ("e", "w"), "LR": ("s", "n")}[scene.direction]
    end = {"lhead": "cluster " + turn.from_group} if turn.from_group else {"headport": leave}
    back = {**_stroke(turn), "dir": "none", **end}
    yield f"  {quote(corner)} -> {quote(turn.tail)}{_attributes(back)};"
    port = {} if to_point or turn.to_group else {"headport": enter}
    rest = attrs.evolve(turn, tail=corner, from_group=None)
    yield f"  {_arrow(rest, port)};"


def _member(member: Member, indent: str) -> Iterator[str]:
    if isinstance(member, Box):
        yield f"{indent}{quote(member.id)}{_attributes(_box(member))};"
        return
    yield f"{indent}subgraph {quote('cluster ' + member.id)} {{"
    yield f"{indent}  graph{_attributes(_frame(member))};"
    for inner in member.members:
        yield from _member(inner, indent + "  ")
    yield f"{indent}}}"


def _frame(group: Group) -> dict[str, str]:
    ink = FAINT if group.faint else SOFT
    lines = [f'<FONT COLOR="{ink}"><B>{markup(group.title)}</B></FONT>'] if group.title else []
    lines += [f'<FONT COLOR="{ink}" POINT-SIZE="9">{markup(note)}</FONT>' for note in group.notes]
    looks = {
        "part": {"style": "filled,rounded", "fillcolor": "#F8F8F8", "color": "#BDBDBD"},
        "choice": {"style": "filled,rounded,dashed", "fillcolor": "#FFFFFF", "color": "#999999"},
        "detail": {"style": "filled,rounded", "fillcolor": "#FFFFFF", "color": "#999999"},
    }
    # Arrows enter a part at its left; those that pass its body by run at its right.
    align = "RIGHT" if group.frame == "part" else "LEFT"
    label = Markup("".join(f'{line}<BR ALIGN="{align}"/>' for line in lines)) if lines else ""
    return {
        "label": label, **looks[group.frame], "margin": "9", "labeljust": align[0].lower(),
        "peripheries": "1", "tooltip": group.id,
    }  # fmt: skip


def _box(box: Box) -> dict[str, str]:
    colour = COLOURS[box.kind]
    line, fill = (FAINT, "#FFFFFF") if box.faint else (colour.line, colour.fill)
    values = {"label": _label(box), "fillcolor": fill, "color": line}
    if box.look == "circle":
        wide = {"margin": "0.02"} if len(box.title) > 1 else {"fixedsize": "true"}
        values |= {"shape": "circle", "width": "0.24", "height": "0.24", **wide}
    elif box.look == "point":
        values = {"shape": "point", "width": "0.06", "height": "0.06", "color": line}
    elif box.look == "hidden":
        values = {"shape": "point", "width": "0.01", "height": "0.01", "style": "invis"}
    elif box.look == "round":
        values |= {"shape": "box", "style": "filled,rounded", "width": "0.45"}
    elif box.rows:
        values = {"label": _table(box), "shape": "plain", "style": ""}
    if box.kind == "zero" or (box.faint and box.look == "box"):
        values["style"] = "filled,rounded,dashed"
    if box.path:
        values["tooltip"] = box.path
    return values


def _label(box: Box) -> str:
    ink = FAINT if box.faint else INK
    title = markup(box.title)
    if box.sub:
        title = f"<I>{title}</I><SUB>{markup(box.sub)}</SUB>"
    lines = [f'<FONT COLOR="{ink}">{title}</FONT>'] if title else []
    soft = FAINT if box.faint else SOFT
    lines += [
        f'<FONT POINT-SIZE="{_NOTE}" COLOR="{soft}">{markup(note)}</FONT>' for note in box.notes
    ]
    return Markup("<BR/>".join(lines)) if lines else ""


def _table(box: Box) -> str:
    """A box that lists its rows below its title."""
    wide = 2 if any(row.weight is not None for row in box.rows) else 1
    head = _label(box)
    rows = [f'<TR><TD COLSPAN="{wide}">{head}</TD></TR>'] if head else []
    for row in box.rows:
        dead = row.weight == 0 or row.faint
        ink = FAINT if dead else INK if row.weight is None else grey(row.weight)
        fill = "#FFFFFF" if dead else COLOURS[row.kind].fill
        texts = [("LEFT", row.text)]
        if row.weight is not None:
            texts.append(("RIGHT", spell_weight(row.weight)))
        cells = "".join(
            f'<TD BGCOLOR="{fill}" ALIGN="{side}">'
            f'<FONT POINT-SIZE="{_ROW}" COLOR="{ink}">{markup(text)}</FONT></TD>'
            for side, text in texts
        )
        rows.append(f"<TR>{cells}</TR>")
    frame = 'BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2"'
    colour = COLOURS[box.kind]
    fill = colour.fill if head else "#FFFFFF"
    return Markup(f'<TABLE {frame} BGCOLOR="{fill}" COLOR="{colour.line}">{"".join(rows)}</TABLE>')


def _arrow(arrow: Arrow, more: Mapping[str, str] = MappingProxyType({})) -> str:
    values = _stroke(arrow)
    if arrow.label and not arrow.hidden:
        place = "headlabel" if arrow.at_head else "label"
        values[place] = Markup(markup(f" {arrow.label} "))
    if arrow.straight:
        values["weight"] = "8"
    if arrow.from_group:
        values["ltail"] = "cluster " + arrow.from_group
    if arrow.to_group:
        values["lhead"] = "cluster " + arrow.to_group
    if arrow.back:
        values["constraint"] = "false"
    return f"{quote(arrow.tail)} -> {quote(arrow.head)}{_attributes({**values, **more})}"


def _stroke(arrow: Arrow) -> dict[str, str]:
    """Line and ink of an arrow."""
    if arrow.hidden:
        return {"style": "invis"}
    if arrow.faint or arrow.strength == 0:
        return {
            "color": "#CCCCCC", "style": "dashed", "penwidth": "0.6", "arrowsize": "0.4",
            "fontcolor": FAINT,
        }  # fmt: skip
    if arrow.strength is not None:
        ink = grey(arrow.strength)
        return {"color": ink, "penwidth": pen(arrow.strength), "fontcolor": ink}
    if arrow.kind is not None:
        return {"color": COLOURS[arrow.kind].line, "penwidth": "1.3"}
    return {}
