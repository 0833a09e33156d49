"""Equality, hash and text of spaces: those that attrs would give, at any depth."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from strategies import spaces

import trinas as tn
from trinas.space.nested import Nested


@attrs.frozen(eq=False, repr=False)
class Ours(Nested):
    inside: object
    note: int = attrs.field(default=0, eq=False)
    secret: int = attrs.field(default=0, repr=False)


@attrs.frozen
class Theirs:
    inside: object
    note: int = attrs.field(default=0, eq=False)
    secret: int = attrs.field(default=0, repr=False)


@attrs.frozen(eq=False, repr=False)
class Other(Nested):
    inside: object


def examples(kind: type) -> list[object]:
    """Values that differ in one place each, of one kind."""
    leaf = kind(1)
    return [
        leaf,
        kind(2),
        kind(1, secret=1),
        kind(()),
        kind((1,)),
        kind((1, 2)),
        kind(((1,), 2)),
        kind(leaf),
        kind((leaf,)),
        kind((leaf, None)),
        kind((None, leaf)),
        kind(("a", leaf)),
        kind((("a", leaf), ("b", kind(2)))),
        kind((("a", leaf), ("b", kind((leaf,))))),
        kind("it's"),
        kind(None),
    ]


def test_it_is_equal_where_attrs_says_so():
    ours, theirs = (
        [[a == b for b in examples(kind)] for a in examples(kind)] for kind in (Ours, Theirs)
    )

    assert theirs == ours
    assert Ours(1, note=2) == Ours(1)
    assert Ours(1) != Other(1)
    assert Ours(1) != 1
    assert Ours((Ours(1),)) != Ours((Other(1),))


def test_equal_values_have_equal_hashes():
    first, second = examples(Ours), examples(Ours)

    assert [hash(value) for value in first] == [hash(value) for value in second]
    assert len(set(first)) == len(first)
    assert set(first) == set(second)
    assert hash(Ours(1, note=2)) == hash(Ours(1))


def test_the_text_is_that_of_attrs():
    ours, theirs = ([repr(value) for value in examples(kind)] for kind in (Ours, Theirs))

    assert theirs == [text.replace("Ours", "Theirs") for text in ours]


@given(spaces(), spaces())
def test_equal_spaces_have_equal_hashes_and_texts(left, right):
    for other in (left, right, attrs.evolve(left)):
        if left == other:
            assert hash(left) == hash(other)
            assert repr(left) == repr(other)
    assert left == attrs.evolve(left)


def deep(depth: int) -> tn.Node:
    node: tn.Node = tn.conv(3, 8)
    for _ in range(depth):
        node = tn.choice(a=tn.residual(tn.seq(node)), b=tn.seq())
    return node


def test_depth_is_not_limited_by_recursion():
    space = deep(2000)

    assert space == deep(2000)
    assert space != deep(1999)
    assert hash(space) == hash(deep(2000))
    assert repr(space).count("Choice(") == 2000


def test_a_part_that_is_used_often_is_looked_at_once():
    """2 ** 60 ways lead to the innermost parts."""
    left, right = tn.conv(3, 8), tn.conv(3, 8)
    for _ in range(60):
        left, right = tn.seq(left, left), tn.seq(right, right)

    assert left == right
    assert hash(left) == hash(right)
    assert left != tn.seq(right)


def test_what_cannot_be_hashed_says_so():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Ours([1]))
