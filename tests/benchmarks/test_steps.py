"""Steps against floors, loops and peers: what is compared, in small."""

from collections import Counter

import pytest
import torch

from benchmarks import steps
from benchmarks.cases import bench_case, darts_case, sr_case
from benchmarks.floors import (
    COPIES,
    LAYERS,
    LAYOUTS,
    Convolution,
    Floor,
    convolutions,
    defined_layers,
    run_layers,
)
from benchmarks.measure import Options, Samples
from benchmarks.peers import bench_peers, darts_peers

QUICK = Options(quick=True, peers=False)
TREE = "SR, 16 channels"


def test_every_case_is_compared_with_all_it_should_be():
    rows = steps.measure(QUICK)

    assert all(row["ratio"] > 0 and row["milliseconds"] > 0 for row in rows)
    against: dict[str, list[str]] = {}
    for row in rows:
        against.setdefault(row["case"].split(",")[0], []).append(row["against"].split(",")[0])
    tree = [steps.LOOP, "convolutions alone"] * 2 + [steps.DERIVED]
    cells = [steps.LOOP, "layers alone", "layers that run", steps.DERIVED]
    darts = [*cells[:3], "torch's layers alone", steps.DERIVED]  # for dilated convolutions
    assert against == {"SR": tree * 2, "DARTS": darts, "NAS-Bench-201": cells}
    # Goals: two floors of trees and one of cells, each loop, each network by itself.
    bounds = Counter(row["at_most"] for row in rows if "at_most" in row)
    assert bounds == {1.3: 2, 1.25: 1, 1.0: 5, 1.1: 4}


@pytest.mark.parametrize("make", [lambda: sr_case(TREE, QUICK), lambda: darts_case(QUICK)])
def test_both_sides_of_a_case_compute_the_same(make):
    case = make()
    with torch.no_grad():
        for parameter in case.net.arch_parameters().values():
            parameter.zero_()
        for parameter in case.plain.parameters(recurse=False):
            parameter.zero_()

    torch.testing.assert_close(
        case.net(case.x, widths="widest"), case.plain(case.x), rtol=1e-4, atol=1e-5
    )


def test_the_plain_tree_runs_at_the_widths_that_were_drawn():
    case = sr_case(TREE, QUICK)
    ours = convolutions(lambda: steps._dense(case, "sampled")(case.x))
    drawn = steps._drawn(case.net)

    assert set(drawn) == {8, 16}
    assert convolutions(lambda: case.plain(case.x, drawn)) == ours


def test_a_step_leaves_no_gradients():
    case = bench_case(QUICK)
    case.step(case.plain, case.plain)()

    assert all(parameter.grad is None for parameter in case.plain.parameters())


def test_the_floor_counts_every_convolution():
    case = sr_case(TREE, QUICK)
    found = convolutions(lambda: case.net(case.x, widths="widest"))

    # Cells: a, a-a, a-b-a, of two slots: 1x1, 3x3 twice, 3x3, and three of dwsblock; with
    # the stem, the tail, a-b and a-a-b.
    assert sum(found.values()) == 3 * 2 * (1 + 2 + 1 + 3) + 4
    stem = Convolution((1, 3, 8, 8), (16, 3, 3, 3), True, (1, 1), (1, 1), (1, 1), 1, False)
    assert found[stem] == 1


def test_layers_as_defined_and_as_run():
    case = bench_case(QUICK)
    defined = defined_layers(case.net.graph, len(case.x))
    run = run_layers(case.net, len(case.x), lambda: case.net(case.x))

    # Each of six edges has two ReLUs and a pooling, of three nodes: two thirds are saved.
    saved = {str(layer.operation): n for layer, n in (defined - run).items()}
    assert not run - defined
    assert set(saved) == {"relu", "avg_pool(mode=avg, kernel=3)"}
    relus = sum(n for layer, n in defined.items() if str(layer.operation) == "relu")
    assert relus == 3 * 6 * 2 + 2 * 2 + 1


def test_layers_of_torch_stand_in_for_those_of_trinas():
    case = darts_case(QUICK)
    ours, theirs = (
        defined_layers(case.net.graph, 2, by_torch=by_torch) for by_torch in (False, True)
    )

    assert sum(ours.values()) == sum(theirs.values())
    assert {str(layer.operation).split("(")[0] for layer in theirs - ours} == {"dwconv"}
    for layer in theirs:
        assert type(layer._build()) in LAYERS


def test_a_floor_is_the_sum_in_the_faster_layout():
    conv = Convolution((1, 2, 4, 4), (2, 2, 1, 1), False, (1, 1), (0, 0), (1, 1), 1, True)
    floor = Floor("alone", {conv: 6})
    works = floor.works(torch.device("cpu"))
    for work in works.values():
        work()
    seconds = dict(zip(works, [[2.0 * COPIES], [1.0 * COPIES]]))

    name, samples = floor.added(Samples(seconds))

    assert list(LAYOUTS) == ["channels last", "contiguous"]
    assert name == "alone, contiguous"
    assert samples.seconds[name] == [6.0]
    assert samples.seconds["alone, channels last"] == [12.0]


def test_no_peers_where_none_are_wanted():
    assert darts_peers(QUICK, c=4, layers=3) == bench_peers(QUICK, c=4, n=1) == {}


def test_peers_are_supernets_of_the_same_task():
    pytest.importorskip("nni.nas.hub.pytorch")
    for peer in (darts_peers(Options(), c=4, layers=3), bench_peers(Options(), c=4, n=1)):
        assert peer["NNI"](torch.rand(2, 3, 8, 8)).shape == (2, 10)
