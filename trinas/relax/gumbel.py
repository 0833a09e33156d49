"""Gumbel-softmax: sampling a choice, with a gradient.

Shapes: logits `[..., K, ...]` with the K entries of one choice along `dim`, weights the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trinas._core.errors import RelaxationError
from trinas.relax._rows import from_rows, known, require_defined, to_rows


def gumbel_softmax(
    z: Tensor,
    temperature: float | Tensor = 1.0,
    hard: bool = True,
    generator: torch.Generator | None = None,
    dim: int = -1,
) -> Tensor:
    """Draw an entry with the probabilities `softmax(z)`, or a smooth stand-in for the draw.

    Computes `y = softmax((z + g) / temperature)` with independent `g = -log(-log U)`, U uniform
    on (0, 1) (as `-log E`, E exponential). The largest `y_i` is entry i with probability
    `softmax(z)_i` at every temperature; the lower it is, the closer y is to one-hot.

    Args:
        z: logits, any shape, K >= 1 entries along `dim`. -inf is never drawn.
        temperature: above 0; a number or a tensor `[]`.
        hard: return the one-hot vector of the largest `y_i` (ties: one of them), exactly 0 and 1,
            with the gradient of y (straight-through); else y itself.
        generator: where the noise comes from, on the device of `z`; None is torch's global one.
            The same state gives the same sample.
        dim: the choice dimension; negative counts from the end.

    Returns:
        Weights of the shape and dtype of `z`.

    Gradient: `(diag(y) - yy') / temperature`, for `hard` too: there it is not the derivative of
    what is returned, which is constant almost everywhere.

    Raises:
        RelaxationError: `z`, `dim` or `temperature` is unfit, or (CPU) a row defines no weights:
            NaN, +inf, or nothing but -inf. On an accelerator such a row is NaN throughout.

    Source: Jang, Gu and Poole, 2017, Eq. 1-2 and section 2.2; Maddison, Mnih and Teh, 2017.

    >>> rng = torch.Generator().manual_seed(0)
    >>> draws = gumbel_softmax(torch.zeros(1000, 2), generator=rng)
    >>> draws[0], draws.mean(0).round(decimals=1)
    (tensor([...]), tensor([0.5000, 0.5000]))
    """
    rows = to_rows(z, dim)
    check_temperature(temperature)
    # In one memory order whatever that of z, so that a sample does not depend on `dim`.
    waits = torch.empty_like(rows, requires_grad=False, memory_format=torch.contiguous_format)
    waits.exponential_(generator=generator)
    noise = -waits.clamp_min_(torch.finfo(rows.dtype).tiny).log_()
    y = torch.softmax((rows + noise) / temperature, -1)
    require_defined(rows, y)
    if hard:
        chosen = y.detach().argmax(-1, keepdim=True)
        # y - y is an exact 0 that carries the gradient (and an undefined row's NaN).
        y = torch.zeros_like(y).scatter(-1, chosen, 1.0) + (y - y.detach())
    return from_rows(y, z, dim)


def check_temperature(temperature: float | Tensor) -> float | Tensor:
    """Return `temperature` if it can divide logits, or is a tensor that is not to be read.

    Raises:
        RelaxationError: it is not a positive, finite number.

    >>> check_temperature(0.5)
    0.5
    """
    value = known(temperature)
    if value is not None and not 0 < value < math.inf:
        raise RelaxationError(
            "a temperature is a positive, finite number",
            got=value,
            fix="For one-hot weights use hard=True at any temperature.",
        )
    return temperature
