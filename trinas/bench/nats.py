"""NAS-Bench-201's table: 15,625 cells, each trained with up to three seeds, by lookup.

The numbers are those of NATS-Bench's topology space (200 epochs). The file is an ``npz``
without pickled objects: ``arch`` holds six digits a cell, for the edges (0,1) (0,2) (1,2) (0,3)
(1,3) (2,3), and each of three data sets has its ``..._val_acc`` ``[15625, 3]`` (percent, NaN
where a seed is missing), ``..._latency_s``, ``..._train_time_s`` and ``..._params``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from trinas._core.errors import ConfigError, DataError, UnknownNameError
from trinas.bench.benchmark import Benchmark, Truth
from trinas.bench.noisy_digits import digits_problem
from trinas.cost import params
from trinas.graph import Graph, lower
from trinas.ops import (
    avg_pool,
    basic_block,
    batch_norm,
    conv,
    flatten,
    global_avg_pool,
    linear,
    relu,
    relu_conv_bn,
    zero,
)
from trinas.space import Node, cell, choice, repeat, seq, share

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""By their digit in the file."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""By their place in the file."""

PATHS = tuple(f"cell/edge[{i},{j}]" for i, j in EDGES)
"""The decisions of the space, in the order of `EDGES`."""

NAS_BENCH_201 = {
    f"nas-bench-201/{name.replace('_', '-')}": name
    for name in ("cifar10", "cifar100", "imagenet16_120")
}
"""Names of the benchmarks to names of the data sets."""

_CLASSES = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet16_120": (120, 16)}

VARIABLE = "TRINAS_BENCH_DATA"
"""The environment variable that says where the file is."""


def nas_bench_201_space(c: int = 16, n: int = 5, classes: int = 10) -> Node:
    """The space: one cell of six edges, used 3 n times.

    Args:
        c: channels of the first stage; they double at the second and at the third.
        n: cells in a stage.
        classes: outputs.
    """

    def cells(c: int) -> Node:
        ops = (zero(), seq(), relu_conv_bn(1, c), relu_conv_bn(3, c), avg_pool(3))
        body = cell(3, choice(dict(zip(OPERATIONS, ops))), merge="last")
        return repeat(share("cell", body), n)

    stem = (conv(3, c, bias=False), batch_norm())
    down = (basic_block(2 * c, stride=2), basic_block(4 * c, stride=2))
    head = (batch_norm(), relu(), global_avg_pool(), flatten(), linear(classes))
    return seq(*stem, cells(c), down[0], cells(2 * c), down[1], cells(4 * c), *head)


def decisions(digits: str) -> dict[str, str]:
    """A cell of the file, as decisions of the space.

    >>> decisions("333133")["cell/edge[0,3]"]
    'skip_connect'
    """
    return {path: OPERATIONS[int(digit)] for path, digit in zip(PATHS, digits)}


def counted(graph: Graph, rows: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    """The parameters of every cell, by adding up its edges.

    All edges of a stage are alike, so what an operation adds is known from the cell that has
    it six times; layers that lead nowhere are counted, as the table does.
    """
    base = params(graph, dict.fromkeys(PATHS, "skip_connect"))
    each = {"none": 0}
    for name in OPERATIONS[1:]:
        each[name] = (params(graph, dict.fromkeys(PATHS, name)) - base) // len(EDGES)
    return tuple(base + sum(each[name] for name in row) for row in rows)


def nas_bench_201(path: str | Path | None = None, *, dataset: str = "cifar10") -> Benchmark:
    """NAS-Bench-201's table as a benchmark.

    A cell is scored by its mean validation accuracy over the seeds that the table has (test
    accuracies are not in it); `noisy` is one of them. Facts: ``params`` counted from the space,
    ``recorded_params`` as in the table (NaN where they are not what the space has: 150 entries
    are wrong by one convolution), ``latency`` and ``train_time`` in seconds.

    Its `Benchmark.task` is a transfer: the same cell in a small network (8 channels, one cell
    a stage) on the noisy digits. What is found there is scored here.

    Args:
        path: the file, or its folder; by default what ``TRINAS_BENCH_DATA`` says.
        dataset: ``cifar10``, ``cifar100`` or ``imagenet16_120``.

    Raises:
        ConfigError: no path is given, or NumPy is not installed.
        DataError: the file is not there, or not such a table.
        UnknownNameError: no such data set.
    """
    if dataset not in _CLASSES:
        raise UnknownNameError(
            "unknown data set of NAS-Bench-201",
            got=repr(dataset),
            fix=f"Known: {', '.join(_CLASSES)}.",
        )
    classes, side = _CLASSES[dataset]
    graph = lower(nas_bench_201_space(classes=classes), (3, side, side))
    small = lower(nas_bench_201_space(c=8, n=1), (1, 8, 8))
    return Benchmark(
        name=f"nas-bench-201/{dataset.replace('_', '-')}",
        about=f"15,625 cells trained on {dataset}, by lookup; searched on the noisy digits.",
        unit="%",
        graph=graph,
        truth=_truth(_arrays(_file(path), dataset), graph),
        problem=attrs.evolve(digits_problem(), graph=small),
        steps_alone=200 * 98,  # epochs of 25,000 images (or more) in batches of 256
    )


def _file(path: str | Path | None) -> Path:
    given = os.environ.get(VARIABLE) if path is None else path
    if given is None:
        raise ConfigError(
            "NAS-Bench-201's table is a file",
            got="no path",
            fix=f"Pass its path, or set {VARIABLE} to the file or its folder.",
        )
    file = Path(given)
    return file / "nas_bench_201.npz" if file.is_dir() else file


def _arrays(file: Path, dataset: str) -> dict[str, Any]:
    try:
        import numpy as np
    except ImportError as error:
        raise ConfigError(
            "the table is read by NumPy",
            got=str(error),
            fix="Install it: pip install 'trinas[bench]'.",
        ) from None
    names = {n: f"{dataset}_{n}" for n in ("val_acc", "latency_s", "train_time_s", "params")}
    try:
        # Never pickled objects: loading them would run what the file says.
        with np.load(file, allow_pickle=False) as data:
            arrays = {short: data[name].tolist() for short, name in names.items()}
            arrays["arch"] = [str(arch, "ascii") for arch in data["arch"].tolist()]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            "NAS-Bench-201's table is an npz file of plain arrays",
            got=f"{type(error).__name__}: {error}",
            at=str(file),
            fix=f"It holds arch and {', '.join(names.values())}.",
        ) from None
    return arrays


def _truth(arrays: Mapping[str, Any], graph: Graph) -> Truth:
    rows = tuple(tuple(decisions(arch).values()) for arch in arrays["arch"])
    singles = tuple(tuple(v for v in row if not math.isnan(v)) for row in arrays["val_acc"])
    right = counted(graph, rows)
    recorded = [n if n == r else math.nan for n, r in zip(arrays["params"], right)]
    return Truth(
        paths=PATHS,
        rows=rows,
        scores=tuple(math.fsum(row) / len(row) for row in singles),
        singles=singles,
        facts={
            "params": right,
            "recorded_params": recorded,
            "latency": arrays["latency_s"],
            "train_time": arrays["train_time_s"],
        },
    )
