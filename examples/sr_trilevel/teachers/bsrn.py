"""BSRN, the blueprint separable residual network (Li et al. 2022, arXiv 2205.05996)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.sr_trilevel.teachers.layers import (
    Blueprint,
    ContrastAttention,
    SpatialAttention,
    enlarge,
)


class BSRN(nn.Module):
    """The blueprint separable residual network (arXiv 2205.05996, figure 2), input in [0, 1].

    The picture is stacked four times, so that the first pointwise convolution has 12 channels to
    choose from; the outputs of all blocks are fused; a 3 x 3 convolution and a pixel shuffle
    enlarge.

    Args:
        channels: width of the trunk.
        blocks: number of distillation blocks.
        scale: enlargement.
    """

    def __init__(self, channels: int = 64, blocks: int = 8, scale: int = 4) -> None:
        """Build the layers, with PyTorch's initial weights."""
        super().__init__()
        self.fea_conv = Blueprint(12, channels)
        self.blocks = [f"B{i}" for i in range(1, blocks + 1)]
        for name in self.blocks:
            self.add_module(name, _SeparableBlock(channels))
        self.c1 = nn.Conv2d(channels * blocks, channels, 1)
        self.c2 = Blueprint(channels, channels)
        self.upsampler = nn.Module()
        self.upsampler.upsampleOneStep = enlarge(channels, scale)

    def forward(self, lr: Tensor) -> Tensor:
        """`[N, 3, h, w]` to `[N, 3, h * scale, w * scale]`."""
        shallow = self.fea_conv(lr.repeat(1, 4, 1, 1))
        deep, x = [], shallow
        for name in self.blocks:
            x = self.get_submodule(name)(x)
            deep.append(x)
        fused = self.c2(F.gelu(self.c1(torch.cat(deep, 1))))
        return self.upsampler.get_submodule("upsampleOneStep")(fused + shallow)


class _SeparableBlock(nn.Module):
    """BSRN's efficient separable distillation block.

    Three times, half of the channels are put aside by a pointwise convolution while the rest goes
    through a residual blueprint convolution; what was put aside is fused and weighed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.steps = 3
        for i in range(1, self.steps + 1):
            self.add_module(f"c{i}_d", nn.Conv2d(channels, half, 1))
            self.add_module(f"c{i}_r", Blueprint(channels, channels))
        self.c4 = Blueprint(channels, half)
        self.c5 = nn.Conv2d(4 * half, channels, 1)
        self.esa = SpatialAttention(channels, conv=Blueprint, activation=F.gelu)
        self.cca = ContrastAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        aside, rest = [], x
        for i in range(1, self.steps + 1):
            aside.append(F.gelu(self.get_submodule(f"c{i}_d")(rest)))
            rest = F.gelu(self.get_submodule(f"c{i}_r")(rest) + rest)
        aside.append(F.gelu(self.c4(rest)))
        return self.cca(self.esa(self.c5(torch.cat(aside, 1)))) + x
