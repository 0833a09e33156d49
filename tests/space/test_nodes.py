"""Nodes are frozen data: equal, hashable, checked as they are made."""

import copy
import pickle

import attrs
import pytest
from hypothesis import given
from strategies import spaces

import trinas as tn
from trinas.space.binding import objects_children_first
from trinas.space.nodes import Choice, Op, as_node
from trinas.space.values import IN, Width


def all_kinds() -> dict[str, tn.Node]:
    """One node of every kind."""
    conv = tn.conv(3, 8)
    return {
        "op": conv,
        "seq": tn.seq(conv),
        "choice": tn.choice(a=conv, b=tn.seq()),
        "repeat": tn.repeat(conv, (1, 2)),
        "residual": tn.residual(conv, scale=0.2, skip=tn.shortcut(8)),
        "parallel": tn.parallel(conv, conv),
        "cell": tn.cell(2, conv, inputs=(conv, None)),
        "stack": tn.stack(conv, conv),
        "tree": tn.tree(a=conv, at_most={"a": 2}),
        "trellis": tn.trellis(a=conv, at_most={"a": 2}),
        "share": tn.share("key", conv),
    }


@pytest.mark.parametrize("kind", all_kinds())
def test_equal_nodes_are_one_key(kind):
    first, second = all_kinds()[kind], all_kinds()[kind]

    assert first == second
    assert {first: 1}[second] == 1
    assert first != first.named("other")


@pytest.mark.parametrize("kind", all_kinds())
def test_nodes_cannot_be_changed(kind):
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        all_kinds()[kind].name = "other"


@pytest.mark.parametrize(
    ("kind", "label"), [(k, k) for k in all_kinds() if k not in ("op", "share")]
)
def test_a_node_is_called_by_its_kind_unless_it_has_a_name(kind, label):
    node = all_kinds()[kind]

    assert label == node.label
    assert node.named("mine").label == "mine"


def test_an_operation_is_called_by_its_registered_name_and_a_share_by_its_key():
    assert tn.conv(3, 8).label == "conv"
    assert tn.relu().label == "relu"
    assert tn.max_pool(3).label == "max_pool"
    assert tn.share("key", tn.seq()).label == "key"
    assert tn.share("key", tn.seq(), name="mine").label == "mine"


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("op", 0),
        ("seq", 1),
        ("choice", 2),
        ("repeat", 1),
        ("residual", 2),
        ("parallel", 2),
        ("cell", 1 + 2 + 3),
        ("stack", 2),
        ("tree", 1),
        ("trellis", 1),
        ("share", 1),
    ],
)
def test_children_are_listed_for_every_place(kind, count):
    assert count == len(all_kinds()[kind].children)


def test_symbols_are_those_of_the_node_itself():
    width = Width((8, 16))
    conv = tn.conv(3, width * 2)

    assert (width,) == conv.symbols
    assert tn.seq(conv).symbols == ()
    assert tn.conv(1, IN * 4).symbols == (IN,)


def test_an_operation_becomes_a_node():
    operation = tn.conv(3, 8).operation

    assert Op(operation) == as_node(operation)
    assert tn.conv(3, 8) == as_node(tn.conv(3, 8))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "1st", "ä", "a[0]", "a-b", 3])
def test_names_that_would_not_fit_into_a_path(name):
    with pytest.raises(tn.TrinasError) as caught:
        tn.seq(name=name)

    text = f"a name in a space is made of letters, digits and underscores; got {name!r}; at test_"
    assert str(caught.value).startswith(text)


def test_search_only_is_checked_at_the_node():
    with pytest.raises(tn.TrinasError, match="search_only names options of its choice; got z"):
        Choice((("a", tn.seq()), ("b", tn.seq())), ("z",))


@given(spaces())
def test_spaces_survive_copying_and_pickling(space):
    """Copies agree with each other; widths in them are variables of their own."""
    for other in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert tn.cardinality(space) == tn.cardinality(other)
        assert tn.lower(space, (4, 8, 8)) == tn.lower(other, (4, 8, 8))


@given(spaces())
def test_children_come_before_parents_and_once(space):
    order = objects_children_first(space)
    place = {id(node): index for index, node in enumerate(order)}

    assert len(place) == len(order)
    assert order[-1] is space
    assert all(place[id(child)] < place[id(node)] for node in order for child in node.children)
