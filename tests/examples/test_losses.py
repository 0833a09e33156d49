"""Terms of the loss: second ways to each, where gradients flow, what weights do, refusals."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from examples.sr_trilevel.features import TORCHVISION, Features, load_features
from examples.sr_trilevel.imaging import bicubic, read_folder, shrink, to_unit
from examples.sr_trilevel.losses import (
    LossWeights,
    SRLoss,
    content_loss,
    perceptual_loss,
    total_variation,
)
from examples.sr_trilevel.teachers import load_teacher
from trinas._core.errors import ConfigError, ShapeError

GENERATOR = torch.Generator().manual_seed(0)
PREDICTION = torch.rand(2, 3, 33, 36, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.rand(2, 3, 33, 36, generator=GENERATOR, dtype=torch.float64)
ALL = LossWeights(content=1.0, perceptual=0.5, total_variation=0.25)

needs_weights = pytest.mark.skipif(
    "TRINAS_SR_DATA" not in os.environ, reason="TRINAS_SR_DATA names no folder with weights"
)


@pytest.fixture
def features():
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 4, 3))
    return Features("small", layers, TORCHVISION).double()


def numbers(x):
    return x.flatten().tolist()


def test_content_is_the_mean_absolute_difference():
    pairs = list(zip(numbers(PREDICTION), numbers(TARGET)))

    expected = sum(abs(a - b) for a, b in pairs) / len(pairs)

    assert content_loss(PREDICTION, TARGET).item() == pytest.approx(expected, rel=1e-12)


def test_total_variation_by_loops():
    picture = PREDICTION[:, :, :4, :6].tolist()
    down = [
        abs(plane[i + 1][j] - plane[i][j])
        for planes in picture
        for plane in planes
        for i in range(3)
        for j in range(6)
    ]
    across = [
        abs(row[j + 1] - row[j])
        for planes in picture
        for plane in planes
        for row in plane
        for j in range(5)
    ]

    assert len(down) == 2 * 3 * 3 * 6
    expected = sum(down) / len(down) + sum(across) / len(across)
    actual = total_variation(PREDICTION[:, :, :4, :6]).item()
    assert actual == pytest.approx(expected, rel=1e-12)


def test_total_variation_knows_no_size_and_both_directions():
    """Of a slope of 0.1 a row and 0.02 a column; of a flat picture none."""
    for height, width in ((2, 2), (5, 9), (40, 3)):
        slope = 0.1 * torch.arange(height)[:, None] - 0.02 * torch.arange(width)
        for count in (1, 4):
            assert total_variation(slope.repeat(count, 3, 1, 1)).item() == pytest.approx(0.12)
    assert total_variation(torch.full((1, 3, 4, 4), 0.7)) == 0


def test_perceptual_is_the_mean_difference_of_features(features):
    ours, theirs = numbers(features(PREDICTION)), numbers(features(TARGET))

    expected = sum(abs(a - b) for a, b in zip(ours, theirs)) / len(ours)

    actual = perceptual_loss(features, PREDICTION, TARGET).item()
    assert actual == pytest.approx(expected, rel=1e-12)


def test_the_sum_and_its_terms(features):
    loss = SRLoss(ALL, features)

    terms = loss.terms(PREDICTION, TARGET)

    assert terms == {
        "content": content_loss(PREDICTION, TARGET),
        "perceptual": perceptual_loss(features, PREDICTION, TARGET),
        "total_variation": total_variation(PREDICTION),
    }
    expected = terms["content"] + 0.5 * terms["perceptual"] + 0.25 * terms["total_variation"]
    assert loss(PREDICTION, TARGET).shape == ()
    torch.testing.assert_close(loss(PREDICTION, TARGET), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("term", ["content", "perceptual", "total_variation"])
def test_each_weight_counts_and_what_counts_nothing_is_not_computed(features, term):
    alone = only(term, 3.0)
    loss = SRLoss(alone, features)

    assert list(loss.terms(PREDICTION, TARGET)) == [term]
    value = SRLoss(only(term, 1.0), features)(PREDICTION, TARGET)
    torch.testing.assert_close(loss(PREDICTION, TARGET), 3 * value)
    assert value > 0


def only(term, weight):
    return LossWeights(**{"content": 0.0, term: weight})


def test_the_default_is_the_papers_for_psnr():
    assert LossWeights() == LossWeights(content=1.0, perceptual=0.0, total_variation=0.0)
    assert torch.equal(
        SRLoss(LossWeights())(PREDICTION, TARGET), (PREDICTION - TARGET).abs().mean()
    )


def test_zero_at_equality(features):
    """But for total variation, which looks at the prediction alone."""
    loss = SRLoss(LossWeights(content=1.0, perceptual=1.0), features)

    assert loss(TARGET, TARGET) == 0
    assert loss(PREDICTION, TARGET) > 0
    assert SRLoss(ALL, features)(TARGET, TARGET) == 0.25 * total_variation(TARGET)


def test_gradients_reach_the_prediction_alone(features):
    prediction, target = (x.clone().requires_grad_() for x in (PREDICTION, TARGET))
    loss = SRLoss(ALL, features).train()

    loss(prediction, target).backward()

    assert prediction.grad is not None
    assert (prediction.grad != 0).float().mean() > 0.9
    assert target.grad is None
    assert all(p.grad is None for p in loss.parameters())


def test_the_targets_features_are_a_constant(features):
    prediction, target = (x.clone().requires_grad_() for x in (PREDICTION, TARGET))

    perceptual_loss(features, prediction, target).backward()

    assert prediction.grad is not None
    assert target.grad is None


@pytest.mark.parametrize("term", ["content", "perceptual", "total_variation"])
def test_gradients_are_the_slopes(features, term):
    """By differences, away from the kinks of absolute values and ReLU."""
    loss = SRLoss(only(term, 1.0), features)
    prediction = PREDICTION[:1].clone().requires_grad_()
    direction = torch.randn(prediction.shape, generator=GENERATOR, dtype=torch.float64)
    loss(prediction, TARGET[:1]).backward()

    ahead, behind = (
        loss(prediction.detach() + step * direction, TARGET[:1]) for step in (1e-8, -1e-8)
    )

    assert prediction.grad is not None
    slope = (prediction.grad * direction).sum().item()
    assert (ahead - behind).item() / 2e-8 == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_training_on_it_brings_a_picture_to_its_target(features):
    loss = SRLoss(LossWeights(content=1.0, perceptual=1.0), features)
    picture = PREDICTION[:1].clone().requires_grad_()
    optimizer = torch.optim.Adam([picture], lr=0.02)
    before = loss(picture, TARGET[:1]).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss(picture, TARGET[:1]).backward()
        optimizer.step()

    assert loss(picture, TARGET[:1]).item() < before / 4


def test_a_perceptual_term_needs_features():
    with pytest.raises(
        ConfigError,
        match=r"needs a network of features; got perceptual=0\.1 and no file of features; "
        r"at SRLoss\. Give load_features\(FILE\)",
    ):
        SRLoss(LossWeights(perceptual=0.1))


@pytest.mark.parametrize("term", ["content", "perceptual", "total_variation"])
@pytest.mark.parametrize("bad", [-0.1, math.inf, math.nan])
def test_weights_that_are_none(term, bad):
    with pytest.raises(ConfigError, match=rf"the weight of {term} is a finite number, at least 0"):
        LossWeights(**{term: bad})


def test_a_loss_without_terms():
    with pytest.raises(ConfigError, match="a loss has a term that counts"):
        LossWeights(content=0.0)


def test_pictures_that_do_not_fit(features):
    """What PyTorch would broadcast is refused, too."""
    loss = SRLoss(ALL, features)

    with pytest.raises(ShapeError, match=r"have one shape; got \(2, 3, 33, 36\) and \(1, 3, "):
        loss(PREDICTION, TARGET[:1])
    for bad in (PREDICTION[0], PREDICTION[:, :1], PREDICTION[..., :1]):
        with pytest.raises(ShapeError, match=r"\[N, 3, H, W\] with sides of at least 2 pixels"):
            loss(bad, bad)
    with pytest.raises(ShapeError, match=r"small takes .* at least 32"):
        loss(PREDICTION[..., :31], TARGET[..., :31])


def blurred(pictures, sigma):
    radius = math.ceil(4 * sigma)
    taps = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).repeat(3, 1)
    pictures = F.pad(pictures, (radius,) * 4, mode="reflect")
    rows = F.conv2d(pictures, taps[:, None, :, None], groups=3)
    return F.conv2d(rows, taps[:, None, None, :], groups=3)


@needs_weights
def test_released_features_see_blur_and_what_a_good_network_makes_of_it():
    root = Path(os.environ["TRINAS_SR_DATA"])
    features = load_features(root / "weights" / "squeezenet1_0_deepcomp.pth")
    teacher = load_teacher(root / "weights" / "net_g_BSRN_x4.pth")
    images, _ = read_folder(root / "benchmark" / "Set5")

    for image in images.values():
        lr, hr = (to_unit(picture)[None] for picture in shrink(image, 4))
        steps = [
            perceptual_loss(features, blurred(hr, sigma), hr) for sigma in (0.5, 0.75, 1, 1.5, 2, 3)
        ]
        assert all(less < more for less, more in itertools.pairwise(steps))
        assert perceptual_loss(features, teacher(lr), hr) < perceptual_loss(
            features, bicubic(4)(lr), hr
        )
