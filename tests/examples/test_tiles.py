"""Tiles: they cover, they give the whole picture's result, and what they cannot do is noticed."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from examples.sr_trilevel.networks import Bicubic
from examples.sr_trilevel.space import backbone_b
from examples.sr_trilevel.teachers import BSRN, RLFN
from examples.sr_trilevel.tiles import cover, enlarged, reach
from trinas import build, lower, sample
from trinas._core.errors import ConfigError


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


class Whole(nn.Module):
    """Convolutions of whole numbers, kept small: every sum is exact, in whatever order."""

    def __init__(self, radii: tuple[int, ...], scale: int = 2) -> None:
        super().__init__()
        widths = [3, *[4] * (len(radii) - 1), 3 * scale**2]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 2 * r + 1, padding=r, bias=False)
            for a, b, r in zip(widths, widths[1:], radii)
        )
        generator = torch.Generator().manual_seed(1)
        for layer in self.layers:
            weight = torch.randint(-3, 4, layer.weight.shape, generator=generator)
            layer.weight.data = weight.float()
        self.scale = scale

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = (lr * 255).round()
        for layer in self.layers:
            x = layer(x).remainder(64)
        return F.pixel_shuffle(x, self.scale) * 4 / 255


# --- covering -------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(40, 600), st.integers(0, 39))
def test_tiles_cover_a_side_without_gap_or_overlap(side, tile, overlap):
    tiles = cover(side, tile, overlap)

    assert (tiles[0].first, tiles[-1].last) == (0, side)
    assert (tiles[0].start, tiles[-1].stop) == (0, side)
    assert {t.stop - t.start for t in tiles} == {min(side, tile)}
    for left, right in pairwise(tiles):
        assert left.last == right.first
        assert left.stop - right.start >= overlap
        # Each is asked for no more than half of what both see.
        assert min(left.stop - left.last, right.first - right.start) >= overlap // 2
    assert len(tiles) == 1 or len(tiles) == 1 + -(-(side - tile) // (tile - overlap))


@pytest.mark.parametrize(("tile", "overlap"), [(8, 8), (8, 9), (0, 0), (8, -1)])
def test_tiles_that_do_not_come_to_an_end_are_refused(tile, overlap):
    with pytest.raises(ConfigError, match=f"got tile {tile}, overlap {overlap}"):
        cover(100, tile, overlap)


# --- the result of the whole picture --------------------------------------------------------------


@settings(max_examples=40)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    radii=st.sampled_from([(0,), (1,), (2, 1), (1, 1, 1, 1), (3,)]),
    more=st.integers(0, 9),
    room=st.integers(1, 30),
)
def test_tiles_that_overlap_by_twice_the_reach_change_no_bit(height, width, radii, more, room):
    network = Whole(radii)
    overlap = 2 * sum(radii) + more
    whole = enlarged(network, noise(height, width), scale=2)
    tiled = enlarged(network, noise(height, width), scale=2, tile=overlap + room, overlap=overlap)

    assert whole.unique().numel() > 1
    assert torch.equal(whole, tiled)


@pytest.mark.parametrize("radii", [(1,), (2, 1), (3, 3)])
def test_tiles_that_overlap_by_less_change_some(radii):
    """The check above can fail: two pixels less than twice the reach are too few."""
    network = Whole(radii)
    overlap = 2 * sum(radii) - 2
    picture = noise(40, 32 + 2 * (32 - overlap))  # exactly three tiles
    whole = enlarged(network, picture, scale=2)
    tiled = enlarged(network, picture, scale=2, tile=32, overlap=overlap)

    assert not torch.equal(whole, tiled)


def test_bicubic_in_tiles_is_bicubic():
    whole = enlarged(Bicubic(3), noise(50, 70), scale=3)

    assert torch.equal(whole, enlarged(Bicubic(3), noise(50, 70), scale=3, tile=20, overlap=4))
    assert not torch.equal(whole, enlarged(Bicubic(3), noise(50, 70), scale=3, tile=20, overlap=2))


# --- how far a network looks ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Conv2d(3, 3, 1), 0),
        (nn.Conv2d(3, 3, 3, padding=1), 1),
        (nn.Conv2d(3, 3, 3, padding=4, dilation=4), 4),
        (nn.Conv2d(3, 3, (3, 7), padding=(1, 3)), 3),
        (nn.Conv2d(3, 3, (9, 3), padding=(4, 1)), 4),
        (nn.ZeroPad2d((5, -5, 0, 0)), 5),
        (nn.ZeroPad2d((0, 0, -6, 6)), 6),
        (nn.MaxPool2d(5, stride=1, padding=2), 2),
        (nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(7)]), 7),
        (nn.Conv2d(3, 3, 3, padding=127, dilation=127), 127),
    ],
    ids=str,
)
def test_reach_is_that_of_the_kernels(network, expected):
    assert reach(network, 1) == expected


@pytest.mark.parametrize("radii", [(1,), (2, 1), (1, 1, 3)])
def test_reach_is_in_pixels_of_lr(radii):
    assert reach(Whole(radii, scale=4), 4) == sum(radii)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reach_of_bicubic(scale):
    """Four taps, between the second and the third of which a pixel lies."""
    assert reach(Bicubic(scale), scale) == 2


def test_reach_is_where_gradients_end():
    """Another way to it: which pixels of the input move one pixel of the output."""
    graph = lower(backbone_b(16, slots=3, cells=2, convs=1), (3, 32, 32))
    network = build(graph, sample(graph, 1)).double()
    lr = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    network(lr)[..., 128:132, 128:132].sum().backward()
    assert lr.grad is not None
    rows, columns = (lr.grad.abs().amax((0, 1, d)).nonzero().flatten() for d in (3, 2))
    furthest = max(32 - int(side[0]) for side in (rows, columns))
    furthest = max(furthest, *(int(side[-1]) - 32 for side in (rows, columns)))

    assert 0 <= furthest - reach(network, 4) <= 2  # what 64 bits do not show is no difference


class Pooled(nn.Module):
    def __init__(self, pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.01 * self.pool(x)


POOLS = {
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "deviation": lambda x: x.std((2, 3), keepdim=True),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1),
    "columns": lambda x: x.amax(2, keepdim=True),
    "rows": lambda x: x.mean(3, keepdim=True),
    "faint": lambda x: 1e-6 * F.adaptive_max_pool2d(x, 1),
    "least": lambda x: x.amin((2, 3), keepdim=True),
    "fields": lambda x: F.interpolate(F.avg_pool2d(x, 2, ceil_mode=True), size=x.shape[2:]),
    "fields from the right": lambda x: in_pairs(x.flip(3)).flip(3),
    "too far": lambda x: F.conv2d(x, x.new_ones(3, 3, 3, 3), padding=129, dilation=129),
    "sum so far": lambda x: x.cumsum(3),
    "place": lambda x: torch.arange(x.shape[3], dtype=x.dtype) % 2,
    "no number": lambda x: x / 0 * 0,
}


def in_pairs(x: torch.Tensor) -> torch.Tensor:
    means = F.avg_pool2d(x, (1, 2), ceil_mode=True)
    return means.repeat_interleave(2, 3)[..., : x.shape[3]]


@pytest.mark.parametrize("pool", POOLS.values(), ids=list(POOLS))
def test_networks_that_see_all_or_where_they_are_have_no_reach(pool):
    assert reach(Pooled(pool), 1) is None


def test_published_networks_have_none():
    """BSRN pools over the picture; both divide it into fields for their attention."""
    assert reach(BSRN(16, 1), 4) is None
    assert reach(RLFN(16, 1), 4) is None


def test_measuring_leaves_a_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    reach(network, 1)

    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(p.dtype == torch.float32 for p in network.parameters())
