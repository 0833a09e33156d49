"""Training of a plain network: from the weights of a search, or from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from trinas._core.errors import CheckpointError
from trinas.search.config import Batches, Loss, TrainConfig
from trinas.search.report import StepReport


class Training:
    """A training in progress: iterate over it, one report a step.

    Whether it is *from search* or *from scratch* is a matter of the model: build it with
    ``inherit=net``, or without (Trilevel NAS, Section 5.1).

    Args:
        model: trained in place.
        loss: of prediction and target.
        train: batches by step number.
        config: all settings.

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
        self._optimiser = torch.optim.Adam(model.parameters(), lr=config.lr)

    def __iter__(self) -> Iterator[StepReport]:
        """Do the steps that are left."""
        while self.step < self.config.steps:
            yield self.advance()

    def advance(self) -> StepReport:
        """Do one step and report it."""
        config = self.config
        progress = self.step / config.steps
        lr = config.lr * config.schedule(progress)
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        self.model.train()
        x, y = self.train(self.step)
        dtype = config.autocast
        with torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = self.loss(self.model(x), y)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self._optimiser.step()
        self.step += 1
        return StepReport(
            phase="train",
            step=self.step,
            total=config.steps,
            progress=self.step / config.steps,
            lr=lr,
            loss=loss.detach(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "total_steps": self.config.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it was saved for another number of steps.
        """
        if state["total_steps"] != self.config.steps:
            raise CheckpointError(
                "a training resumes with the number of steps it was planned for",
                got=f"{state['total_steps']} steps",
                at=f"a config of {self.config.steps} steps",
            )
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
