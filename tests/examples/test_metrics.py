"""PSNR by its formula, SSIM against scikit-image, and published scores where data is at hand."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from examples.sr_trilevel.data import builtin_images
from examples.sr_trilevel.imaging import bicubic, imresize, read_folder, shrink, to_luma, to_unit
from examples.sr_trilevel.metrics import Protocol, psnr, score, ssim
from trinas._core.errors import DataError, ShapeError

NOISE = torch.Generator().manual_seed(0)
PICTURE = torch.randint(0, 256, (3, 48, 64), generator=NOISE, dtype=torch.uint8)
NEAR = (PICTURE.int() + torch.randint(-9, 10, PICTURE.shape, generator=NOISE)).clamp(0, 255)
NEAR = NEAR.to(torch.uint8)


@pytest.fixture(scope="module")
def photos():
    """Two small photographs."""
    images = builtin_images()
    return {name: images[name][:, 60:140, 100:200] for name in ("chelsea", "coffee")}


@pytest.mark.parametrize("shave", [0, 3])
def test_psnr_equals_skimage(shave):
    inner = (slice(None), slice(shave, 48 - shave), slice(shave, 64 - shave))
    luma = [to_luma(p)[inner].numpy() for p in (PICTURE, NEAR)]
    rgb = [p[inner].numpy() for p in (PICTURE, NEAR)]

    assert psnr(PICTURE, NEAR, shave=shave) == pytest.approx(
        peak_signal_noise_ratio(*luma, data_range=255)
    )
    assert psnr(PICTURE, NEAR, shave=shave, channels="RGB") == pytest.approx(
        peak_signal_noise_ratio(*rgb, data_range=255)
    )


@pytest.mark.parametrize("shave", [0, 4])
def test_ssim_equals_skimage(photos, shave):
    """Two implementations, one number: on photographs and on noise."""
    lr, hr = shrink(photos["chelsea"], 4)
    for first, second in ((hr, imresize(lr, 4)), (PICTURE, NEAR)):
        planes = [to_luma(p)[0].numpy() for p in (first, second)]
        height, width = planes[0].shape
        planes = [p[shave : height - shave, shave : width - shave] for p in planes]

        assert ssim(first, second, shave=shave) == pytest.approx(
            structural_similarity(
                *planes,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=255,
            ),
            abs=1e-9,
        )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_symmetric_and_falling_with_noise(seed, amount):
    noise = torch.randn(PICTURE.shape, generator=torch.Generator().manual_seed(seed)) / 255
    clean = to_unit(PICTURE)
    little, much = clean + amount * noise, clean + 2 * amount * noise

    assert psnr(clean, little) == pytest.approx(psnr(little, clean))
    assert psnr(clean, little) == pytest.approx(psnr(clean, much) + 20 * math.log10(2))
    assert ssim(clean, little) == pytest.approx(ssim(little, clean))
    assert ssim(clean, much) < ssim(clean, little) < 1


def test_limits():
    assert math.inf == psnr(PICTURE, PICTURE)
    assert pytest.approx(ssim(PICTURE, PICTURE)) == 1
    broken = to_unit(PICTURE).clone()
    broken[0, 10, 10] = math.nan
    assert math.isnan(psnr(broken, PICTURE))
    with pytest.raises(ShapeError, match=r"at the same size; got \(1, 48, 64\) and \(1, 48, 60\)"):
        psnr(PICTURE, PICTURE[..., :60])
    with pytest.raises(
        ShapeError, match="at least 11 x 11 pixels inside a border of 20; got 64 x 48"
    ):
        ssim(PICTURE, PICTURE, shave=20)
    with pytest.raises(DataError, match="PSNR is on Y or RGB; got y"):
        psnr(PICTURE, PICTURE, channels="y")


def test_score_is_psnr_of_the_shrunk_and_enlarged(photos):
    """The default protocol, taken apart."""
    result = score(bicubic(4), photos)

    rows = []
    for image in photos.values():
        lr, hr = shrink(image, 4)
        rows.append((psnr(imresize(lr, 4), hr, shave=4), ssim(imresize(lr, 4), hr, shave=4)))
    assert rows == [(row.psnr, row.ssim) for row in result.per_image]
    assert result.psnr == pytest.approx(np.mean([p for p, _ in rows]))
    assert result.ssim == pytest.approx(np.mean([s for _, s in rows]))
    assert list(photos) == [row.name for row in result.per_image]


@pytest.mark.parametrize(
    "options",
    [
        {"channels": "RGB"},
        {"shave": 0},
        {"source": "luma"},
        {"round_output": False},
        {"round_luma": True},
        {"self_ensemble": True},
    ],
)
def test_every_option_changes_the_score_and_the_line(photos, options):
    def model(lr):
        # Not symmetric under flips, so that averaging over them matters.
        return bicubic(4)(lr.roll(1, -1) * 0.3 + lr * 0.7)

    default, other = score(model, photos), score(model, photos, protocol=Protocol(**options))

    assert default.psnr != other.psnr
    assert str(default.protocol) != str(other.protocol)
    assert default.protocol.line(4) != other.protocol.line(4)
    assert other.protocol.line(4) in str(other)


def test_protocol_lines():
    assert Protocol().line(4) == (
        "x4, PSNR on Y (BT.601 studio range, float), shave 4, LR by MATLAB bicubic of uint8 RGB, "
        "uint8 output"
    )
    assert str(Protocol(channels="RGB", shave=0, round_output=False, self_ensemble=True)) == (
        "PSNR on RGB, shave 0, LR by MATLAB bicubic of uint8 RGB, float output, self-ensemble x8"
    )
    assert Protocol() == Protocol(shave=None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"channels": "y"}, "a protocol's channels is one of Y, RGB; got y; at Protocol"),
        ({"source": "jpeg"}, "a protocol's source is one of rgb, luma; got jpeg"),
        ({"shave": -1}, "shave counts pixels, from 0; got -1"),
        ({"source": "luma", "channels": "RGB"}, "made from luma alone has no RGB to score"),
    ],
)
def test_protocol_refuses(options, text):
    with pytest.raises(DataError, match=text):
        Protocol(**options)


def test_gray_picture_keeps_its_range_in_the_luma_protocol(photos):
    """Stored as gray it is its own Y; as RGB it shrinks to studio range: 20 log10(255/219) dB."""
    gray = photos["coffee"][:1]
    protocol = Protocol(source="luma", round_output=False)

    own = score(bicubic(4), {"a": gray}, protocol=protocol).psnr
    studio = score(bicubic(4), {"a": gray.expand(3, -1, -1)}, protocol=protocol).psnr

    assert studio - own == pytest.approx(20 * math.log10(255 / 219), abs=0.05)
    both = [score(bicubic(4), {"a": p}).psnr for p in (gray, gray.expand(3, -1, -1))]
    assert both[0] == both[1]


def test_self_ensemble_leaves_a_symmetric_network_alone(photos):
    def model(lr):
        return lr.repeat_interleave(4, -1).repeat_interleave(4, -2)

    plain = score(model, photos, protocol=Protocol(round_output=False))
    averaged = score(model, photos, protocol=Protocol(round_output=False, self_ensemble=True))

    assert plain.psnr == pytest.approx(averaged.psnr, abs=1e-4)


class Upscaler(torch.nn.Module):
    """Enlarges, and notes how it was run."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.frozen = torch.nn.Identity().eval()
        self.seen = []

    def forward(self, lr):
        self.seen.append((self.training, torch.is_grad_enabled(), lr.dtype, lr.min() >= 0))
        return bicubic(4)(lr) * self.weight


