"""The harness: turns, ratios, verdicts, memory, and the command."""

import json
import time
from functools import partial

import pytest
import torch

from benchmarks import memory
from benchmarks.__main__ import main
from benchmarks.measure import (
    Options,
    Samples,
    interleaved,
    judged,
    peak_megabytes,
    save,
    table,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only works move."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def _work(clock, seconds, calls, name):
    def work():
        calls.append(name)
        clock[0] += seconds

    return work


def test_works_take_turns_and_short_ones_are_repeated(clock):
    calls = []
    seconds = {"short": 1e-3, "cold": 0.1, "long": 1.0}
    works = {name: _work(clock, s, calls, name) for name, s in seconds.items()}

    samples = interleaved(works, Options(runs=3), warmup=1)

    # One for warming up, one to see how long it takes; then turns.
    turn = ["short"] * 5 + ["cold"] * 4 + ["long"]
    assert calls == ["short"] * 2 + ["cold"] * 2 + ["long"] * 2 + turn * 3
    assert samples.median("cold") == pytest.approx(0.1)
    assert samples.median("short") == pytest.approx(1e-3)
    assert samples.ratio("long", "short") == pytest.approx(1000)


def test_quick_takes_two_samples_and_repeats_nothing(clock):
    calls = []
    interleaved({"a": _work(clock, 1e-6, calls, "a")}, Options(quick=True, runs=9), warmup=0)

    assert len(calls) == 1 + 2


def test_a_ratio_is_the_median_of_the_turns():
    # The machine slows down by and by: medians of either work would say 3 / 2.
    samples = Samples({"a": [1.0, 3.0, 100.0], "b": [1.0, 1.5, 50.0]})

    assert samples.ratio("a", "b") == 2.0


def test_sums_of_works_turn_by_turn():
    samples = Samples({"a": [1.0, 2.0], "b": [10.0, 20.0]}).with_sum("both", {"a": 2, "b": 0.5})

    assert samples.seconds["both"] == [7.0, 14.0]
    assert samples.ratio("both", "a") == 7.0


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"ratio": 1.0, "at_most": 1.0}, "ok"),
        ({"ratio": 1.01, "at_most": 1.0}, "missed"),
        ({"ratio": 4.0, "at_least": 4.0}, "ok"),
        ({"ratio": 3.9, "at_least": 4.0}, "missed"),
        ({"ratio": 3.9}, ""),
        ({"share": 0.5}, ""),
    ],
)
def test_rows_are_judged_by_their_goal(row, verdict):
    assert judged(row) == verdict


def test_a_table_has_a_column_for_every_key():
    rows = [{"case": "a", "ratio": 1 / 3, "at_most": 1}, {"case": "longer", "share": 0.5}]

    assert table(rows).splitlines() == [
        "case    ratio   at_most  judged  share",
        "a       0.3333  1        ok",
        "longer                           0.5",
    ]


def test_rows_are_saved_with_where_they_come_from(tmp_path):
    save(tmp_path / "new", "steps", "python -m benchmarks steps", [{"ratio": 1.0}])

    saved = json.loads((tmp_path / "new" / "steps.json").read_text())
    assert saved["rows"] == [{"ratio": 1.0}]
    assert saved["command"] == "python -m benchmarks steps"
    assert {"python", "torch", "trinas"} <= set(saved["versions"])
    assert saved["machine"]["threads"] == torch.get_num_threads()


def test_peak_memory_is_what_a_work_holds_at_once():
    fifty_megabytes = partial(partial, torch.ones, 12_500_000)

    assert peak_megabytes(fifty_megabytes, torch.device("cpu")) == pytest.approx(50, abs=5)


def test_the_command_prints_and_writes_what_was_measured(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(memory, "measure", lambda o: seen.append(o) or [{"case": "a", "ratio": 2}])

    main(["memory", "--quick", "--no-peers", "--threads", "1", "--out", str(tmp_path)])

    assert seen == [Options(quick=True, peers=False)]
    assert "case  ratio" in capsys.readouterr().out
    assert json.loads((tmp_path / "memory.json").read_text())["rows"] == [{"case": "a", "ratio": 2}]


def test_the_command_refuses_names_it_does_not_know(capsys):
    with pytest.raises(SystemExit):
        main(["momory"])

    assert "no benchmark momory; known:" in capsys.readouterr().err
