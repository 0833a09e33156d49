"""Features of published classifiers: names, layers, what they are shown, refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from examples.sr_trilevel.data import builtin_images
from examples.sr_trilevel.features import (
    CAFFE,
    TORCHVISION,
    Features,
    Preprocessing,
    load_features,
)
from trinas._core.errors import CheckpointError, ConfigError, ShapeError

PICTURES = torch.rand(2, 3, 37, 50, generator=torch.Generator().manual_seed(0))
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

ESPRESSO = 967
"""Of ImageNet's thousand classes."""

needs_weights = pytest.mark.skipif(
    "TRINAS_SR_DATA" not in os.environ, reason="TRINAS_SR_DATA names no folder with weights"
)


def conv(state, name, n_in, n_out, side):
    state[f"{name}.weight"] = torch.randn(n_out, n_in, side, side) * (2 / (n_in * side**2)) ** 0.5
    state[f"{name}.bias"] = torch.randn(n_out) * 0.1


def vgg19(width=2):
    """A state dict as torchvision has it, with stages of width to 8 * width channels."""
    state, n_in, number = {}, 3, 0
    for factor, convs in ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4)):
        for _ in range(convs):
            conv(state, f"features.{number}", n_in, factor * width, 3)
            n_in, number = factor * width, number + 2
        number += 1
    state["classifier.0.weight"] = torch.zeros(4, 8 * width * 49)
    return state


def squeezenet(width=2):
    """A state dict as torchvision's SqueezeNet 1.0 has it, narrower."""
    state = {}
    conv(state, "features.0", 3, 3 * width, 7)
    n_in = 3 * width
    for number, factor in zip((3, 4, 5, 7, 8, 9, 10, 12), (1, 1, 2, 2, 3, 3, 4, 4)):
        squeeze, expand = factor * width, 2 * factor * width
        conv(state, f"features.{number}.squeeze", n_in, squeeze, 1)
        conv(state, f"features.{number}.expand1x1", squeeze, expand, 1)
        conv(state, f"features.{number}.expand3x3", squeeze, expand + 1, 3)
        n_in = 2 * expand + 1
    conv(state, "classifier.1", n_in, 5, 1)
    return state


@pytest.fixture(params=["VGG19", "SqueezeNet 1.0"])
def known(request, tmp_path):
    """Name, state dict and file of each network."""
    state = {"VGG19": vgg19, "SqueezeNet 1.0": squeezenet}[request.param]()
    torch.save(state, tmp_path / "w.pth")
    return request.param, state, tmp_path / "w.pth"


def unfolded_conv(x, state, name, *, stride=1, padding=0):
    """A convolution as a product of matrices."""
    weight, bias = state[f"{name}.weight"].to(x), state[f"{name}.bias"].to(x)
    side = weight.shape[-1]
    height, width = ((n + 2 * padding - side) // stride + 1 for n in x.shape[-2:])
    columns = F.unfold(x, side, padding=padding, stride=stride)
    product = torch.einsum("ok,nkp->nop", weight.flatten(1), columns) + bias[:, None]
    return product.reshape(len(x), len(weight), height, width)


def halved(x):
    """The largest of each 2 x 2; an odd row or column at the end is left out."""
    x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
    corners = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).amax(0)


def vgg19_by_hand(x, state):
    """The table of the VGG paper: five stages, halved in between, up to conv5_4's output."""
    number, active = 0, lambda x: x
    for stage, convs in enumerate((2, 2, 4, 4, 4)):
        if stage:
            x = halved(x)
            number += 1
        for _ in range(convs):
            x = unfolded_conv(active(x), state, f"features.{number}", padding=1)
            number, active = number + 2, torch.relu
    return x


def pooled_by_three(x):
    """Of windows of 3, two apart; a last one that lies partly outside counts what it has."""
    down, across = (range(0, max(1, side - 1), 2) for side in x.shape[-2:])
    rows = [
        torch.stack([x[..., i : i + 3, j : j + 3].amax((-2, -1)) for j in across], -1) for i in down
    ]
    return torch.stack(rows, -2)


