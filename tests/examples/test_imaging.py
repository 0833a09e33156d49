"""Resizing against exact rational arithmetic, and what reading a picture accepts and refuses."""

from __future__ import annotations

import math
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from examples.sr_trilevel.imaging import (
    bicubic,
    crop_to_multiple,
    imresize,
    load_image,
    read_folder,
    shrink,
    to_luma,
    to_uint8,
    to_unit,
)
from trinas._core.errors import DataError, ShapeError


def kernel(x):
    """Keys' cubic with a = -1/2, in fractions."""
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)


def resize_line(line, scale):
    """One line of pixels, every output evaluated on its own over all that its kernel reaches."""
    n, shrink = len(line), min(scale, Fraction(1))
    reach = math.ceil(2 / shrink)
    out = []
    for i in range(math.ceil(n * scale)):
        centre = (i + Fraction(1, 2)) / scale - Fraction(1, 2)
        total = weights = Fraction(0)
        for j in range(math.floor(centre) - reach, math.ceil(centre) + reach + 1):
            source = j
            while not 0 <= source < n:
                source = -1 - source if source < 0 else 2 * n - 1 - source
            weight = kernel((centre - j) * shrink)
            total += weight * line[source]
            weights += weight
        out.append(total / weights)
    return out


def resize(rows, scale, *, round_each):
    """Rows first, then columns; rounded half up and saturated after each when asked."""

    def finish(lines):
        if not round_each:
            return lines
        return [[min(255, max(0, math.floor(v + Fraction(1, 2)))) for v in li] for li in lines]

    down = finish([resize_line(list(column), scale) for column in zip(*rows)])
    return finish([resize_line(list(row), scale) for row in zip(*down)])


def pictures(max_side=13):
    sides = st.integers(1, max_side)
    return st.tuples(sides, sides, st.integers(0, 2**31)).map(
        lambda t: torch.randint(
            0, 256, t[:2], generator=torch.Generator().manual_seed(t[2]), dtype=torch.uint8
        )
    )


dyadic = st.sampled_from([Fraction(1, 4), Fraction(1, 2), Fraction(2), Fraction(4)])
any_scale = st.sampled_from([Fraction(n, d) for n, d in [(1, 3), (3, 1), (7, 10), (3, 2), (1, 4)]])


@settings(max_examples=25, deadline=None)
@given(pictures(), dyadic)
def test_uint8_equals_exact_arithmetic(picture, scale):
    """For powers of two float64 is exact, so every pixel agrees, ties and saturation included."""
    expected = resize(picture.tolist(), scale, round_each=True)

    assert expected == imresize(picture, float(scale)).tolist()


@settings(max_examples=25, deadline=None)
@given(pictures(), any_scale)
def test_float_equals_exact_arithmetic(picture, scale):
    """Floating-point pictures are neither rounded nor clamped."""
    expected = resize(picture.tolist(), scale, round_each=False)

    actual = imresize(picture.double(), float(scale))

    values = [[float(v) for v in row] for row in expected]
    torch.testing.assert_close(actual, torch.tensor(values, dtype=torch.float64), atol=1e-9, rtol=0)


def test_golden():
    """A fixed picture, so that a change of the reference above cannot hide one of the code."""
    picture = torch.tensor(
        [[(31 * y * y + 57 * x + 13 * x * y) % 256 for x in range(12)] for y in range(8)]
    ).to(torch.uint8)

    golden = [[111, 125, 104], [144, 150, 115]]

    assert golden == imresize(picture, 1 / 4).tolist()
    assert golden == resize(picture.tolist(), Fraction(1, 4), round_each=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 255), st.integers(1, 40), st.integers(1, 40), any_scale)
def test_constant_stays_constant(value, height, width, scale):
    """Weights sum to one at every place, borders included."""
    picture = torch.full((3, height, width), value, dtype=torch.uint8)

    assert {value} == set(imresize(picture, float(scale)).flatten().tolist())


