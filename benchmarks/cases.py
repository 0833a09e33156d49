"""The supernets that are measured, each with its plain counterpart and a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trinas as tn
from benchmarks.measure import Options, Work
from benchmarks.plain.cells import Darts, NasBench201
from benchmarks.plain.mixed import copy_weights
from benchmarks.plain.tree import Tree
from examples.cell_spaces import darts, nas_bench_201
from examples.sr_trilevel.space import backbone_b

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]

SEED = 0


@attrs.frozen(eq=False)
class Case:
    """A supernet at work.

    Attributes:
        name: for the tables.
        net: the supernet of trinas; operations and paths are relaxed by softmax, so that
            every branch is alive.
        plain: the same function as published codes write it, with the same weights.
        x: the inputs of a batch.
        y: its targets.
        loss: of prediction and target.
    """

    name: str
    net: tn.Supernet
    plain: nn.Module
    x: Tensor
    y: Tensor
    loss: Loss

    def step(self, predict: Callable[[Tensor], Tensor], module: nn.Module, *leaves: Tensor) -> Work:
        """A work: forward, loss, and a backward that reaches `leaves` and all of `module`.

        Gradients are cleared, not kept: those that the step makes, which are the same each time.
        To look for any at the other parameters of a supernet is no part of it.
        """
        filled: list[Tensor] = []

        def step() -> None:
            self.loss(predict(self.x), self.y).backward()
            if not filled:
                filled.extend(p for p in (*module.parameters(), *leaves) if p.grad is not None)
            for parameter in filled:
                parameter.grad = None

        return step

    def genotype(self, seed: int = SEED) -> tn.Genotype:
        """A random one; on one of the longest paths, where there are paths."""
        trunk = self.net.graph.decisions.get("trunk")
        ends = () if trunk is None else trunk.options
        longest = max((_depth(end) for end in ends), default=0)
        for number in itertools.count(1000 * seed):
            found = tn.sample(self.net.graph, number)
            if trunk is None or _depth(found["trunk"]) == longest:
                return found
        raise AssertionError


def _depth(end: object) -> int:
    return str(end).count("-")


@attrs.frozen
class TreeSize:
    """How large a tree for super-resolution is; see `backbone_b`."""

    features: int
    slots: int = 5
    cells: int = 5
    convs: int = 2
    scale: int = 4
    batch: int = 3
    side: int = 32


TREES = {"SR, 64 channels": TreeSize(64, cells=4, convs=1), "SR, 16 channels": TreeSize(16)}
"""The tree of the paper has at most 5 cells and 2 convolutions on a path, 55 nodes; at 64
channels one of 14 nodes stands for it, which two cores train at about a step a second."""

QUICK_TREES = {
    name: TreeSize(max(16, size.features // 2), slots=2, cells=2, convs=1, scale=2, batch=1, side=8)
    for name, size in TREES.items()
}


def sr_case(name: str, options: Options) -> Case:
    """A tree of `TREES`."""
    size = (QUICK_TREES if options.quick else TREES)[name]
    slots, cells, convs = size.slots, size.cells, size.convs
    space = backbone_b(size.features, size.scale, slots=slots, cells=cells, convs=convs)
    net = _supernet(space, (3, size.side, size.side))
    widths = next(d for d in net.graph.decisions.values() if d.kind == "width")
    candidates = [int(option) for option in widths.options]
    plain = Tree(
        size.features,
        size.scale,
        slots=slots,
        cells=cells,
        convs=convs,
        candidates=candidates,
    )
    x = torch.rand(size.batch, 3, size.side, size.side)
    y = torch.rand(size.batch, 3, size.scale * size.side, size.scale * size.side)
    note = f"{cells} cells and {convs} convolution{'s' * (convs > 1)} a path"
    return _ready(f"SR, {size.features} channels, {note}", net, plain, (x, y), F.l1_loss, options)


DARTS = {"full": (16, 8, 4, 16, 32), "quick": (4, 3, 2, 2, 8)}
"""Channels, cells, inner nodes of a cell; images in a batch and their side."""

BENCH = {"full": (16, 5, 16, 32), "quick": (4, 1, 2, 8)}
"""Channels, cells in a stage; images in a batch and their side."""


def cell_size(sizes: Mapping[str, tuple[int, ...]], options: Options) -> tuple[int, ...]:
    """One of the sizes of a cell space."""
    return sizes["quick" if options.quick else "full"]


def darts_case(options: Options) -> Case:
    """The cells of DARTS."""
    c, layers, steps, batch, side = cell_size(DARTS, options)
    net = _supernet(darts(c, layers, steps), (3, side, side))
    batch = torch.rand(batch, 3, side, side), torch.randint(0, 10, (batch,))
    plain = Darts(c, layers, steps)
    return _ready(f"DARTS, {layers} cells", net, plain, batch, F.cross_entropy, options)


def bench_case(options: Options) -> Case:
    """The cells of NAS-Bench-201."""
    c, n, batch, side = cell_size(BENCH, options)
    net = _supernet(nas_bench_201(c, n), (3, side, side))
    batch = torch.rand(batch, 3, side, side), torch.randint(0, 10, (batch,))
    plain = NasBench201(c, n)
    return _ready(f"NAS-Bench-201, N = {n}", net, plain, batch, F.cross_entropy, options)


def _supernet(space: tn.Node, in_shape: Sequence[int]) -> tn.Supernet:
    torch.manual_seed(SEED)
    graph = tn.lower(space, tuple(in_shape))
    soft = tn.relax.Softmax()
    # Cells keep their inputs as DARTS published it.
    return tn.compile_supernet(graph, {"operation": soft, "path": soft, "inputs": "strongest"})


def _ready(
    name: str,
    net: tn.Supernet,
    plain: nn.Module,
    batch: tuple[Tensor, Tensor],
    loss: Loss,
    options: Options,
) -> Case:
    copy_weights(net, plain)
    x, y = (part.to(options.device) for part in batch)
    return Case(name, net.to(options.device), plain.to(options.device), x, y, loss)