def squeezenet_by_hand(x, state):
    """The table of the SqueezeNet paper, up to the last Fire module's output."""

    def fire(x, number):
        name = f"features.{number}"
        narrow = unfolded_conv(x, state, f"{name}.squeeze").clamp_min(0)
        parts = (
            unfolded_conv(narrow, state, f"{name}.expand1x1"),
            unfolded_conv(narrow, state, f"{name}.expand3x3", padding=1),
        )
        return torch.cat(parts, 1)

    x = pooled_by_three(unfolded_conv(x, state, "features.0", stride=2).clamp_min(0))
    for numbers in ((3, 4, 5), (7, 8, 9, 10)):
        for number in numbers:
            x = fire(x, number).clamp_min(0)
        x = pooled_by_three(x)
    return fire(x, 12)


BY_HAND = {"VGG19": vgg19_by_hand, "SqueezeNet 1.0": squeezenet_by_hand}


@pytest.mark.parametrize("size", [(37, 50), (32, 32), (64, 45)])
def test_features_are_the_papers_before_the_last_activation(known, size):
    name, state, path = known
    pictures = torch.rand(2, 3, *size, dtype=torch.float64)

    features = load_features(path).double()

    expected = BY_HAND[name]((pictures - MEAN.double()) / STD.double(), state)
    assert features.name == name
    # The buffers of mean and deviation come from single precision.
    torch.testing.assert_close(features(pictures), expected, rtol=1e-5, atol=1e-6)
    assert (expected < 0).any()


def test_widths_of_the_published_files(tmp_path):
    """The sizes of torchvision's files, up to the layer that is used."""
    torch.save(vgg19(64), tmp_path / "vgg.pth")
    assert sum(p.numel() for p in load_features(tmp_path / "vgg.pth").parameters()) == 20_024_384


def test_another_layer(known):
    name, state, path = known

    for layer in (0, 7, 12):
        features = load_features(path, layer=layer)
        numbers = {int(key.split(".")[1]) for key in features.state_dict()}
        assert max(numbers) == layer

    first = load_features(path, layer=0)(PICTURES)
    stride, padding = {"VGG19": (1, 1), "SqueezeNet 1.0": (2, 0)}[name]
    expected = unfolded_conv(
        (PICTURES - MEAN) / STD, state, "features.0", stride=stride, padding=padding
    )
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_there_is_not(known):
    name, _, path = known
    for layer in (1, 6 if name != "VGG19" else 4, 35, -1):
        with pytest.raises(
            ConfigError,
            match=rf"a convolution or a Fire module; got {layer}; at {name}, .*w\.pth\. "
            r"Choose one of 0, .*\.",
        ):
            load_features(path, layer=layer)


def test_frozen_and_blind_to_its_mode(known):
    features = load_features(known[2])
    pictures = PICTURES.clone().requires_grad_()

    assert not features.training
    features(pictures).sum().backward()

    assert pictures.grad is not None
    assert pictures.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in features.parameters())
    assert torch.equal(features.train()(PICTURES), features.eval()(PICTURES))


