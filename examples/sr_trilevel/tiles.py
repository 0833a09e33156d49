"""Enlarging a picture by tiles: memory is bounded by the tile, not by the picture.

Shapes: LR `3 h w`, result `3 h*scale w*scale`.
"""

from __future__ import annotations

import copy
import itertools
import math

import attrs
import torch
from torch import Tensor, nn

from examples.sr_trilevel.imaging import to_uint8, to_unit
from examples.sr_trilevel.metrics import evaluating
from trinas import errors

_FAR = 128
"""A network that looks this far counts as one that looks everywhere."""

_STRIP = 24
_BEYOND = 32


@attrs.frozen
class Tile:
    """A stretch of a side: what the network sees, and the part its output is taken for."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def seen(self) -> slice:
        """What the network sees, in pixels of LR."""
        return slice(self.start, self.stop)

    def given(self, scale: int) -> slice:
        """The part its output is taken for, in pixels of the result."""
        return slice(self.first * scale, self.last * scale)

    def inside(self, scale: int) -> slice:
        """The same part, counted from where the tile starts."""
        return slice((self.first - self.start) * scale, (self.last - self.start) * scale)


def cover(side: int, tile: int, overlap: int) -> list[Tile]:
    """Tiles of one length that cover a side, at even distances.

    Of two neighbours each is taken for its half of what both see.

    Args:
        side: to be covered, in pixels.
        tile: longest tile.
        overlap: of neighbours, at least; less than `tile`.

    Raises:
        ConfigError: tiles that overlap by their whole length never come to an end.

    >>> [(tile.start, tile.stop, tile.first, tile.last) for tile in cover(20, 12, 4)]
    [(0, 12, 0, 10), (8, 20, 10, 20)]
    """
    if tile <= overlap or overlap < 0:
        raise errors.ConfigError(
            "tiles are longer than they overlap", got=f"tile {tile}, overlap {overlap}"
        )
    tile = min(tile, side)
    gaps = math.ceil((side - tile) / (tile - overlap)) if side > tile else 0
    starts = [(side - tile) * i // max(1, gaps) for i in range(gaps + 1)]
    middles = [(right + left + tile) // 2 for left, right in itertools.pairwise(starts)]
    edges = [0, *middles, side]
    return [Tile(s, s + tile, a, b) for s, a, b in zip(starts, edges, edges[1:])]


def enlarged(
    network: nn.Module, lr: Tensor, *, scale: int, tile: int | None = None, overlap: int = 0
) -> Tensor:
    """What a network makes of a picture, rounded to 8 bits.

    Args:
        network: takes `[1, 3, h, w]` in [0, 1]; runs on the device it is on, in eval mode, and is
            left in the mode it was in.
        lr: `uint8 [3, h, w]`.
        scale: how many times it enlarges.
        tile: longest side given to the network, in pixels of LR; the whole picture where None.
            With tiles the result is that of the whole picture where the network looks no further
            than half of `overlap` (`reach`).
        overlap: of neighbouring tiles, in pixels of LR; less than `tile`.

    Returns:
        `uint8 [3, h * scale, w * scale]` on the CPU.

    Raises:
        ConfigError: `overlap` is not less than `tile`.
        DataError: the network gives NaN.

    >>> repeat = nn.Upsample(scale_factor=2)
    >>> lr = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    >>> whole = enlarged(repeat, lr, scale=2)
    >>> torch.equal(whole, enlarged(repeat, lr, scale=2, tile=3, overlap=1))
    True
    """
    device = next((p.device for p in network.parameters()), lr.device)
    height, width = lr.shape[-2:]
    result = torch.empty(3, height * scale, width * scale, dtype=torch.uint8)
    columns = cover(width, tile or width, overlap if tile else 0)
    with evaluating(network):
        for down in cover(height, tile or height, overlap if tile else 0):
            for across in columns:
                seen = to_unit(lr[None, :, down.seen, across.seen].to(device))
                with torch.no_grad():
                    output = to_uint8(network(seen)[0]).cpu()
                part = output[:, down.inside(scale), across.inside(scale)]
                result[:, down.given(scale), across.given(scale)] = part
    return result


def reach(network: nn.Module, scale: int) -> int | None:
    """How far a network looks: tiles that overlap by twice as much change nothing.

    Measured, in 64-bit arithmetic, so that it holds for any network: half of a picture is
    replaced, and the reach is how far into the other half the output changes, in all four
    directions. A network that pools over the whole picture (channel attention, contrast) changes
    everywhere. One that divides the picture into fields (strided or pooled attention) may look
    no further than these, but then gives another output when the picture is moved by a pixel, as
    tiles do; that is measured too.

    Args:
        network: takes `[1, 3, h, w]` with sides of 24 and 160; left as it is.
        scale: how many times it enlarges.

    Returns:
        Pixels of LR; None for a network whose output depends on where a tile begins or ends.

    >>> reach(nn.Conv2d(3, 3, 5, padding=2), 1)
    2
    >>> reach(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample((24, 160))), 1) is None
    True
    """
    shadow = copy.deepcopy(network).cpu().double().eval()
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, _STRIP, _FAR + _BEYOND)
    picture = torch.rand(shape, dtype=torch.float64, generator=generator)
    changed = picture.clone()
    changed[..., _FAR:] = 3 - 4 * changed[..., _FAR:]  # other mean, deviation, least and most
    furthest, wholes = 0, []
    with torch.no_grad():
        for turns in range(4):
            wholes.append(_turned(shadow, picture, turns))
            far = _first_change(wholes[-1], _turned(shadow, changed, turns), scale)
            if far is None:
                return None
            furthest = max(furthest, far)
        for turns, whole in enumerate(wholes):
            moved = _turned(shadow, picture[..., 1:], turns)
            # As far as the border that has moved is out of sight.
            whole, moved = whole[..., (furthest + 1) * scale :], moved[..., furthest * scale :]
            if not bool((whole - moved).abs().max() < 1e-9):
                return None
    return furthest


def _first_change(before: Tensor, after: Tensor, scale: int) -> int | None:
    """How far to the left of what was replaced outputs differ; None if they do at the far end."""
    columns = (before != after).flatten(0, -2).any(0).nonzero()
    if not len(columns):
        return 0
    first = int(columns[0]) // scale
    return None if first == 0 else max(0, _FAR - first)


def _turned(network: nn.Module, picture: Tensor, turns: int) -> Tensor:
    """What a network makes of a picture that stands on another of its sides."""
    output = network(torch.rot90(picture, turns, (-2, -1)))
    return torch.rot90(output, -turns, (-2, -1))
