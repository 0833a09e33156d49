"""The contract of graphs: every rule, broken once by hand."""

import re
from collections.abc import Callable
from fractions import Fraction

import networkx as nx
import pytest
from hypothesis import given
from strategies import IN_SHAPE, spaces

import trinas as tn
from trinas._core.errors import GraphError
from trinas.space.decision import Decision
from trinas.space.shape import Shape
from trinas.space.values import Var, Width


def sound() -> tn.Graph:
    """A graph with a node of most kinds, and nothing wrong."""
    width = tn.width(values=(2, 4))
    space = tn.seq(
        tn.choice(a=tn.conv(3, 4), b=tn.seq(), name="slot"),
        tn.residual(tn.seq(tn.conv(3, width), tn.conv(1, 4, name="back"))),
        tn.cell(2, tn.relu(), keep=1, merge="concat"),
    )
    return tn.lower(space, (4, 8, 8))


def broken(change: Callable[[nx.MultiDiGraph, dict[str, Decision]], None]) -> tn.Graph:
    """The sound graph after a change by hand."""
    graph = sound()
    copy = nx.MultiDiGraph(graph.nx)
    decisions = dict(graph.decisions)
    change(copy, decisions)
    return tn.Graph(copy, decisions, graph.input, graph.output)


def set_field(node: str, **fields):
    return lambda g, _: g.nodes[node].update(fields)


def _cycle(g, _):
    g.add_edge("slot", "slot/a", 1)


def _order(g, _):
    """The input is stored last."""
    attributes, edges = dict(g.nodes["input"]), list(g.out_edges("input", keys=True, data=True))
    g.remove_node("input")
    g.add_node("input", **attributes)
    g.add_edges_from(edges)


def _position(g, _):
    data = g.get_edge_data("slot", "residual", 0)
    g.remove_edge("slot", "residual", 0)
    g.add_edge("slot", "residual", 7, **data)


def _dead(g, _):
    g.add_node("dead", **{**g.nodes["residual/conv"]})
    g.add_edge("slot", "dead", 0)


def _second_input(g, _):
    g.add_node("other", **g.nodes["input"])


def _two_operands(g, _):
    g.add_edge("slot", "residual/back", 1)


def _no_operand(g, _):
    g.remove_edge("input", "slot/a", 0)


def _input_of_input(g, _):
    g.remove_node("input")
    g.add_node("first", **sound().vertex("input"))
    g.add_node("input", **sound().vertex("input"))


def _unpicked_option(g, _):
    g.edges["slot", "residual", 0]["option"] = "a"


def _option(g, _):
    g.edges["slot/a", "slot", 0]["option"] = "z"


def _forget(g, d):
    del d["slot"]


def _unasked(g, d):
    d["more"] = Decision("more", "operation", ("a", "b"))


def _filed_wrongly(g, d):
    d["slot"], d["other"] = Decision("other", "operation", ("a", "b")), d["slot"]


def _forget_width(g, d):
    del d["residual/conv/width"]


def _shared(g, _):
    g.nodes["residual/back"]["weights"] = "residual/conv"