@settings(max_examples=20, deadline=None)
@given(pictures(), st.floats(-2, 2), any_scale)
def test_linear(picture, factor, scale):
    first, second, scale = picture.double(), picture.double().flip(0), float(scale)

    torch.testing.assert_close(
        imresize(first + factor * second, scale),
        imresize(first, scale) + factor * imresize(second, scale),
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_flips_commute(height, width, scale):
    """When the sides come out whole, the sampling grid is symmetric."""
    picture = torch.randint(0, 256, (4 * height, 4 * width), dtype=torch.uint8)
    for axes in ((0,), (1,), (0, 1)):
        torch.testing.assert_close(
            imresize(picture.flip(axes), scale), imresize(picture, scale).flip(axes), atol=0, rtol=0
        )


def test_turning_commutes_without_rounding():
    picture = torch.rand(8, 12, dtype=torch.float64)

    torch.testing.assert_close(imresize(picture.T, 0.25), imresize(picture, 0.25).T)


def test_sizes_dtypes_and_leading_dimensions():
    """Sides are rounded up; a batch gives what its pictures give; the dtype stays."""
    batch = torch.rand(2, 3, 9, 10)

    assert tuple(imresize(batch, 1 / 4).shape) == (2, 3, 3, 3)
    assert torch.equal(imresize(batch, 1 / 4)[1, 2], imresize(batch[1, 2], 1 / 4))
    assert torch.float16 == imresize(batch.half(), 2).dtype
    # A product just above a whole number does not add a row.
    assert 100 * 0.07 > 7
    assert imresize(torch.rand(100, 9), 0.07).shape[0] == 7


def test_gradient():
    picture = torch.rand(5, 6, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda p: imresize(p, 0.5), (picture,))


@pytest.mark.parametrize(
    ("image", "scale", "error", "text"),
    [
        (torch.zeros(4, 4), 0.0, DataError, "a scale must be a positive number; got 0.0"),
        (torch.zeros(4, 4), math.nan, DataError, "a scale must be a positive number; got nan"),
        (torch.zeros(4), 0.5, ShapeError, r"a picture needs the shape \[..., H, W\]; got \(4,\)"),
        (torch.zeros(3, 0, 4), 0.5, ShapeError, r"got \(3, 0, 4\)"),
        (torch.zeros(4, 4).long(), 0.5, DataError, "uint8 or floating point; got torch.int64"),
    ],
)
def test_imresize_refuses(image, scale, error, text):
    with pytest.raises(error, match=text):
        imresize(image, scale)


def test_luma_corners():
    """Primaries as BT.601 defines them; uint8 and unit range agree."""
    picture = torch.eye(3).mul(255).to(torch.uint8).reshape(3, 1, 3)

    torch.testing.assert_close(
        torch.tensor([[[81.481, 144.553, 40.966]]]).double(), to_luma(picture), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(to_luma(picture), to_luma(to_unit(picture)))
    with pytest.raises(ShapeError, match=r"luma needs the shape \[..., 3, H, W\]; got \(1, 2, 2\)"):
        to_luma(torch.zeros(1, 2, 2))


def test_eight_bits_there_and_back():
    levels = torch.arange(256, dtype=torch.uint8)[None]

    assert torch.equal(levels, to_uint8(to_unit(levels)))
    assert torch.equal(levels, to_uint8(levels))
    with pytest.raises(DataError, match="a picture cannot hold NaN"):
        to_uint8(torch.tensor([math.nan]))


def test_crop_to_multiple():
    picture = torch.arange(35).reshape(1, 5, 7)

    assert torch.equal(picture[:, :4, :4], crop_to_multiple(picture, 4))
    with pytest.raises(DataError, match="at least 8 x 8 pixels; got 7 x 5"):
        crop_to_multiple(picture, 8)


def test_bicubic_of_a_stored_picture_is_rounded_and_of_another_is_not():
    lr, _ = shrink(torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8), 4)

    assert torch.equal(to_unit(imresize(lr, 4)), bicubic(4)(to_unit(lr)))
    off_grid = to_unit(lr) * 0.999
    assert torch.equal(imresize(off_grid, 4), bicubic(4)(off_grid))


def save(path, array):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


def test_load_image(tmp_path):
    rng = np.random.default_rng(0)
    colour, gray = rng.integers(0, 256, (5, 7, 3)), rng.integers(0, 256, (5, 7))
    loaded = load_image(save(tmp_path / "colour.png", colour))

    assert torch.uint8 == loaded.dtype
    assert np.array_equal(colour, loaded.permute(1, 2, 0))
    gray_file = save(tmp_path / "gray.png", gray)
    assert np.array_equal(np.stack([gray] * 3), load_image(gray_file))
    assert np.array_equal(gray[None], load_image(gray_file, keep_gray=True))
    with_alpha = np.dstack([colour, np.full((5, 7), 9)])
    assert torch.equal(loaded, load_image(save(tmp_path / "alpha.png", with_alpha)))
    assert loaded.shape == load_image(tmp_path / "colour.png", keep_gray=True).shape


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.97])
def test_load_image_names_a_truncated_file(tmp_path, keep):
    path = save(tmp_path / "half.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])

    with pytest.raises(DataError, match=r"a picture cannot be read; got \w+: .*; at .*half\.png"):
        load_image(path)


def test_load_image_refuses_what_is_no_picture(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(deep)

    with pytest.raises(DataError, match=r"UnidentifiedImageError: .*; at .*text\.png"):
        load_image(text)
    with pytest.raises(DataError, match=r"FileNotFoundError: .*; at .*absent\.png"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(DataError, match=r"8 bits a channel; got Pillow mode I;16; at .*deep\.png"):
        load_image(deep)


def test_read_folder_finds_pictures_below_and_skips_hidden_ones(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/._z.png", ".cache/x.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("x")
        else:
            save(tmp_path / name, np.zeros((8, 8)))

    images, skipped = read_folder(tmp_path)
    gray, _ = read_folder(tmp_path, keep_gray=True)

    assert (list(images), skipped) == (["a/z.JPG", "b.png"], ())
    assert (tuple(images["b.png"].shape), tuple(gray["b.png"].shape)) == ((3, 8, 8), (1, 8, 8))


def test_read_folder_raises_or_skips(tmp_path):
    save(tmp_path / "a.png", np.zeros((20, 30)))
    save(tmp_path / "b.png", np.zeros((9, 30)))
    (tmp_path / "c.png").write_text("no picture")

    with pytest.raises(
        DataError,
        match=r"smaller than a patch; got 30 x 9 pixels; at .*b\.png\. At least 16 x 16 are req",
    ):
        read_folder(tmp_path, min_size=16)
    with pytest.raises(DataError, match=r"cannot be read; .*c\.png"):
        read_folder(tmp_path)
    images, skipped = read_folder(tmp_path, min_size=16, on_bad="skip")
    assert list(images) == ["a.png"]
    assert [name for name, _ in skipped] == ["b.png", "c.png"]
    assert "got 30 x 9 pixels" in skipped[0][1]


def test_read_folder_without_anything_usable(tmp_path):
    with pytest.raises(DataError, match=r"no pictures; got none of \.bmp, .*\.png.*; at .*"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match=r"read from a folder; got no such folder; at .*absent"):
        read_folder(tmp_path / "absent")
    (tmp_path / "c.png").write_text("no picture")
    with pytest.raises(DataError, match=r"read from a folder; got a file; at .*c\.png"):
        read_folder(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"no usable picture; got 1 bad files; the first: a pict"):
        read_folder(tmp_path, on_bad="skip")
    with pytest.raises(DataError, match='on_bad is "raise" or "skip"; got keep'):
        read_folder(tmp_path, on_bad="keep")


def test_a_photograph_is_turned_as_its_tag_says(tmp_path):
    pixels = torch.zeros(3, 8, 16, dtype=torch.uint8)
    pixels[:, :, 8:] = 255
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show it
    picture.save(tmp_path / "turned.png", exif=exif)

    loaded = load_image(tmp_path / "turned.png")

    assert torch.equal(loaded, torch.rot90(pixels, -1, (1, 2)))


def test_sixteen_bits_of_red_green_and_blue_are_refused(tmp_path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" + bytes(range(12)))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))

    with pytest.raises(DataError, match=r"8 bits a channel.*deep\.png"):
        load_image(tmp_path / "deep.png")
