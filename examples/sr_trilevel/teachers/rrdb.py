"""RRDBNet, the generator of ESRGAN (Wang et al. 2018, arXiv 1809.00219), the paper's own teacher.

Its weights were published under three layouts of names; layers here carry the last one:

| layout | first convolution | a convolution inside | last of the trunk |
|---|---|---|---|
| ESRGAN, at first | `model.0` | `model.1.sub.0.RDB1.conv1.0` | `model.1.sub.23` |
| ESRGAN, later | `conv_first` | `RRDB_trunk.0.RDB1.conv1` | `trunk_conv` |
| BasicSR, Real-ESRGAN | `conv_first` | `body.0.rdb1.conv1` | `conv_body` |
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.sr_trilevel.teachers.layers import dense

_SLOPE = 0.2
_SHARE = 0.2
"""Of a residual branch in what it is added to."""

_DENSE_BLOCKS = 3
_CONVS = 5

# At first the network was one sequence in which upsampling and activations have numbers too, and
# the trunk ends with its convolution, whose number is that of the blocks.
_RENAMED = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"^model\.0\.", "conv_first."),
        (r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3."),
        (r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1"),
        (r"^model\.3\.", "conv_up1."),
        (r"^model\.6\.", "conv_up2."),
        (r"^model\.8\.", "conv_hr."),
        (r"^model\.10\.", "conv_last."),
        (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
        (r"^trunk_conv\.", "conv_body."),
        (r"^upconv(\d)\.", r"conv_up\1."),
        (r"^HRconv\.", "conv_hr."),
    )
)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names that `RRDBNet` gives them, out of any published layout.

    Names of no layout stay as they are.

    >>> list(renamed({"model.1.sub.7.RDB2.conv3.0.bias": torch.zeros(1)}))
    ['body.7.rdb2.conv3.bias']
    """
    result = {}
    for name, tensor in state.items():
        for old, new in _RENAMED:
            name = old.sub(new, name)
        result[name] = tensor
    return result


class RRDBNet(nn.Module):
    """Residual in residual dense blocks (arXiv 1809.00219, figure 4), x4, input in [0, 1].

    The features are enlarged twice by nearest neighbours, each time followed by a convolution.
    At the default size a pixel of LR takes 18 million multiply-adds and about 14 KB of memory: a
    picture of DIV2K 3.1 T and 2.4 GB.

    Args:
        channels: width of the trunk.
        blocks: number of residual in residual dense blocks, three dense blocks each.
        growth: channels that a convolution adds in a dense block.
    """

    def __init__(self, channels: int = 64, blocks: int = 23, growth: int = 32) -> None:
        """Build the layers, with PyTorch's initial weights."""
        super().__init__()
        self.conv_first = dense(3, channels)
        self.body = nn.Sequential(*(_ResidualBlock(channels, growth) for _ in range(blocks)))
        self.conv_body = dense(channels, channels)
        self.conv_up1 = dense(channels, channels)
        self.conv_up2 = dense(channels, channels)
        self.conv_hr = dense(channels, channels)
        self.conv_last = dense(channels, 3)

    def forward(self, lr: Tensor) -> Tensor:
        """`[N, 3, h, w]` to `[N, 3, 4 * h, 4 * w]`."""
        shallow = self.conv_first(lr)
        x = shallow + self.conv_body(self.body(shallow))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), _SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), _SLOPE))


class _ResidualBlock(nn.Module):
    """Three dense blocks with a skip around them."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(1, _DENSE_BLOCKS + 1):
            self.add_module(f"rdb{i}", _DenseBlock(channels, growth))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.children():
            y = block(y)
        return x + _SHARE * y


class _DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it saw and made."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(_CONVS):
            n_out = growth if i < _CONVS - 1 else channels
            self.add_module(f"conv{i + 1}", dense(channels + i * growth, n_out))

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.children()
        seen = x
        for conv in inner:
            seen = torch.cat((seen, F.leaky_relu(conv(seen), _SLOPE)), 1)
        return x + _SHARE * last(seen)