def test_what_the_networks_were_shown():
    """By a network that hands on what it sees."""
    gray = Features("none", nn.Identity(), TORCHVISION)(PICTURES)
    torch.testing.assert_close(gray * STD + MEAN, PICTURES)

    caffe = Features("none", nn.Identity(), CAFFE)(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(caffe[0, :, 0, 0], torch.tensor([255.0 - 104, 255 - 117, 255 - 123]))
    caffe = Features("none", nn.Identity(), CAFFE)(PICTURES)
    torch.testing.assert_close(caffe[:, 2], 255 * PICTURES[:, 0] - 123)  # red comes last


def test_pruned_weights_are_shown_what_caffe_shows(known, tmp_path):
    _, state, path = known
    pruned = {key: F.dropout(t, 0.3) if t.dim() == 4 else t for key, t in state.items()}
    torch.save(pruned, tmp_path / "pruned.pth")
    other = Preprocessing(mean=(0.5, 0.5, 0.5), std=(1, 1, 1))

    assert load_features(path).preprocessing == TORCHVISION
    assert load_features(tmp_path / "pruned.pth").preprocessing == CAFFE
    for file in (path, tmp_path / "pruned.pth"):
        features = load_features(file, preprocessing=other)
        assert features.preprocessing == other
        torch.testing.assert_close(features(PICTURES), features.layers(PICTURES - 0.5))


def test_loaded_from_wrapped_files_and_without_a_classifier(known, tmp_path):
    _, state, path = known
    bare = {f"module.{k}": v for k, v in state.items() if k.startswith("features")}
    torch.save({"state_dict": bare}, tmp_path / "bare.pth")

    assert torch.equal(
        load_features(tmp_path / "bare.pth")(PICTURES), load_features(path)(PICTURES)
    )


def test_unknown_weights(tmp_path):
    """VGG16, VGG19 with normalisation and SqueezeNet 1.1 differ by the numbers of their layers."""
    vgg16 = {k: v for k, v in vgg19().items() if k.split(".")[1] not in ("16", "25", "34")}
    normalised = {**vgg19(), "features.1.weight": torch.zeros(2)}
    newer = {k.replace("features.5.", "features.6."): v for k, v in squeezenet().items()}

    for state in (vgg16, normalised, newer, {"w": torch.zeros(1)}):
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(
            CheckpointError,
            match=rf"no network known here; got {len(state)} tensors named \w.*; at .*w\.pth\. "
            r"Known are VGG19 and SqueezeNet 1\.0\.",
        ):
            load_features(tmp_path / "w.pth")


def test_weights_that_do_not_fit(known, tmp_path):
    name, state, _ = known
    torch.save({**state, "features.0.weight": 3}, tmp_path / "number.pth")
    torch.save({k: v for k, v in state.items() if k != "features.0.bias"}, tmp_path / "less.pth")

    with pytest.raises(CheckpointError, match=rf"look like {name} but do not fit it"):
        load_features(tmp_path / "number.pth")
    with pytest.raises(CheckpointError, match=rf"(?s)look like {name}.*Missing.*0\.bias"):
        load_features(tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"cannot be read; got .*; at .*absent\.pth"):
        load_features(tmp_path / "absent.pth")


def test_pictures_that_do_not_fit(known):
    name, _, path = known
    features = load_features(path)

    assert min(features(PICTURES[:, :, :32, :32]).shape) >= 1
    for bad in (PICTURES[:, :, :31], PICTURES[:, :1], PICTURES[0]):
        with pytest.raises(
            ShapeError, match=rf"{name} takes \[N, 3, H, W\] with both sides at least 32"
        ):
            features(bad)


@needs_weights
def test_the_released_squeezenet_still_knows_a_cup_of_coffee():
    """The features lead its classifier to the right class, and with another input do not."""
    path = Path(os.environ["TRINAS_SR_DATA"]) / "weights" / "squeezenet1_0_deepcomp.pth"
    state = torch.load(path, weights_only=True)
    coffee = builtin_images()["coffee"][None].float() / 255
    coffee = F.interpolate(coffee[..., 100:500], (227, 227), mode="bicubic", antialias=True)

    def probabilities(features):
        scores = F.conv2d(
            features(coffee.clamp(0, 1)).relu(),
            state["classifier.1.weight"],
            state["classifier.1.bias"],
        )
        return scores.relu().mean((2, 3)).softmax(1)[0]

    features = load_features(path)

    assert sum(p.numel() for p in features.parameters()) == 735_424
    assert probabilities(features).argmax() == ESPRESSO
    assert probabilities(features).max() > 0.9
    # Shown the input of torchvision's, it knows nothing: all classes are alike to it.
    assert probabilities(load_features(path, preprocessing=TORCHVISION)).max() < 0.02
