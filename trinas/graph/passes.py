"""Passes: graph in, graph out. Names of surviving nodes never change.

So whatever is named after nodes (weights, drawings, golden files) stays valid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from trinas._core.collector import paused_collector
from trinas.graph.builder import join
from trinas.graph.ir import Graph, Source, Vertex, assemble
from trinas.graph.walk import backwards, check_outcome
from trinas.space.decision import Picked, chosen
from trinas.space.shape import Shape
from trinas.space.values import Symbol, Value, Var


def remove_dead(graph: Graph) -> Graph:
    """Drop nodes that do not reach the output, and decisions that no node asks for."""
    live = _live(graph)
    asked = {path for node in live for path in graph.asks(node)}
    if len(live) == len(graph) and len(asked) == len(graph.decisions):
        return graph
    vertices = {node: graph.vertex(node) for node in graph if node in live}
    inputs = {node: graph.sources(node) for node in vertices}
    decisions = {path: d for path, d in graph.decisions.items() if path in asked}
    return assemble(vertices, inputs, decisions, graph.input, graph.output)


def _live(graph: Graph) -> Collection[str]:
    """The nodes that reach the output, and the input."""
    read = {source.node for node in graph for source in graph.sources(node)}
    if len(read | {graph.input, graph.output}) == len(graph):
        return graph  # no way ends anywhere else, so all end at the output
    live = {graph.input}
    pending = [graph.output]
    while pending:
        node = pending.pop()
        if node not in live:
            live.add(node)
            pending.extend([source.node for source in graph.sources(node)])
    return live


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
    with paused_collector():
        return _settled(graph, dict(picked))


def _settled(graph: Graph, picked: Mapping[str, Picked]) -> Graph:
    widths: dict[Symbol, Value] = {}
    for path, value in picked.items():
        check_outcome(graph, path, value)
        decision = graph.decisions[path]
        if decision.kind == "width" and isinstance(value, int):
            widths[Var(path, tuple(int(o) for o in decision.options))] = value
    needed = {graph.input, *backwards(graph, picked)}
    shapes_at: dict[int, Shape] = {}  # by the shape's id: many nodes have one and the same
    vertices: dict[str, Vertex] = {}
    inputs: dict[str, tuple[Source, ...]] = {}
    # Where a settled mix stood, its consumers read the picked input instead.
    alias: dict[str, str] = {}
    for node in graph:
        if node not in needed:
            continue
        vertex: Vertex = graph.vertex(node)
        sources = [
            Source(alias[s.node], s.option) if s.node in alias else s for s in graph.sources(node)
        ]
        path = vertex["decision"]
        if path is not None and path in picked:
            sources = _picked_sources(sources, picked[path])
            if len(sources) == 1:
                alias[node] = sources[0].node
                continue
            vertex = {**vertex, "kind": "sum", "decision": None}
        shapes = [vertices[s.node]["shape"] for s in sources]
        vertices[node] = _recut(_narrow(vertex, widths, shapes_at), shapes)
        inputs[node] = tuple(sources)
    output = alias.get(graph.output, graph.output)
    decisions = {p: d for p, d in graph.decisions.items() if p not in picked}
    return remove_dead(assemble(vertices, inputs, decisions, graph.input, output))


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


def _narrow(vertex: Vertex, widths: Mapping[Symbol, Value], shapes_at: dict[int, Shape]) -> Vertex:
    """Replace settled widths in a node's shape and operation."""
    if not widths:
        return vertex
    shape, operation = vertex["shape"], vertex["op"]
    if id(shape) not in shapes_at:
        shapes_at[id(shape)] = shape.at(widths)
    return {
        **vertex,
        "shape": shapes_at[id(shape)],
        "op": None if operation is None else operation.bind(widths),
    }
