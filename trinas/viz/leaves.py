"""From single nodes of a graph to boxes."""

from __future__ import annotations

import attrs

from trinas.viz import style
from trinas.viz.scene import Box
from trinas.viz.sheet import Item, Sheet

_SIGNS = {"sum": "+", "product": "×", "mix": "Σ", "keep": "Σ"}


def leaf(sheet: Sheet, node: str) -> list[Item]:
    """The box of one node; none where an earlier box takes it in."""
    view = sheet.view
    vertex = view.graph.vertex(node)
    shape = style.spell_shape(vertex["shape"])
    if vertex["kind"] == "input":
        return [sheet.put(Box(node, "input", (shape,), kind="end", look="round"), [node])]
    operation = vertex["op"]
    if operation is None:
        return [sheet.put(_merge(sheet, node), [node])]
    if not sheet.deep and _absorb(sheet, node):
        return []
    label, words = node.rpartition("/")[2], style.spell_operation(operation)
    title, notes = label, (words, sheet.change([node]))
    if _is_unnamed(sheet, node):
        title, notes = words, notes[1:]
    kind = style.kind_of_operation(operation)
    return [sheet.put(Box(node, title, notes, kind=kind, path=node), [node])]


def skip_boxes(sheet: Sheet, node: str) -> list[Item]:
    """A box for every option of a choice that does nothing."""
    view = sheet.view
    decision = view.facts.decision(node) if view.is_open else None
    if decision is None or decision.kind != "operation":
        return []
    items: list[Item] = []
    for position, (producer, option) in enumerate(view.graph.sources(node)):
        path = f"{node}/{option}"
        if option is None or producer == path or producer.startswith(path + "/"):
            continue
        faint = not view.allows(decision, option) or node not in view.live
        sheet.boxes[path] = Box(path, str(option), kind="skip", faint=faint, path=path)
        sheet.skips[node, position] = path
        items.append(path)
    return items


def _merge(sheet: Sheet, node: str) -> Box:
    view = sheet.view
    vertex = view.graph.vertex(node)
    if vertex["kind"] == "concat":
        notes = (style.spell_channels(vertex["shape"].channels),)
        return Box(node, "concat", notes, kind="merge", look="round", path=node)
    decision = view.facts.decision(node)
    if view.facts.is_tree(node) and decision is not None and view.weights is None:
        notes = (f"one of {len(decision.options)}",)
        return Box(node, "exit", notes, kind="merge", look="round", path=node)
    coefs = vertex["coefs"]
    mean = coefs and coefs[0] != 1.0 and len(set(coefs)) == 1
    sign = "mean" if mean else _SIGNS[vertex["kind"]]
    return Box(node, sign, kind="merge", look="circle", path=node)


def _is_unnamed(sheet: Sheet, node: str) -> bool:
    """Whether an operation goes by the name of its kind, numbered or not."""
    return node.rpartition("/")[2].partition("[")[0] == sheet.view.graph.operation(node).kind


def _absorb(sheet: Sheet, node: str) -> bool:
    """Let an unnamed activation or normalisation join the box before it."""
    graph = sheet.view.graph
    operation, producer = graph.operation(node), graph.sources(node)[0].node
    box = sheet.boxes.get(sheet.unit.get(producer, ""))
    if (
        type(operation).registered not in style.FOLLOWERS
        or not _is_unnamed(sheet, node)
        or box is None
        or box.look != "box"
        or box.id in sheet.keys
        or graph.nx.out_degree(producer) != 1
        or producer.rpartition("/")[0] != node.rpartition("/")[0]
    ):
        return False
    notes = style.with_follower(box.notes, operation.kind)
    sheet.boxes[box.id] = attrs.evolve(box, notes=notes)
    sheet.unit[node] = box.id
    return True
