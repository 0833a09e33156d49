"""The paper's space and architectures: what is counted is what the paper's networks cost."""

from __future__ import annotations

import inspect

import pytest
import torch
import torchinfo

import trinas as tn
from examples.sr_trilevel import space as spaces
from examples.sr_trilevel.space import (
    backbone_a,
    backbone_b,
    largest_macs,
    paper_architecture,
    paper_architectures,
    paper_decisions,
)

# Parameters in millions and multiply-adds in G at 256x256, both without adding biases, as a count
# by hand of the paper's tables gives them.
COUNTS = {
    "table7_visual_A": (0.372, 117.08),
    "table8_visual_B": (0.234, 15.34),
    "table9_psnr_B": (0.509, 33.35),
    "table10_aim_B": (0.2645, 17.32),
}
WIDTHS = (24, 32, 40, 56, 64)

by_name = pytest.mark.parametrize("name", COUNTS)


@pytest.fixture(scope="module")
def paper() -> tn.Graph:
    return tn.lower(backbone_b(), (3, 32, 32))


def labels(graph: tn.Graph) -> list[str]:
    """The kind of every node of the tree: its path's last letter."""
    return [str(option)[-1] for option in graph.decisions["trunk"].options]


# --- the space ------------------------------------------------------------------------------------


def test_the_tree_has_55_nodes_35_cells_and_20_convolutions(paper):
    assert len(paper.decisions["trunk"].options) == 55
    assert (labels(paper).count("a"), labels(paper).count("b")) == (35, 20)
    cells = {p.split("/")[1] for p in paper.decisions if p.endswith("slot[0]")}
    assert len(cells) == 35, "every edge of the tree has a cell of its own"


def test_paths_start_with_a_cell_and_hold_at_most_five_and_two(paper):
    for option in paper.decisions["trunk"].options:
        path = str(option).split("-")
        assert path[0] == "a"
        assert path.count("a") <= 5
        assert path.count("b") <= 2


def test_four_operations_a_slot_and_five_widths_but_for_the_last_slot(paper):
    slots = {p: d for p, d in paper.decisions.items() if d.kind == "operation"}
    widths = {p: d for p, d in paper.decisions.items() if d.kind == "width"}

    assert len(slots) == 35 * 5
    assert {d.options for d in slots.values()} == {("conv1x1", "resblock", "conv3x3", "dwsblock")}
    assert len(widths) == 35 * 4
    assert {d.options for d in widths.values()} == {WIDTHS}
    assert not any("slot[4]" in path for path in widths)


def test_in_backbone_a_only_nodes_behind_both_upsamplings_can_be_the_end():
    graph = tn.lower(backbone_a(ratios=(1,)), (3, 8, 8))
    trunk = graph.decisions["trunk"]

    assert {str(option).count("b") for option in trunk.options} == {2}
    assert graph.out_shape == tn.lower(backbone_b(ratios=(1,)), (3, 8, 8)).out_shape


def test_the_whole_space_is_at_most_forty_lines():
    words = (spaces._slot, spaces.rir_cell, spaces.backbone_b, spaces.unit_range)

    assert sum(len(inspect.getsource(word).splitlines()) for word in words) <= 40


def test_no_network_of_a_space_costs_more_than_the_largest():
    for space in (backbone_b(16, slots=2, cells=2), backbone_a(16, slots=2, cells=2)):
        graph = tn.lower(space, (3, 8, 8))
        largest = largest_macs(graph)
        costs = [tn.cost.macs(graph, tn.sample(graph, seed)) for seed in range(30)]
        assert max(costs) < largest
        assert largest < 2.5 * max(costs), "and it is a network of the space"


# --- the published architectures ------------------------------------------------------------------


def test_the_four_architectures_are_those_of_the_tables():
    entries = paper_architectures()

    assert list(entries) == list(COUNTS)
    assert [entry["path"] for entry in entries.values()] == [
        [0, 0, 0, 1, 0, 1],
        [0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 1, 1],
    ]
    for entry in entries.values():
        assert len(entry["cells"]) == entry["path"].count(0)
        for cell in entry["cells"]:
            assert len(cell) == 5
            assert {slot["width"] for slot in cell} <= set(WIDTHS)
            assert cell[-1]["width"] == 64
        assert entry["note"].endswith(".")


@by_name
def test_counts_are_the_papers(name):
    entry = paper_architectures()[name]
    cost = tn.cost.count(*paper_architecture(name))
    params, macs = COUNTS[name]

    assert cost.params == entry["counted"]["params"]
    assert cost.macs - cost.bias_adds == entry["counted"]["macs_256"]
    assert cost.params / 1e6 == pytest.approx(params, abs=5e-4)
    assert (cost.macs - cost.bias_adds) / 1e9 == pytest.approx(macs, rel=1e-3)
    if name != "table7_visual_A":  # where the paper has two networks in one line: see its note
        assert cost.params / 1e6 == pytest.approx(entry["reported"]["params_m"], abs=0.01)
        assert cost.macs / 1e9 == pytest.approx(entry["reported"]["gflops_256"], rel=5e-3)


def test_table_7_reports_parameters_without_and_multiply_adds_with_the_hr_convolution():
    graph, genotype = paper_architecture("table7_visual_A")
    cost, reported = tn.cost.count(graph, genotype), paper_architectures()["table7_visual_A"]
    macs = (cost.macs - cost.bias_adds) / 1e9
    hr_params, hr_macs = 64 * 64 * 9 + 64, 64 * 64 * 9 * 1024**2

    assert (cost.params - hr_params) / 1e6 == pytest.approx(0.335, abs=5e-4)
    assert macs - hr_macs / 1e9 == pytest.approx(78.43, rel=1e-3)
    assert reported["reported"]["params_m"] == pytest.approx(0.335, abs=0.01)
    assert reported["reported"]["gflops_256"] == pytest.approx(macs, rel=5e-3)


@by_name
def test_the_built_network_costs_what_torchinfo_counts(name):
    graph, genotype = paper_architecture(name, side=16)
    network = tn.build(graph, genotype).eval()
    summary = torchinfo.summary(network, (1, 3, 16, 16), verbose=0)
    cost = tn.cost.count(graph, genotype)

    assert summary.total_params == cost.params
    assert summary.total_mult_adds == cost.macs
    with torch.no_grad():
        output = network(torch.rand(1, 3, 16, 16))
    assert tuple(output.shape) == (1, 3, 64, 64)
    assert 0 <= float(output.min()) <= float(output.max()) <= 1


def test_what_papers_leave_open_is_refused():
    with pytest.raises(tn.errors.UnknownNameError, match=r"got table11\. There are table7"):
        paper_architecture("table11")
    with pytest.raises(tn.errors.GenotypeError, match="slot"):
        tn.Genotype.of(tn.lower(backbone_b(), (3, 8, 8)), paper_decisions([0, 0], [[]]))
