"""The number of networks: by hand, by enumeration, by closed forms."""

from math import comb, factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import IN_SHAPE, small_spaces

import trinas as tn

AB = tn.choice(a=tn.relu(), b=tn.seq())


def width(count: int):
    return tn.width(values=range(1, count + 1))


def listed(space: tn.Node) -> int:
    """How many networks there are when they are listed one by one."""
    found = list(tn.enumerate_genotypes(tn.lower(space, IN_SHAPE)))
    assert len(found) == len(set(found))
    return len(found)


@given(small_spaces())
def test_the_count_is_the_length_of_the_list(space):
    assert listed(space) == tn.cardinality(space)


def narrow(w) -> tn.Node:
    return tn.seq(tn.conv(3, w), tn.conv(1, 4))


def by_hand() -> dict[str, tuple[int, tn.Node]]:
    w, v = width(3), width(2)
    hidden = tn.share("key", tn.choice(a=narrow(w), b=tn.conv(1, 4)))
    return {
        "no decision": (1, tn.conv(3, 4)),
        "identity": (1, tn.seq()),
        "options": (3, tn.choice(a=tn.relu(), b=tn.seq(), c=tn.tanh())),
        "one option": (1, tn.choice(a=tn.relu())),
        "search only": (1, tn.choice(a=tn.relu(), none=tn.zero(), search_only="none")),
        "nested options": (3, tn.choice(a=AB, b=tn.tanh())),
        "in a row": (8, tn.seq(AB, AB, AB)),
        "side by side": (4, tn.parallel(AB, AB)),
        "residual": (4, tn.residual(AB, skip=AB)),
        "depth": (1 + 2 + 8, tn.repeat(AB, (0, 1, 3))),
        "width": (3, narrow(w)),
        "one width twice": (3, tn.seq(tn.conv(3, w), tn.conv(3, w), tn.conv(1, 4))),
        "two widths": (6, tn.seq(tn.conv(3, w), tn.conv(3, v), tn.conv(1, 4))),
        "width in one option": (4, tn.choice(a=narrow(w), b=tn.seq())),
        "width in both options": (6, tn.choice(a=narrow(width(3)), b=narrow(width(3)))),
        "one width in both options": (
            6,
            tn.seq(tn.choice(a=tn.conv(3, w), b=tn.conv(1, w)), tn.conv(1, 4)),
        ),
        "width active in two of four": (
            # Both options, one, the other: 3 widths each; neither: 1.
            3 * 3 + 1,
            tn.seq(
                tn.choice(a=narrow(w), b=tn.seq(), name="c1"),
                tn.choice(a=narrow(w), b=tn.seq(), name="c2"),
            ),
        ),
        "copied width": (9, tn.repeat(narrow(w), 2)),
        "shared": (2, tn.seq(tn.share("key", AB), tn.share("key", AB))),
        "shared and not": (4, tn.seq(tn.share("key", AB), tn.share("key", AB), AB)),
        "shared in copies": (2, tn.repeat(tn.share("key", AB), 3)),
        "shared inside shared": (
            2 * 2,
            tn.repeat(tn.share("outer", tn.seq(AB, tn.share("inner", AB))), 2),
        ),
        "shared in one option": (3, tn.choice(a=tn.share("key", AB), b=tn.tanh())),
        "shared in two options": (
            # aa, ab, ba: what is shared matters (2 each); bb: 1.
            2 * 3 + 1,
            tn.seq(
                tn.choice(a=tn.share("key", AB), b=tn.tanh(), name="c1"),
                tn.choice(a=tn.share("key", AB), b=tn.tanh(), name="c2"),
            ),
        ),
        "shared, needing a width": (
            # key = a: the width is there anyway, 3 * 2; key = b: only with c, 3 + 1.
            3 * 2 + (3 + 1),
            tn.seq(hidden, tn.choice(c=narrow(w), d=tn.conv(1, 4), name="o")),
        ),
        "shared, needing a width in each copy": (
            6**2 + 4**2,
            tn.repeat(tn.seq(hidden, tn.choice(c=narrow(w), d=tn.conv(1, 4), name="o")), 2),
        ),
        "cell": (8, tn.cell(2, AB, merge="sum")),
        "cell keeps one": (2 * (2 * 2), tn.cell(2, AB, keep=1, merge="sum")),
        "cell keeps one, last step": (
            # The last step reads the input (2), or the first step, which reads it (2 * 2).
            2 + 2 * 2,
            tn.cell(2, AB, keep=1, merge="last"),
        ),
        "cell prepares its input": (
            2 * 1 + 1,  # of two inputs one is kept; only the first is prepared
            tn.cell(1, tn.relu(), inputs=(AB, None), keep=1, merge="sum"),
        ),
        "stack leaves a part unused": (
            # The cell reads the part behind it (2 ways), or looks past it.
            2 + 1,
            tn.stack(
                tn.relu(), AB, tn.cell(1, tn.relu(), inputs=(None, None), keep=1, merge="sum")
            ),
        ),
        "tree": (2 + 4, tn.tree(a=AB, at_most={"a": 2})),
        "tree of two": (4, tn.tree(a=tn.relu(), b=tn.tanh(), at_most={"a": 1, "b": 1})),
        "tree from a": (
            2,
            tn.tree(a=tn.relu(), b=tn.tanh(), at_most={"a": 1, "b": 1}, first="a"),
        ),
        "tree to both": (
            2,
            tn.tree(a=tn.relu(), b=tn.tanh(), at_most={"a": 1, "b": 1}, exit_at={"a": 1, "b": 1}),
        ),
        "trellis": (
            # Three blocks, two of them a, in any order: 3 orders, 2 * 2 choices each.
            3 * 4,
            tn.trellis(a=AB, b=tn.tanh(), at_most={"a": 2, "b": 1}),
        ),
    }


