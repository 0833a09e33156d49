"""The published networks: names, shapes, ranges, refusals, and their scores where weights lie."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from examples.sr_trilevel.imaging import read_folder
from examples.sr_trilevel.metrics import score
from examples.sr_trilevel.teachers import BSRN, RFDN, RLFN, RRDBNet, Teacher, load_teacher
from trinas._core.errors import CheckpointError, ShapeError

LR = torch.rand(3, 3, 18, 21, generator=torch.Generator().manual_seed(0))


GOLDEN = {
    "BSRN": (0.0629121454331, 1.04710081589, -0.239145042766),
    "RFDN": (0.101851522831, 1.00542190047, -1.29983631309),
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
    return {
        "BSRN": fill(BSRN(32, 2, 3)),
        "RFDN": fill(RFDN(16, 3, 2)),
        "RLFN": fill(RLFN(12, 2, 2)),
        "RRDBNet": fill(RRDBNet(6, 2, 4)),
    }


@pytest.mark.parametrize("name", ["BSRN", "RFDN", "RLFN", "RRDBNet"])
@pytest.mark.parametrize("wrap", [None, "params", "params_ema", "module."])
def test_loaded_by_its_names_whatever_wraps_them(networks, tmp_path, name, wrap):
    state = networks[name].state_dict()
    if wrap == "module.":
        state = {wrap + key: value for key, value in state.items()}
    torch.save({wrap: state} if wrap in ("params", "params_ema") else state, tmp_path / "w.pth")

    teacher = load_teacher(tmp_path / "w.pth")

    white = {"BSRN": 1, "RFDN": 255, "RLFN": 255, "RRDBNet": 1}[name]
    scale = {"BSRN": 3, "RFDN": 2, "RLFN": 2, "RRDBNet": 4}[name]
    assert (teacher.name, teacher.scale) == (name, scale)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert teacher(LR).shape == (3, 3, 18 * teacher.scale, 21 * teacher.scale)
    torch.testing.assert_close(teacher(LR), networks[name](LR * white).detach() / white)


def test_published_sizes():
    assert sum(p.numel() for p in BSRN().parameters()) == 352_400
    assert sum(p.numel() for p in RFDN().parameters()) == 433_448
    assert sum(p.numel() for p in RLFN().parameters()) == 543_740
    assert sum(p.numel() for p in RRDBNet().parameters()) == 16_697_987


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
        r"at .*w\.pth\. Known are BSRN, RFDN, RLFN and RRDBNet\.",
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

    for name, content in {
        "hello.pth": b"hello",
        "accounts.pth": b"root:x:0:0:root:/root:/bin/sh\n",
        "page.pth": b"<!DOCTYPE html><html></html>",
        "nothing.pth": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    for name in ("text", "half", "hello", "accounts", "page", "nothing"):
        file = tmp_path / f"{name}.pth"
        with pytest.raises(
            CheckpointError, match=rf"one that torch.save wrote.*; at .*{name}\.pth"
        ):
            load_teacher(file)
    with pytest.raises(CheckpointError, match=r"cannot be read; got .*; at .*absent\.pth"):
        load_teacher(tmp_path / "absent.pth")
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


def test_least_side_is_the_networks(networks, tmp_path):
    """RRDBNet has no attention that pools, so that a pixel is enough for it."""
    torch.save(networks["RRDBNet"].state_dict(), tmp_path / "w.pth")

    assert load_teacher(tmp_path / "w.pth")(LR[:, :, :1, :1]).shape == (3, 3, 4, 4)
    picky = Teacher("RRDBNet", networks["RRDBNet"], scale=4, input_range=1.0, least_side=17)
    assert picky(LR[:, :, :17, :17]).shape == (3, 3, 68, 68)
    with pytest.raises(ShapeError, match=r"both sides at least 17; got \(3, 3, 16, 21\)"):
        picky(LR[:, :, :16])


OUTER = {
    "first": {
        "conv_first": "model.0",
        "conv_body": "model.1.sub.{blocks}",
        "conv_up1": "model.3",
        "conv_up2": "model.6",
        "conv_hr": "model.8",
        "conv_last": "model.10",
    },
    "later": {
        "conv_first": "conv_first",
        "conv_body": "trunk_conv",
        "conv_up1": "upconv1",
        "conv_up2": "upconv2",
        "conv_hr": "HRconv",
        "conv_last": "conv_last",
    },
    "basicsr": {},
}
INNER = {
    "first": "model.1.sub.{i}.RDB{j}.conv{k}.0",
    "later": "RRDB_trunk.{i}.RDB{j}.conv{k}",
    "basicsr": "body.{i}.rdb{j}.conv{k}",
}


def in_layout(network: RRDBNet, layout: str) -> dict[str, torch.Tensor]:
    """An RRDBNet's tensors under the names of a layout, written from what a file would have."""
    blocks = len(network.body)
    own = network.state_dict()
    state = {}
    for kind in ("weight", "bias"):
        for name in OUTER["first"]:
            there = OUTER[layout].get(name, name).format(blocks=blocks)
            state[f"{there}.{kind}"] = own[f"{name}.{kind}"]
        for i in range(blocks):
            for j in (1, 2, 3):
                for k in (1, 2, 3, 4, 5):
                    there = INNER[layout].format(i=i, j=j, k=k)
                    state[f"{there}.{kind}"] = own[f"body.{i}.rdb{j}.conv{k}.{kind}"]
    assert len(state) == len(own)
    return state


