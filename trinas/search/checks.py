"""What a step checks: its supernet, its batches, its losses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trinas._core.errors import (
    ConfigError,
    DataError,
    DivergenceError,
    ShapeError,
)
from trinas.search.config import Batches, Loss
from trinas.supernet import Supernet


def take_batch(
    batches: Batches, step: int, *, name: str, device: torch.device
) -> tuple[Tensor, Any]:
    """The batch of a step.

    Raises:
        DataError: it is no pair of an input and a target, or lies on another device.
    """
    batch: Any = batches(step)
    place = f"{name}({step})"
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], Tensor):
        raise DataError(
            "a batch is a pair of an input tensor and a target",
            got=_describe(batch),
            at=place,
            fix=f"{name} takes the number of the step and returns both.",
        )
    for part in batch:
        if isinstance(part, Tensor) and part.device.type != device.type:
            raise DataError(
                "batches lie on the device of the network",
                got=f"a tensor on {part.device}, the network on {device}",
                at=place,
                fix="Move both, the network before its Search or Training is made.",
            )
    return batch[0], batch[1]


def _describe(batch: object) -> str:
    if isinstance(batch, tuple | list):
        inside = ", ".join(type(part).__name__ for part in batch)
        return f"a {type(batch).__name__} of {inside or 'nothing'}"
    return f"a {type(batch).__name__}"


def loss_of(loss: Loss, prediction: Tensor, target: Any, *, at: str) -> Tensor:
    """The loss of a prediction, checked.

    Args:
        loss: as the user gave it.
        prediction: what the network returned.
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
    if compared and target.shape != prediction.shape:
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
            got=f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else _describe(value),
            at=at,
            fix="Take its mean or its sum.",
        )
    if prediction.requires_grad and not value.requires_grad:
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


def require_supernet(net: object) -> None:
    """Check what a search is to work on.

    Raises:
        ConfigError: it is no supernet, or one without weights.
    """
    if not isinstance(net, Supernet):
        raise ConfigError(
            "a search works on a supernet",
            got=f"a {type(net).__name__}",
            fix="Make one with trinas.compile_supernet(graph); train plain networks with Training.",
        )
    if not net.weight_parameters():
        raise ConfigError(
            "a search trains weights",
            got=f"{net.graph} without any",
            fix="Put a layer that learns into the space.",
        )


def require_own_weights(
    network: nn.Module, weights: Sequence[Tensor], device: torch.device, *, of: str
) -> None:
    """Check that a network still has the parameters that a search was made with.

    Args:
        network: as it is now.
        weights: its parameters as they were.
        device: where they were.
        of: the class of the search.

    Raises:
        ConfigError: they are others, or elsewhere.
    """
    first = next(network.parameters())
    if first.device != device or first is not weights[0]:
        raise ConfigError(
            "a search keeps the parameters it was made with, on their device",
            got=f"others, on {first.device}",
            at=f"a search on {device}",
            fix=f"Move or change the network before its {of} is made.",
        )


@contextmanager
def own_randomness(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Make what is drawn from torch's global generators (by dropout) a function of the step.

    The generators (of the CPU, and of CUDA where that is the device) stand afterwards where
    they stood before, so a run that was resumed draws what an uninterrupted one does,
    whatever else happens in the process.
    """
    number = (seed * 1_000_003 + step) % 2**63
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(number)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(number)
        yield
