"""What a step checks: its losses, its gradients, its supernet."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from trinas._core.errors import ConfigError, DataError, DivergenceError, ShapeError
from trinas.search.batches import described
from trinas.search.nested import tensors_in
from trinas.supernet import Supernet


def loss_of(loss: Any, prediction: Any, target: Any, *, at: str) -> Tensor:
    """The loss of a prediction, checked.

    Args:
        loss: as the user gave it.
        prediction: what the model returned: a tensor, or a nest of tensors that the loss knows.
        target: as the user's data gave it. A target of floating point numbers has the
            shape of the prediction, as most losses would broadcast another one silently;
            class numbers, and targets that are no tensor, are left to the loss.
        at: phase and step, for messages.

    Raises:
        ShapeError: the target has another shape, or the loss is no tensor of no dimensions.
        DivergenceError: the loss is not finite (asked on the CPU only: elsewhere the host
            would have to wait for it, and a report says so when its loss is read).
        DataError: the loss does not depend on the prediction.
    """
    compared = isinstance(target, Tensor) and target.is_floating_point()
    if compared and isinstance(prediction, Tensor) and target.shape != prediction.shape:
        raise ShapeError(
            "a target has the shape of the prediction",
            got=f"target {tuple(target.shape)}, prediction {tuple(prediction.shape)}",
            at=at,
            fix="Reshape one of them; to leave it to the loss, return the target in a tuple.",
        )
    value: Any = loss(prediction, target)
    if not isinstance(value, Tensor) or value.dim():
        raise ShapeError(
            "a loss is a tensor of no dimensions",
            got=f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else described(value),
            at=at,
            fix="Take its mean or its sum.",
        )
    if not value.requires_grad and any(x.requires_grad for x in tensors_in(prediction)):
        raise DataError(
            "a loss depends on the prediction",
            got="a loss without gradient",
            at=at,
            fix="Is something detached, or computed under torch.no_grad?",
        )
    require_finite(value, "loss", at=at)
    return value


def require_finite(value: Tensor, what: str, *, at: str, wait: bool = False) -> None:
    """Stop where a number that steps are made of is none.

    Args:
        value: a tensor of no dimensions.
        what: its name in the message.
        at: phase and step.
        wait: look at it on an accelerator too.

    Raises:
        DivergenceError: it is NaN or infinite.
    """
    if value.device.type != "cpu" and not wait:
        return
    number = float(value.detach())
    if not math.isfinite(number):
        raise DivergenceError(
            f"the {what} is finite at every step",
            got=number,
            at=at,
            fix="Lower the learning rate, and look for pixels or targets that are not finite.",
        )


def require_whole(value: object, what: str, *, least: int, at: str, fix: str | None = None) -> None:
    """Check a whole number.

    Args:
        value: the number.
        what: it is, for the message.
        least: that it may be.
        at: where it was given.
        fix: what to do instead.

    Raises:
        ConfigError: it is none, or less.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"{what} is a whole number of at least {least}", got=repr(value), at=at, fix=fix
        )


def require_supernet(net: object) -> Supernet:
    """What a search is to work on.

    Raises:
        ConfigError: it is no supernet, or one without weights.
    """
    if not isinstance(net, Supernet):
        raise ConfigError(
            "a search works on a supernet",
            got=f"a {type(net).__name__}",
            fix="Make one with trinas.compile_supernet(graph); train plain networks with Training, "
            "and a module around supernets with trinas.run.",
        )
    if not net.weight_parameters():
        raise ConfigError(
            "a search trains weights",
            got=f"{net.graph} without any",
            fix="Put a layer that learns into the space.",
        )
    return net
