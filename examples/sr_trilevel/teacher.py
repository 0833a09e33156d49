"""Published networks whose weights serve as teachers; `targets` has what they make of pictures.

Two efficient networks are known, recognised by the names of the tensors in the file:

- BSRN, the blueprint separable residual network (Li et al. 2022, arXiv 2205.05996), input 0 to 1;
- RLFN, the residual local feature network (Kong et al. 2022, arXiv 2205.07514), input 0 to 255.

The definitions follow the papers; their layers carry the names of the published files, so that
these load as they are. Widths, depth and scale are read off the tensors' shapes. BSRN's released
x4 weights score 32.35 dB on Set5 and 28.74 dB on Set14 in the default protocol of `metrics`, which
also shows that the evaluation there is right.

Shapes: LR `[N, 3, h, w]`, output `[N, 3, h * scale, w * scale]`, both in [0, 1].
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trinas import errors

# The attention branch halves the picture without padding and then pools 7 x 7.
_LEAST_SIDE = 15

_WRAPPERS = ("params_ema", "params", "state_dict", "model")


class Teacher(nn.Module):
    """A published network with its input range taken care of, frozen and in eval mode.

    `forward` takes LR `[N, 3, h, w]` in [0, 1] and gives `[N, 3, h * scale, w * scale]`, about in
    [0, 1] and not clamped. Both sides must be at least 15 pixels.

    Args:
        name: the network's name, for tables.
        network: what the weights belong to.
        scale: how many times it enlarges.
        input_range: the value of white that `network` was trained with.
    """

    def __init__(self, name: str, network: nn.Module, *, scale: int, input_range: float) -> None:
        """Wrap `network` and freeze it."""
        super().__init__()
        self.name = name
        self.scale = scale
        self.input_range = input_range
        self.network = network
        self.requires_grad_(False).eval()

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge `lr`.

        Raises:
            ShapeError: `lr` is not `[N, 3, h, w]` with both sides at least 15.
        """
        if lr.dim() != 4 or lr.shape[1] != 3 or min(lr.shape[-2:]) < _LEAST_SIDE:
            raise errors.ShapeError(
                f"{self.name} takes [N, 3, h, w] with both sides at least {_LEAST_SIDE}",
                got=tuple(lr.shape),
            )
        return self.network(lr * self.input_range) / self.input_range


def load_teacher(path: str | Path) -> Teacher:
    """Load a published network from its file of weights.

    Only tensors are read (`torch.load(..., weights_only=True)`), onto the CPU; nothing in the file
    is executed.

    Raises:
        CheckpointError: the file is missing or unreadable, holds no weights of a network known
            here (the message lists the names found and the networks known), or its tensors have
            other shapes than that network's.
    """
    state = _read(path)
    for known in _KNOWN:
        if all(key in state for key in known.signature):
            break
    else:
        shown = ", ".join(list(state)[:6]) + (", ..." if len(state) > 6 else "")
        raise errors.CheckpointError(
            "the weights belong to no network known here",
            got=f"{len(state)} tensors named {shown}",
            at=path,
            fix=f"Known are {' and '.join(known.name for known in _KNOWN)}.",
        )
    try:
        network, scale = known.build(state)
        network.load_state_dict(state)
    except (RuntimeError, KeyError, IndexError, AttributeError) as error:
        raise errors.CheckpointError(
            f"the weights look like {known.name} but do not fit it", got=str(error), at=path
        ) from None
    return Teacher(known.name, network, scale=scale, input_range=known.input_range)


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
        self.fea_conv = _Blueprint(12, channels)
        self.blocks = [f"B{i}" for i in range(1, blocks + 1)]
        for name in self.blocks:
            self.add_module(name, _SeparableBlock(channels))
        self.c1 = nn.Conv2d(channels * blocks, channels, 1)
        self.c2 = _Blueprint(channels, channels)
        self.upsampler = nn.Module()
        self.upsampler.upsampleOneStep = _enlarge(channels, scale)

    def forward(self, lr: Tensor) -> Tensor:
        """`[N, 3, h, w]` to `[N, 3, h * scale, w * scale]`."""
        shallow = self.fea_conv(lr.repeat(1, 4, 1, 1))
        deep, x = [], shallow
        for name in self.blocks:
            x = self.get_submodule(name)(x)
            deep.append(x)
        fused = self.c2(F.gelu(self.c1(torch.cat(deep, 1))))
        return self.upsampler.get_submodule("upsampleOneStep")(fused + shallow)


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
        self.conv_1 = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = [f"block_{i}" for i in range(1, blocks + 1)]
        for name in self.blocks:
            self.add_module(name, _LocalBlock(channels))
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampler = _enlarge(channels, scale)

    def forward(self, lr: Tensor) -> Tensor:
        """`[N, 3, h, w]` to `[N, 3, h * scale, w * scale]`."""
        shallow = x = self.conv_1(lr)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return self.upsampler(self.conv_2(x) + shallow)


