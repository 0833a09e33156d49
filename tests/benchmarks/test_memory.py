"""Memory of a weight step: settings, rows, and one peak taken for true."""

from functools import partial

import pytest
import torch

from benchmarks import memory
from benchmarks.measure import Options, peak_megabytes
from benchmarks.memory import ALL_PASSES, BASE, SETTINGS, Setting, weight_step

QUICK = Options(quick=True)
TREE = "SR, 16 channels"


def test_rows(monkeypatch):
    monkeypatch.setattr(memory, "peak_megabytes", lambda make, device: 100.0)

    rows = memory.measure(QUICK)

    assert len(rows) == 2 * len(SETTINGS)
    assert all(row["ratio"] == 1.0 and row["time_ratio"] > 0 for row in rows)
    assert [ALL_PASSES in row["case"] for row in rows] == ["at_most" in row for row in rows]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_settings_reach_the_search(setting):
    step = weight_step(TREE, setting, QUICK)
    search = step.__self__

    report = step()

    assert report.phase == "pretrain"
    assert search.net.network.checkpoint is setting.checkpoint
    assert search.config.pretrain_passes == memory.PASSES[setting.passes]
    assert (search.config.autocast == torch.bfloat16) is setting.autocast


def test_names():
    assert str(BASE) == "widest widths"
    assert str(Setting("narrowest", True, True)) == "narrowest widths, checkpoint, bfloat16"


def test_a_peak_is_taken_in_a_fresh_process():
    assert peak_megabytes(partial(weight_step, TREE, BASE, QUICK), QUICK.device) > 0