VAR = Var("residual/conv/width", (2, 4))
RULES = [
    (lambda g, d: g.nodes["slot"].pop("coefs"), "fields", "slot", "it lacks coefs"),
    (set_field("slot", kind="select"), "kind", "slot", "select is none of input, op, sum"),
    (set_field("slot/a", op=None), "fields", "slot/a", "op and weights belong to op nodes"),
    (set_field("slot/a", weights=None), "fields", "slot/a", "op and weights belong to op nodes"),
    (set_field("slot", decision=None), "fields", "slot", "a decision belongs to mix and keep"),
    (set_field("residual", decision="slot"), "fields", "residual", "a decision belongs to mix"),
    (set_field("slot", coefs=(1.0, 1.0)), "fields", "slot", "factors belong to sums only"),
    (set_field("residual", coefs=(1.0,)), "fields", "residual", "1 factors for 2 inputs"),
    (_second_input, "one-input", "input", "nodes of kind input: ['input', 'other']"),
    (lambda g, d: g.remove_node("cell"), "one-output", "cell", "the graph has no such node"),
    (_cycle, "acyclic", "cell", "there is a cycle"),
    (_order, "order", "slot/a", "its input input is stored after it"),
    (_position, "positions", "residual", "its inputs are numbered [1, 7]"),
    (_dead, "reachable", "dead", "it does not reach the output"),
    (_unpicked_option, "decision", "residual", "but nothing is picked here"),
    (_option, "decision", "slot", "edges carry ('z', 'b'), slot offers ('a', 'b')"),
    (_forget, "decision", "slot", "slot is not a decision of the graph"),
    (_unasked, "decision", "cell", "no node asks for more"),
    (_filed_wrongly, "decision", "cell", "other is filed under slot"),
    (
        lambda g, d: d.update({"slot": Decision("slot", "width", ("a", "b"))}),
        "decision",
        "slot",
        "a mix cannot ask for width (slot)",
    ),
    (set_field("cell/node[2]", kind="mix"), "decision", "cell/node[2]", "a mix cannot ask for inp"),
    (_forget_width, "variables", "residual/conv", "residual/conv/width is not a width"),
    (
        set_field("slot/a", shape=Shape.of(Width((4, 8)), 8, 8)),
        "variables",
        "slot/a",
        "width[4, 8] is not a width of the graph",
    ),
    (_two_operands, "shape", "residual/back", "an operation has one input, not 2"),
    (
        set_field("slot/a", shape=Shape.of(5, 8, 8)),
        "shape",
        "slot/a",
        "recorded 5x8x8, the operation gives 4x8x8",
    ),
    (
        set_field("residual", shape=Shape.of(5, 8, 8)),
        "shape",
        "residual",
        "recorded 5x8x8, an input has 4x8x8",
    ),
    (
        set_field("cell", shape=Shape.of(9, 8, 8)),
        "shape",
        "cell",
        "recorded 9x8x8, the inputs join to something else",
    ),
    (
        set_field("slot/a", op=tn.linear(4).operation),
        "shape",
        "slot/a",
        "linear(features=4) does not take 4x8x8",
    ),
    (set_field("slot", scale=Fraction(2)), "scale", "slot", "recorded 2, the heights give 1"),
    (_shared, "sharing", "residual/back", "weights residual/conv serve two operations"),
]


@pytest.mark.parametrize(("change", "rule", "node", "detail"), [r for r in RULES if r[2]])
def test_a_broken_rule_is_named_with_its_node_and_the_graph(change, rule, node, detail):
    with pytest.raises(GraphError) as caught:
        tn.lint(broken(change))

    text = str(caught.value)
    assert text.startswith(f"graph contract, rule {rule}; got ")
    assert detail in text
    assert f"; at {node}. The graph:\n" in text


def test_a_node_without_inputs_is_found():
    with pytest.raises(GraphError, match="every other node has some"):
        tn.lint(broken(_no_operand))


def test_every_rule_of_the_documentation_is_broken_above():
    documented = set(re.findall(r"``([a-z-]+)``", tn.lint.__doc__))

    assert documented == {rule for _, rule, _, _ in RULES}


def test_the_message_prints_the_graph():
    with pytest.raises(GraphError, match=r"slot/a = conv\(kernel=3, channels=4\)\(input\)"):
        tn.lint(broken(_unasked))


def test_a_graph_that_cannot_be_printed_is_named():
    with pytest.raises(GraphError, match="The graph:\nMultiDiGraph with 12 nodes"):
        tn.lint(broken(lambda g, d: g.nodes["slot"].pop("shape")))


def test_the_sound_graph_is_sound():
    assert tn.lint(sound()) is None


@given(spaces())
def test_lowered_graphs_are_sound(space):
    assert tn.lint(tn.lower(space, IN_SHAPE)) is None
