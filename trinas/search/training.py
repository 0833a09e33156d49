"""Training of a plain network: from the weights of a search, or from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trinas._core.errors import ConfigError
from trinas.search.checks import (
    loss_of,
    own_randomness,
    take_batch,
)
from trinas.search.config import Batches, Loss, TrainConfig
from trinas.search.loading import (
    load_optimiser,
    load_part,
    plain_dtype,
    require_keys,
    require_plan,
    require_step,
)
from trinas.search.report import StepReport
from trinas.search.stepping import adam, descend, precision, set_rate


class Training:
    """A training in progress: iterate over it, one report a step.

    Whether it is *from search* or *from scratch* is a matter of the model: build it with
    ``inherit=net``, or without (Trilevel NAS, Section 5.1).

    Args:
        model: trained in place.
        loss: of prediction and target.
        train: batches by step number.
        config: all settings.

    Raises:
        ConfigError: there is nothing to train.

    >>> import torch, trinas as tn
    >>> model = tn.build(tn.lower(tn.conv(3, 1), (1, 8, 8)))
    >>> batch = torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    >>> losses = [r.loss for r in tn.Training(model, torch.nn.functional.l1_loss,
    ...           lambda step: batch, tn.TrainConfig(steps=20, lr=0.01))]
    >>> losses[-1] < losses[0]
    True
    """

    def __init__(self, model: nn.Module, loss: Loss, train: Batches, config: TrainConfig) -> None:
        self.model = model
        self.loss = loss
        self.train = train
        self.config = config
        self.step = 0
        self._weights = list(model.parameters())
        if not self._weights:
            raise ConfigError(
                "a training trains weights", got=f"{type(model).__name__} without any"
            )
        self._optimiser = adam(self._weights, config.lr)

    def __iter__(self) -> Iterator[StepReport]:
        """Do the steps that are left."""
        while self.step < self.config.steps:
            yield self.advance()

    def advance(self) -> StepReport:
        """Do one step and report it.

        Raises:
            ConfigError: all steps are done.
            DataError: a batch that is no pair of tensors on the device of the network.
            ShapeError: a target of another shape than the prediction, or a loss that is
                not one number.
            DivergenceError: a loss or a gradient that is not finite; nothing was updated
                with it. On an accelerator the report says so when its loss is read, behind
                the update.
        """
        config = self.config
        if self.step >= config.steps:
            raise ConfigError(
                "a training has the steps of its config", got=f"a call after all {config.steps}"
            )
        lr = config.lr * config.schedule(self.step / config.steps)
        set_rate(self._optimiser, lr)
        self.model.train()
        device = self._weights[0].device
        with own_randomness(config.seed, self.step, device):
            loss = self._update(device)
        self.step += 1
        return StepReport(
            phase="train",
            step=self.step,
            total=config.steps,
            progress=self.step / config.steps,
            lr=lr,
            loss=loss,
        )

    def _update(self, device: torch.device) -> Tensor:
        config = self.config
        at = f"train step {self.step + 1}"
        x, y = take_batch(self.train, self.step, name="train", device=device)
        with precision(x, config.autocast):
            loss = loss_of(self.loss, self.model(x), y, at=at)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        unsound = descend(self._optimiser, self._weights, clip=config.clip, what="gradient", at=at)
        return loss.detach() + unsound

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "plan": _plan(self.config),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it lacks entries, does not fit the model, or was saved under
                another number of steps, seed or precision. Make the training anew then:
                part of the state may be loaded.
        """
        require_keys(state, _KEYS, "training", of="Training")
        require_plan(state["plan"], _plan(self.config), "training", free="rate, schedule and clip")
        require_step(state["step"], self.config.steps, "training")
        load_part(self.model, state["model"], "model")
        load_optimiser(self._optimiser, self._weights, state["optimiser"], "optimiser")
        self.step = state["step"]


_KEYS = ("model", "optimiser", "step", "plan")


def _plan(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what steps there are and what they draw, as plain values."""
    return {"steps": config.steps, "seed": config.seed, "autocast": plain_dtype(config.autocast)}
