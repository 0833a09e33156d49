"""What drawings are laid out from: regions of a graph, and lanes of a page."""

from __future__ import annotations

import itertools

import pytest
from example_spaces import ALL
from viz.drawn_spaces import bench_space, darts_space

import trinas as tn
from trinas.viz.fold import fold
from trinas.viz.lanes import with_entries
from trinas.viz.outline import Facts, find_cell, outline
from trinas.viz.scene import Arrow, Box, Group, boxes


def chain(count: int) -> tuple[list[Box], list[Arrow]]:
    """Boxes in a row."""
    members = [Box(str(n), title="a title", notes=("a note",)) for n in range(count)]
    return members, [Arrow(a.id, b.id) for a, b in itertools.pairwise(members)]


# ------------------------------------------------------------ regions


@pytest.mark.parametrize("name", ALL)
def test_regions_hold_every_node_once(name):
    graph = ALL[name]()
    root = outline(graph)

    assert sorted(root.nodes()) == sorted(graph)
    paths = [region.path for region in root.regions()]
    assert len(paths) == len(set(paths))


def test_options_are_known_by_their_paths():
    facts = Facts(ALL["trilevel"]())

    assert {"trunk/a", "trunk/a/slot[0]/dwsblock"} <= facts.options
    assert not {"trunk", "trunk/a/slot[0]", "stem"} & facts.options
    assert {"trunk", "trunk/a", "trunk/a/slot[0]"} <= facts.undecided
    assert "trunk/a/slot[0]/dwsblock" not in facts.undecided


def test_places_of_a_trellis_are_no_options():
    grid = tn.trellis(a=tn.conv(1, 3), b=tn.conv(3, 3), at_most={"a": 1, "b": 1}, exit_at={})
    facts = Facts(tn.lower(tn.seq(grid), (3, 4, 4)))

    assert "trellis/a1-b1/a" in facts.options
    assert "trellis/a1-b1" not in facts.options


def test_shares_are_known_by_their_decisions():
    facts = Facts(tn.lower(bench_space(), (3, 8, 8)))

    assert facts.shared == {f"repeat[{n}]": "cell" for n in range(5)}
    assert facts.repeated == {"cell"}


def test_a_share_at_one_place_repeats_nothing():
    space = tn.seq(tn.conv(1, 4), tn.share("k", tn.choice(a=tn.relu(), b=tn.tanh()), name="here"))

    assert Facts(tn.lower(space, (3, 4, 4))).repeated == frozenset()


def test_cells_are_recognised():
    graph = tn.lower(darts_space(), (3, 8, 8))
    facts = Facts(graph)
    region = facts.region("stack/normal[1]")
    plan = find_cell(facts, region) if region else None

    assert plan is not None
    assert (plan.key, plan.inputs, plan.steps, plan.merge) == ("normal", 2, (2, 3, 4, 5), "concat")


def test_what_only_looks_like_a_cell_is_none():
    """Two layers that somebody calls node."""
    graph = tn.lower(tn.seq(tn.conv(1, 4, name="node"), tn.conv(1, 4, name="node")), (3, 4, 4))

    assert find_cell(Facts(graph), outline(graph)) is None


# ------------------------------------------------------------ lanes


def test_a_short_line_stays_in_one_piece():
    members, arrows = chain(6)

    assert fold(members, arrows, "TB") == [tuple(members)]


@pytest.mark.parametrize("direction", ["TB", "LR"])
def test_a_long_line_is_broken_in_order(direction):
    members, arrows = chain(60)
    lanes = fold(members, arrows, direction)

    assert len(lanes) > 2
    assert [m for lane in lanes for m in lane] == members
    lengths = [len(lane) for lane in lanes]
    assert max(lengths) - min(lengths[:-1]) <= 1


def test_a_line_is_broken_only_where_one_arrow_leads_on():
    """An arrow past three boxes keeps them and its ends together."""
    members, arrows = chain(60)
    arrows += [Arrow(str(n), str(n + 4)) for n in range(0, 60, 5)]
    lanes = fold(members, arrows, "TB")

    assert len(lanes) > 2
    assert all(int(lane[0].id) % 5 == 0 for lane in lanes)


def test_extra_members_get_lanes_of_their_own():
    members, arrows = chain(3)
    extra = [Group("one", "one", (Box("x"),)), Group("two", "two", (Box("y"),))]

    assert fold(members, arrows, "LR", extra) == [tuple(members), (extra[0],), (extra[1],)]
    assert fold([], [], "LR", extra) == [(extra[0],), (extra[1],)]


# ------------------------------------------------------------ entries


def test_a_group_entered_twice_gets_an_entry():
    group = Group("g", "g", (Box("body"), Box("sum")))
    arrows = [Arrow("x", "body"), Arrow("x", "sum"), Arrow("body", "sum")]
    (_, changed), after = with_entries([Box("x"), group], arrows)

    assert [box.id for box in boxes([changed])] == ["g#entry", "body", "sum"]
    assert {(a.tail, a.head) for a in after} == {
        ("x", "g#entry"), ("g#entry", "body"), ("g#entry", "sum"), ("body", "sum"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "arrows",
    [
        [Arrow("x", "body"), Arrow("body", "sum")],
        [Arrow("x", "body"), Arrow("y", "sum"), Arrow("body", "sum")],
    ],
)
def test_other_groups_stay_as_they_are(arrows):
    """Entered once, or by two."""
    members = [Box("x"), Box("y"), Group("g", "g", (Box("body"), Box("sum")))]

    assert with_entries(members, arrows) == (members, arrows)


def test_only_the_inner_of_two_groups_gets_an_entry():
    inner = Group("inner", "", (Box("body"), Box("sum")))
    outer = Group("outer", "", (inner, Box("after")))
    arrows = [Arrow("x", "body"), Arrow("x", "sum"), Arrow("sum", "after")]
    members, _ = with_entries([Box("x"), outer], arrows)

    assert [box.id for box in boxes(members)] == ["x", "inner#entry", "body", "sum", "after"]
