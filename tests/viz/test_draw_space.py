"""Drawings of spaces as they are written."""

from __future__ import annotations

import pytest
from viz.dot_reader import read
from viz.drawn_spaces import bench_space, darts_space

import trinas as tn
from examples.sr_trilevel.space import backbone_a, backbone_b


def frames(space: tn.Node, **settings) -> dict[str, str]:
    """Labels of the frames by name, numbers and lanes left out."""
    clusters = read(tn.draw(space, **settings).dot).clusters
    return {
        name.removeprefix("cluster ").partition(" ")[2]: values["label"].rstrip("|")
        for name, values in clusters.items()
        if "#lane" not in name
    }


def labels(space: tn.Node, **settings) -> list[str]:
    """The labels of the boxes."""
    found = read(tn.draw(space, **settings).dot).labels()
    return [label for label in found.values() if label]


def test_the_paper_space():
    """Frames in frames: the tree, the cell, four slots with a width and one without."""
    drawn = read(tn.draw(backbone_b()).dot)

    assert [values["label"] for name, values in drawn.clusters.items() if "#" not in name] == [
        "trunk|tree: at most 5 × a, 2 × b; starts with a|",
        "a|",
        "slot ×4|width 24, 32, 40, 56, 64|",
        "slot|",
    ]
    found = labels(backbone_b())
    assert found.count("dwsblock|→ 24–64") == found.count("dwsblock|→ 64") == 1
    assert "pixel shuffle ×4|→ tanh → affine" in found


def test_frames_are_nested():
    drawn = read(tn.draw(backbone_b()).dot)
    trunk, cell, slots, slot = (drawn.inside[c] for c in drawn.clusters if "#" not in c)

    assert set(trunk) > set(cell) > set(slots) | set(slot)
    assert not set(slots) & set(slot)


def test_where_a_path_may_end():
    assert frames(backbone_a())["trunk"].endswith("ends behind 2 × b")


def test_choices_list_their_options():
    space = tn.choice(a=tn.conv(3, 4), b=tn.seq(), c=tn.zero(), search_only="c", name="slot")

    assert labels(space) == ["a|conv 3×3|→ 4", "b", "c|zero"]
    assert frames(space) == {"slot": "slot|c is only searched"}


@pytest.mark.parametrize(
    ("counts", "title"), [(3, "conv 3×3 ×3"), ((1, 2, 4), "conv 3×3 ×1 or 2 or 4")]
)
def test_repeats_say_how_often(counts, title):
    assert labels(tn.repeat(tn.conv(3, 4), counts)) == [f"{title}|→ 4"]


def test_equal_neighbours_are_counted():
    same = tn.seq(tn.conv(3, 4), tn.conv(3, 4), tn.conv(3, 4, stride=2))
    assert labels(same) == ["conv 3×3 ×2|→ 4", "conv 3×3 /2|→ 4"]


def test_what_follows_a_layer_joins_its_box():
    """But neither hides that the layer after it is another one, nor joins a cell."""
    layer = (tn.conv(3, 4), tn.batch_norm(), tn.relu())
    assert labels(tn.seq(*layer, *layer)) == ["conv 3×3|→ batch norm → relu|→ 4"] * 2

    shared = tn.share("s", tn.choice(a=tn.conv(1, 4), b=tn.conv(3, 4)))
    assert labels(tn.seq(shared, tn.relu(), shared)) == [
        "a|conv 1×1|→ 4", "b|conv 3×3|→ 4", "relu", "s|as s above",
    ]  # fmt: skip


def test_a_residual_part_shows_its_way_around():
    space = tn.residual(tn.choice(a=tn.relu(), b=tn.tanh()), scale=0.2)
    drawn = read(tn.draw(space).dot)
    entry, plus = (
        next(
            n
            for n, a in drawn.nodes.items()
            if a.get("shape") == shape and a.get("style") != "invis"
        )
        for shape in ("point", "circle")
    )

    assert "headlabel" not in drawn.arrow(entry, plus)
    assert [a["headlabel"] for _, head, a in drawn.shown if head == plus and len(a) > 0] == [
        " ×0.2 "
    ]


def test_cells_say_how_they_are_built():
    assert frames(darts_space())["normal"] == (
        "normal ×3|inputs: 2, nodes: 4, concatenated|every node keeps 2 edges|shares decisions"
    )
    assert frames(darts_space())["edge"] == "edge ×14|none is only searched"
    assert frames(bench_space())["cell"].startswith("cell ×5|inputs: 1, nodes: 3, the last leaves")


def test_a_shared_part_is_drawn_where_it_stands_first():
    part = tn.share("part", tn.choice(a=tn.conv(1, 4), b=tn.conv(3, 4)), weights=True)
    space = tn.seq(part, tn.conv(3, 4, name="between"), part)

    assert frames(space) == {"part": "part|shares decisions and weights"}
    assert labels(space)[-1] == "part|as part above"


def test_parallel_branches():
    space = tn.concat(tn.choice(a=tn.relu(), b=tn.tanh()), tn.conv(1, 4), name="both")

    assert frames(space)["both"] == "both"
    assert "concat" in labels(space)


def test_blocks_say_what_leaves_them():
    """Also where branches are joined, and nothing where the input decides."""
    assert labels(tn.choice(a=tn.factorized_reduce(6), b=tn.conv(1, 6))) == [
        "a|→ 6", "b|conv 1×1|→ 6",
    ]  # fmt: skip
    assert labels(tn.seq(tn.dwconv(3), name="depth")) == ["depth"]


def test_all_operations_can_be_drawn():
    space = tn.choice(a=tn.resblock(4), b=tn.conv_relu(1, 4))

    assert len(labels(space)) == 2
    assert len(labels(space, detail="operations")) == 8


def test_a_bare_operation_is_a_space():
    @tn.operation("drawn_gain")
    class Gain(tn.Operation):
        strength: float = 1.0

    assert labels(Gain(0.5)) == ["drawn gain strength 0.5"]
