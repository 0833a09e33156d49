"""The cell spaces of `examples.cell_spaces` in plain torch: DARTS and NAS-Bench-201."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.plain.mixed import MixedOp


class Zero(nn.Module):
    """Nothing, by multiplication."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class FactorizedReduce(nn.Module):
    """Two strided 1x1 convolutions of half the channels, the second one position further."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c - c // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


def relu_conv_bn(kernel: int, c_in: int, c: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(c),
    )


def dil_conv(kernel: int, c: int, stride: int, dilation: int = 2) -> nn.Module:
    padding = dilation * (kernel - 1) // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        nn.BatchNorm2d(c),
    )


def sep_conv(kernel: int, c: int, stride: int) -> nn.Module:
    first, second = (dil_conv(kernel, c, s, dilation=1) for s in (stride, 1))
    return nn.Sequential(first, second)


def average(stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride, 1, count_include_pad=False)


def darts_ops(c: int, stride: int) -> list[nn.Module]:
    """The eight options of an edge, in the order of `examples.cell_spaces.darts`."""
    return [
        Zero(stride),
        nn.MaxPool2d(3, stride, 1),
        average(stride),
        nn.Identity() if stride == 1 else FactorizedReduce(c, c),
        sep_conv(3, c, stride),
        sep_conv(5, c, stride),
        dil_conv(3, c, stride),
        dil_conv(5, c, stride),
    ]


class DartsCell(nn.Module):
    """Every inner node adds up a mixture of each node before it; all are concatenated."""

    def __init__(
        self, steps: int, older: int, newer: int, c: int, *, reduces: bool, after: bool
    ) -> None:
        super().__init__()
        self.steps = steps
        self.older = FactorizedReduce(older, c) if after else relu_conv_bn(1, older, c)
        self.newer = relu_conv_bn(1, newer, c)
        self.edges = nn.ModuleList(
            MixedOp(darts_ops(c, 2 if reduces and j < 2 else 1))
            for i in range(steps)
            for j in range(2 + i)
        )

    def forward(self, older: Tensor, newer: Tensor, weights: Tensor) -> Tensor:
        states = [self.older(older), self.newer(newer)]
        start = 0
        for _ in range(self.steps):
            edges = zip(self.edges[start:], weights[start:], states)  # type: ignore[misc]  # a slice
            total = sum(edge(state, w) for edge, w, state in edges)
            start += len(states)
            states.append(total)  # type: ignore[arg-type]  # a node has inputs
        return torch.cat(states[2:], dim=1)


class Darts(nn.Module):
    """The supernet of DARTS on CIFAR.

    Args:
        c: channels of the first cells.
        layers: number of cells.
        steps: inner nodes of a cell.
        classes: outputs.
    """

    def __init__(self, c: int = 16, layers: int = 8, steps: int = 4, classes: int = 10) -> None:
        super().__init__()
        edges = steps * (steps + 3) // 2
        self.normal = nn.Parameter(1e-3 * torch.randn(edges, 8))
        self.reduce = nn.Parameter(1e-3 * torch.randn(edges, 8))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 3 * c, 3, padding=1, bias=False), nn.BatchNorm2d(3 * c)
        )
        self.reductions = (layers // 3, 2 * layers // 3)
        self.cells = nn.ModuleList()
        older = newer = 3 * c
        for layer in range(layers):
            reduces, after = layer in self.reductions, layer - 1 in self.reductions
            width = 2 * c if reduces else c
            self.cells.append(DartsCell(steps, older, newer, width, reduces=reduces, after=after))
            older, newer, c = newer, steps * width, width
        self.classifier = nn.Linear(newer, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixed(x, self.normal.softmax(dim=-1), self.reduce.softmax(dim=-1))

    def mixed(self, x: Tensor, normal: Tensor, reduce: Tensor) -> Tensor:
        """Run at these weights, (edges, 8) each."""
        older = newer = self.stem(x)
        for layer, cell in enumerate(self.cells):
            weights = reduce if layer in self.reductions else normal
            older, newer = newer, cell(older, newer, weights)
        return self.classifier(F.adaptive_avg_pool2d(newer, 1).flatten(1))


class BenchCell(nn.Module):
    """The cell of NAS-Bench-201: six edges between four nodes."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            MixedOp(
                [
                    Zero(1),
                    nn.Identity(),
                    relu_conv_bn(1, c, c),
                    relu_conv_bn(3, c, c),
                    average(1),
                ]
            )
            for _ in range(6)
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        states = [x]
        for first in (0, 1, 3):
            edges = zip(self.edges[first:], weights[first:], states)  # type: ignore[misc]  # a slice
            states.append(sum(edge(state, w) for edge, w, state in edges))  # type: ignore[arg-type]  # not 0
        return states[-1]


class BasicBlock(nn.Module):
    """A residual block of stride 2."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(relu_conv_bn(3, c, 2 * c, 2), relu_conv_bn(3, 2 * c, 2 * c))
        self.skip = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(c, 2 * c, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class NasBench201(nn.Module):
    """The supernet of NAS-Bench-201: one set of six choices in all cells.

    Args:
        c: channels of the first stage.
        n: cells in a stage.
        classes: outputs.
    """

    def __init__(self, c: int = 16, n: int = 5, classes: int = 10) -> None:
        super().__init__()
        self.alpha = nn.Parameter(1e-3 * torch.randn(6, 5))
        self.stem = nn.Sequential(nn.Conv2d(3, c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        blocks: list[nn.Module] = []
        for stage in range(3):
            if stage:
                blocks.append(BasicBlock(c))
                c *= 2
            blocks += [BenchCell(c) for _ in range(n)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.BatchNorm2d(c)
        self.classifier = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixed(x, self.alpha.softmax(dim=-1))

    def mixed(self, x: Tensor, weights: Tensor) -> Tensor:
        """Run at these weights, (6, 5)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, weights) if isinstance(block, BenchCell) else block(x)
        x = F.relu(self.norm(x))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def alphas(plain: Darts | NasBench201) -> Sequence[nn.Parameter]:
    """The architecture parameters."""
    return [plain.normal, plain.reduce] if isinstance(plain, Darts) else [plain.alpha]
