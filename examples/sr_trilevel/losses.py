"""What a network is trained on: content, perceptual and total variation terms, and their sum.

The paper searches and trains for PSNR on the content term alone; for visual quality it goes on
with the perceptual one, whose features `features` has.

Shapes: prediction and target `N 3 H W`, RGB in [0, 1]; terms are scalars.
"""

from __future__ import annotations

import math

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.sr_trilevel.features import Features
from examples.sr_trilevel.features import load_features as load_features
from trinas import errors


def content_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over all values (L1).

    >>> content_loss(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.25))
    tensor(0.2500)
    """
    return F.l1_loss(prediction, target)


def total_variation(prediction: Tensor) -> Tensor:
    """Anisotropic total variation, each direction as a mean of absolute differences.

    `mean |x[i + 1, j] - x[i, j]| + mean |x[i, j + 1] - x[i, j]|`, where the first mean is over the
    `N * C * (H - 1) * W` vertical neighbours and the second over the `N * C * H * (W - 1)`
    horizontal ones: it depends on neither the size of the picture nor that of the batch. (Rudin,
    Osher, Fatemi 1992, with the L1 norm of the gradient.)

    Args:
        prediction: `[N, C, H, W]`, both sides at least 2.

    Stripes one pixel wide vary by all there is, in one direction:

    >>> total_variation(torch.tensor([0.0, 1.0]).repeat(1, 3, 4, 2))
    tensor(1.)
    """
    down = (prediction[..., 1:, :] - prediction[..., :-1, :]).abs().mean()
    across = (prediction[..., 1:] - prediction[..., :-1]).abs().mean()
    return down + across


def perceptual_loss(features: Features, prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of features, as ESRGAN has it (arXiv 1809.00219, section 3.3).

    The target's features are a constant: gradients flow to the prediction alone. The size of the
    term is that of the features, which differs between networks and layers by orders of magnitude;
    its weight has to be chosen for them.
    """
    with torch.no_grad():
        wanted = features(target)
    return F.l1_loss(features(prediction), wanted)


@attrs.frozen(kw_only=True)
class LossWeights:
    """How much each term counts; a term that counts nothing is not computed.

    The default is the paper's for PSNR. For visual quality a perceptual term is added to it.

    Raises:
        ConfigError: a weight is negative or not finite, or all are 0.
    """

    content: float = 1.0
    perceptual: float = 0.0
    total_variation: float = 0.0

    def __attrs_post_init__(self) -> None:
        """Refuse what is no loss."""
        for term, weight in attrs.asdict(self).items():
            if not (math.isfinite(weight) and weight >= 0):
                raise errors.ConfigError(
                    f"the weight of {term} is a finite number, at least 0",
                    got=weight,
                    at="LossWeights",
                )
        if not any(attrs.astuple(self)):
            raise errors.ConfigError("a loss has a term that counts", got=self, at="LossWeights")


class SRLoss(nn.Module):
    """A weighted sum of terms, as a function of prediction and target.

    Both are `[N, 3, H, W]`, RGB in [0, 1]; the prediction may leave that range and is not clamped.
    Gradients flow to the prediction alone. `loss.to(device)` takes the features there.

    Args:
        weights: of the terms.
        features: for the perceptual term; see `load_features`.

    Raises:
        ConfigError: the perceptual term counts and there are no features.

    >>> loss = SRLoss(LossWeights(content=1.0, total_variation=0.1))
    >>> stripes = torch.tensor([0.0, 1.0]).repeat(1, 3, 4, 2)
    >>> loss(stripes, torch.zeros_like(stripes))
    tensor(0.6000)
    >>> loss.terms(stripes, torch.zeros_like(stripes))
    {'content': tensor(0.5000), 'total_variation': tensor(1.)}
    """

    def __init__(self, weights: LossWeights, features: Features | None = None) -> None:
        """Check that all that counts can be computed."""
        super().__init__()
        if weights.perceptual > 0 and features is None:
            raise errors.ConfigError(
                "a perceptual term needs a network of features",
                got=f"perceptual={weights.perceptual} and no file of features",
                at="SRLoss",
                fix="Give load_features(FILE) with weights of VGG19 or SqueezeNet 1.0, "
                "or perceptual=0.",
            )
        self.weights = weights
        self.features = features

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ShapeError: see `terms`.
        """
        terms = self.terms(prediction, target)
        weights = attrs.asdict(self.weights)
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    def terms(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The terms that count, each without its weight: what a log shows.

        Raises:
            ShapeError: the two differ in shape, or are not `[N, 3, H, W]` with sides of at least
                2 pixels (32 for the perceptual term).
        """
        _check(prediction, target)
        weights, target = self.weights, target.detach()
        terms = {}
        if weights.content > 0:
            terms["content"] = content_loss(prediction, target)
        if weights.perceptual > 0:
            assert self.features is not None  # seen to by the constructor
            terms["perceptual"] = perceptual_loss(self.features, prediction, target)
        if weights.total_variation > 0:
            terms["total_variation"] = total_variation(prediction)
        return terms


def _check(prediction: Tensor, target: Tensor) -> None:
    # Shapes that differ would be broadcast, and the loss be wrong without a word.
    if prediction.shape != target.shape:
        raise errors.ShapeError(
            "prediction and target have one shape",
            got=f"{tuple(prediction.shape)} and {tuple(target.shape)}",
        )
    if prediction.dim() != 4 or prediction.shape[1] != 3 or min(prediction.shape[-2:]) < 2:
        raise errors.ShapeError(
            "a loss takes [N, 3, H, W] with sides of at least 2 pixels",
            got=tuple(prediction.shape),
        )
