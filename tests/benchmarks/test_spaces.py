"""The benchmark of large spaces, on small ones."""

import gc

import pytest

import trinas as tn
from benchmarks import spaces
from benchmarks.measure import Options, judged


@pytest.fixture(scope="module")
def rows():
    """What it measures with sizes of which the first is the base."""
    patch = pytest.MonkeyPatch()
    with patch.context() as change:
        change.setattr(spaces, "SIZES", (5, 10, 60))
        change.setattr(spaces, "BASE", 5)
        change.setattr(spaces, "backbone_b", lambda: tn.tree(a=tn.conv(3, 3), at_most={"a": 2}))
        yield spaces.measure(Options(runs=1))


def test_every_job_is_measured_on_every_space(rows):
    cases = [row["case"] for row in rows if "choices" in row]

    assert cases == [
        f"{job}, {space}"
        for job in ("lower", "compile", "sample", "macs", "cardinality")
        for space in ("5 choices", "10 choices", "60 choices", "the paper's tree, backbone B")
    ]
    assert [row["choices"] for row in rows if "choices" in row] == [5, 10, 60, 1] * 5


def test_times_are_taken_apart_by_choices(rows):
    for row in rows:
        assert row.get("seconds", 1) > 0
        if "choices" in row:
            share = 1e-6 * row["microseconds_per_choice"] * row["choices"]
            assert share == pytest.approx(row["seconds"])


def test_growth_is_judged_at_the_largest_size(rows):
    assert {row["case"] for row in rows if row.get("at_most") == spaces.GROWTH} == {
        "lower, 60 choices",
        "compile, 60 choices",
        "sample, 60 choices",
    }
    assert all(row["ratio"] > 0 for row in rows if judged(row))


def test_seconds_with_a_goal_are_shares_of_it(rows):
    by_case = {row["case"]: row for row in rows}
    lower = by_case["lower, 60 choices, as a share of 10 s"]
    load = by_case["import trinas after torch, as a share of 0.3 s"]

    assert lower["ratio"] == pytest.approx(by_case["lower, 60 choices"]["seconds"] / 10)
    assert load["ratio"] == pytest.approx(load["extra_seconds"] / 0.3)
    assert load["torch_seconds"] > 0
    assert lower["at_most"] == load["at_most"] == 1.0


def test_the_collector_is_on_while_a_job_runs():
    seen = []
    work = spaces._collected(lambda case: seen.append(gc.isenabled()), None)
    gc.disable()
    try:
        work()
        assert not gc.isenabled()
    finally:
        gc.enable()

    assert seen == [True]


def test_the_spaces_are_as_large_as_they_say():
    graph = tn.lower(spaces.many_choices(7), (8, 8, 8))

    assert len(graph.decisions) == 7
    assert tn.cardinality(spaces.many_choices(7)) == 2**7