class _Blueprint(nn.Module):
    """A pointwise convolution without bias, then a 3 x 3 one for each channel by itself."""

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.pw = nn.Conv2d(n_in, n_out, 1, bias=False)
        self.dw = nn.Conv2d(n_out, n_out, 3, stride=stride, padding=padding, groups=n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.dw(self.pw(x))


class _SpatialAttention(nn.Module):
    """Enhanced spatial attention: a mask from a coarse, wide view of the features.

    BSRN (`blueprint`) has separable convolutions and two more of them behind the pooling than
    RLFN, which keeps one dense convolution there.
    """

    def __init__(self, channels: int, *, blueprint: bool, inner: int = 16) -> None:
        super().__init__()
        conv = _Blueprint if blueprint else _dense
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv2 = conv(inner, inner, stride=2, padding=0)
        self.conv3 = conv(inner, inner)
        self.conv4 = nn.Conv2d(inner, channels, 1)
        self.blueprint = blueprint
        if blueprint:
            self.conv_max = conv(inner, inner)
            self.conv3_ = conv(inner, inner)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(x)
        wide = F.max_pool2d(self.conv2(narrow), 7, stride=3)
        if self.blueprint:
            wide = self.conv3_(F.gelu(self.conv3(F.gelu(self.conv_max(wide)))))
        else:
            wide = self.conv3(wide)
        wide = F.interpolate(wide, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(wide + self.conv_f(narrow)))


class _ContrastAttention(nn.Module):
    """Channel attention on mean plus standard deviation over the picture."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        inner = channels // reduction
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        deviation = x.std((2, 3), keepdim=True, correction=0)
        return x * self.conv_du(deviation + x.mean((2, 3), keepdim=True))


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
            self.add_module(f"c{i}_r", _Blueprint(channels, channels))
        self.c4 = _Blueprint(channels, half)
        self.c5 = nn.Conv2d(4 * half, channels, 1)
        self.esa = _SpatialAttention(channels, blueprint=True)
        self.cca = _ContrastAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        aside, rest = [], x
        for i in range(1, self.steps + 1):
            aside.append(F.gelu(self.get_submodule(f"c{i}_d")(rest)))
            rest = F.gelu(self.get_submodule(f"c{i}_r")(rest) + rest)
        aside.append(F.gelu(self.c4(rest)))
        return self.cca(self.esa(self.c5(torch.cat(aside, 1)))) + x


class _LocalBlock(nn.Module):
    """RLFN's block: three convolutions with a skip around them, then spatial attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1_r = _dense(channels, channels)
        self.c2_r = _dense(channels, channels)
        self.c3_r = _dense(channels, channels)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.esa = _SpatialAttention(channels, blueprint=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in (self.c1_r, self.c2_r, self.c3_r):
            y = F.leaky_relu(conv(y), 0.05)
        return self.esa(self.c5(y + x))


def _dense(n_in: int, n_out: int, *, stride: int = 1, padding: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=padding)


def _enlarge(channels: int, scale: int) -> nn.Sequential:
    return nn.Sequential(_dense(channels, 3 * scale**2), nn.PixelShuffle(scale))


def _read(path: str | Path) -> Mapping[str, Tensor]:
    """The file's tensors by name, out of the wrapping that training tools put around them."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise errors.CheckpointError(
            "the file of weights cannot be read",
            got=f"{type(error).__name__}: {reason}",
            at=path,
        ) from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise errors.CheckpointError(
            "a file of weights maps names to tensors", got=type(content).__name__, at=path
        )
    return {re.sub(r"^module\.", "", str(name)): tensor for name, tensor in content.items()}


def _bsrn(state: Mapping[str, Tensor]) -> tuple[nn.Module, int]:
    channels = state["c1.weight"].shape[0]
    scale = math.isqrt(state["upsampler.upsampleOneStep.0.weight"].shape[0] // 3)
    return BSRN(channels, _count(state, r"B(\d+)\."), scale), scale


def _rlfn(state: Mapping[str, Tensor]) -> tuple[nn.Module, int]:
    channels = state["conv_1.weight"].shape[0]
    scale = math.isqrt(state["upsampler.0.weight"].shape[0] // 3)
    return RLFN(channels, _count(state, r"block_(\d+)\."), scale), scale


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers `pattern` finds at the start of a name."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})


@attrs.frozen
class _Known:
    name: str
    signature: tuple[str, ...]
    input_range: float
    build: Callable[[Mapping[str, Tensor]], tuple[nn.Module, int]]


_KNOWN = (
    _Known("BSRN", ("fea_conv.pw.weight", "B1.c1_d.weight", "B1.cca.conv_du.0.weight"), 1.0, _bsrn),
    _Known(
        "RLFN", ("conv_1.weight", "block_1.c1_r.weight", "block_1.esa.conv4.weight"), 255, _rlfn
    ),
)
