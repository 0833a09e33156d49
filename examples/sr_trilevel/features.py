"""Features of published classifiers, which the perceptual loss compares pictures by.

The weights come from a file, in the names of torchvision, which is not needed here.

Shapes: pictures `N 3 H W`, RGB in [0, 1]; features `N C h w`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.sr_trilevel.teachers.weights import misfit, read_weights, unknown_network
from trinas import errors

# Five times a network halves the picture, at most.
_LEAST_SIDE = 32


State = Mapping[str, Tensor]


@attrs.frozen(kw_only=True)
class Preprocessing:
    """What a network was shown: `(x - mean) / std` of RGB in [0, 1], then perhaps in order BGR.

    Args:
        mean: of R, G and B.
        std: of R, G and B.
        bgr: whether the channels are turned round.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


TORCHVISION = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet, with which torchvision's weights were trained."""

CAFFE = Preprocessing(
    mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255, 1 / 255, 1 / 255), bgr=True
)
"""BGR from 0 to 255 less the mean, with which the weights of Caffe were trained."""


class Features(nn.Module):
    """A published network up to one layer, frozen and in eval mode.

    `forward` takes `[N, 3, H, W]` in [0, 1], both sides at least 32, and gives `[N, C, h, w]`.
    Gradients flow to its input and not to its weights.

    Args:
        name: the network's name, for messages.
        layers: what the pictures go through.
        preprocessing: what `layers` were trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, layers: nn.Module, preprocessing: Preprocessing) -> None:
        """Wrap `layers` and freeze them."""
        super().__init__()
        self.name = name
        self.preprocessing = preprocessing
        self.layers = layers
        # Not part of the weights: a state_dict holds those of the file alone.
        for field in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, field)).view(3, 1, 1)
            self.register_buffer(field, values, persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """The features of `pictures`.

        Raises:
            ShapeError: `pictures` is not `[N, 3, H, W]` with both sides at least 32.
        """
        if pictures.dim() != 4 or pictures.shape[1] != 3 or min(pictures.shape[-2:]) < _LEAST_SIDE:
            raise errors.ShapeError(
                f"{self.name} takes [N, 3, H, W] with both sides at least {_LEAST_SIDE}",
                got=tuple(pictures.shape),
            )
        x = (pictures - self.mean) / self.std
        return self.layers(x.flip(1) if self.preprocessing.bgr else x)


def load_features(
    path: str | Path, *, layer: int | None = None, preprocessing: Preprocessing | None = None
) -> Features:
    """A network of features from its file of weights, recognised by the tensors' names.

    - VGG19 (arXiv 1409.1556), the names `features.0.weight` to `features.34.weight`. Its layer is
      34, `conv5_4`, as in ESRGAN: a sixteenth of the side, 512 channels.
    - SqueezeNet 1.0 (arXiv 1602.07360), the names `features.3.squeeze.weight` and so on. Its layer
      is 12, the last Fire module: about a sixteenth of the side, 512 channels.

    Features are taken before the layer's activation, where they are dense. Widths are read off the
    tensors' shapes; what comes behind the layer, as a classifier, is left out.

    Args:
        path: the file. Only tensors are read, onto the CPU; nothing in it is executed.
        layer: another convolution or Fire module, by its number in the names.
        preprocessing: what the weights were trained with. By default `TORCHVISION`, or `CAFFE`
            for weights that were pruned (more than a tenth of them exactly zero): SqueezeNet's
            authors released such a file. Other weights that come from Caffe look like
            torchvision's; with the wrong input their features say next to nothing.

    Raises:
        CheckpointError: the file is missing or unreadable, holds no weights of a network known
            here, or its tensors have other shapes than that network's.
        ConfigError: the network has no such layer.
    """
    state = read_weights(path)
    for known in _KNOWN:
        if known.knows(state):
            break
    else:
        raise unknown_network(state, (known.name for known in _KNOWN), at=path)
    layer = known.layer if layer is None else layer
    places = (*known.convs, *known.fires)
    if layer not in places:
        raise errors.ConfigError(
            "features are taken from a convolution or a Fire module",
            got=layer,
            at=f"{known.name}, {path}",
            fix=f"Choose one of {', '.join(map(str, sorted(places)))}.",
        )
    try:
        layers = _layers(known, state, layer)
        pruned = _pruned(state)
    except (RuntimeError, KeyError, IndexError, AttributeError, ValueError) as error:
        raise misfit(known.name, error, at=path) from None
    if preprocessing is None:
        preprocessing = CAFFE if pruned else TORCHVISION
    return Features(known.name, layers, preprocessing)


class _Fire(nn.Module):
    """SqueezeNet's module: few channels, then many out of 1 x 1 and 3 x 3 convolutions."""

    def __init__(self, state: State, at: str, *, active: bool) -> None:
        super().__init__()
        squeeze, n_in = state[f"{at}.squeeze.weight"].shape[:2]
        self.squeeze = nn.Conv2d(n_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, len(state[f"{at}.expand1x1.weight"]), 1)
        self.expand3x3 = nn.Conv2d(squeeze, len(state[f"{at}.expand3x3.weight"]), 3, padding=1)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        narrow = F.relu(self.squeeze(x))
        wide = torch.cat((self.expand1x1(narrow), self.expand3x3(narrow)), 1)
        return F.relu(wide) if self.active else wide


