"""What several of the published networks are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dense(n_in: int, n_out: int, *, stride: int = 1, padding: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution."""
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=padding)


def enlarge(channels: int, scale: int) -> nn.Sequential:
    """To RGB, `scale` times as large, by a 3 x 3 convolution and a pixel shuffle."""
    return nn.Sequential(dense(channels, 3 * scale**2), nn.PixelShuffle(scale))


class Blueprint(nn.Module):
    """A pointwise convolution without bias, then a 3 x 3 one for each channel by itself."""

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1, padding: int = 1) -> None:
        """Build the two layers."""
        super().__init__()
        self.pw = nn.Conv2d(n_in, n_out, 1, bias=False)
        self.dw = nn.Conv2d(n_out, n_out, 3, stride=stride, padding=padding, groups=n_out)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, n_in, h, w]` to `[N, n_out, h, w]`."""
        return self.dw(self.pw(x))


class SpatialAttention(nn.Module):
    """Enhanced spatial attention: a mask from a coarse, wide view of the features.

    Args:
        channels: of the features.
        inner: width inside.
        conv: makes the 3 x 3 convolutions: `dense` in RFDN and RLFN, `Blueprint` in BSRN.
        activation: between the three convolutions behind the pooling; None for one convolution
            there, as RLFN has it.
    """

    def __init__(
        self,
        channels: int,
        inner: int = 16,
        *,
        conv: Callable[..., nn.Module],
        activation: Callable[[Tensor], Tensor] | None,
    ) -> None:
        """Build the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv2 = conv(inner, inner, stride=2, padding=0)
        self.conv3 = conv(inner, inner)
        self.conv4 = nn.Conv2d(inner, channels, 1)
        self.activation = activation
        if activation is not None:
            self.conv_max = conv(inner, inner)
            self.conv3_ = conv(inner, inner)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `x`, whose sides are at least 15."""
        narrow = self.conv1(x)
        wide = F.max_pool2d(self.conv2(narrow), 7, stride=3)
        if self.activation is None:
            wide = self.conv3(wide)
        else:
            wide = self.activation(self.conv_max(wide))
            wide = self.conv3_(self.activation(self.conv3(wide)))
        wide = F.interpolate(wide, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(wide + self.conv_f(narrow)))


class ContrastAttention(nn.Module):
    """Channel attention on mean plus standard deviation over the picture."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        """Build the layers."""
        super().__init__()
        inner = channels // reduction
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of `x`."""
        deviation = x.std((2, 3), keepdim=True, correction=0)
        return x * self.conv_du(deviation + x.mean((2, 3), keepdim=True))
