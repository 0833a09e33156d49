"""From the regions of a graph to boxes and groups."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from trinas.viz import style
from trinas.viz.leaves import leaf, skip_boxes
from trinas.viz.outline import Region, find_cell
from trinas.viz.scene import Box, Row
from trinas.viz.sheet import Draft, Item, Sheet, merge_runs

_LARGEST_BLOCK = 12
_MOST_ROWS, _MOST_TABLES = 8, 20


def fill(sheet: Sheet, region: Region) -> list[Item]:
    """Put everything in `region` on the sheet, without a frame around it."""
    items: list[Item] = []
    for child in region.children:
        items += _visit(sheet, child)
    if region.node is not None:
        items += skip_boxes(sheet, region.node)
        items += leaf(sheet, region.node)
    return merge_runs(sheet, items)


def _visit(sheet: Sheet, region: Region) -> list[Item]:
    if region.is_leaf and region.node is not None:
        return [*skip_boxes(sheet, region.node), *leaf(sheet, region.node)]
    if sheet.deep:
        return _composite(sheet, region)
    facts = sheet.view.facts
    full = facts.region(region.path)
    plan = None if full is None else find_cell(facts, full)
    if plan is not None:
        return [_reference(sheet, region, plan.key)]
    if len(region.children) == 1 and region.node is None and region.path not in facts.shared:
        # A choice whose option is settled: the option says more than the choice.
        return _visit(sheet, region.children[0])
    if sheet.view.is_open and facts.is_tree(region.node):
        return [_tree(sheet, region)]
    if _is_block(sheet, region):
        return [_block(sheet, region, region.label)]
    return _composite(sheet, region)


def _composite(sheet: Sheet, region: Region) -> list[Item]:
    items = fill(sheet, region)
    if len(items) < 2:
        return items
    facts = sheet.view.facts
    key = facts.shared.get(region.path)
    if key in facts.repeated and key is not None and not sheet.deep:
        return [_reference(sheet, region, key)]
    # What only strings other parts together needs no frame of its own.
    string = any(isinstance(item, Draft) or item in sheet.keys for item in items)
    if string and region.node is None and not sheet.deep:
        return items
    picks = region.node is not None and facts.decision(region.node) is not None
    notes = sheet.view.width_notes(region.path)
    choice = picks and sheet.view.is_open
    return [Draft(region.path, items, notes, "choice" if choice else "part")]


def _is_block(sheet: Sheet, region: Region) -> bool:
    """Whether one box stands for all of `region`."""
    facts = sheet.view.facts
    settled = region.path not in facts.undecided
    if region.path in facts.options:
        return settled or sheet.view.is_open
    return settled and _is_plain(region)


def _is_plain(region: Region) -> bool:
    """Whether a region without decisions is simple enough for one box."""
    parts = [child for child in region.children if not child.is_leaf]
    small = sum(1 for _ in region.nodes()) <= _LARGEST_BLOCK
    return small and len(parts) <= 1 and all(_is_plain(part) for part in parts)


def _block(sheet: Sheet, region: Region, title: str) -> str:
    nodes = list(region.nodes())
    searched = region.path in sheet.view.facts.undecided and sheet.view.is_open
    kind = "block" if searched else style.kind_of_nodes(sheet.view.graph, nodes)
    notes = (sheet.change(nodes),)
    rows = _leading(sheet, region)
    return sheet.put(Box(region.path, title, notes, kind=kind, rows=rows, path=region.path), nodes)


def _reference(sheet: Sheet, region: Region, key: str) -> str:
    """One box for a part that is drawn elsewhere."""
    nodes = list(region.nodes())
    sheet.references.setdefault(key, region)
    sheet.keys[region.path] = key
    shape = style.spell_shape(sheet.view.graph.vertex(sheet.exit_of(nodes))["shape"])
    return sheet.put(Box(region.path, key, (shape,), kind="block", path=region.path), nodes)


def _tree(sheet: Sheet, region: Region) -> Draft:
    """The blocks of a tree: a box each, with the weight of ending there."""
    node, view = region.node or "", sheet.view
    decision = view.facts.decision(node)
    assert decision is not None, node
    items: list[Item] = []
    for child in region.children:
        box = sheet.boxes[_block(sheet, child, child.label.rpartition("-")[2])]
        ends = child.label in decision.options
        weight = view.weight(decision, child.label) if ends else None
        notes = (f"exit {style.spell_weight(weight)}",) if weight and not box.faint else ()
        sheet.boxes[box.id] = attrs.evolve(box, notes=notes)
        sheet.flow[box.id] = _flow(sheet, node, child.label)
        items.append(box.id)
    items += leaf(sheet, node)
    _thin_out(sheet, [item for item in items if isinstance(item, str)])
    blocks, exits = len(region.children), len(decision.options)
    which = "any of them" if exits == blocks else f"{exits} of them"
    notes = (f"tree of {blocks} blocks,", f"{which} can be the last")
    return Draft(region.path, items, notes, "choice")


def _thin_out(sheet: Sheet, blocks: Sequence[str]) -> None:
    """Leave the rows of blocks out where there are too many to be read on a page."""
    full = [block for block in blocks if sheet.boxes[block].rows]
    if len(full) > _MOST_TABLES:
        for block in full:
            sheet.boxes[block] = attrs.evolve(sheet.boxes[block], rows=())


def _flow(sheet: Sheet, node: str, label: str) -> float | None:
    """The weight of all ends at or behind one block of a tree."""
    decision = sheet.view.facts.decision(node)
    assert decision is not None, node
    behind = [o for o in decision.options if o == label or str(o).startswith(f"{label}-")]
    weights = [sheet.view.weight(decision, option) for option in behind]
    known = [weight for weight in weights if weight is not None]
    return sum(known) if len(known) == len(weights) else None


def _leading(sheet: Sheet, region: Region) -> tuple[Row, ...]:
    """The option in front of every choice inside a block that is one box."""
    view = sheet.view
    if not view.is_open or (view.weights is None and view.picks is None):
        return ()
    rows = []
    for node in region.nodes():
        decision = view.facts.decision(node)
        if decision is None or decision.kind != "operation" or node not in view.live:
            continue
        option = view.leading(decision)
        widths = "".join(f" {view.leading(d)}" for d in view.facts.widths(node))
        weight = None if view.picks is not None else view.weight(decision, option)
        rows.append(Row(f"{option}{widths}", view.facts.kind(f"{node}/{option}"), weight))
    return tuple(rows) if len(rows) <= _MOST_ROWS else ()