@attrs.frozen(kw_only=True)
class _Known:
    """How a network is recognised and laid out; numbers are those in its tensors' names.

    Attributes:
        name: for messages.
        key: finds the numbers that tell it from others: those of its Fire modules, or, where it
            has none, of its convolutions.
        convs: plain convolutions.
        fires: Fire modules.
        pools: poolings; what is left over is ReLU.
        layer: the one features are taken from.
        conv: makes a convolution of so many channels in and out.
        pool: makes a pooling.
    """

    name: str
    key: str
    convs: tuple[int, ...]
    fires: tuple[int, ...] = ()
    pools: tuple[int, ...]
    layer: int
    conv: Callable[[int, int], nn.Module]
    pool: Callable[[], nn.Module]

    def knows(self, state: State) -> bool:
        """Whether the tensors have this network's names."""
        found = {int(match[1]) for name in state if (match := re.fullmatch(self.key, name))}
        return found == set(self.fires or self.convs)


_KNOWN = (
    _Known(
        name="VGG19",
        key=r"features\.(\d+)\.weight",
        convs=(0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
        pools=(4, 9, 18, 27),
        layer=34,
        conv=lambda n_in, n_out: nn.Conv2d(n_in, n_out, 3, padding=1),
        pool=lambda: nn.MaxPool2d(2),
    ),
    _Known(
        name="SqueezeNet 1.0",
        key=r"features\.(\d+)\.squeeze\.weight",
        convs=(0,),
        fires=(3, 4, 5, 7, 8, 9, 10, 12),
        pools=(2, 6, 11),
        layer=12,
        conv=lambda n_in, n_out: nn.Conv2d(n_in, n_out, 7, stride=2),
        pool=lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True),
    ),
)


def _layers(known: _Known, state: State, last: int) -> nn.Sequential:
    """The layers up to `last` and their weights; numbered as in the names, so that these fit."""
    layers = nn.Sequential(*(_layer(known, state, i, active=i < last) for i in range(last + 1)))
    found = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"features\.((\d+)\..*)", name)
        if match and int(match[2]) <= last:
            found[match[1]] = tensor
    layers.load_state_dict(found)
    return layers


def _layer(known: _Known, state: State, number: int, *, active: bool) -> nn.Module:
    if number in known.convs:
        n_out, n_in = state[f"features.{number}.weight"].shape[:2]
        return known.conv(n_in, n_out)
    if number in known.fires:
        return _Fire(state, f"features.{number}", active=active)
    return known.pool() if number in known.pools else nn.ReLU()


def _pruned(state: State) -> bool:
    """Whether more than a tenth of the weights are zero: training alone leaves next to none."""
    weights = [tensor for tensor in state.values() if tensor.dim() == 4]
    zeros = sum(int((tensor == 0).sum()) for tensor in weights)
    return 10 * zeros > sum(tensor.numel() for tensor in weights)
