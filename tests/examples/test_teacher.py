"""The published networks: names, shapes, ranges, refusals, and their scores where weights lie."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from examples.sr_trilevel.imaging import read_folder
from examples.sr_trilevel.metrics import score
from examples.sr_trilevel.teacher import BSRN, RLFN, Teacher, load_teacher
from trinas._core.errors import CheckpointError, ShapeError

LR = torch.rand(3, 3, 18, 21, generator=torch.Generator().manual_seed(0))


GOLDEN = {
    "BSRN": (0.0629121454331, 1.04710081589, -0.239145042766),
    "RLFN": (0.103595076096, 1.06292893678, -1.30294742288),
}


def fill(network):
    """Weights by a formula, the same on every machine and for every version."""
    with torch.no_grad():
        for parameter in network.parameters():
            values = torch.arange(parameter.numel(), dtype=torch.float64)
            fan_in = max(1, parameter[0].numel())
            values = (values * 0.7345 + parameter.numel() % 97).sin() * math.sqrt(2 / fan_in)
            parameter.copy_(values.reshape(parameter.shape))
    return network


@pytest.fixture
def networks():
    return {"BSRN": fill(BSRN(32, 2, 3)), "RLFN": fill(RLFN(12, 2, 2))}


@pytest.mark.parametrize("name", ["BSRN", "RLFN"])
@pytest.mark.parametrize("wrap", [None, "params", "params_ema", "module."])
def test_loaded_by_its_names_whatever_wraps_them(networks, tmp_path, name, wrap):
    state = networks[name].state_dict()
    if wrap == "module.":
        state = {wrap + key: value for key, value in state.items()}
    torch.save({wrap: state} if wrap in ("params", "params_ema") else state, tmp_path / "w.pth")

    teacher = load_teacher(tmp_path / "w.pth")

    white = {"BSRN": 1, "RLFN": 255}[name]
    assert (teacher.name, teacher.scale) == (name, {"BSRN": 3, "RLFN": 2}[name])
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert teacher(LR).shape == (3, 3, 18 * teacher.scale, 21 * teacher.scale)
    torch.testing.assert_close(teacher(LR), networks[name](LR * white).detach() / white)


def test_published_sizes():
    assert sum(p.numel() for p in BSRN().parameters()) == 352_400
    assert sum(p.numel() for p in RLFN().parameters()) == 543_740


def test_outputs_are_those_of_the_definitions_that_were_scored(networks):
    """Golden values, made when the released weights gave their published scores."""
    for name, expected in GOLDEN.items():
        with torch.no_grad():
            output = networks[name].double()(LR.double())
        actual = (output.mean().item(), output.std().item(), output[1, 2, 10, 20].item())

        assert actual == pytest.approx(expected, rel=1e-8)


def test_unknown_weights(tmp_path):
    torch.save({f"layer.{i}": torch.zeros(1) for i in range(9)}, tmp_path / "w.pth")

    with pytest.raises(
        CheckpointError,
        match=r"no network known here; got 9 tensors named layer\.0, .*layer\.5, \.\.\.; "
        r"at .*w\.pth\. Known are BSRN and RLFN\.",
    ):
        load_teacher(tmp_path / "w.pth")


def test_weights_that_do_not_fit(networks, tmp_path):
    state = dict(networks["RLFN"].state_dict())
    del state["block_2.c5.bias"]
    torch.save(state, tmp_path / "less.pth")
    torch.save(
        {"conv_1.weight": 3, "block_1.c1_r.weight": 0, "block_1.esa.conv4.weight": 0},
        tmp_path / "n.pth",
    )

    with pytest.raises(CheckpointError, match=r"(?s)look like RLFN.*Missing.*block_2\.c5\.bias"):
        load_teacher(tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match="look like RLFN but do not fit it"):
        load_teacher(tmp_path / "n.pth")


def test_unreadable_files(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"w": torch.zeros(99)}, tmp_path / "half.pth")
    data = (tmp_path / "half.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(data[: len(data) // 2])

    for name in ("text.pth", "half.pth", "absent.pth"):
        with pytest.raises(CheckpointError, match=rf"cannot be read; got \w+: .*; at .*{name}"):
            load_teacher(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"maps names to tensors; got list; at .*list\.pth"):
        load_teacher(tmp_path / "list.pth")


def test_pictures_that_do_not_fit(networks):
    teacher = Teacher("BSRN", networks["BSRN"], scale=3, input_range=1.0)

    assert teacher(LR[:, :, :15, :15]).shape == (3, 3, 45, 45)
    for bad in (LR[:, :, :14], LR[:, :1], LR[0]):
        with pytest.raises(
            ShapeError, match=r"BSRN takes \[N, 3, h, w\] with both sides at least 15"
        ):
            teacher(bad)


@pytest.mark.skipif(
    "TRINAS_SR_DATA" not in os.environ, reason="TRINAS_SR_DATA names no folder with weights"
)
@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("net_g_BSRN_x4.pth", "Set5", 32.35),
        ("net_g_BSRN_x4.pth", "Set14", 28.74),
        ("rlfn_x4.pth", "Set5", 32.24),
        ("rlfn_x4.pth", "Set14", 28.62),
    ],
)
def test_published_scores(file, name, expected):
    root = Path(os.environ["TRINAS_SR_DATA"])
    images, _ = read_folder(root / "benchmark" / name)

    result = score(load_teacher(root / "weights" / file), images)

    assert result.psnr == pytest.approx(expected, abs=0.0051)
