"""The table of compiled parts."""

import pytest
import torch

from benchmarks import compilation
from benchmarks.measure import Options


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_the_row():
    torch.compiler.reset()
    (row,) = compilation.measure(Options(quick=True))
    torch.compiler.reset()

    assert row["compiled parts"] > 0
    assert row["compiled anew in 20 steps"] >= 0
    assert row["ratio"] > 0
