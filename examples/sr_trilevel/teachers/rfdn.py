"""RFDN, the residual feature distillation network (Liu et al. 2020, arXiv 2009.11551)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.sr_trilevel.teachers.layers import SpatialAttention, dense, enlarge

_SLOPE = 0.05


class RFDN(nn.Module):
    """The residual feature distillation network (arXiv 2009.11551, figure 3), input 0 to 255.

    The default size is the one that won the AIM 2020 challenge on efficient super-resolution.

    Args:
        channels: width of the trunk.
        blocks: number of distillation blocks.
        scale: enlargement.
    """

    def __init__(self, channels: int = 50, blocks: int = 4, scale: int = 4) -> None:
        """Build the layers, with PyTorch's initial weights."""
        super().__init__()
        self.fea_conv = dense(3, channels)
        self.blocks = [f"B{i}" for i in range(1, blocks + 1)]
        for name in self.blocks:
            self.add_module(name, _DistillationBlock(channels))
        self.c = nn.Sequential(
            nn.Conv2d(channels * blocks, channels, 1),
            nn.LeakyReLU(_SLOPE),
        )
        self.LR_conv = dense(channels, channels)
        self.upsampler = enlarge(channels, scale)

    def forward(self, lr: Tensor) -> Tensor:
        """`[N, 3, h, w]` to `[N, 3, h * scale, w * scale]`."""
        shallow = x = self.fea_conv(lr)
        deep = []
        for name in self.blocks:
            x = self.get_submodule(name)(x)
            deep.append(x)
        return self.upsampler(self.LR_conv(self.c(torch.cat(deep, 1))) + shallow)


class _DistillationBlock(nn.Module):
    """The block that BSRN's comes from: dense, without a skip and without channel attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.steps = 3
        for i in range(1, self.steps + 1):
            self.add_module(f"c{i}_d", nn.Conv2d(channels, half, 1))
            self.add_module(f"c{i}_r", dense(channels, channels))
        self.c4 = dense(channels, half)
        self.c5 = nn.Conv2d(4 * half, channels, 1)
        self.esa = SpatialAttention(channels, channels // 4, conv=dense, activation=F.relu)

    def forward(self, x: Tensor) -> Tensor:
        aside, rest = [], x
        for i in range(1, self.steps + 1):
            aside.append(F.leaky_relu(self.get_submodule(f"c{i}_d")(rest), _SLOPE))
            rest = F.leaky_relu(self.get_submodule(f"c{i}_r")(rest) + rest, _SLOPE)
        aside.append(F.leaky_relu(self.c4(rest), _SLOPE))
        return self.esa(self.c5(torch.cat(aside, 1)))
