"""Joined convolutions compute what separate ones do."""

import torch

from benchmarks import merging
from benchmarks.measure import Options


def test_joined_is_separate():
    tensors = merging.layers(4, 2, 6, torch.device("cpu"))
    one, other = merging.separately(*tensors), merging.together(*tensors)

    torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad([y.square().sum() for y in other], tensors),
        torch.autograd.grad([y.square().sum() for y in one], tensors),
        atol=1e-3,
        rtol=1e-4,
    )


def test_rows_hold_both_times_and_their_ratio():
    (row,) = merging.measure(Options(quick=True))

    assert row["ratio"] > 0
    assert row["separate ms"] > 0 < row["joined ms"]
