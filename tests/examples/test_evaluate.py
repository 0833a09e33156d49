"""Scores from the command line: the metrics' own, per set and per picture, and the field's."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.sr_trilevel.data import builtin_images
from examples.sr_trilevel.evaluate import PROTOCOLS, main
from examples.sr_trilevel.imaging import bicubic, read_folder
from examples.sr_trilevel.metrics import Protocol, score
from examples.sr_trilevel.networks import load_network
from examples.sr_trilevel.records import RESULTS
from examples.sr_trilevel.teachers import BSRN


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """Two sets of crops of photographs, one of them gray."""
    root = tmp_path_factory.mktemp("sets")
    for name, pictures in {"one": ["coffee", "chelsea"], "two": ["rocket"]}.items():
        (root / name).mkdir()
        for picture in pictures:
            pixels = builtin_images()[picture][:, 100:196, 100:220]
            image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
            image = image.convert("L") if picture == "chelsea" else image
            image.save(root / name / f"{picture}.png")
    return root


def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--device", "cpu"])


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_scores_are_those_of_the_metrics(sets, tmp_path, capsys, protocol):
    out = tmp_path / "scores.json"
    folders = [sets / "one", sets / "two"]
    assert run("bicubic", "--sets", *folders, "--protocol", protocol, "--json", out) == 0

    lines = capsys.readouterr().out.splitlines()
    facts = json.loads(out.read_text())
    assert lines.pop(0) == "bicubic x4, 0 parameters"
    assert {key: facts[key] for key in ("network", "scale", "params", "macs_256x256")} == {
        "network": "bicubic",
        "scale": 4,
        "params": 0,
        "macs_256x256": None,
    }
    for folder, entry in zip(folders, facts["sets"], strict=True):
        images, _ = read_folder(folder, keep_gray=True)
        expected = score(bicubic(4), images, protocol=PROTOCOLS[protocol])
        assert lines.pop(0) == f"{folder.name}: {expected}"
        assert (entry["name"], entry["psnr"], entry["ssim"]) == (
            folder.name,
            expected.psnr,
            expected.ssim,
        )
        assert entry["protocol"] == PROTOCOLS[protocol].line(4)
        for one, figures in zip(expected.per_image, entry["images"], strict=True):
            assert figures == {"name": one.name, "psnr": one.psnr, "ssim": one.ssim}
            line = rf"  {re.escape(one.name)} +{one.psnr:.3f} dB  {one.ssim:.4f}"
            assert re.fullmatch(line, lines.pop(0))
    assert lines == []


def test_protocols_differ(sets, tmp_path):
    """Each option changes the score; the gray picture is its own luma."""
    scores = set()
    for protocol in PROTOCOLS:
        run("bicubic", "--sets", sets / "one", "--protocol", protocol, "--json", tmp_path / "s")
        scores.add(json.loads((tmp_path / "s").read_text())["sets"][0]["psnr"])

    assert len(scores) == len(PROTOCOLS) == 3
    assert PROTOCOLS["default"] == Protocol()


def test_a_network_with_weights(sets, tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(BSRN(16, 1, 3).state_dict(), tmp_path / "w.pth")
    assert run(tmp_path / "w.pth", "--sets", sets / "two", "--json", tmp_path / "s.json") == 0
    network = load_network(tmp_path / "w.pth")
    images, _ = read_folder(sets / "two")
    facts = json.loads((tmp_path / "s.json").read_text())

    assert facts["sets"][0]["psnr"] == score(network, images, scale=3).psnr
    assert (facts["scale"], facts["params"]) == (3, network.params)
    assert facts["macs_256x256"] == network.macs
    assert "x3, PSNR on Y" in capsys.readouterr().out


def test_equal_pictures_have_no_number(tmp_path):
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (48, 48), (9, 9, 9)).save(tmp_path / "flat" / "a.png")
    assert run("bicubic", "--sets", tmp_path / "flat", "--json", tmp_path / "s") == 0

    (entry,) = json.loads((tmp_path / "s").read_text())["sets"]
    assert (entry["psnr"], entry["images"][0]["psnr"], entry["ssim"]) == (None, None, 1)


def test_what_cannot_be_scored(sets, tmp_path, capsys):
    def error(*arguments: object) -> str:
        assert run("bicubic", "--sets", *arguments) == 2
        return capsys.readouterr().err

    assert re.search(r"from a folder; got no such folder; at .*none", error(tmp_path / "none"))
    # All folders are looked at before any is scored.
    assert run("bicubic", "--sets", sets / "one", tmp_path / "none") == 2
    assert "dB" not in capsys.readouterr().out

    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.new("RGB", (16, 48)).save(folder / "small.png")
    assert re.search(r"at least 11 x 11 .*; at .*mixed.small\.png", error(folder))
    (folder / "small.png").write_bytes(b"no picture")
    Image.new("RGB", (48, 48)).save(folder / "sound.png")
    assert re.search(r"cannot be read.*small\.png", error(folder))
    assert run("bicubic", "--sets", folder, "--skip-bad") == 0
    captured = capsys.readouterr()
    assert "over 1 image" in captured.out
    assert captured.err.startswith("skipped small.png: ")


def test_the_flags(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))

    assert flags == {"--help", "--sets", "--protocol", "--json", "--skip-bad", "--device"}


@pytest.mark.parametrize(
    ("file", "protocol", "expected"),
    [
        ("bicubic.json", "PSNR on Y (BT.601 studio range, float)", (28.43, 26.09)),
        ("luma/bicubic.json", "LR by MATLAB bicubic of uint8 Y", (28.42, 26.00)),
        ("net_g_BSRN_x4.json", "PSNR on Y (BT.601 studio range, float)", (32.35, 28.74)),
    ],
)
def test_scores_that_were_put_down_are_those_of_the_field(file, protocol, expected):
    """Where no pictures are at hand to take them again."""
    sets = json.loads((RESULTS.with_name("evaluate") / file).read_text())["sets"]
    assert [entry["name"] for entry in sets] == ["Set5", "Set14"]
    assert [entry["psnr"] for entry in sets] == [pytest.approx(e, abs=0.0051) for e in expected]
    assert all(protocol in entry["protocol"] for entry in sets)


@pytest.mark.skipif(
    "TRINAS_SR_DATA" not in os.environ, reason="TRINAS_SR_DATA names no folder with benchmark sets"
)
@pytest.mark.parametrize(
    ("network", "protocol", "expected"),
    [
        ("bicubic", "default", (28.43, 26.09)),
        ("bicubic", "luma", (28.42, 26.00)),
        ("net_g_BSRN_x4.pth", "default", (32.35, 28.74)),
    ],
)
def test_published_scores(network, protocol, expected, tmp_path):
    root = Path(os.environ["TRINAS_SR_DATA"])
    where = network if network == "bicubic" else root / "weights" / network
    folders = [root / "benchmark" / name for name in ("Set5", "Set14")]
    options = ("--protocol", protocol, "--json", tmp_path / "s.json")
    assert run(where, "--sets", *folders, *options) == 0

    sets = json.loads((tmp_path / "s.json").read_text())["sets"]
    assert [entry["psnr"] for entry in sets] == [pytest.approx(e, abs=0.0051) for e in expected]
    assert [len(entry["images"]) for entry in sets] == [5, 14]
