"""The graph of a space: nodes and edges with a contract, and a networkx graph on request.

The contract (`trinas.graph.lint` checks it)
--------------------------------------------
The nodes of a `Graph` are named by paths, are stored in topological order, and carry

=============  ======================================================================
``kind``       ``input``, ``op``, ``sum``, ``product``, ``concat``, ``mix`` or ``keep``
``shape``      `trinas.Shape` of the result, channels possibly searched
``scale``      result height over input height, a Fraction (None for vectors)
``op``         the operation of an ``op`` node, settings bound to this place
``weights``    name of the weights of an ``op`` node; equal names share weights
``coefs``      the factors of a ``sum``
``decision``   path of the decision of a ``mix`` (one input is picked) or a ``keep``
               (some inputs are picked and added)
``declared``   the line of the space it comes from
=============  ======================================================================

The inputs of a node come in order. Those of a ``mix`` or ``keep`` carry ``option``, the
value of the decision that picks them. `Graph.decisions` maps every path to its
`Decision`, in a fixed order.

`Graph.nx` is the same as a frozen ``networkx.MultiDiGraph``. Its edges point from producer
to consumer, and their key is the position among the inputs of the consumer. It is made
when it is first asked for: lowering, sampling and compiling do without, and networkx takes
longer to import than the rest of trinas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from trinas._core.errors import GenotypeError, GraphError
from trinas.space.decision import Decision, Option, Picked, chosen
from trinas.space.operation import OperationSpec
from trinas.space.shape import Shape
from trinas.space.values import Var

if TYPE_CHECKING:
    import networkx


class Vertex(TypedDict):
    """What a node of the graph carries; see the contract in this module."""

    kind: str
    shape: Shape
    scale: Fraction | None
    op: OperationSpec | None
    weights: str | None
    coefs: tuple[float, ...]
    decision: str | None
    declared: str | None


class Source(NamedTuple):
    """One input of a node: who produces it, and the option that picks it."""

    node: str
    option: Option | None


def require_graph(thing: object) -> Graph:
    """Return `thing` if it is a graph.

    Raises:
        GraphError: it is not; a space is told to be lowered first.
    """
    if isinstance(thing, Graph):
        return thing
    raise GraphError(
        "this takes a graph",
        got=f"a {type(thing).__name__}",
        fix="Call trinas.lower(space, in_shape) on a space, or take net.graph.",
    )


class Graph:
    """A lowered search space, read-only.

    What nodes carry is not to be written to, since text, digest and equality are
    remembered. `lower` makes graphs; the constructor takes one that was changed by hand.

    Args:
        nx_graph: the graph, as the contract has it; it is frozen, not copied.
        decisions: path to decision, in order.
        input: name of the input node.
        output: name of the node whose result is the network's.
    """

    def __init__(
        self,
        nx_graph: networkx.MultiDiGraph,
        decisions: Mapping[str, Decision],
        input: str,
        output: str,
    ) -> None:
        from networkx import freeze

        self._nx: networkx.MultiDiGraph | None = freeze(nx_graph)
        self._vertices: dict[str, Vertex] = dict(nx_graph.nodes(data=True))
        self._inputs: dict[str, tuple[Source, ...]] = _inputs(nx_graph)
        self._decisions = MappingProxyType(dict(decisions))
        self._input = input
        self._output = output

    @property
    def nx(self) -> networkx.MultiDiGraph:
        """The networkx graph, frozen; ``networkx.MultiDiGraph(graph.nx)`` copies it."""
        if self._nx is None:
            self._nx = _as_networkx(self)
        return self._nx

    @property
    def decisions(self) -> Mapping[str, Decision]:
        """Path to decision, in an order that is the same in every process."""
        return self._decisions

    @property
    def input(self) -> str:
        """Name of the input node."""
        return self._input

    @property
    def output(self) -> str:
        """Name of the node whose result the network returns."""
        return self._output

    @property
    def in_shape(self) -> Shape:
        """Shape of the input, without the batch."""
        return self.vertex(self._input)["shape"]

    @property
    def out_shape(self) -> Shape:
        """Shape of the output, without the batch."""
        return self.vertex(self._output)["shape"]

    def vertex(self, node: str) -> Vertex:
        """What `node` carries."""
        return self._vertices[node]

    def operation(self, node: str) -> OperationSpec:
        """The operation of an ``op`` node."""
        operation = self.vertex(node)["op"]
        assert operation is not None, node
        return operation

    def asks(self, node: str) -> tuple[str, ...]:
        """Paths of the decisions that `node` depends on by itself."""
        return self._asked[node]

    @cached_property
    def _asked(self) -> dict[str, tuple[str, ...]]:
        # Where no width is searched, as in most graphs, no symbol has to be looked for.
        searched = any(decision.kind == "width" for decision in self._decisions.values())
        found: dict[str, tuple[str, ...]] = {}
        for node, vertex in self._vertices.items():
            path = vertex["decision"]
            found[node] = () if path is None else (path,)
            if searched and (paths := _width_paths(vertex)):
                found[node] = tuple(dict.fromkeys((*found[node], *paths)))
        return found

    def sources(self, node: str) -> tuple[Source, ...]:
        """The inputs of `node`, in order."""
        return self._inputs[node]

    @cached_property
    def offsets(self) -> Mapping[str, int]:
        """Where each decision starts in a flat vector of weights.

        Such a vector holds one number for every option of every decision, decision after
        decision in the order of `decisions`. Supernets produce it, costs read it.
        """
        starts, total = {}, 0
        for path, decision in self._decisions.items():
            starts[path] = total
            total += len(decision.options)
        return MappingProxyType(starts)

    @property
    def slots(self) -> int:
        """The length of a flat vector of weights; see `offsets`."""
        return sum(len(decision.options) for decision in self._decisions.values())

    def one_hot(self, picked: Mapping[str, Picked]) -> list[float]:
        """The flat vector of a genotype: 1 for what is picked, 0 for what is not.

        A decision that is not in `picked` stands at its first option (at its first few,
        where several are kept).
        """
        for path in picked:
            if path not in self._decisions:
                raise GenotypeError(
                    "a genotype names decisions of its space",
                    got=path,
                    fix="See graph.decisions; validate with Genotype.of.",
                )
        flat = [0.0] * self.slots
        for path, decision in self._decisions.items():
            if path in picked:
                outcome = picked[path]
            elif decision.kind == "inputs":
                outcome = tuple(range(decision.keep))
            else:
                outcome = decision.derivable[0]
            for option in chosen(outcome):
                flat[self.offsets[path] + decision.index(option)] = 1.0
        return flat

    def __iter__(self) -> Iterator[str]:
        """Node names, producers before consumers."""
        return iter(self._vertices)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._vertices)

    def __len__(self) -> int:
        return len(self._vertices)

    def __contains__(self, node: object) -> bool:
        return node in self._vertices

    @cached_property
    def text(self) -> str:
        """The graph in lines of text, one per decision and per node.

        Stable across processes and versions of networkx; for golden files and for reading::

            decision slot: operation {a, b}
            input -> 3x8x8
            slot/a = conv(kernel=3, channels=3)(input) -> 3x8x8
            slot = mix[slot](a: slot/a, b: input) -> 3x8x8
            output slot
        """
        return _to_text(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text form: two graphs agree when their digests do."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __deepcopy__(self, memo: object) -> Graph:
        """Nothing in a graph can change, so its copy is itself."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        decisions = dict(self._decisions)
        if self._nx is not None:
            return Graph, (self._nx, decisions, self._input, self._output)
        return assemble, (self._vertices, self._inputs, decisions, self._input, self._output)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Graph) and self.text == other.text)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (
            f"Graph({len(self)} nodes, {len(self.decisions)} decisions, "
            f"{self.in_shape} -> {self.out_shape})"
        )


