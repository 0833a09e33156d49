"""Drawings of cells: nodes in a row, operations on the edges, each cell once."""

from __future__ import annotations

import pytest
from viz.dot_reader import flow, read
from viz.drawn_spaces import Weighed, bench_space, darts_space, weighed

import trinas as tn


@pytest.fixture
def bench() -> tn.Graph:
    return tn.lower(bench_space(), (3, 8, 8))


@pytest.fixture
def darts() -> tn.Graph:
    return tn.lower(darts_space(), (3, 8, 8))


BENCH = {
    "cell/edge[0,1]": "conv3", "cell/edge[0,2]": "none", "cell/edge[1,2]": "skip",
    "cell/edge[0,3]": "pool", "cell/edge[1,3]": "conv1", "cell/edge[2,3]": "skip",
}  # fmt: skip


def test_a_shared_cell_is_drawn_once(bench):
    """Five instances are one box of the main line, and one drawing."""
    drawn = read(tn.draw(tn.Genotype.of(bench, BENCH)).dot)

    assert drawn.labels()["repeat[0]"] == "cell ×5|16×8×8"
    assert flow(drawn) >= {("input", "conv"), ("conv", "repeat[0]"), ("repeat[0]", "#output")}
    assert drawn.inside["cluster cell"] == ["cell#0", "cell#1", "cell#2", "cell#3"]
    assert not any("/" in node for node in drawn.nodes)


def test_operations_stand_on_the_edges(bench):
    drawn = read(tn.draw(tn.Genotype.of(bench, BENCH)).dot)

    for path, option in BENCH.items():
        i, j = path.partition("[")[2].rstrip("]").split(",")
        arrow = drawn.arrow(f"cell#{i}", f"cell#{j}")
        assert arrow["label"] == f" {option} "
        assert (arrow.get("style") == "dashed") == (option == "none")


def test_the_nodes_have_the_names_of_papers(darts):
    """Two inputs are earlier results and the steps start at 0; one input is node 0."""
    labels = read(tn.draw(tn.sample(darts, 0)).dot).labels()
    names = [label for node, label in labels.items() if node.startswith("normal#")]

    assert names == ["ck-2", "ck-1", "0", "1", "2", "3", "ck|concat"]
    assert labels["stack/normal[0]"] == "normal ×3|32×8×8"


@pytest.mark.parametrize("seed", range(3))
def test_kept_edges_are_those_of_the_genotype(darts, seed):
    genotype = tn.sample(darts, seed)
    drawn = read(tn.draw(genotype).dot)

    kept = {("normal#0", "normal#2"), ("normal#1", "normal#2")}
    for j in (3, 4, 5):
        kept |= {(f"normal#{i}", f"normal#{j}") for i in genotype[f"normal/node[{j}]"]}
    outwards = {(f"normal#{j}", "normal#out") for j in (2, 3, 4, 5)}
    inside = {e for e in flow(drawn) if e[0].startswith("normal#")}
    assert inside == kept | outwards


def test_an_open_cell_names_its_options_once(darts):
    drawn = read(tn.draw(darts).dot)

    assert drawn.clusters["cluster normal"]["label"] == (
        "normal|every edge: none | skip | sep | pool|every node keeps 2 of its edges|"
    )
    assert sum(t.startswith("normal#") for t, h in flow(drawn)) == 2 + 3 + 4 + 5 + 4


def test_weights_are_listed_on_the_edges(bench):
    """One table an edge, dead options in light grey."""
    known = {path: [0.0, 0.25, 0.0, 0.75, 0.0] for path in BENCH}
    drawn = read(tn.draw(Weighed(bench, known)).dot)

    assert drawn.labels()["cell#1,2"] == "|none|0|skip|0.25|conv1|0|conv3|0.75|pool|0"
    assert {("cell#1", "cell#1,2"), ("cell#1,2", "cell#2")} <= flow(drawn)


def test_of_many_options_the_strongest_are_listed():
    edge = tn.choice({f"conv{k}": tn.conv(k, 3) for k in (1, 3, 5, 7, 9, 11)})
    graph = tn.lower(tn.cell(1, edge, name="cell"), (3, 8, 8))
    known = {"cell/edge[0,1]": [0.3, 0.05, 0.2, 0.1, 0.2, 0.15]}
    labels = read(tn.draw(Weighed(graph, known)).dot).labels()

    assert labels["cell#0,1"] == ("|conv1|0.30|conv5|0.20|conv9|0.20|conv11|0.15|2 more|0.15")


def test_a_lone_cell_has_no_main_line(bench):
    edge = tn.choice(a=tn.conv(1, 3), b=tn.seq())
    drawn = read(tn.draw(tn.lower(tn.cell(2, edge, merge="last"), (3, 8, 8))).dot)

    assert list(drawn.nodes) == ["cell#0", "cell#1", "cell#2"]


def test_cells_of_their_own_are_drawn_one_by_one():
    edge = tn.choice(a=tn.conv(1, 3), b=tn.seq())
    space = tn.seq(tn.cell(1, edge, merge="last"), tn.cell(2, edge, merge="last"))
    drawn = read(tn.draw(tn.lower(space, (3, 8, 8))).dot)

    assert ("cell[0]", "cell[1]") in flow(drawn)
    assert {"cluster cell[0]", "cluster cell[1]"} <= set(drawn.clusters)


def test_edges_without_a_decision_say_what_they_are():
    cell = tn.cell(2, lambda i, j: tn.conv(3, 3) if i else tn.seq(), merge="last")
    drawn = read(tn.draw(tn.lower(cell, (3, 8, 8))).dot)

    assert drawn.arrow("cell#0", "cell#1")["label"] == " skip "
    assert drawn.arrow("cell#1", "cell#2")["label"] == " conv 3×3 "


def test_dead_steps_are_left_out():
    """With one edge kept a step, some steps feed nobody."""
    edge = tn.choice(a=tn.conv(1, 3), b=tn.seq())
    graph = tn.lower(tn.cell(3, edge, keep=1, merge="last", name="cell"), (3, 8, 8))
    genotype = tn.Genotype.of(graph, {"cell/node[3]": [0], "cell/edge[0,3]": "a"})
    drawn = read(tn.draw(genotype).dot)

    assert list(drawn.nodes) == ["cell#0", "cell#3"]
    assert drawn.arrow("cell#0", "cell#3")["label"] == " a "


def test_other_shared_parts_are_drawn_once_too():
    part = tn.share("part", tn.residual(tn.seq(tn.choice(a=tn.conv(3, 4), b=tn.conv(1, 4)))))
    graph = tn.lower(tn.seq(tn.conv(1, 4), part, tn.relu(), part), (3, 8, 8))
    drawn = read(tn.draw(graph).dot)

    assert flow(drawn) >= {("part[0]", "relu"), ("relu", "part[1]")}
    assert ("part#in", "part#part[0]") in flow(drawn)
    assert drawn.clusters["cluster part"]["label"] == "part|"


def test_cells_flow_to_the_right(bench):
    assert read(tn.draw(bench).dot).graph["rankdir"] == "LR"
    assert read(tn.draw(bench, direction="TB").dot).graph["rankdir"] == "TB"


def test_a_live_cell_is_never_faint(bench):
    """Weight 0 on one of its edges does not cut the way to the cell."""
    drawn = read(tn.draw(weighed(bench, alive=2)).dot)

    assert "style" not in drawn.arrow("conv", "repeat[0]")
