"""One file of pictures: its size, what is in it, that it is read as the folder, and damage."""

from __future__ import annotations

import io
import json
import re
import zipfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.sr_trilevel import pack as tool
from examples.sr_trilevel import packed as format_
from examples.sr_trilevel.data import Patches, builtin_images, folder_images, make_pairs
from examples.sr_trilevel.imaging import load_image
from examples.sr_trilevel.pack import FORMS, Packing, main, pack
from examples.sr_trilevel.packed import Piece, overhead, packed_images, write_pack
from trinas._core.errors import ConfigError, DataError


def save(path: Path, pixels: torch.Tensor, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twelve crops of photographs, PNG and JPEG, of several sizes; the last by name is small."""
    root = tmp_path_factory.mktemp("pictures")
    photos = builtin_images()
    for i in range(12):
        picture = photos[sorted(photos)[i % 5]]
        across = {5: 50, 9: 60}.get(i, 160)
        cut = picture[:, 40 + i : 136 + 2 * i, 30 : 30 + across]
        if i % 3:
            save(root / f"{i:02}.png", cut)
        else:
            save(root / "more" / f"{i:02}.jpg", cut, quality=80)
    return root


def manifest(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("manifest.json"))


def everything(split) -> dict[str, torch.Tensor]:
    return {**split.train, **split.held_out}


# --- what is in it --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_whole_pictures_come_out_as_they_went_in(folder, tmp_path, form):
    packed = pack(folder, tmp_path / "a.zip", Packing(megabytes=10, form=form))
    split, expected = packed_images(tmp_path / "a.zip"), folder_images(folder)
    facts = manifest(tmp_path / "a.zip")

    for part, originals in (("train", expected.train), ("held_out", expected.held_out)):
        found = getattr(split, part)
        assert list(found) == sorted(found)
        assert [name.rpartition(".")[0] for name in found] == [
            name.rpartition(".")[0] for name in originals
        ]
        for one, other in zip(found.values(), originals.values(), strict=True):
            error = (one.double() - other.double()).square().mean()
            assert error < 30 if form == "jpeg" else error == 0
        assert packed.pieces[part] == len(originals)
        assert packed.pixels[part] == sum(p.shape[-1] * p.shape[-2] for p in originals.values())
    assert facts["form"] == form
    assert facts["lossless"] == (form in ("webp", "png"))
    assert facts["quality"] == (95 if form == "jpeg" else None)
    assert split.skipped == ()


def test_originals_are_the_files(folder, tmp_path):
    pack(folder, tmp_path / "a.zip", Packing(megabytes=10, form="original"))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        for piece in manifest(tmp_path / "a.zip")["pieces"]:
            assert archive.read(piece["file"]) == (folder / piece["from"]).read_bytes()


@pytest.mark.parametrize("options", [{"form": "original"}, {"crop": 32}, {"form": "jpeg"}])
def test_turned_photographs_are_upright(options, tmp_path):
    """As `folder_images` reads them; pieces lie in the picture held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    pixels = builtin_images()["chelsea"][:, :80, :40]
    for name in "ab":
        (tmp_path / "in").mkdir(exist_ok=True)
        save(tmp_path / "in" / f"{name}.jpg", pixels, exif=exif)
    pack(tmp_path / "in", tmp_path / "x.zip", Packing(megabytes=1, **options))

    whole = everything(folder_images(tmp_path / "in"))
    assert {picture.shape for picture in whole.values()} == {(3, 40, 80)}
    packed = everything(packed_images(tmp_path / "x.zip"))
    if "crop" not in options:
        assert {picture.shape for picture in packed.values()} == {(3, 40, 80)}
        return
    assert len(packed) == 4, "two pieces of each"
    for piece in manifest(tmp_path / "x.zip")["pieces"]:
        left, top, right, bottom = piece["box"]
        part, _, name = piece["file"].partition("/")
        assert torch.equal(packed[name], whole[piece["from"]][:, top:bottom, left:right]), part


@pytest.mark.parametrize("crop", [None, 48, 100])
@pytest.mark.parametrize("megabytes", [0.1, 0.13, 0.7])
def test_the_file_fits_and_is_nearly_full(folder, tmp_path, crop, megabytes):
    packed = pack(folder, tmp_path / "a.zip", Packing(megabytes=megabytes, crop=crop))
    size = (tmp_path / "a.zip").stat().st_size

    assert size == packed.size <= megabytes * 1e6
    assert packed.pieces["held_out"] >= 1
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        held = [i.file_size for i in archive.infolist() if i.filename.startswith("held_out/")]
        largest = max(info.file_size for info in archive.infolist())
    assert sum(held) <= 0.1 * megabytes * 1e6
    # No piece of usual size would have found room; of 0.7 MB there are not enough.
    assert megabytes == 0.7 or size > megabytes * 1e6 - 2 * largest


def test_the_size_is_known_before_it_is_written(tmp_path):
    """What pieces are said to cost is what they take, whatever their names."""
    names = ["train/a.png", "train/städte/ü.png", "held_out/" + "x" * 300]
    pieces = [Piece(name, "ü", (1, 2, 30, 4), b"x" * 7 * i, 1) for i, name in enumerate(names)]
    size = write_pack(tmp_path / "a.zip", {"megabytes": 1}, pieces)

    assert size == (tmp_path / "a.zip").stat().st_size
    assert overhead({"megabytes": 1}) + sum(p.cost for p in pieces) - size in (0, 1, 2)


def test_pieces_are_cut_from_the_pictures_and_share_no_pixel(folder, tmp_path):
    pack(folder, tmp_path / "a.zip", Packing(megabytes=10, crop=48))
    images = everything(packed_images(tmp_path / "a.zip"))
    boxes: dict[str, list] = {}
    for piece in manifest(tmp_path / "a.zip")["pieces"]:
        left, top, right, bottom = piece["box"]
        expected = load_image(folder / piece["from"])[:, top:bottom, left:right]
        assert torch.equal(images[piece["file"].partition("/")[2]], expected)
        assert expected.shape == (3, 48, 48)
        boxes.setdefault(piece["from"], []).append((left, top, right, bottom))

    assert len(boxes) == 12
    for name, cut in boxes.items():
        height, width = load_image(folder / name).shape[-2:]
        assert len(cut) == (height // 48) * (width // 48)  # as many as there are
        assert {left % 48 for left, *_ in cut} == {width % 48 // 2}  # in the middle
        for a, b in combinations(cut, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_every_picture_gives_one_piece_before_any_gives_two(tmp_path):
    """Of noise all pieces are of one size, so that none is passed over."""
    for i in range(6):
        save(tmp_path / "in" / f"{i}.png", torch.randint(0, 256, (3, 97, 99), dtype=torch.uint8))
    pack(tmp_path / "in", tmp_path / "a.zip", Packing(megabytes=0.05, crop=32, form="png"))
    pieces = [p for p in manifest(tmp_path / "a.zip")["pieces"] if p["file"].startswith("train/")]
    counts = np.bincount([int(Path(piece["from"]).stem) for piece in pieces])

    assert len(counts) == 5
    assert counts.max() == counts.min() + 1 == 3


def test_what_does_not_fit_is_passed_over(tmp_path):
    """Whatever comes first in the order, the small pictures are all in."""
    for i, side in enumerate([20, 200, 21, 22, 210, 23, 20]):
        noise = torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
        save(tmp_path / "in" / f"{i}.png", noise)
    for seed in range(5):
        pack(tmp_path / "in", tmp_path / "a", Packing(megabytes=0.05, form="png", seed=seed))
        assert list(packed_images(tmp_path / "a").train) == ["0.png", "2.png", "3.png", "5.png"]


def test_jpeg_keeps_its_colours(folder, tmp_path):
    """They are not stored at half the resolution, as JPEG likes to."""
    pack(folder, tmp_path / "a", Packing(megabytes=10, form="jpeg"))
    with zipfile.ZipFile(tmp_path / "a") as archive:
        for piece in manifest(tmp_path / "a")["pieces"]:
            with Image.open(io.BytesIO(archive.read(piece["file"]))) as image:
                assert {tuple(layer[1:3]) for layer in image.layer} == {(1, 1)}


def test_a_picture_smaller_than_a_crop_is_whole(folder, tmp_path):
    pack(folder, tmp_path / "a.zip", Packing(megabytes=10, crop=161))
    assert all(piece["box"] is None for piece in manifest(tmp_path / "a.zip")["pieces"])

    pack(folder, tmp_path / "a.zip", Packing(megabytes=10, crop=120))
    sides = {
        tuple(image.shape[-2:]) for image in everything(packed_images(tmp_path / "a.zip")).values()
    }
    assert max(side for _, side in sides) == 120  # across; down as much as there is
    assert min(side for side, _ in sides) == 96 < 120


def test_the_same_choice_is_the_same_file(folder, tmp_path):
    for name in ("a", "b"):
        pack(folder, tmp_path / name, Packing(megabytes=0.2, crop=48))

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "other",
    [
        {"megabytes": 0.3},
        {"form": "png"},
        {"form": "jpeg"},
        {"crop": 64},
        {"min_side": 55},
        {"seed": 1},
    ],
)
def test_every_option_changes_the_pictures(folder, tmp_path, other):
    base = {"megabytes": 0.2}
    pack(folder, tmp_path / "a", Packing(**base))
    pack(folder, tmp_path / "b", Packing(**base | other))
    first, second = (
        {name: image.numpy().tobytes() for name, image in everything(packed_images(path)).items()}
        for path in (tmp_path / "a", tmp_path / "b")
    )

    assert first != second
    for option, value in other.items():
        assert manifest(tmp_path / "b")[option] == value


def test_quality_changes_the_size(folder, tmp_path):
    sizes = [
        pack(folder, tmp_path / "a", Packing(megabytes=10, form="jpeg", quality=quality)).size
        for quality in (60, 95, None)
    ]

    assert sizes[0] < sizes[1] == sizes[2]


def test_small_pictures_are_left_out_and_counted(folder, tmp_path):
    packed = pack(folder, tmp_path / "a", Packing(megabytes=10, min_side=55))

    assert packed.small == ("05.png",)
    assert "05.webp" not in everything(packed_images(tmp_path / "a"))
    assert sum(packed.pieces.values()) == 11
    assert ", 1 too small, " in str(packed)


def test_the_layout_of_div2k(folder, tmp_path):
    for i, part in enumerate(["train", "train", "valid"]):
        picture = load_image(folder / f"0{i + 1}.png" if i < 2 else folder / "04.png")
        save(tmp_path / "d" / f"DIV2K_{part}_HR" / f"{i}.png", picture)
    save(tmp_path / "d" / "DIV2K_train_LR" / "0.png", picture)
    pack(tmp_path / "d", tmp_path / "a", Packing(megabytes=10, form="original"))
    split, expected = packed_images(tmp_path / "a"), folder_images(tmp_path / "d")

    assert (list(split.train), list(split.held_out)) == (["0.png", "1.png"], ["2.png"])
    assert (list(split.train), list(split.held_out)) == (
        list(expected.train),
        list(expected.held_out),
    )


def test_training_takes_it(folder, tmp_path):
    """Batches from the file are those from the folder, as long as names sort alike."""
    pack(folder, tmp_path / "a", Packing(megabytes=10, form="png"))
    lr, hr = (
        Patches(pairs=make_pairs(split.train), patch=12, batch=4)(3)
        for split in (packed_images(tmp_path / "a", min_size=48), folder_images(folder))
    )

    assert all(torch.equal(a, b) for a, b in zip(lr, hr))


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def sound(folder, tmp_path) -> Path:
    pack(folder, tmp_path / "a.zip", Packing(megabytes=0.1, crop=48))
    return tmp_path / "a.zip"


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"\n",
        lambda content: content[1:],
        lambda content: flipped(content, 10),
        lambda content: flipped(content, len(content) // 2),
        lambda content: flipped(content, len(content) - 100),
        lambda content: flipped(content, len(content) - 1),
        lambda content: bytes(len(content)),
    ],
    ids=["end", "half", "empty", "more", "start", "time", "middle", "index", "seal", "zeros"],
)
def test_a_damaged_file_is_refused(sound, damage):
    sound.write_bytes(damage(sound.read_bytes()))

    with pytest.raises(DataError, match=r"ends with a digest of itself; .*; at .*a\.zip"):
        packed_images(sound)


def test_other_files_are_refused(sound, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"cannot be read; .*; at .*none"):
        packed_images(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        packed_images(tmp_path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(DataError, match="digest of itself"):
        packed_images(tmp_path / "other.zip")
    with pytest.raises(DataError, match=r"smaller than a patch; got 48 x 48 .*; at .*train/"):
        packed_images(sound, min_size=49)
    monkeypatch.setattr(format_, "VERSION", 2)
    with pytest.raises(DataError, match="of version 2; got 1"):
        packed_images(sound)


def test_a_picture_this_pillow_cannot_decode(tmp_path):
    piece = Piece("train/a.png", "a.png", None, b"no picture", 1)
    write_pack(tmp_path / "a", {}, [piece])

    with pytest.raises(DataError, match=r"decoded here; got Unidentified.*; at .*/a/train/a\.png"):
        packed_images(tmp_path / "a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"megabytes": 0}, "more than 0 megabytes; got 0"),
        ({"megabytes": 1, "form": "gif"}, "stored as webp, png, jpeg, original; got gif"),
        ({"megabytes": 1, "quality": 90}, "is for jpeg; got 90 for webp"),
        ({"megabytes": 1, "form": "jpeg", "quality": 101}, "1 to 100, is for jpeg; got 101"),
        ({"megabytes": 1, "crop": 40, "min_side": 41}, "shortest side allowed; got 40 < 41"),
        ({"megabytes": 1, "crop": 0}, "got 0 < 1"),
        ({"megabytes": 1, "crop": 40, "form": "original"}, "cannot be cropped; got crop 40"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        Packing(**options)


def test_folders_that_cannot_be_packed(folder, tmp_path):
    with pytest.raises(DataError, match=r"none fits into held_out; got 0\.01 mega.*more megabytes"):
        pack(folder, tmp_path / "a", Packing(megabytes=0.01))
    assert not (tmp_path / "a").exists()
    save(tmp_path / "one" / "a.png", torch.zeros(3, 9, 9, dtype=torch.uint8))
    with pytest.raises(DataError, match="another to hold out are needed; got 1"):
        pack(tmp_path / "one", tmp_path / "a", Packing(megabytes=1))
    for name in ("b.png", "b.bmp", "c.png"):
        save(tmp_path / "one" / name, torch.zeros(3, 9, 9, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"got b\.\w+ and b\.\w+, both as train/b\.webp"):
        pack(tmp_path / "one", tmp_path / "a", Packing(megabytes=1))


def test_what_webp_cannot_hold(tmp_path):
    for name in "ab":
        save(tmp_path / "wide" / f"{name}.png", torch.zeros(3, 2, 16384, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"stored as webp; got 16384 x 2 .*; at .*b\.png.*--crop"):
        pack(tmp_path / "wide", tmp_path / "a", Packing(megabytes=1))

    assert pack(tmp_path / "wide", tmp_path / "a", Packing(megabytes=1, crop=999)).size < 1e6


def test_bad_pictures(folder, tmp_path, capsys):
    """One whose header cannot be read, one that is cut short."""
    for source in sorted(folder.rglob("*.png")):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / source.name).write_bytes(source.read_bytes())
    (tmp_path / "in" / "00.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"00\.png"):
        pack(tmp_path / "in", tmp_path / "a", Packing(megabytes=10))
    short = tmp_path / "in" / "01.png"
    short.write_bytes(short.read_bytes()[:9000])
    out = ("--out", str(tmp_path / "a"), "--megabytes", "10")
    assert main([str(tmp_path / "in"), *out]) == 2
    assert main([str(tmp_path / "in"), *out, "--skip-bad"]) == 0

    assert re.findall(r"^skipped (\S+): ", capsys.readouterr().err, re.MULTILINE) == [
        "00.png",
        "01.png",
    ]
    assert len(everything(packed_images(tmp_path / "a"))) == 7


def test_the_command_line(folder, tmp_path, capsys):
    options = "--megabytes 0.3 --format jpeg --quality 90 --crop 64 --min-side 50 --seed 4"
    assert main([str(folder), "--out", str(tmp_path / "a.zip"), *options.split()]) == 0
    written = (tmp_path / "a.zip").read_bytes()
    facts = manifest(tmp_path / "a.zip")
    settings = {
        "megabytes": 0.3,
        "form": "jpeg",
        "quality": 90,
        "crop": 64,
        "min_side": 50,
        "seed": 4,
    }
    pack(folder, tmp_path / "b.zip", Packing(**settings))

    assert written == (tmp_path / "b.zip").read_bytes()
    assert {key: facts[key] for key in settings} == settings
    assert facts["folder"] == folder.name
    line = capsys.readouterr().out
    assert re.fullmatch(
        r".*a\.zip: train: \d+ pieces \(\d\.\d\d megapixels\), held_out: \d+ pieces "
        r"\(\d\.\d\d megapixels\), 0\.\d\d MB\n",
        line,
    )


def test_any_zip_tool_opens_it(sound, tmp_path):
    with zipfile.ZipFile(sound) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
        for piece in manifest(sound)["pieces"]:
            Image.open(io.BytesIO(archive.read(piece["file"]))).verify()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"train", "held_out", "manifest.json"}


def test_the_flags(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))

    assert flags - {"--out", "--skip-bad", "--help"} == {
        "--megabytes",
        "--format",
        "--quality",
        "--crop",
        "--min-side",
        "--seed",
    }
    assert tool.QUALITY == 95
