"""A step of a search and the loop it is measured against do the same."""

import copy

import pytest
import torch

import trinas as tn
from benchmarks import searches
from benchmarks.cases import TREES, darts_case, sr_case
from benchmarks.measure import Options

QUICK = Options(quick=True)


def test_rows_compare_with_the_loop():
    rows = searches.measure(QUICK)

    assert [row["method"] for row in rows] == ["DARTS, first order", "Trilevel NAS"]
    assert all(row["ratio"] > 0 for row in rows)


def moved(net: tn.Supernet, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: p.detach() - before[name] for name, p in net.named_parameters()}


def test_the_loop_of_darts_takes_the_same_step():
    case = darts_case(QUICK)
    start = {name: p.detach().clone() for name, p in case.net.named_parameters()}
    ours, by_hand = copy.deepcopy(case.net), copy.deepcopy(case.net)
    searches.engine(case, tn.methods.darts(1), ours)()
    searches.darts_loop(case, by_hand)()

    expected = moved(by_hand, start)
    for name, change in moved(ours, start).items():
        torch.testing.assert_close(change, expected[name], rtol=2e-2, atol=1e-6, msg=name)
    assert any(change.abs().max() > 1e-5 for change in expected.values())


@pytest.mark.parametrize("name", list(TREES)[-1:])
def test_the_loop_of_trilevel_nas_trains_the_same_parameters(name):
    case = sr_case(name, QUICK)
    start = {name: p.detach().clone() for name, p in case.net.named_parameters()}
    ours, by_hand = copy.deepcopy(case.net), copy.deepcopy(case.net)
    searches.engine(case, searches.trilevel(), ours)()
    searches.trilevel_loop(case, by_hand)()

    # Which widths are drawn differs, and with them which slices of a kernel move.
    found, expected = moved(ours, start), moved(by_hand, start)
    assert {n for n, c in found.items() if c.any()} == {n for n, c in expected.items() if c.any()}
