"""Sorting many short rows.

torch sorts rows one by one, with branches that random data defeat. A sorting network compares whole
columns instead: on the CPU, for large batches of few entries, two to five times as fast.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Below this many numbers per comparator the calls cost more than the sort they replace
# (measured between K = 4 and K = 32; the exact value matters little).
_NUMBERS_PER_COMPARATOR = 400
_WIDEST = 32


def sort_rows(z: Tensor) -> Tensor:
    """Return the rows of `z` `[..., K]` in ascending order.

    A row with a NaN has a NaN in first or last place.

    >>> sort_rows(torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([[1., 2., 3.]])
    """
    if z.device.type == "cpu" and 1 < z.shape[-1] <= _WIDEST:
        pairs = comparators(z.shape[-1])
        if z.numel() >= _NUMBERS_PER_COMPARATOR * len(pairs):
            return _by_columns(z, pairs)
    return z.sort(dim=-1).values


def _by_columns(z: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    columns = list(z.movedim(-1, 0).contiguous().unbind(0))
    for i, j in pairs:
        low, high = columns[i], columns[j]
        columns[i], columns[j] = torch.minimum(low, high), torch.maximum(low, high)
    return torch.stack(columns, -1)


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