@pytest.mark.parametrize(("channels", "blocks", "growth"), [(6, 2, 4), (2, 23, 1), (3, 1, 5)])
@pytest.mark.parametrize("layout", ["first", "later", "basicsr"])
def test_rrdbnet_in_all_layouts_of_names(tmp_path, layout, channels, blocks, growth):
    """The first files were also written in PyTorch's old format, later ones wrapped."""
    network = fill(RRDBNet(channels, blocks, growth))
    state = in_layout(network, layout)
    torch.save(
        {"params_ema": state} if layout == "basicsr" else state,
        tmp_path / "w.pth",
        _use_new_zipfile_serialization=layout != "first",
    )

    teacher = load_teacher(tmp_path / "w.pth")

    assert teacher.name == "RRDBNet"
    with torch.no_grad():
        torch.testing.assert_close(teacher(LR), network(LR), rtol=0, atol=0)


def test_names_of_the_published_file():
    """Some of the names in RRDB_PSNR_x4.pth, of 23 blocks, as its two layouts have them."""
    network = RRDBNet(1, 23, 1)
    first, later = in_layout(network, "first"), in_layout(network, "later")

    assert len(first) == len(later) == 2 * (23 * 15 + 6)
    assert {"model.0.weight", "model.1.sub.22.RDB3.conv5.0.bias", "model.10.bias"} <= first.keys()
    assert {"model.1.sub.23.weight", "model.3.weight", "model.6.bias"} <= first.keys()
    assert {"RRDB_trunk.22.RDB3.conv5.weight", "trunk_conv.bias", "HRconv.bias"} <= later.keys()


def test_rrdbnet_is_what_its_paper_says():
    """The same from the tensors alone, by the names of the first layout, one layer at a time."""
    network = fill(RRDBNet(5, 2, 3)).double()
    state = in_layout(network, "first")
    lr = LR[:1].double()

    def conv(name, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), state[f"{name}.weight"], state[f"{name}.bias"])

    def leaky(x):
        return torch.where(x > 0, x, x / 5)

    def dense_block(name, x):
        x1 = leaky(conv(f"{name}.conv1.0", x))
        x2 = leaky(conv(f"{name}.conv2.0", torch.cat([x, x1], 1)))
        x3 = leaky(conv(f"{name}.conv3.0", torch.cat([x, x1, x2], 1)))
        x4 = leaky(conv(f"{name}.conv4.0", torch.cat([x, x1, x2, x3], 1)))
        return conv(f"{name}.conv5.0", torch.cat([x, x1, x2, x3, x4], 1)) / 5 + x

    def twice(x):
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)

    shallow = x = conv("model.0", lr)
    for block in ("model.1.sub.0", "model.1.sub.1"):
        y = x
        for part in ("RDB1", "RDB2", "RDB3"):
            y = dense_block(f"{block}.{part}", y)
        x = y / 5 + x
    x = shallow + conv("model.1.sub.2", x)
    x = leaky(conv("model.3", twice(x)))
    x = leaky(conv("model.6", twice(x)))
    expected = conv("model.10", leaky(conv("model.8", x)))

    with torch.no_grad():
        torch.testing.assert_close(network(lr), expected, rtol=1e-12, atol=1e-12)
    assert expected.std() > 0.01  # the fixture's weights do not give a flat picture


@pytest.mark.parametrize("layout", ["first", "later", "basicsr"])
def test_rrdbnet_that_does_not_fit(tmp_path, layout):
    """A tensor short; and the x2 network of Real-ESRGAN, which shuffles pixels to 12 channels."""
    state = in_layout(RRDBNet(4, 1, 2), layout)
    name = OUTER[layout].get("conv_hr", "conv_hr")
    torch.save({k: v for k, v in state.items() if k != f"{name}.bias"}, tmp_path / "less.pth")
    name = OUTER[layout].get("conv_first", "conv_first")
    torch.save({**state, f"{name}.weight": torch.zeros(4, 12, 3, 3)}, tmp_path / "x2.pth")

    with pytest.raises(CheckpointError, match=r"(?s)look like RRDBNet.*Missing.*conv_hr\.bias"):
        load_teacher(tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"(?s)look like RRDBNet.*conv_first.*4, 12, 3, 3"):
        load_teacher(tmp_path / "x2.pth")


@pytest.mark.skipif(
    "TRINAS_SR_DATA" not in os.environ, reason="TRINAS_SR_DATA names no folder with weights"
)
@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("net_g_BSRN_x4.pth", "Set5", 32.35),
        ("net_g_BSRN_x4.pth", "Set14", 28.74),
        ("RFDN_AIM.pth", "Set5", 32.16),
        ("RFDN_AIM.pth", "Set14", 28.65),
        ("rlfn_x4.pth", "Set5", 32.24),
        ("rlfn_x4.pth", "Set14", 28.62),
    ],
)
def test_published_scores(file, name, expected):
    root = Path(os.environ["TRINAS_SR_DATA"])
    images, _ = read_folder(root / "benchmark" / name)

    result = score(load_teacher(root / "weights" / file), images)

    assert result.psnr == pytest.approx(expected, abs=0.0051)
