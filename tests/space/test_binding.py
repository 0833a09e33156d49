"""Where a width is decided: once in every copy of the smallest node around its uses."""

from collections import Counter

import pytest
from hypothesis import given
from strategies import IN_SHAPE, spaces

import trinas as tn
from trinas.space.binding import bind_widths, objects_children_first
from trinas.space.values import Width


def width(name: str | None = None) -> Width:
    return tn.width(values=(2, 4), name=name)


def paths(space: tn.Node) -> list[str]:
    """The width decisions of a space, by path."""
    graph = tn.lower(space, IN_SHAPE)
    tn.lint(graph)
    return [path for path, d in graph.decisions.items() if d.kind == "width"]


def back(*nodes: tn.Node, **settings) -> tn.Node:
    """A sequence that returns to the channels it came from."""
    return tn.seq(*nodes, tn.conv(1, 4, name="back"), **settings)


def test_used_once_it_belongs_to_the_operation():
    assert paths(back(tn.conv(3, width()))) == ["conv/width"]


def test_used_twice_it_belongs_to_what_holds_both():
    w = width()

    assert paths(back(tn.conv(3, w), tn.relu(), tn.conv(3, w))) == ["width"]
    assert paths(tn.seq(back(tn.conv(3, w), tn.conv(3, w), name="block"))) == ["block/width"]


def test_used_in_all_options_it_belongs_to_the_choice():
    w = width("thin")

    assert paths(back(tn.choice(a=tn.conv(3, w), b=tn.conv(1, w), name="slot"))) == ["slot/thin"]


def test_every_run_of_a_repeat_decides():
    w = width()
    space = tn.repeat(back(tn.conv(3, w), tn.conv(3, w)), 2)

    assert paths(space) == ["repeat[0]/width", "repeat[1]/width"]


def test_around_a_repeat_it_is_decided_once():
    w = width()

    assert paths(back(tn.conv(3, w), tn.repeat(tn.conv(3, w), (1, 2)))) == ["width"]


def test_every_edge_of_a_tree_decides():
    space = tn.tree(a=back(tn.conv(3, width())), at_most={"a": 2})

    assert paths(space) == ["tree/a/conv/width", "tree/a-a/conv/width"]


def test_a_node_that_is_used_twice_decides_twice():
    block = back(tn.conv(3, width()), name="block")

    assert paths(tn.seq(block, block)) == ["block[0]/conv/width", "block[1]/conv/width"]


def test_a_width_in_a_copied_node_and_outside_is_decided_once():
    w = width()
    block = tn.residual(tn.conv(3, w))

    assert paths(back(tn.conv(1, w), block, block)) == ["width"]


def test_a_shared_node_decides_once_under_its_key():
    block = tn.share("key", back(tn.conv(3, width())))

    assert paths(tn.seq(block, block)) == ["key/conv/width"]


def test_one_candidate_is_no_decision():
    w = tn.width(values=(4,))
    graph = tn.lower(tn.seq(tn.conv(3, w), tn.conv(3, w)), IN_SHAPE)

    assert dict(graph.decisions) == {}
    assert graph.out_shape.channels == 4


def test_widths_of_one_place_are_numbered():
    """Unnamed sequences leave no trace in paths, so their widths meet at one place."""
    outer, inner = width(), width()
    inside = back(tn.conv(3, inner), tn.conv(3, inner))
    space = tn.seq(tn.conv(3, outer), inside, tn.conv(1, outer), tn.conv(1, 4))

    assert paths(space) == ["width[0]", "width[1]"]


def test_copies_of_an_unnamed_sequence_are_numbered():
    w = width()
    block = back(tn.conv(3, w), tn.conv(3, w))

    assert paths(tn.seq(block, block)) == ["width[0]", "width[1]"]


def test_a_residual_and_its_unnamed_body_are_one_place():
    outer, inner = width(), width()
    body = tn.seq(tn.conv(3, inner), tn.conv(3, inner), tn.conv(1, outer))
    space = back(tn.residual(body, skip=tn.conv(1, outer)))

    assert paths(space) == ["residual/width[0]", "residual/width[1]"]


def test_widths_with_names_need_no_numbers():
    a, b = width("a"), width("b")

    assert paths(back(tn.conv(3, a), tn.conv(3, b), tn.conv(1, a), tn.conv(1, b))) == ["a", "b"]


def test_a_width_can_be_used_in_expressions():
    w = width()
    space = back(tn.conv(3, w * 2), tn.concat(tn.conv(1, w), tn.conv(1, w)), tn.conv(1, w + 1))

    assert paths(space) == ["width"]


def test_nothing_is_bound_without_widths():
    assert bind_widths(tn.repeat(tn.conv(3, 4), 2)) == {}


def _all_chains(space: tn.Node) -> list[tuple[int, ...]]:
    """Every way from the root to a node object, slowly."""
    found, pending = [], [((id(space),), space)]
    while pending:
        chain, node = pending.pop()
        found.append((chain, node))
        pending.extend(((*chain, id(child)), child) for child in node.children)
    return found


@given(spaces(max_depth=2))
def test_the_binding_node_is_the_deepest_that_all_uses_pass(space):
    """The definition, by listing every way to every use."""
    bound = bind_widths(space)
    where: dict[Width, int] = {w: node for node, widths in bound.items() for w in widths}
    order = [id(node) for node in objects_children_first(space)]
    uses: dict[Width, list[set[int]]] = {}
    for chain, node in _all_chains(space):
        for symbol in node.symbols:
            if isinstance(symbol, Width):
                uses.setdefault(symbol, []).append(set(chain))

    assert uses.keys() == where.keys()
    assert all(n == 1 for n in Counter(w for ws in bound.values() for w in ws).values())
    for symbol, chains in uses.items():
        common = set.intersection(*chains)
        assert where[symbol] == min(common, key=order.index)


@given(spaces())
def test_every_width_in_the_graph_is_a_decision_of_it(space):
    graph = tn.lower(space, IN_SHAPE)
    used = {path for node in graph for path in graph.asks(node)}

    assert used == set(graph.decisions)


@pytest.mark.parametrize("outer", [tn.repeat, lambda body, n: tn.stack(*[body] * n)])
def test_copying_multiplies_decisions(outer):
    block = back(tn.conv(3, width()))

    assert len(paths(outer(block, 3))) == 3
