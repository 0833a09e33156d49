"""Sampling a choice, with a gradient: Gumbel-softmax and ReinMax.

Shapes: logits `[..., K, ...]` with the K entries of one choice along `dim`, weights the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trinas._core.errors import RelaxationError
from trinas.relax._rows import from_rows, known, require_defined, to_rows
from trinas.relax._subset import check_subset, subset_softmax_rows


def gumbel_softmax(
    z: Tensor,
    temperature: float | Tensor = 1.0,
    hard: bool = True,
    generator: torch.Generator | None = None,
    dim: int = -1,
    *,
    k: int = 1,
) -> Tensor:
    """Draw an entry with the probabilities `softmax(z)`, or a smooth stand-in for the draw.

    Computes `y = softmax((z + g) / temperature)` with independent `g = -log(-log U)`, U uniform
    on (0, 1) (as `-log E`, E exponential). The largest `y_i` is entry i with probability
    `softmax(z)_i` at every temperature; the lower it is, the closer y is to one-hot.

    For k > 1 entries, `y = softmax((z + g) / temperature, k=k)`, and the draw is that of the k
    largest `z + g`: k draws without replacement (Gumbel top-k).

    Args:
        z: logits, any shape, K >= 1 entries along `dim`. -inf is never drawn.
        temperature: above 0; a number or a tensor `[]`.
        hard: return the one-hot vector of the largest `y_i` (ties: one of them), exactly 0 and 1,
            with the gradient of y (straight-through); else y itself. For k > 1, k ones.
        generator: where the noise comes from, on the device of `z`; None is torch's global one.
            The same state gives the same sample.
        dim: the choice dimension; negative counts from the end.
        k: how many entries are drawn, from 1 to K.

    Returns:
        Weights of the shape and dtype of `z`.

    Gradient: `(diag(y) - yy') / temperature`, for `hard` too: there it is not the derivative of
    what is returned, which is constant almost everywhere. For k > 1 it is that of the marginals y.

    Raises:
        RelaxationError: `z`, `dim`, `temperature` or `k` is unfit, or (CPU) a row defines no
            weights: NaN, +inf, or fewer than k logits above -inf. On an accelerator such a row is
            NaN throughout.

    Source: Jang, Gu and Poole, 2017, Eq. 1-2 and section 2.2; Maddison, Mnih and Teh, 2017. The
    draw for k > 1: Kool, van Hoof and Welling, 2019; marginals as its gradient: Ahmed et al., 2023
    (SIMPLE), Eq. 4, here of the perturbed logits, so that k = 1 is Gumbel-softmax.

    >>> rng = torch.Generator().manual_seed(0)
    >>> draws = gumbel_softmax(torch.zeros(1000, 2), generator=rng)
    >>> draws[0], draws.mean(0).round(decimals=1)
    (tensor([...]), tensor([0.5000, 0.5000]))
    """
    rows = to_rows(z, dim)
    check_temperature(temperature)
    check_subset(k, rows.shape[-1])
    noisy = (rows + _gumbel_noise(rows, generator)) / temperature
    if k > 1:
        y = subset_softmax_rows(noisy, k)
        chosen = noisy.detach().topk(k, -1).indices
    else:
        y = torch.softmax(noisy, -1)
        require_defined(rows, y)
        chosen = y.detach().argmax(-1, keepdim=True)
    return from_rows(_drawn(chosen, y) if hard else y, z, dim)


def _gumbel_noise(rows: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return independent Gumbel noise in the shape of `rows`."""
    # In one memory order whatever that of z, so that a sample does not depend on `dim`.
    waits = torch.empty_like(rows, requires_grad=False, memory_format=torch.contiguous_format)
    waits.exponential_(generator=generator)
    return -waits.clamp_min_(torch.finfo(rows.dtype).tiny).log_()


def _drawn(chosen: Tensor, y: Tensor) -> Tensor:
    """Return ones at the chosen places, zeros elsewhere, with the gradient of y."""
    # y - y is an exact 0 that carries the gradient (and an undefined row's NaN).
    return torch.zeros_like(y).scatter(-1, chosen, 1.0) + (y - y.detach())


def reinmax(
    z: Tensor,
    temperature: float | Tensor = 1.0,
    generator: torch.Generator | None = None,
    dim: int = -1,
) -> Tensor:
    """Draw an entry with the probabilities `softmax(z)`, with a gradient of second order.

    Plain straight-through takes differences of the loss between entries for its derivatives at
    the draw, which is right to first order (Euler's method). This one combines derivatives by
    Heun's method, the trapezoidal rule, which is right to second order.

    Args:
        z: logits, any shape, K >= 1 entries along `dim`. -inf is never drawn.
        temperature: above 0; smooths the probabilities in the gradient only. The draw does not
            depend on it.
        generator: where the noise comes from, as in `gumbel_softmax`.
        dim: the choice dimension; negative counts from the end.

    Returns:
        One-hot weights, exactly 0 and 1, of the shape and dtype of `z`.

    Gradient: `2 (diag(m) - mm') - (diag(p) - pp') / 2`, with `p = softmax(z)` and m halfway from
    `softmax(z / temperature)` to the draw; it is not the derivative of what is returned. At
    temperature 1 its mean over the draws is the gradient of the expected loss wherever the loss is
    quadratic in the weights. Every entry needs its derivative: all options have to run.

    Raises:
        RelaxationError: `z`, `dim` or `temperature` is unfit, or (CPU) a row defines no weights.

    Source: Liu, Dong, Liu, Yu and Gao, 2023 (Bridling discrete and backpropagation), Algorithm 2
    and Theorem 3.1.

    >>> reinmax(torch.tensor([9.0, 0.0]), generator=torch.Generator().manual_seed(0))
    tensor([1., 0.])
    """
    rows = to_rows(z, dim)
    check_temperature(temperature)
    p = torch.softmax(rows, -1)
    require_defined(rows, p)
    chosen = (rows.detach() + _gumbel_noise(rows, generator)).argmax(-1, keepdim=True)
    smooth = torch.softmax(rows.detach() / temperature, -1)
    half = (smooth + torch.zeros_like(smooth).scatter(-1, chosen, 1.0)) / 2
    # The softmax of these is `half`, and moves with the logits.
    shift = torch.where(half > 0, half.log() - rows.detach(), -math.inf)
    mixed = torch.softmax(shift + rows, -1)
    return from_rows(_drawn(chosen, 2 * mixed - p / 2), z, dim)


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