def assemble(
    vertices: dict[str, Vertex],
    inputs: dict[str, tuple[Source, ...]],
    decisions: Mapping[str, Decision],
    input: str,
    output: str,
) -> Graph:
    """A graph from its parts, which are not copied.

    Args:
        vertices: what each node carries, producers before consumers.
        inputs: the inputs of each node, in order.
        decisions: path to decision, in order.
        input: name of the input node.
        output: name of the node whose result is the network's.
    """
    graph = Graph.__new__(Graph)
    graph._nx = None
    graph._vertices, graph._inputs = vertices, inputs
    graph._decisions = MappingProxyType(decisions)
    graph._input, graph._output = input, output
    return graph


def _as_networkx(graph: Graph) -> networkx.MultiDiGraph:
    from networkx import MultiDiGraph, freeze

    made = MultiDiGraph()
    made.add_nodes_from((node, graph.vertex(node)) for node in graph)
    for node in graph:
        for position, (producer, option) in enumerate(graph.sources(node)):
            data = {} if option is None else {"option": option}
            made.add_edge(producer, node, position, **data)
    return freeze(made)


def _inputs(nx_graph: networkx.MultiDiGraph) -> dict[str, tuple[Source, ...]]:
    found: dict[str, list[tuple[int, Source]]] = {node: [] for node in nx_graph}
    edges: Any = nx_graph.edges(keys=True, data="option")
    for producer, consumer, position, option in edges:
        found[consumer].append((position, Source(producer, option)))
    return {
        node: tuple(source for _, source in sorted(pairs, key=lambda p: p[0]))
        for node, pairs in found.items()
    }


def _width_paths(vertex: Vertex) -> list[str]:
    """Paths of the widths that a node depends on."""
    symbols = vertex["shape"].symbols
    if vertex["op"] is not None:
        symbols += vertex["op"].symbols
    return [symbol.path for symbol in symbols if isinstance(symbol, Var)]


def _to_text(graph: Graph) -> str:
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
