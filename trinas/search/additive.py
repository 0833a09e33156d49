"""A model of the loss as a sum over decisions, learned from the draws of earlier steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from trinas._core.errors import CheckpointError

WINDOW = 256
"""Losses that are remembered."""

KEEP = 0.98
"""Factor on what a loss counts, for every step that it is old."""

RIDGE = 0.1
"""Pull of the values towards 0, in losses' worth."""


@attrs.frozen(eq=False)
class Additive:
    """Values of options whose sum over the options of a draw tells its loss, but for a constant.

    ``loss of a draw = something of its batch + sum over decisions of value[option]``, by least
    squares with a ridge. Losses and draws are centred within a step, so that the batch falls out.
    Over independent decisions the additive model that is best in mean square consists of
    ``E[L | decision takes k]``, whatever the interactions between decisions.

    The fit is that of kernel ridge regression: it costs as much as there are losses in memory,
    not options in the space.

    Attributes:
        draws: centred one-hot rows of earlier draws, oldest first, (M, S), M <= `WINDOW`.
        losses: their centred losses, (M,).
        ages: how many steps ago they were, (M,).
        fit: decayed sums of predicted times actual losses, and of predicted squares, (2,).
        fitted: the values by least squares, (S,).
    """

    draws: Tensor
    losses: Tensor
    ages: Tensor
    fit: Tensor
    fitted: Tensor

    @property
    def value(self) -> Tensor:
        """Of every option, (S,): as fitted, times how well that has predicted so far (0 to 1)."""
        tiny = torch.finfo(self.fit.dtype).tiny
        return (self.fit[0] / self.fit[1].clamp_min(tiny)).clamp(0, 1) * self.fitted

    @classmethod
    def empty(cls, options: int, like: Tensor) -> Additive:
        """The model that knows nothing.

        Args:
            options: S, how many there are.
            like: device and dtype.
        """
        zeros = like.new_zeros
        return cls(zeros(0, options), zeros(0), zeros(0), zeros(2), zeros(options))

    def seen(self, draws: Tensor, losses: Tensor) -> Additive:
        """The model that also knows the losses, (N,), of these draws, (N, S), of one step."""
        # What is not finite would stay in memory; without asking the device whether it is.
        sound = losses.isfinite().all()
        x = torch.where(sound, draws - draws.mean(0), 0.0)
        y = torch.where(sound, losses - losses.mean(), 0.0)
        predicted = x @ self.fitted
        draws = torch.cat([self.draws, x])[-WINDOW:]
        losses = torch.cat([self.losses, y])[-WINDOW:]
        ages = torch.cat([self.ages + 1, torch.zeros_like(y)])[-WINDOW:]
        fit = KEEP * self.fit + torch.stack([predicted @ y, predicted @ predicted])
        # Positive definite by the ridge, so nothing waits to hear whether it worked.
        gram = draws @ draws.T + torch.diag(RIDGE * KEEP**-ages)
        shares = torch.cholesky_solve(losses[:, None], torch.linalg.cholesky_ex(gram).L)
        return Additive(draws, losses, ages, fit, draws.T @ shares[:, 0])

    def on(self, device: torch.device) -> Additive:
        """The same model on a device."""
        if self.value.device == device:
            return self
        return Additive(*(tensor.to(device) for tensor in self.memory().values()))

    def memory(self) -> dict[str, Tensor]:
        """All of it, by name."""
        return {field.name: getattr(self, field.name) for field in attrs.fields(Additive)}

    @classmethod
    def remembering(cls, memory: Mapping[str, Any]) -> Additive:
        """The model that `memory` was taken of.

        Args:
            memory: what it gave.

        Raises:
            CheckpointError: it gave something else.
        """
        names = [field.name for field in attrs.fields(cls)]
        found = [memory.get(name) for name in names]
        tensors = [value for value in found if isinstance(value, Tensor)]
        if len(tensors) == len(names):
            model = cls(*tensors)
            m, s = len(model.losses), len(model.fitted)
            shapes = [(m, s), (m,), (m,), (2,), (s,)]
            if m <= WINDOW and [tuple(value.shape) for value in tensors] == shapes:
                return model
        raise CheckpointError(
            "the memory of an additive baseline is what it saved",
            got=f"{ {k: getattr(v, 'shape', v) for k, v in memory.items()} }"[:120],
            fix="Resume with the baseline of the search that saved it.",
        )
