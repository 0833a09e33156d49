"""Passes: graph in, graph out. Names of surviving nodes never change.

So whatever is named after nodes (weights, drawings, golden files) stays valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx

from trinas.graph.builder import join
from trinas.graph.ir import Graph, Source, Vertex
from trinas.graph.walk import check_outcome
from trinas.space.decision import Picked, chosen
from trinas.space.shape import Shape
from trinas.space.values import Symbol, Value, Var


def remove_dead(graph: Graph) -> Graph:
    """Drop nodes that do not reach the output, and decisions that no node asks for."""
    live = {graph.input}
    asked: set[str] = set()
    pending = [graph.output]
    while pending:
        node = pending.pop()
        if node not in live:
            live.add(node)
            asked.update(graph.asks(node))
            pending.extend(graph.nx.predecessors(node))
    if len(live) == len(graph) and len(asked) == len(graph.decisions):
        return graph
    kept = nx.MultiDiGraph()
    for node in graph:
        if node in live:
            kept.add_node(node, **graph.vertex(node))
    for producer, consumer, position, data in graph.nx.edges(keys=True, data=True):
        if producer in live and consumer in live:
            kept.add_edge(producer, consumer, position, **data)
    decisions = {path: d for path, d in graph.decisions.items() if path in asked}
    return Graph(kept, decisions, graph.input, graph.output)


def specialise(graph: Graph, picked: Mapping[str, Picked]) -> Graph:
    """Settle decisions: the result holds only what the picked options need.

    Args:
        graph: any graph.
        picked: decision path to outcome, a `Genotype` for instance; decisions left out
            stay open.

    Raises:
        GenotypeError: a path or an outcome that the graph does not know.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> print(tn.specialise(graph, {"slot": "b"}).text, end="")
    input -> 3x16x16
    slot/b = conv(kernel=1, channels=8)(input) -> 8x16x16
    output slot/b
    """
    widths: dict[Symbol, Value] = {}
    for path, value in picked.items():
        check_outcome(graph, path, value)
        decision = graph.decisions[path]
        if decision.kind == "width" and isinstance(value, int):
            widths[Var(path, tuple(int(o) for o in decision.options))] = value
    settled = nx.MultiDiGraph()
    # Where a settled mix stood, its consumers read the picked input instead.
    alias: dict[str, str] = {}
    for node in graph:
        vertex: Vertex = graph.vertex(node)
        sources = [Source(alias.get(s.node, s.node), s.option) for s in graph.sources(node)]
        path = vertex["decision"]
        if path is not None and path in picked:
            sources = _picked_sources(sources, picked[path])
            if len(sources) == 1:
                alias[node] = sources[0].node
                continue
            vertex = {**vertex, "kind": "sum", "decision": None}
        shapes = [settled.nodes[s.node]["shape"] for s in sources]
        settled.add_node(node, **_recut(_narrow(vertex, widths), shapes))
        for position, (producer, option) in enumerate(sources):
            data = {} if option is None else {"option": option}
            settled.add_edge(producer, node, position, **data)
    output = alias.get(graph.output, graph.output)
    decisions = {p: d for p, d in graph.decisions.items() if p not in picked}
    return remove_dead(Graph(settled, decisions, graph.input, output))


def _picked_sources(sources: Sequence[Source], outcome: Picked) -> list[Source]:
    kept = chosen(outcome)
    return [Source(source.node, None) for source in sources if source.option in kept]


def _recut(vertex: Vertex, shapes: Sequence[Shape]) -> Vertex:
    """Write down anew into which pieces the channels of a node are cut.

    Channels stay equally many, but a shortcut whose widths have become equal passes the
    pieces of its input on, which it did not while it was a convolution.
    """
    shape = vertex["shape"]
    if len(shape.segments) == 1 and all(len(s.segments) == 1 for s in shapes):
        return vertex
    if vertex["op"] is not None:
        shape = vertex["op"].out_shape(shapes[0])
    elif vertex["kind"] == "concat":
        shape = join(shapes)
    elif shapes:
        shape = next(s for s in shapes if s.size == shape.size)
    return {**vertex, "shape": shape}


def _narrow(vertex: Vertex, widths: Mapping[Symbol, Value]) -> Vertex:
    """Replace settled widths in a node's shape and operation."""
    if not widths:
        return vertex
    operation = vertex["op"]
    return {
        **vertex,
        "shape": vertex["shape"].at(widths),
        "op": None if operation is None else operation.bind(widths),
    }
