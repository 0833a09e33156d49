"""The words of a space: what each builds, and what it refuses."""

import pytest

import trinas as tn
from trinas._core.errors import SpaceError

conv = tn.conv(3, 4)


def fails(text: str):
    return pytest.raises(SpaceError, match=text)


def test_seq_without_items_is_the_identity():
    graph = tn.lower(tn.seq(), (4, 8, 8))

    assert graph.input == graph.output


def test_options_can_be_given_in_both_ways_and_keep_their_order():
    node = tn.choice({"b": conv, "name": tn.seq()}, a=tn.relu(), name="slot")

    assert [label for label, _ in node.options] == ["b", "name", "a"]
    assert node.label == "slot"


def test_search_only_takes_one_label_or_several():
    one = tn.choice(a=conv, none=tn.zero(), search_only="none")

    assert one.search_only == ("none",)
    assert one == tn.choice(a=conv, none=tn.zero(), search_only=["none"])


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda: tn.choice(), "a choice has at least one member"),
        (lambda: tn.choice({"a": conv}, a=conv), "every label is given once; got a"),
        (lambda: tn.choice({"a b": conv}), "a name in a space is made of"),
        (lambda: tn.choice(a=3), "a space is made of nodes and operations; got 3"),
        (lambda: tn.choice(a=conv, b=conv, search_only="c"), "search_only names options"),
        (lambda: tn.choice(a=conv, search_only="a"), "leaves at least one option to derive"),
        (lambda: tn.seq(conv, "relu"), "a space is made of nodes and operations; got relu"),
        (lambda: tn.seq([conv]), "a space is made of nodes and operations"),
        (lambda: tn.seq(conv.operation.__class__), "a space is made of nodes and operations"),
        (lambda: tn.repeat(conv, ()), "a repeat has at least one member"),
        (lambda: tn.repeat(conv, -1), "the counts of a repeat are ascending whole numbers"),
        (lambda: tn.repeat(conv, (2, 1)), "the counts of a repeat are ascending whole numbers"),
        (lambda: tn.repeat(conv, (1, 1)), "the counts of a repeat are ascending whole numbers"),
        (lambda: tn.repeat(conv, (1, 2.5)), "the counts of a repeat are ascending whole numbers"),
        (lambda: tn.repeat(conv, True), "the counts of a repeat are ascending whole numbers"),
        (lambda: tn.residual(conv, scale="x"), "the scale of a residual is a finite number"),
        (lambda: tn.residual(conv, scale=float("inf")), "the scale of a residual is a finite"),
        (lambda: tn.parallel(), "a parallel has at least one member"),
        (lambda: tn.parallel(conv, merge="max"), "unknown merge of branches; got max"),
        (lambda: tn.concat(), "a parallel has at least one member"),
        (lambda: tn.stack(), "a stack has at least one member"),
        (lambda: tn.stack(conv, memory=0), "a stack remembers at least 1 result; got 0"),
        (lambda: tn.share("a b", conv), "a name in a space is made of"),
        (lambda: tn.cell(0, conv), "steps of a cell is a whole number of at least 1; got 0"),
        (lambda: tn.cell(1.5, conv), "steps of a cell is a whole number of at least 1; got 1.5"),
        (lambda: tn.cell(1, conv, inputs=()), "inputs of a cell is a whole number of at least 1"),
        (lambda: tn.cell(1, conv, keep=0), "keep of a cell is a whole number of at least 1; got 0"),
        (lambda: tn.cell(1, conv, merge="mean"), "unknown merge of a cell; got mean"),
        (lambda: tn.cell(1, 3), r"an edge of a cell is a node, or a function of \(i, j\)"),
        (lambda: tn.cell(1, lambda i, j: 3), "a space is made of nodes and operations; got 3"),
        (lambda: tn.tree(at_most={}), "a path space has at least one member"),
        (lambda: tn.tree(a=conv, at_most={}), "at_most gives every block a number of at least 1"),
        (lambda: tn.tree(a=conv, at_most={"a": 0}), "at_most gives every block a number"),
        (lambda: tn.tree(a=conv, at_most={"a": 1.5}), "at_most gives every block a number"),
        (lambda: tn.tree(a=conv, at_most={"a": 1, "b": 1}), "name blocks of the path space; got b"),
        (lambda: tn.tree(a=conv, at_most={"a": 1}, first="b"), "name blocks of the path space"),
        (lambda: tn.tree(a=conv, at_most={"a": 1}, first=""), "name blocks of the path space"),
        (lambda: tn.tree(a=conv, at_most={"a": 1}, exit_at={"b": 1}), "name blocks of the path"),
        (lambda: tn.tree(a=conv, at_most={"a": 1}, exit_at={"a": 2}), "can be reached within at"),
        (lambda: tn.tree(a=conv, at_most={"a": 1}, exit_at={"a": -1}), "can be reached within at"),
        (lambda: tn.tree(a=conv, at_most={"a": 1}, exit_at={"a": 0}), "holds at least one block"),
        (
            lambda: tn.trellis(
                a=conv, b=conv, at_most={"a": 1, "b": 1}, first="a", exit_at={"a": 0}
            ),
            "a path holds at least one block, and the first one",
        ),
    ],
)
def test_what_the_words_refuse(write, text):
    """At once, with the line of the user and a way out."""
    with fails(text) as caught:
        write()

    first = write.__code__.co_firstlineno
    lines = [f"at test_words.py:{line}" for line in range(first, first + 4)]
    assert any(line in str(caught.value) for line in lines), str(caught.value)
    assert caught.value.fix


def test_a_missing_setting_is_a_plain_type_error():
    with pytest.raises(TypeError, match="at_most"):
        tn.tree(a=conv)


def test_the_scale_of_a_residual_is_a_float():
    assert tn.residual(conv, scale=2) == tn.residual(conv, scale=2.0)


def test_an_edge_can_be_one_node_or_depend_on_its_ends():
    asked = []
    tn.cell(2, lambda i, j: asked.append((i, j)) or conv, inputs=(None, None))

    assert asked == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert tn.cell(2, conv) == tn.cell(2, lambda i, j: conv)


def test_a_trellis_ends_where_all_is_used_up_and_a_tree_anywhere():
    settings = {"at_most": {"a": 2, "b": 1}}

    assert tn.trellis(a=conv, b=conv, **settings).exit_at == (("a", 2), ("b", 1))
    assert tn.tree(a=conv, b=conv, **settings).exit_at == ()
    assert tn.trellis(a=conv, b=conv, exit_at={}, **settings).exit_at == ()


def test_concat_is_a_parallel_that_joins():
    assert tn.parallel(conv, conv, merge="concat") == tn.concat(conv, conv)