@pytest.mark.parametrize("name", by_hand())
def test_by_hand(name):
    count, space = by_hand()[name]

    assert count == tn.cardinality(space)
    assert count == listed(space)


@given(st.integers(1, 4), st.integers(1, 4))
def test_paths_with_a_block_each_so_often(m, n):
    """A trellis holds the orders of m + n blocks; a tree all their beginnings, too."""
    blocks = {"a": tn.relu(), "b": tn.tanh()}
    at_most = {"a": m, "b": n}
    orders = comb(m + n, m)
    beginnings = sum(comb(i + j, i) for i in range(m + 1) for j in range(n + 1)) - 1

    assert orders == tn.cardinality(tn.trellis(blocks, at_most=at_most))
    assert orders == tn.cardinality(tn.tree(blocks, at_most=at_most, exit_at=at_most))
    assert beginnings == tn.cardinality(tn.tree(blocks, at_most=at_most))


def test_the_path_level_of_the_paper():
    """55 nodes behind the first block, with at most 5 of one block and 2 of the other."""
    tree = tn.tree(a=tn.relu(), b=tn.tanh(), at_most={"a": 5, "b": 2}, first="a")

    assert tn.cardinality(tree) == 55


def test_the_cells_of_darts():
    """Two of j inputs for each of 4 steps with 7 operations, normal and reduction cells."""
    ops = {f"op{i}": tn.conv(1, 4, bias=bool(i % 2), name=f"o{i}") for i in range(7)}
    edge = tn.choice(ops, none=tn.zero(), search_only="none")
    cell = tn.cell(4, edge, inputs=(None, None), keep=2)
    one = 7**8 * comb(2, 2) * comb(3, 2) * comb(4, 2) * comb(5, 2)

    assert one == tn.cardinality(cell)
    normal, reduction = tn.share("normal", cell), tn.share("reduction", cell)
    assert one**2 == tn.cardinality(tn.stack(normal, reduction))
    assert one == tn.cardinality(tn.stack(normal, normal))


def test_search_spaces_of_the_literature():
    five = tn.choice({f"op{i}": tn.seq() for i in range(5)})
    nas_bench_201 = tn.cell(3, five, merge="last")
    assert tn.cardinality(nas_bench_201) == 5**6

    orders = tn.trellis({c: tn.seq() for c in "abcde"}, at_most=dict.fromkeys("abcde", 1))
    assert factorial(5) == tn.cardinality(orders)


def test_large_counts_are_exact():
    assert tn.cardinality(tn.repeat(tn.choice(a=AB, b=tn.tanh()), 10_000)) == 3**10_000


def test_counting_has_no_limit_of_depth():
    space = tn.seq()
    for _ in range(3000):
        space = tn.choice(a=space, b=tn.relu())

    assert tn.cardinality(space) == 3001
