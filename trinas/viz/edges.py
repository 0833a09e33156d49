"""From the edges of a graph to arrows between boxes."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from trinas.graph import Source
from trinas.viz import style
from trinas.viz.scene import Arrow
from trinas.viz.sheet import Sheet

_MANY_EXITS = 8


def arrows(sheet: Sheet, *, outside: str | None = None) -> list[Arrow]:
    """The arrows between the boxes of `sheet`, each pair of ends once.

    Args:
        sheet: a filled sheet.
        outside: the id of the box that stands for whatever is not on the sheet.
    """
    found: dict[tuple[str, str, str], Arrow] = {}
    for node, head in sheet.unit.items():
        for position, source in enumerate(sheet.view.graph.sources(node)):
            tail = sheet.unit.get(source.node, outside)
            if tail is None or tail == head:
                continue
            for arrow in _edge(sheet, node, position, source, tail):
                ends = (arrow.tail, arrow.head, arrow.label)
                known = found.setdefault(ends, arrow)
                if known.faint and not arrow.faint:
                    found[ends] = arrow
    return list(found.values())


def _edge(sheet: Sheet, node: str, position: int, source: Source, tail: str) -> Iterator[Arrow]:
    head = sheet.unit[node]
    view = sheet.view
    if head in sheet.flow:
        yield _tree_edge(sheet, tail, head)
    elif head != node or head in sheet.keys:
        yield Arrow(tail, head, faint=sheet.boxes[head].faint, straight=True)
    elif source.option is None:
        vertex = view.graph.vertex(node)
        coefs = vertex["coefs"]
        factor = coefs[position] if coefs and len(set(coefs)) > 1 else 1.0
        label = f"×{factor:g}" if factor != 1.0 else ""
        faint = node not in view.live
        straight = position == len(view.graph.sources(node)) - 1
        yield Arrow(tail, head, label, at_head=True, faint=faint, straight=straight)
    elif view.facts.is_tree(node) and not sheet.deep:
        yield from _exit(sheet, node, source, tail)
    else:
        yield from _pick(sheet, node, position, source, tail)


def _pick(sheet: Sheet, node: str, position: int, source: Source, tail: str) -> Iterator[Arrow]:
    """The arrow of one option into the node that picks."""
    view = sheet.view
    decision = view.facts.decision(node)
    assert decision is not None, node
    assert source.option is not None, node
    weight = view.weight(decision, source.option)
    faint = not view.allows(decision, source.option) or node not in view.live
    words = [] if weight is None else [style.spell_weight(weight)]
    if decision.kind == "depth":
        words.insert(0, f"×{source.option}")
    skip = sheet.skips.get((node, position))
    if skip is not None:
        yield Arrow(tail, skip, strength=weight, faint=faint)
        tail = skip
    yield Arrow(tail, node, " ".join(words), strength=weight, faint=faint)


def _exit(sheet: Sheet, node: str, source: Source, tail: str) -> Iterator[Arrow]:
    """The arrow from a block of a tree to the exit: many of them would hide the tree."""
    view = sheet.view
    decision = view.facts.decision(node)
    assert decision is not None, node
    assert source.option is not None, node
    weight = view.weight(decision, source.option)
    taken = [o for o in decision.options if view.allows(decision, o)]
    if source.option in taken and len(taken) <= _MANY_EXITS and node in view.live:
        label = "" if weight is None else style.spell_weight(weight)
        yield Arrow(tail, node, label, strength=weight)
    elif not any(box.startswith(f"{tail}-") for box in sheet.flow):
        yield Arrow(tail, node, hidden=True)


def _tree_edge(sheet: Sheet, tail: str, head: str) -> Arrow:
    """The arrow to a block of a tree, as strong as what passes through the block."""
    flow = sheet.flow[head]
    label = style.spell_weight(flow) if flow and flow < 0.995 else ""
    return Arrow(tail, head, label, strength=flow, faint=sheet.boxes[head].faint)


def rename(arrow: Arrow, names: dict[str, str]) -> Arrow:
    """The same arrow between boxes of other ids."""
    return attrs.evolve(
        arrow, tail=names.get(arrow.tail, arrow.tail), head=names.get(arrow.head, arrow.head)
    )
