"""Graphs and their networkx form: one and the same, whichever is there first."""

import pickle
import subprocess
import sys

import networkx as nx
import pytest
from hypothesis import given
from strategies import IN_SHAPE, spaces

import trinas as tn
from trinas.graph.ir import Source, require_graph


def slot() -> tn.Graph:
    return tn.lower(tn.choice(a=tn.conv(3, 4), b=tn.seq(), name="slot"), IN_SHAPE)


def in_networkx(graph: tn.Graph) -> tn.Graph:
    return tn.Graph(nx.MultiDiGraph(graph.nx), graph.decisions, graph.input, graph.output)


@given(spaces())
def test_a_graph_made_from_its_networkx_form_is_the_same(space):
    graph = tn.lower(space, IN_SHAPE)
    again = in_networkx(graph)

    assert graph == again
    assert list(graph) == list(again)
    for node in graph:
        assert graph.vertex(node) == again.vertex(node)
        assert graph.sources(node) == again.sources(node)
        assert graph.asks(node) == again.asks(node)
    tn.lint(again)


def test_the_networkx_form():
    made = slot().nx

    assert list(made) == ["input", "slot/a", "slot"]
    assert list(made.edges(keys=True, data=True)) == [
        ("input", "slot/a", 0, {}),
        ("input", "slot", 1, {"option": "b"}),
        ("slot/a", "slot", 0, {"option": "a"}),
    ]
    assert made.nodes["slot"] == slot().vertex("slot")


def test_the_networkx_form_is_frozen_and_made_once():
    graph = slot()

    assert graph.nx is graph.nx
    with pytest.raises(nx.NetworkXError, match=r"[Ff]rozen"):
        graph.nx.add_node("other")


def test_inputs_come_in_the_order_of_their_positions():
    graph = slot()
    copy = nx.MultiDiGraph(graph.nx)
    copy.remove_edge("slot/a", "slot", 0)
    copy.add_edge("slot/a", "slot", 0, option="a")
    again = tn.Graph(copy, graph.decisions, graph.input, graph.output)

    assert again.sources("slot") == (Source("slot/a", "a"), Source("input", "b"))


@pytest.mark.parametrize("make", [slot, lambda: in_networkx(slot())])
def test_graphs_are_pickled(make):
    graph = make()
    again = pickle.loads(pickle.dumps(graph))

    assert graph == again
    assert list(graph.nx.edges(keys=True, data=True)) == list(again.nx.edges(keys=True, data=True))
    assert graph.decisions == again.decisions


def test_names_of_nodes():
    graph = slot()

    assert "slot/a" in graph
    assert "slot/b" not in graph
    assert list(reversed(graph)) == ["slot", "slot/a", "input"]
    for look_up in (graph.vertex, graph.sources, graph.asks):
        with pytest.raises(KeyError, match="slot/b"):
            look_up("slot/b")


def test_what_takes_a_graph_says_so():
    with pytest.raises(tn.errors.GraphError, match=r"this takes a graph; got a Op\. Call trinas"):
        require_graph(tn.relu())


def test_networkx_is_imported_for_its_own_form_only():
    """It takes longer to import than trinas itself."""
    code = """
import sys, trinas as tn
graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
tn.compile_supernet(graph)
tn.cost.macs(graph, tn.sample(graph, 0))
print("networkx" in sys.modules, end=" ")
graph.nx
print("networkx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True"]
