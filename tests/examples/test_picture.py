"""What stands where in the comparison picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.sr_trilevel.data import builtin_images
from examples.sr_trilevel.imaging import imresize, shrink
from examples.sr_trilevel.picture import Box, busiest, side_by_side
from trinas._core.errors import DataError, ShapeError

MARGIN, GAP, CAPTION = 16, 10, 34


@pytest.fixture(scope="module")
def versions():
    lr, hr = shrink(builtin_images()["chelsea"], 4)
    return lr, imresize(lr, 4), hr.flip(0), hr


def detail(canvas, column, width, height):
    """The cell of the lower row, as an array."""
    left = MARGIN + column * (width + GAP)
    bottom = canvas.height - MARGIN
    return np.asarray(canvas.crop((left, bottom - height, left + width, bottom)))


def test_details_show_the_pixels_of_each_version(versions):
    box = Box(40, 80, 24, 32)
    canvas = side_by_side(*versions, crop=box, width=128)

    lr, *others = versions
    stretched = lr.repeat_interleave(4, 1).repeat_interleave(4, 2)
    for column, picture in enumerate((stretched, *others)):
        cut = picture[:, 40:64, 80:112].repeat_interleave(4, 1).repeat_interleave(4, 2)
        assert np.array_equal(cut.permute(1, 2, 0), detail(canvas, column, 128, 96))


@pytest.mark.parametrize("width", [64, 200, 384])
def test_size_follows_the_width(versions, width):
    canvas = side_by_side(*versions, width=width)

    assert canvas.width == 2 * MARGIN + 4 * width + 3 * GAP
    assert canvas.mode == "RGB"


def test_tall_and_small_pictures_fit():
    for height, side in ((2000, 40), (16, 16), (8, 400)):
        hr = torch.rand(3, height, side)
        lr = imresize(hr, 1 / 4)
        canvas = side_by_side(lr, hr, hr, hr, width=100)

        assert canvas.height <= 2 * MARGIN + CAPTION + GAP + 150 + 80


def test_captions_hold_labels_and_scores(versions):
    """Each text puts ink into its own column's caption and no other's."""

    def captions(**options):
        canvas = side_by_side(*versions, width=128, **options)
        return [
            np.asarray(canvas.crop((x, MARGIN, x + 128, MARGIN + CAPTION)))
            for x in (MARGIN + i * (128 + GAP) for i in range(4))
        ]

    plain = captions()
    scored = captions(psnrs=(None, 26.5, None, None))
    named = captions(labels=("LR", "bicubic", "ours", "HR"))

    assert [np.array_equal(a, b) for a, b in zip(plain, scored)] == [True, False, True, True]
    assert [np.array_equal(a, b) for a, b in zip(plain, named)] == [True, True, False, True]


def test_automatic_detail_lies_on_the_grid_of_lr(versions):
    """Every pixel of LR shows as one whole square of 16 = 4 x 4 pixels."""
    cell = detail(side_by_side(*versions, width=384), 0, 384, 288)
    squares = cell.reshape(18, 16, 24, 16, 3)

    assert (squares == squares[:, :1, :, :1]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 84), st.integers(0, 84), st.integers(8, 32), st.integers(8, 32))
def test_busiest_finds_the_only_detail(top, left, height, width):
    picture = torch.zeros(3, 96, 96)
    picture[:, top : top + 8 : 2, left : left + 8] = 1.0

    box = busiest(picture, height, width)

    assert (box.height, box.width) == (height, width)
    assert 0 <= box.top <= 96 - height
    assert 0 <= box.left <= 96 - width
    assert box.top - 8 <= top <= box.top + height
    assert box.left - 8 <= left <= box.left + width


def test_refusals(versions):
    lr, bicubic, result, hr = versions
    with pytest.raises(
        ShapeError, match=r"LR \[3, h, w\] and three of .*; got \(3, 75, 112\), \(3, 2"
    ):
        side_by_side(lr, bicubic[:, 4:], result, hr)
    for bad in (lr[:, :, 1:], lr[:1], lr[0], hr.repeat(1, 2, 2)):
        with pytest.raises(ShapeError, match="the pictures must be LR"):
            side_by_side(bad, bicubic, result, hr)
    with pytest.raises(DataError, match="four labels and four PSNRs; got 3 and 4"):
        side_by_side(*versions, labels=("a", "b", "c"))
    with pytest.raises(DataError, match="a column needs at least 64 pixels; got 63"):
        side_by_side(*versions, width=63)
    for crop in (Box(290, 0, 24, 32), Box(-1, 0, 8, 8), Box(0, 0, 1, 8), Box(0, 440, 8, 16)):
        with pytest.raises(DataError, match=r"inside the picture; got Box\(.*; at 448 x 300"):
            side_by_side(*versions, crop=crop)
