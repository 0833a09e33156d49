"""RLFN, the residual local feature network (Kong et al. 2022, arXiv 2205.07514)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from examples.sr_trilevel.teachers.layers import SpatialAttention, dense, enlarge


class RLFN(nn.Module):
    """The residual local feature network (arXiv 2205.07514, figure 1), input from 0 to 255.

    Args:
        channels: width of the trunk.
        blocks: number of residual local feature blocks.
        scale: enlargement.
    """

    def __init__(self, channels: int = 52, blocks: int = 6, scale: int = 4) -> None:
        """Build the layers, with PyTorch's initial weights."""
        super().__init__()
        self.conv_1 = dense(3, channels)
        self.blocks = [f"block_{i}" for i in range(1, blocks + 1)]
        for name in self.blocks:
            self.add_module(name, _LocalBlock(channels))
        self.conv_2 = dense(channels, channels)
        self.upsampler = enlarge(channels, scale)

    def forward(self, lr: Tensor) -> Tensor:
        """`[N, 3, h, w]` to `[N, 3, h * scale, w * scale]`."""
        shallow = x = self.conv_1(lr)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return self.upsampler(self.conv_2(x) + shallow)


class _LocalBlock(nn.Module):
    """RLFN's block: three convolutions with a skip around them, then spatial attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1_r = dense(channels, channels)
        self.c2_r = dense(channels, channels)
        self.c3_r = dense(channels, channels)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.esa = SpatialAttention(channels, conv=dense, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in (self.c1_r, self.c2_r, self.c3_r):
            y = F.leaky_relu(conv(y), 0.05)
        return self.esa(self.c5(y + x))
