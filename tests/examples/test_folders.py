"""Picture files by name: the same ones, and the same parts, as when folders are read."""

from __future__ import annotations

import pytest
from PIL import Image

from examples.sr_trilevel.data import folder_images
from examples.sr_trilevel.folders import parts_of, pictures_below, sizes_of
from examples.sr_trilevel.imaging import load_image
from trinas._core.errors import DataError

LAYOUTS = {
    "flat": [f"{i}.png" for i in range(5)],
    "tenth": [f"{i:02}.jpg" for i in range(19)],
    "deep": ["b/1.png", "a/2.png", "3.PNG", ".hidden.png", "b/._1.png", ".git/4.png", "c.txt"],
    "div2k": ["DIV2K_train_HR/2.png", "DIV2K_valid_HR/1.png", "DIV2K_train_LR/3.png", "4.png"],
    "train only": ["DIV2K_train_HR/2.png", "DIV2K_train_HR/1.png", "4.png"],
    "valid only": ["DIV2K_valid_HR/2.png", "4.png", "5.png"],
}


@pytest.fixture
def folder(tmp_path, request):
    for i, name in enumerate(LAYOUTS[request.param]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + i, 9)).save(tmp_path / name, format="PNG")
    return tmp_path


@pytest.mark.parametrize("folder", list(LAYOUTS), indirect=True)
def test_parts_are_those_of_a_run(folder):
    parts, expected = parts_of(folder), folder_images(folder)

    assert list(parts["train"]) == list(expected.train)
    assert list(parts["held_out"]) == list(expected.held_out)
    for part, images in (("train", expected.train), ("held_out", expected.held_out)):
        sizes, skipped = sizes_of(parts[part])
        assert sizes == {n: (image.shape[-1], image.shape[-2]) for n, image in images.items()}
        assert skipped == {}


@pytest.mark.parametrize("folder", ["deep"], indirect=True)
def test_pictures_below(folder):
    assert list(pictures_below(folder)) == ["3.PNG", "a/2.png", "b/1.png"]
    assert pictures_below(folder / "b" / "1.png") == {"1.png": folder / "b" / "1.png"}
    for place, message in ((folder / "none", "no such thing"), (folder / ".git" / "x", "no such")):
        with pytest.raises(DataError, match=message):
            pictures_below(place)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no pictures; got none; at .*empty"):
        pictures_below(folder / "empty")


@pytest.mark.parametrize("folder", ["flat"], indirect=True)
def test_headers_that_cannot_be_read(folder):
    (folder / "1.png").write_bytes(b"no picture")
    files = pictures_below(folder)
    with pytest.raises(DataError, match=r"cannot be read; .*1\.png"):
        sizes_of(files)
    sizes, skipped = sizes_of(files, on_bad="skip")

    assert list(sizes) == ["0.png", "2.png", "3.png", "4.png"]
    assert list(skipped) == ["1.png"]
    assert "cannot be read" in skipped["1.png"]


def test_one_picture_is_not_two(tmp_path):
    Image.new("RGB", (8, 9)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="another to hold out are needed; got 1"):
        parts_of(tmp_path)


def test_what_cannot_be_used_is_left_out_before_the_last_tenth_is_taken(tmp_path):
    """Else a picture is trained on from a pack that its folder holds out."""
    for i in range(20):
        Image.new("RGB", (8, 8) if i in (3, 18) else (40, 40)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "19.png").write_bytes(b"no picture")
    expected = folder_images(tmp_path, min_size=32, on_bad="skip")

    def usable(files):
        sizes, _ = sizes_of(files, on_bad="skip")
        return {name: files[name] for name, size in sizes.items() if min(size) >= 32}

    parts = parts_of(tmp_path, usable)
    assert list(parts["held_out"]) == list(expected.held_out) == ["17.png"]
    assert list(parts["train"]) == list(expected.train)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_pictures_held_upright(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (12, 6)).save(tmp_path / "a.jpg", exif=exif)
    image = load_image(tmp_path / "a.jpg")

    assert sizes_of({"a": tmp_path / "a.jpg"})[0] == {"a": (image.shape[-1], image.shape[-2])}