def test_module_runs_in_eval_mode_and_is_left_as_it_was(photos):
    model = Upscaler().train()
    model.frozen.eval()

    score(model, photos)

    assert [(False, False, torch.float32, True)] * 2 == model.seen
    assert (model.training, model.frozen.training) == (True, False)


def test_score_refuses(photos):
    with pytest.raises(DataError, match="at least one picture; got 0"):
        score(bicubic(4), {})
    with pytest.raises(
        ShapeError,
        match=r"enlarge both sides 4 times; got \(1, 3, 20, 25\) -> \(1, 3, 40, 50\); at chelsea",
    ):
        score(bicubic(2), photos)
    with pytest.raises(DataError, match="cannot be scored: it holds NaN; got chelsea"):
        score(lambda lr: bicubic(4)(lr) * math.nan, photos)
    with pytest.raises(
        ShapeError, match="11 x 11 pixels inside a border of 4; got 16 x 16; at tiny"
    ):
        score(bicubic(4), {"tiny": photos["coffee"][:, :16, :16]})


@pytest.mark.skipif(
    "TRINAS_SR_DATA" not in os.environ, reason="TRINAS_SR_DATA names no folder with benchmark sets"
)
@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("Set5", "rgb", 28.429),
        ("Set14", "rgb", 26.088),
        ("Set5", "luma", 28.421),
        ("Set14", "luma", 26.000),
    ],
)
def test_published_bicubic_scores(name, source, expected):
    folder = Path(os.environ["TRINAS_SR_DATA"]) / "benchmark" / name
    images, _ = read_folder(folder, keep_gray=True)

    result = score(bicubic(4), images, protocol=Protocol(source=source))

    assert expected == pytest.approx(result.psnr, abs=5e-4)
