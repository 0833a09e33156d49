"""Enlarging files: what is written, in tiles or whole, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from examples.sr_trilevel import enlarge as tool
from examples.sr_trilevel.enlarge import Tiling, main
from examples.sr_trilevel.imaging import imresize, load_image
from examples.sr_trilevel.networks import SRNetwork, load_network
from examples.sr_trilevel.teachers import BSRN
from examples.sr_trilevel.tiles import enlarged
from trinas._core.errors import ConfigError


def picture(path: Path, height: int, width: int, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    picture(tmp_path / "in" / "b.png", 20, 30)
    picture(tmp_path / "in" / "city" / "a.png", 24, 16, seed=1)
    Image.open(tmp_path / "in" / "b.png").convert("L").save(tmp_path / "in" / "gray.bmp")
    return tmp_path / "in"


@pytest.fixture
def weights(tmp_path) -> Path:
    torch.manual_seed(0)
    torch.save(BSRN(16, 1).state_dict(), tmp_path / "bsrn.pth")
    return tmp_path / "bsrn.pth"


def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--device", "cpu"])


def refused(capsys, *arguments: object) -> str:
    assert run(*arguments) == 2
    return capsys.readouterr().err


def local(radius: int) -> SRNetwork:
    torch.manual_seed(0)
    side = 2 * radius + 1
    network = nn.Sequential(nn.Conv2d(3, 12, side, padding=radius), nn.PixelShuffle(2))
    return SRNetwork("local", network, scale=2)


# --- what is written ------------------------------------------------------------------------------


def test_a_picture_becomes_a_png_of_the_same_stem(folder, tmp_path, capsys):
    assert run("bicubic", folder / "b.png", "--out", tmp_path / "deep" / "out") == 0
    (written,) = (tmp_path / "deep" / "out").iterdir()

    assert written.name == "b.png"
    with Image.open(written) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (120, 80))
    assert torch.equal(load_image(written), imresize(load_image(folder / "b.png"), 4))
    assert capsys.readouterr().out.splitlines() == [
        "bicubic x4, 0 parameters; on cpu",
        f"b.png: 30 x 20, whole -> {written}",
    ]


def test_a_folder_keeps_its_shape(folder, tmp_path):
    assert run("bicubic-x2", folder, "--out", tmp_path / "out") == 0
    written = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())

    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "b.png",
        "city/a.png",
        "gray.png",
    ]
    for path, source in zip(written, ("b.png", "city/a.png", "gray.bmp")):
        assert torch.equal(load_image(path), imresize(load_image(folder / source), 2))


def test_a_network_gives_what_it_gives(folder, weights, tmp_path):
    assert run(weights, folder, "--out", tmp_path / "out") == 0
    expected = enlarged(load_network(weights), load_image(folder / "b.png"), scale=4)

    assert torch.equal(load_image(tmp_path / "out" / "b.png"), expected)


def test_what_was_written_before_is_replaced(folder, tmp_path):
    for word, width in (("bicubic", 120), ("bicubic-x3", 90)):
        assert run(word, folder / "b.png", "--out", tmp_path / "out") == 0
        assert load_image(tmp_path / "out" / "b.png").shape[-1] == width


# --- tiles ----------------------------------------------------------------------------------------


def test_tiles_give_the_whole_picture(tmp_path, capsys):
    picture(tmp_path / "wide.png", 30, 90)
    for tile in (0, 16):
        assert (
            run("bicubic", tmp_path / "wide.png", "--out", tmp_path / str(tile), "--tile", tile)
            == 0
        )

    told = [
        re.findall(", (whole|in tiles) ->", line) for line in capsys.readouterr().out.splitlines()
    ]
    assert told == [[], ["whole"], [], ["in tiles"]]
    assert torch.equal(*(load_image(tmp_path / name / "wide.png") for name in ("0", "16")))


def test_a_network_that_sees_all_is_not_cut(weights, tmp_path, capsys):
    source = picture(tmp_path / "wide.png", 30, 120)
    error = refused(capsys, weights, source, "--out", tmp_path / "o", "--tile", 64)

    assert "tiles give the result of the whole picture; got BSRN, whose output depends" in error
    assert "--tile 0" in error
    assert "--tile-anyway" in error
    assert not (tmp_path / "o").exists()

    for out, *options in (("whole", 0), ("long", 120), ("cut", 64, "--tile-anyway")):
        assert run(weights, source, "--out", tmp_path / out, "--tile", *options) == 0
    whole, long, cut = (load_image(tmp_path / n / "wide.png") for n in ("whole", "long", "cut"))
    assert torch.equal(whole, long)
    assert not torch.equal(whole, cut)
    network, lr = load_network(weights), load_image(source)
    assert torch.equal(cut, enlarged(network, lr, scale=4, tile=64, overlap=32))


SIZES = {"a": (100, 20), "b": (16, 40)}


def test_the_overlap_is_what_the_network_needs():
    assert Tiling.of(local(3), SIZES, tile=50) == Tiling(50, 6)
    assert Tiling.of(local(3), SIZES, tile=50, overlap=9) == Tiling(50, 9)
    assert Tiling.of(local(3), SIZES, tile=50, overlap=2, anyway=True) == Tiling(50, 2)
    assert Tiling.of(local(3), SIZES, tile=50, anyway=True) == Tiling(50, 6)
    with pytest.raises(ConfigError, match="tiles of local overlap by 6 pixels or more; got 5"):
        Tiling.of(local(3), SIZES, tile=50, overlap=5)
    with pytest.raises(ConfigError, match="longer than they overlap; got tile 6, overlap 6"):
        Tiling.of(local(3), SIZES, tile=6)
    for tile, overlap in ((-1, 0), (8, -1)):
        with pytest.raises(ConfigError, match=f"from 0; got tile {tile}, overlap {overlap}"):
            Tiling.of(local(3), SIZES, tile=tile, overlap=overlap)


def test_what_is_not_cut_is_not_measured(monkeypatch):
    monkeypatch.setattr(tool, "reach", None)

    assert Tiling.of(local(3), SIZES, tile=100) == Tiling(None)
    assert Tiling.of(local(3), SIZES, tile=0) == Tiling(None)
    assert Tiling.of(local(3), SIZES) == Tiling(None)


# --- what is refused ------------------------------------------------------------------------------


def test_a_bad_picture_ends_it_before_it_begins(folder, tmp_path, capsys):
    (folder / "c.jpg").write_bytes(b"no picture")
    error = refused(capsys, "bicubic", folder, "--out", tmp_path / "out")

    assert re.search(r"cannot be read; .*; at .*c\.jpg", error)
    assert not (tmp_path / "out").exists()


def test_bad_pictures_are_skipped_on_demand(folder, weights, tmp_path, capsys):
    """One whose header cannot be read, one that is cut short, one too small for the network."""
    (folder / "c.jpg").write_bytes(b"no picture")
    sound = picture(folder / "short.png", 40, 40).read_bytes()
    (folder / "short.png").write_bytes(sound[: len(sound) // 2])
    picture(folder / "tiny.png", 14, 40)
    assert run(weights, folder, "--out", tmp_path / "out", "--skip-bad") == 0

    error = capsys.readouterr().err
    assert re.findall(r"^skipped (\S+): ", error, re.MULTILINE) == [
        "c.jpg",
        "short.png",
        "tiny.png",
    ]
    assert re.search(r"both sides at least 15; got .*; at .*tiny\.png", error)
    assert {p.name for p in (tmp_path / "out").rglob("*.png")} == {"b.png", "a.png", "gray.png"}

    (folder / "c.jpg").unlink()
    assert re.search(r"at .*short\.png", refused(capsys, weights, folder, "--out", tmp_path / "o"))


def test_nothing_usable_is_an_error_all_the_same(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert "holds no pictures" in refused(capsys, "bicubic", tmp_path / "in", "--out", tmp_path)
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    error = refused(capsys, "bicubic", tmp_path / "in", "--out", tmp_path / "o", "--skip-bad")
    assert "no usable picture; got 1" in error


def test_no_picture_is_lost(folder, tmp_path, capsys):
    error = refused(capsys, "bicubic", folder, "--out", folder)
    assert re.search(r"no picture is overwritten; got b\.png; at .*b\.png", error)

    (tmp_path / "link").symlink_to(folder)
    assert "overwritten" in refused(capsys, "bicubic", folder, "--out", tmp_path / "link")

    picture(folder / "b.bmp", 20, 20)
    error = refused(capsys, "bicubic", folder, "--out", tmp_path / "out")
    assert "got b.bmp and b.png, both to be b.png" in error


def test_missing_things(folder, tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    assert "no such file or folder" in refused(capsys, tmp_path / "none", folder, *out)
    assert "got no such thing" in refused(capsys, "bicubic", tmp_path / "none", *out)
    assert main(["bicubic", str(folder), "--out", str(tmp_path), "--device", "tpu9"]) == 2
    assert "torch can use here; got tpu9" in capsys.readouterr().err


def test_a_picture_that_does_not_fit_in_memory(folder, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tool, "enlarged", full)
    error = refused(capsys, "bicubic", folder / "b.png", "--out", tmp_path / "out")
    assert re.search(r"memory there is; got 30 x 20 pixels; at .*b\.png\. Use smaller tiles", error)


def test_ctrl_c(folder, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "enlarged", stop)
    assert run("bicubic", folder, "--out", tmp_path / "out") == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_flags(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))

    assert flags == {
        "--help",
        "--out",
        "--tile",
        "--overlap",
        "--tile-anyway",
        "--skip-bad",
        "--device",
    }
