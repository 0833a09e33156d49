"""Branches that are dropped, and what a step with the rest costs."""

from functools import partial

import pytest
import torch

import trinas as tn
from benchmarks import sparsity
from benchmarks.cases import darts_case, sr_case
from benchmarks.floors import convolutions
from benchmarks.measure import Options, peak_megabytes
from benchmarks.sparsity import Branches, loop_step, sparse_step, step_at

QUICK = Options(quick=True)
TREE = "SR, 16 channels"


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25, 0.0])
@pytest.mark.parametrize("seed", range(3))
def test_shares(share, seed):
    graph = darts_case(QUICK).net.graph
    branches = Branches(graph, seed).drop_to(share)
    weights = branches.weights(torch.device("cpu")).tolist()

    assert max(share, 1 / 8) - 1 / 80 <= branches.share <= max(share, 1 / 8)
    for path, start in graph.offsets.items():
        decision = graph.decisions[path]
        row = weights[start : start + len(decision.options)]
        if decision.kind == "operation":
            assert sum(row) == pytest.approx(1)
        else:
            assert set(row) == {1.0}


@pytest.mark.parametrize("seed", range(3))
def test_cells_without_a_living_end_do_not_count(seed):
    case = sr_case(TREE, QUICK)
    branches = Branches(case.net.graph, seed).drop_to(0.0)
    weights = branches.weights(case.x.device)

    mixture = tn.Mixture.from_weights(case.net.graph, weights, weights, widths="widest")
    start = case.net.graph.offsets["trunk"]
    trunk = case.net.graph.decisions["trunk"]
    (end,) = (o for k, o in enumerate(trunk.options) if mixture.alive[start + k])
    # Of every cell on the path to that end one option in each of two slots, and the end.
    slots = 3 * 2 * 4 + len(trunk.options)
    assert branches.share == pytest.approx((2 * str(end).count("a") + 1) / slots)


def test_the_same_seed_drops_the_same():
    graph = sr_case(TREE, QUICK).net.graph
    one, two, other = (
        Branches(graph, seed).drop_to(0.5).weights(torch.device("cpu")).tolist()
        for seed in (1, 1, 2)
    )

    assert one == two != other


def test_what_is_dropped_does_not_run():
    case = darts_case(QUICK)
    counts = []
    for share in (1.0, 0.5, 0.0):
        weights = Branches(case.net.graph, 0).drop_to(share).weights(case.x.device)
        counts.append(sum(convolutions(step_at(case, weights)).values()))

    assert counts[0] > 1.5 * counts[1] > 3 * counts[2]


def test_rows(monkeypatch):
    # Processes are tried below, once.
    peaks = iter(range(1000, 0, -1))
    monkeypatch.setattr(sparsity, "peak_megabytes", lambda make, device: float(next(peaks)))

    rows = sparsity.measure(QUICK)

    facts = [row for row in rows if "share" in row]
    assert len(facts) == 2 * 6 + 5
    assert {"milliseconds", "megabytes", "loop_megabytes", sparsity.TIME} <= set(facts[0])
    # A network has two edges into each of two nodes, where there were two and three.
    assert [row["share"] for row in facts[-5:]] == [1.0, 0.5, 0.25, 0.125, 0.125 * 4 / 5]
    goals = [row for row in rows if "figure" in row]
    assert [(row["figure"], row.get("at_most"), row.get("at_least")) for row in goals] == [
        *[(sparsity.TIME, 0.2, None), (sparsity.FASTER, None, 4.0)] * 2,
        *[(sparsity.DENSE, None, 6.0), (sparsity.MEMORY, 0.35, None)] * 2,
    ]
    assert all(row["ratio"] > 0 for row in goals)


def test_peaks_are_taken_in_fresh_processes():
    make = partial(darts_case, QUICK)

    for step in (partial(loop_step, make), partial(sparse_step, make, 0.0)):
        assert peak_megabytes(step, QUICK.device) > 0
