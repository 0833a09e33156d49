"""Many short rows on the CPU: laid out by columns, and sorted and summed column by column.

Loops over a row of few entries do not vectorise, and torch sorts rows one by one, with branches
that random data defeat. So large batches are laid out column by column, which leaves their shape
as it is, and sorted by a network that compares whole columns: two to five times as fast.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from trinas.relax._rows import in_eager_mode

# Columns cost a few calls per entry and two more copies. They pay from about this many rows on, of
# at most so many entries (measured between K = 3 and K = 32; the exact values matter little).
_MANY = 1500
_WIDEST = 32


def by_columns(z: Tensor) -> bool:
    """Whether work on the rows of `z` `[..., K]` is done column by column."""
    k = z.shape[-1]
    return k <= _WIDEST and in_eager_mode() and z.device.type == "cpu" and z.numel() >= _MANY * k


def depths(z: Tensor) -> Tensor:
    """Return how far each entry is below the largest of its row, laid out for the work to come.

    >>> depths(torch.tensor([3.0, 1.0, 2.0]))
    tensor([0., 2., 1.])
    """
    if not by_columns(z):
        return z.amax(-1, keepdim=True) - z
    columns = z.new_empty(z.shape[-1], *z.shape[:-1]).movedim(0, -1)
    below = torch.neg(z, out=columns)  # for the price of a copy
    return below.sub_(below.amin(-1, keepdim=True))


def sort_rows(z: Tensor) -> Tensor:
    """Return the rows of `z` in ascending order, as a new tensor.

    A row with a NaN has a NaN in first or last place.

    >>> sort_rows(torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([[1., 2., 3.]])
    """
    if not by_columns(z):
        return z.sort(dim=-1).values
    columns = list(z.unbind(-1))
    for i, j in comparators(z.shape[-1]):
        low, high = columns[i], columns[j]
        columns[i], columns[j] = torch.minimum(low, high), torch.maximum(low, high)
    return torch.stack(columns).movedim(0, -1)


def running_sums(z: Tensor) -> Tensor:
    """Return the sums of the first 1, ..., K entries of each row.

    >>> running_sums(torch.tensor([3.0, 1.0, 2.0]))
    tensor([3., 4., 6.])
    """
    if not by_columns(z):
        return z.cumsum(-1)
    sums = z.clone()
    total, *columns = sums.unbind(-1)
    for column in columns:
        total = column.add_(total)
    return sums


@lru_cache(maxsize=_WIDEST)
def comparators(k: int) -> tuple[tuple[int, int], ...]:
    """Return the places that Batcher's odd-even mergesort compares, in order, for k entries.

    Source: Batcher, 1968.

    >>> comparators(3)
    ((0, 1), (0, 2), (1, 2))
    """
    pairs: list[tuple[int, int]] = []
    run = 1  # the places 2 run m .. 2 run (m + 1) - 1 are being merged
    while run < k:
        step = run
        while step >= 1:
            for start in range(step % run, k - step, 2 * step):
                for i in range(start, min(start + step, k - step)):
                    if i // (2 * run) == (i + step) // (2 * run):
                        pairs.append((i, i + step))
            step //= 2
        run *= 2
    return tuple(pairs)
