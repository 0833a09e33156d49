"""Relaxations forwards and backwards, against torch.softmax and entmax's sparsemax.

Sparsestmax at a moving radius does more than sparsemax, by the same means (a sort and
cumulative sums): it is held to the time of the sparsemax that people would use instead, and
to half as much again where a batch is so small that calls are all it costs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

from benchmarks.measure import Options, Row, Work, interleaved
from trinas import relax

Relax: TypeAlias = Callable[[Tensor], Tensor]

BASE = "torch.softmax"
PEER = "entmax.sparsemax"
HALF_WAY = 0.5


@attrs.frozen
class Size:
    """One shape of logits.

    Attributes:
        rows: choices that are relaxed together.
        options: logits of each.
        at_most: the goal for sparsestmax, as a multiple of the peer's time.
    """

    rows: int
    options: int
    at_most: float | None = None

    def __str__(self) -> str:
        return f"{self.rows}x{self.options}"


# A supernet's choices together; two large batches; the paths of a tree as one choice.
SIZES = (Size(175, 4, 1.5), Size(4096, 8, 1.0), Size(65536, 16, 1.0), Size(1, 55))
QUICK = (Size(7, 4), Size(1, 15))


def measure(options: Options) -> list[Row]:
    """One row for each relaxation, size and thing that it is compared with."""
    rows = []
    for size in QUICK if options.quick else SIZES:
        rows += _measure(size, options)
    return rows


def _measure(size: Size, options: Options) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    shape = (size.rows, size.options)
    logits = torch.randn(shape, generator=generator).to(options.device).requires_grad_()
    cotangent = torch.randn(shape, generator=generator).to(options.device)
    ours = {**_plain(), **_sparsestmax(size, options), **_sorted(size)}
    others = {BASE: functools.partial(torch.softmax, dim=-1), **_peer(options)}
    works = {name: _both_ways(f, logits, cotangent) for name, f in {**others, **ours}.items()}
    samples = interleaved(works, options)
    rows = []
    for base in others:
        for name in ours:
            row: Row = {
                "case": f"{name}, {size}",
                "against": base,
                "milliseconds": 1e3 * samples.median(name),
                "base_milliseconds": 1e3 * samples.median(base),
                "ratio": samples.ratio(name, base),
            }
            if base == PEER and name.startswith("sparsestmax") and size.at_most is not None:
                row["at_most"] = size.at_most
            rows.append(row)
    return rows


def _both_ways(relaxation: Relax, logits: Tensor, cotangent: Tensor) -> Work:
    """The weights, and the gradient that some loss would send back."""
    return lambda: torch.autograd.grad(relaxation(logits), logits, cotangent)


def _plain() -> dict[str, Relax]:
    """What has no radius."""
    gumbel = functools.partial(relax.GumbelSoftmax(), progress=HALF_WAY)
    return {"softmax": relax.Softmax(), "sparsemax": relax.Sparsemax(), "gumbel, hard": gumbel}


def _sparsestmax(size: Size, options: Options) -> dict[str, Relax]:
    """Half way through a search, and with a radius of each row's own around there."""
    share = torch.linspace(0.4, 0.6, size.rows, device=options.device).unsqueeze(-1)
    radius = share * relax.circumradius(size.options)
    return {
        "sparsestmax": functools.partial(relax.Sparsestmax(), progress=HALF_WAY),
        "sparsestmax, a radius per row": functools.partial(relax.sparsestmax, radius=radius),
    }


def _sorted(size: Size) -> dict[str, Relax]:
    """The paths of a binary tree where there is one choice, else one chain."""
    k = size.options
    order = tuple((i - 1) // 2 if size.rows == 1 else i - 1 for i in range(k))
    order = (-1, *order[1:])
    return {
        f"sorted sparsestmax, {form}": functools.partial(
            relax.SortedSparsestmax(form=form), progress=HALF_WAY, order=order
        )
        for form in ("linear", "hinge")
    }


def _peer(options: Options) -> dict[str, Relax]:
    if not (options.peers and importlib.util.find_spec("entmax")):
        return {}
    entmax: Any = importlib.import_module("entmax")
    return {PEER: functools.partial(entmax.sparsemax, dim=-1)}
