"""The accelerator's table, made on whatever there is."""

import pytest
import torch

from benchmarks import accelerator
from benchmarks.measure import Options


def test_rows_on_the_cpu():
    rows = accelerator.measure(Options(quick=True))

    assert [row["case"] for row in rows] == [
        "batch 1, float32",
        "batch 1, bf16",
        "batch 2, float32",
        "batch 2, bf16",
    ]
    for row in rows:
        assert row["hours for 115,000 steps"] == pytest.approx(
            row["milliseconds"] * 115_000 / 3.6e6
        )
        assert row["TFLOP/s"] > 0 < row["GB/s"]
        assert row["share of bf16 peak"] is row["host waits"] is None


def test_traffic_counts_what_is_read_and_written():
    a, b = torch.rand(10), torch.rand(10)
    with accelerator.Traffic() as traffic:
        c = a + b  # 3 tensors of 40 bytes
        c.view(2, 5)  # nothing moves
        c.mul_(2.0)  # read and written

    assert traffic.count == 120 + 80


def test_a_gpu_is_also_compiled_for():
    assert "bf16, CUDA graphs" in accelerator.ways(torch.device("cuda"))
