"""Checks a graph against the contract written in `trinas.graph.ir`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias

from trinas._core.errors import GraphError, TrinasError
from trinas.graph.builder import fits_gate, is_gate, join, same_shape, same_weights
from trinas.graph.ir import Graph, Vertex
from trinas.space.operation import OperationSpec
from trinas.space.shape import Shape
from trinas.space.values import Var

_KINDS = ("input", "op", "sum", "product", "concat", "mix", "keep")
_PICKING = ("mix", "keep")

# The rule that is broken, the node that breaks it, and how.
Violation: TypeAlias = tuple[str, str, str]


def lint(graph: Graph) -> None:
    """Raise on the first broken rule of the graph contract.

    The rules, by name: ``fields`` (each kind carries what it needs), ``kind``,
    ``one-input``, ``one-output``, ``acyclic``, ``order`` (stored topologically),
    ``positions`` (inputs numbered from 0), ``reachable`` (every node lies on a way from
    input to output), ``decision`` (known, asked by a node, and the edges carry its
    options), ``variables`` (searched channels belong to known width decisions), ``shape``
    (the recorded shape is what the inputs give), ``scale``, ``sharing`` (equal weights,
    equal operation).

    Raises:
        GraphError: names the rule and the node, and prints the graph.

    >>> import trinas as tn
    >>> lint(tn.lower(tn.conv(3, 8), (3, 16, 16)))      # nothing to say
    """
    for rule, node, detail in _violations(graph):
        raise GraphError(
            f"graph contract, rule {rule}", got=detail, at=node, fix=f"The graph:\n{_show(graph)}"
        )


def _show(graph: Graph) -> str:
    try:
        return graph.text
    except (LookupError, TypeError, AttributeError):  # too broken to be written down
        return str(graph.nx)


def _violations(graph: Graph) -> Iterator[Violation]:
    yield from _ends(graph)
    for node in graph:
        yield from _fields(node, graph.vertex(node))
    yield from _structure(graph)
    yield from _asked(graph)
    weights: dict[str, tuple[OperationSpec, Shape]] = {}
    for node in graph:
        vertex = graph.vertex(node)
        shapes = [graph.vertex(s.node)["shape"] for s in graph.sources(node)]
        yield from _options(graph, node, vertex)
        yield from _shapes(node, vertex, shapes)
        yield from _scale(graph, node, vertex)
        if vertex["op"] is not None:
            yield from _sharing(node, vertex, vertex["op"], shapes[0], weights)


def _ends(graph: Graph) -> Iterator[Violation]:
    if graph.output not in graph:
        yield "one-output", graph.output, "the graph has no such node"
    inputs = [n for n in graph if graph.vertex(n).get("kind") == "input"]
    if inputs != [graph.input]:
        yield "one-input", graph.input, f"nodes of kind input: {inputs}"


def _structure(graph: Graph) -> Iterator[Violation]:
    from networkx import ancestors, is_directed_acyclic_graph

    if not is_directed_acyclic_graph(graph.nx):
        yield "acyclic", graph.output, "there is a cycle"
    seen: set[str] = set()
    for node in graph:
        for source in graph.sources(node):
            if source.node not in seen:
                yield "order", node, f"its input {source.node} is stored after it"
        seen.add(node)
        positions = sorted(key for _, _, key in graph.nx.in_edges(node, keys=True))
        if positions != list(range(len(positions))):
            yield "positions", node, f"its inputs are numbered {positions}"
    useful = ancestors(graph.nx, graph.output) | {graph.output, graph.input}
    for node in graph:
        if node not in useful:
            yield "reachable", node, "it does not reach the output"


def _fields(node: str, vertex: Vertex) -> Iterator[Violation]:
    missing = Vertex.__required_keys__ - set(vertex)
    if missing:
        yield "fields", node, f"it lacks {', '.join(sorted(missing))}"
    kind = vertex["kind"]
    if kind not in _KINDS:
        yield "kind", node, f"{kind} is none of {', '.join(_KINDS)}"
    if (kind == "op") != (vertex["op"] is not None) or (kind == "op") != bool(vertex["weights"]):
        yield "fields", node, "op and weights belong to op nodes, and to them only"
    if (kind in _PICKING) != (vertex["decision"] is not None):
        yield "fields", node, "a decision belongs to mix and keep nodes, and to them only"
    if vertex["coefs"] and kind != "sum":
        yield "fields", node, "factors belong to sums only"


def _asked(graph: Graph) -> Iterator[Violation]:
    asked = {path for node in graph for path in graph.asks(node)}
    for path, decision in graph.decisions.items():
        if path != decision.path:
            yield "decision", graph.output, f"{decision.path} is filed under {path}"
        if path not in asked:
            yield "decision", graph.output, f"no node asks for {path}"


def _options(graph: Graph, node: str, vertex: Vertex) -> Iterator[Violation]:
    path, options = vertex["decision"], tuple(s.option for s in graph.sources(node))
    decision = None if path is None else graph.decisions.get(path)
    if path is None:
        if any(option is not None for option in options):
            yield "decision", node, f"edges carry {options}, but nothing is picked here"
    elif decision is None:
        yield "decision", node, f"{path} is not a decision of the graph"
    elif options != decision.options:
        yield "decision", node, f"edges carry {options}, {path} offers {decision.options}"
    elif (decision.kind == "inputs") != (vertex["kind"] == "keep") or decision.kind == "width":
        yield "decision", node, f"a {vertex['kind']} cannot ask for {decision.kind} ({path})"
    symbols = vertex["shape"].symbols + (() if vertex["op"] is None else vertex["op"].symbols)
    for symbol in symbols:
        known = graph.decisions.get(symbol.path) if isinstance(symbol, Var) else None
        if known is None or known.kind != "width":
            yield "variables", node, f"{symbol} is not a width of the graph"


def _shapes(node: str, vertex: Vertex, shapes: Sequence[Shape]) -> Iterator[Violation]:
    kind, shape = vertex["kind"], vertex["shape"]
    if (kind == "input") != (not shapes):
        yield "shape", node, "the input has no inputs, every other node has some"
    elif vertex["op"] is not None:
        yield from _operation(node, vertex["op"], shape, shapes)
    elif kind == "concat":
        if shape != join(shapes) or any(s.size != shape.size for s in shapes):
            yield "shape", node, f"recorded {shape}, the inputs join to something else"
    else:
        for other in shapes:
            gate = kind == "product" and is_gate(other)
            if not (fits_gate(other, shape) if gate else same_shape(other, shape)):
                yield "shape", node, f"recorded {shape}, an input has {other}"
    if vertex["coefs"] and len(vertex["coefs"]) != len(shapes):
        yield "fields", node, f"{len(vertex['coefs'])} factors for {len(shapes)} inputs"


def _operation(
    node: str, operation: OperationSpec, shape: Shape, shapes: Sequence[Shape]
) -> Iterator[Violation]:
    if len(shapes) != 1:
        yield "shape", node, f"an operation has one input, not {len(shapes)}"
    try:
        given = operation.out_shape(shapes[0])
    except TrinasError as error:
        yield "shape", node, f"{operation} does not take {shapes[0]}: {error}"
    else:
        if given != shape:
            yield "shape", node, f"recorded {shape}, the operation gives {given}"


def _scale(graph: Graph, node: str, vertex: Vertex) -> Iterator[Violation]:
    size, height = vertex["shape"].size, graph.in_shape.size[:1]
    expected = Fraction(size[0], height[0]) if size and height else None
    if vertex["scale"] != expected:
        yield "scale", node, f"recorded {vertex['scale']}, the heights give {expected}"


def _sharing(
    node: str,
    vertex: Vertex,
    operation: OperationSpec,
    x: Shape,
    weights: dict[str, tuple[OperationSpec, Shape]],
) -> Iterator[Violation]:
    known, known_x = weights.setdefault(vertex["weights"] or "", (operation, x))
    if known != operation or not same_weights(operation, x, known_x):
        yield "sharing", node, f"weights {vertex['weights']} serve two operations"
