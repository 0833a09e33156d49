"""The sorting network: it sorts, at every width, and where it is used nothing else changes."""

import itertools
import math

import pytest
import torch

from trinas.relax import sparsemax, sparsestmax
from trinas.relax._sorting import comparators, sort_rows


@pytest.mark.parametrize("k", range(1, 12))
def test_comparators_sort_every_row_of_zeros_and_ones(k):
    """Which is enough: a network that sorts those sorts everything (Knuth's 0-1 principle)."""
    for row in itertools.product((0, 1), repeat=k):
        values = list(row)
        for i, j in comparators(k):
            if values[i] > values[j]:
                values[i], values[j] = values[j], values[i]
        assert values == sorted(row)


@pytest.mark.parametrize("k", [2, 3, 8, 17, 32, 33])
@pytest.mark.parametrize("rows", [3, 6000])
def test_equals_torch(k, rows):
    z = torch.randn(rows, k, generator=torch.Generator().manual_seed(k))
    z[0, 0] = math.inf

    assert torch.equal(sort_rows(z), z.sort(-1).values)
    assert torch.equal(sort_rows(z.reshape(3, -1, k)), z.sort(-1).values.reshape(3, -1, k))


def test_large_batches_get_the_weights_of_small_ones():
    """Either side of the size from which on the network is used, masks and bad rows included."""
    z = torch.randn(5000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[7, 2:] = -math.inf
    for relax in (sparsemax, lambda rows: sparsestmax(rows, 0.6)):
        assert torch.equal(relax(z)[:20], relax(z[:20]))
    z[9, 1] = math.nan
    for relax in (sparsemax, lambda rows: sparsestmax(rows, 0.6)):
        with pytest.raises(ValueError, match=r"got nan; at row \(9,\)"):
            relax(z)
