"""ONNX files: they compute what torch computes, at any size, or are not written."""

from __future__ import annotations

import logging
import re
import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import trinas as tn
from examples.sr_trilevel import export as tool
from examples.sr_trilevel.export import SIZES, TOLERANCE, differences_of, export, main
from examples.sr_trilevel.networks import SRNetwork, load_network
from examples.sr_trilevel.space import backbone_b
from examples.sr_trilevel.teachers import BSRN
from trinas._core.errors import CheckpointError, ConfigError


def found() -> SRNetwork:
    """A small network of the search space."""
    torch.manual_seed(0)
    graph = tn.lower(backbone_b(16, 2, slots=2, cells=2, convs=1), (3, 32, 32))
    return SRNetwork("found", tn.build(graph, tn.sample(graph, 3)), scale=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "found.onnx"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        differences = export(found(), path)
    assert [str(warning.message) for warning in heard] == []
    return path, differences


def test_the_file_computes_the_same_at_any_size(exported):
    path, differences = exported
    others = [(1, 16, 16), (3, 17, 61), (1, 128, 24)]

    assert len(differences) == len(SIZES)
    assert 0 < max(differences) < TOLERANCE / 20
    assert differences == tuple(differences_of(found(), path, SIZES))
    assert max(differences_of(found(), path, others)) < TOLERANCE / 20
    assert [p.name for p in path.parent.iterdir()] == ["found.onnx"]  # weights are inside


def test_the_file_is_sound_and_its_sides_are_free(exported):
    model = onnx.load(exported[0])
    onnx.checker.check_model(model, full_check=True)
    (lr,), (sr,) = model.graph.input, model.graph.output
    shapes = [
        [d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim] for port in (lr, sr)
    ]

    assert (lr.name, sr.name) == ("lr", "sr")
    assert shapes == [
        ["batch", 3, "height", "width"],
        ["batch", 3, "2*height", "2*width"],
    ]


def test_another_runtime_agrees(exported):
    """ONNX's own definition of its operations, slow and in numpy."""
    lr = torch.rand(1, 3, 19, 23, generator=torch.Generator().manual_seed(5))
    (output,) = ReferenceEvaluator(str(exported[0])).run(["sr"], {"lr": lr.numpy()})

    np.testing.assert_allclose(output, found()(lr).numpy(), atol=1e-5)


def test_another_networks_file_differs(exported):
    """The check can fail: one weight is moved a little."""
    network = found()
    next(network.parameters())[0, 0, 0, 0] += 0.05

    assert max(differences_of(network, exported[0], SIZES)) > TOLERANCE


def test_a_file_that_differs_is_not_written(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the one before")
    with pytest.raises(CheckpointError, match=r"within 1e-12 .*; got a difference of .*; at .*net"):
        export(found(), path, tolerance=1e-12)

    assert path.read_bytes() == b"the one before"
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_no_number_is_a_difference(tmp_path):
    network = found()
    next(network.parameters()).fill_(torch.nan)

    with pytest.raises(CheckpointError, match="got a difference of nan"):
        export(network, tmp_path / "net.onnx")


def test_published_weights_from_the_command_line(tmp_path, capsys):
    """BSRN pools, divides into fields and interpolates: sizes enter its graph in many ways."""
    torch.manual_seed(0)
    torch.save(BSRN(16, 1).state_dict(), tmp_path / "w.pth")
    path = tmp_path / "deep" / "net.onnx"
    level = logging.getLogger("torch.onnx._internal.exporter._registration").level
    assert main([str(tmp_path / "w.pth"), "--out", str(path)]) == 0

    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert lines[0].startswith("BSRN x4, ")
    for line, (batch, height, width) in zip(lines[1:], SIZES):
        shape = f"{batch} x 3 x {height} x {width}"
        assert re.fullmatch(rf"{shape}: differs from torch by at most \d\.\de-\d\d", line)
    assert re.fullmatch(r".*net\.onnx: 0\.\d\d MB, within 1e-04 of torch", lines[-1])
    network = load_network(tmp_path / "w.pth")
    assert max(differences_of(network, path, [(1, 16, 33), (2, 70, 71)])) < TOLERANCE
    assert logging.getLogger("torch.onnx._internal.exporter._registration").level == level


def test_what_is_refused(tmp_path, capsys, monkeypatch):
    assert main(["bicubic", "--out", str(tmp_path / "net.onnx")]) == 2
    assert "what is exported has weights; got bicubic" in capsys.readouterr().err
    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "net.onnx")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"export takes onnx, .*; got .*onnxscript.*trinas\[onnx"):
        tool.export(found(), tmp_path / "net.onnx")


def test_the_flags(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])

    assert set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) == {"--help", "--out"}
