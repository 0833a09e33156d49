"""Whole messages, word by word: what a user reads when a space is wrong."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest

import trinas as tn


def message(write: Callable[[], object], shown: Callable[[], object] | None = None) -> str:
    """What the error says; HERE stands for each line of `shown` (by default `write`)."""
    with pytest.raises(tn.TrinasError) as caught:
        write()
    source, first = inspect.getsourcelines(shown or write)
    for number in re.findall(r"test_messages\.py:(\d+)", str(caught.value)):
        assert first <= int(number) < first + len(source)
    return re.sub(r"test_messages\.py:\d+", "HERE", str(caught.value))


def lowered(make: Callable[[], tn.Node], shape: tuple[int, ...] = (3, 8, 8)) -> str:
    return message(lambda: tn.lower(make(), shape), make)


def test_two_nodes_that_are_added_up():
    def make():
        return tn.residual(tn.conv(3, 16, name="wide"), skip=tn.conv(1, 8), name="block")

    assert lowered(make) == (
        "what is added up has one shape; got 8x8x8 from block/skip and 16x8x8 from block/wide; "
        "at block, declared at HERE. Give both the same channels and stride, or "
        "pass a skip (trinas.shortcut)."
    )


def test_a_residual_without_a_skip_names_what_comes_in():
    def make():
        return tn.seq(tn.conv(3, 8, name="stem"), tn.residual(tn.conv(3, 16), name="block"))

    assert lowered(make) == (
        "what is added up has one shape; got 8x8x8 from stem and 16x8x8 from block/conv; at "
        "block, declared at HERE. Give both the same channels and stride, or "
        "pass a skip (trinas.shortcut)."
    )


def test_two_options_of_a_choice():
    def make():
        return tn.seq(
            tn.choice(small=tn.conv(3, 8), large=tn.conv(5, 16), name="slot"), name="body"
        )

    assert lowered(make) == (
        "the options of one decision give one shape; got 8x8x8 from body/slot/small and 16x8x8 "
        "from body/slot/large; at body/slot, declared at HERE. Give both the same "
        "channels and stride."
    )


def test_two_options_with_different_widths():
    """Equal candidates do not help: two widths are decided apart."""

    def make():
        one, other = tn.width(values=(4, 8)), tn.width(values=(4, 8))
        return tn.choice(a=tn.conv(3, one), b=tn.conv(3, other), name="slot")

    text = lowered(make)
    assert "got slot/a/widthx8x8 from slot/a and slot/b/widthx8x8 from slot/b; at slot" in text


def test_two_depths():
    def make():
        return tn.repeat(tn.conv(3, 8), (0, 1))

    assert lowered(make) == (
        "the options of one decision give one shape; got 3x8x8 from repeat at depth 0 and 8x8x8 "
        "from repeat at depth 1; at repeat, declared at HERE. Give both the same "
        "channels and stride."
    )


def test_two_exits():
    def make():
        return tn.tree(a=tn.conv(3, 8), up=tn.upsample(2), at_most={"a": 1, "up": 1})

    text = lowered(make)
    assert "got 8x8x8 from tree/a and 8x16x16 from tree/a-up; at tree, declared at" in text


def test_two_edges_of_a_cell():
    def make():
        return tn.cell(2, lambda i, j: tn.conv(3, 8 + i), keep=1)

    assert lowered(make) == (
        "the edges into one step of a cell give one shape; got 8x8x8 from cell/edge[0,2] and "
        "9x8x8 from cell/edge[1,2]; at cell/node[2], declared at HERE. Give both "
        "the same channels and stride."
    )


def test_two_branches_to_be_joined():
    def make():
        return tn.concat(tn.conv(3, 8), tn.conv(3, 8, stride=2))

    assert lowered(make) == (
        "what is concatenated has one height and width; got 8x8x8 from parallel/conv[0] and "
        "8x4x4 from parallel/conv[1]; at parallel, declared at HERE. Give the "
        "branches equal strides; halving needs an even size."
    )


def test_pieces_that_are_cut_differently():
    def make():
        a, b = tn.width(values=(4, 8), name="a"), tn.width(values=(4, 8), name="b")
        joined = tn.concat(tn.conv(1, a), tn.conv(1, b))
        return tn.seq(joined, tn.residual(tn.conv(3, a + b), name="block"))

    text = lowered(make)
    assert text.startswith(
        "what is added up has one shape, and its searched channels are cut into the same pieces; "
        "got pieces a | b from parallel and a + b from block/conv; at block, declared at "
    )
    assert text.endswith(". Put a 1x1 convolution behind the concatenation.")


def test_an_operation_that_does_not_take_its_input():
    def make():
        return tn.seq(tn.conv(3, 8), tn.linear(10), name="head")

    assert lowered(make) == (
        "a linear layer takes a vector; got 8x8x8; at head/linear (linear(features=10)), declared "
        "at HERE. Put a flatten before it."
    )


def test_an_unknown_operation():
    def write():
        return tn.op("con", 3, 8)

    text = message(write)
    assert text.startswith("unknown operation; got 'con'; at HERE. Did you mean 'conv'")
    assert ", zero." in text


def test_two_parts_with_one_name():
    def make():
        return tn.residual(tn.seq(tn.relu(name="skip")), skip=tn.relu(), name="r")

    assert lowered(make) == (
        "two parts of a space have different paths; got r/skip; at HERE and HERE. Name one of them "
        "otherwise (name=...)."
    )


def test_an_empty_choice():
    def write():
        return tn.choice()

    assert message(write) == ("a choice has at least one member; got (); at HERE. Give it one.")


def test_what_is_no_node():
    def write():
        return tn.seq(tn.conv(3, 8), "relu")

    assert message(write) == (
        "a space is made of nodes and operations; got relu; at HERE. Use the "
        "words of trinas (conv, seq, choice, ...), or register your operation with "
        "@trinas.operation."
    )


def test_a_wrong_search_only():
    def write():
        return tn.choice(a=tn.relu(), b=tn.seq(), search_only="none")

    assert message(write) == (
        "search_only names options of its choice; got none; at HERE. The options are a, b."
    )


def test_a_setting_of_an_operation():
    def write():
        return tn.seq(tn.conv(3, 8), tn.conv(3, 8, stride=0))

    assert message(write) == (
        "stride of conv is a whole number of at least 1; got 0; at HERE. Correct the setting."
    )


def test_a_width_beyond_its_base():
    def write():
        return tn.width(60, ratios=(0.5, 1), divisor=8)

    assert message(write) == (
        "no candidate of a width goes beyond its base; got 64 of 60; at HERE. "
        "Choose a base that is a multiple of the divisor 8."
    )


def test_half_a_width():
    def write():
        return tn.conv(3, tn.width(values=(8, 16)) / 2)

    assert message(write) == (
        "a channel count is a whole number; got width[8, 16] / 2; at HERE. Divide "
        "with //, which rounds down."
    )


def test_an_input_with_a_batch_of_nothing():
    def write():
        return tn.lower(tn.relu(), (0, 3, 8))

    assert message(write) == (
        "an input shape is (channels, height, width) or (features,), each at least 1; got "
        "(0, 3, 8); at HERE. Leave the batch out."
    )


def test_an_outcome_that_is_none():
    graph = tn.lower(tn.choice(a=tn.relu(), b=tn.seq(), name="slot"), (3, 8, 8))

    assert message(lambda: tn.Genotype.of(graph, {"slot": "c"})) == (
        "an outcome is one of the options of its decision; got 'c'; at slot. The options are a, b."
    )
    assert message(lambda: tn.Genotype.of(graph, {"slots": "a"})) == (
        "a genotype names decisions of its space; got slots; at slots. Did you mean 'slot'?"
    )
