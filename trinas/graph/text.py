"""The text form of a graph: one line a decision, one line a node.

Stable across processes and versions of networkx, made for golden files and for reading::

    decision slot: operation {a, b}
    input -> 3x8x8
    slot/a = conv(kernel=3, channels=3)(input) -> 3x8x8
    slot = mix[slot](a: slot/a, b: input) -> 3x8x8
    output slot
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trinas.graph.ir import Graph


def to_text(graph: Graph) -> str:
    """Write `graph` down, one line per decision and per node."""
    lines = []
    for decision in graph.decisions.values():
        options = ", ".join(
            f"{option}{'!' if option in decision.never else ''}" for option in decision.options
        )
        extra = f" keep {decision.keep}" if decision.kind == "inputs" else ""
        order = f" after {list(decision.order)}" if decision.order is not None else ""
        lines.append(f"decision {decision.path}: {decision.kind} {{{options}}}{extra}{order}")
    for node in graph:
        lines.append(_line(graph, node))
    lines.append(f"output {graph.output}")
    return "\n".join(lines) + "\n"


def _line(graph: Graph, node: str) -> str:
    vertex = graph.vertex(node)
    if vertex["kind"] == "input":
        return f"{node} -> {vertex['shape']}"
    head = str(vertex["op"]) if vertex["op"] is not None else vertex["kind"]
    if vertex["decision"] is not None:
        head += f"[{vertex['decision']}]"
    if vertex["weights"] not in (None, node):
        head += f"<{vertex['weights']}>"
    inputs = []
    for position, (producer, option) in enumerate(graph.sources(node)):
        factor = vertex["coefs"][position] if vertex["coefs"] else 1.0
        text = producer if factor == 1.0 else f"{factor!r}*{producer}"
        inputs.append(text if option is None else f"{option}: {text}")
    return f"{node} = {head}({', '.join(inputs)}) -> {vertex['shape']}"
