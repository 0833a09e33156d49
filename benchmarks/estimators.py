"""Gradients of the expected loss of sampled decisions, from losses alone.

D decisions, decision d with K_d options and odds ``p_d = softmax(logits_d)``, are drawn
independently of each other, N times in a step; each draw is run forward once, all on one batch.
Draws that are the same have the same loss and need one pass between them. What is sought is the
gradient by the logits of the expected loss over draws,

    d E[L] / d logit_dk = p_dk (E[L | decision d takes k] - E[L]).

Draws are made on the host, from `random.Random`; losses stay tensors and are not waited for.

Legend: S slots, the options of all decisions one after the other; N draws; D decisions.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

Draw: TypeAlias = tuple[int, ...]
"""The number of an option for every decision."""

Odds: TypeAlias = Sequence[Sequence[float]]
"""One row of probabilities for every decision."""


# -- draws -------------------------------------------------------------------------------


def independent(odds: Odds, n: int, rng: random.Random) -> list[Draw]:
    """`n` draws, independent of each other.

    >>> independent([[0.0, 1.0], [1.0, 0.0]], 2, random.Random(0))
    [(1, 0), (1, 0)]
    """
    return _drawn(odds, [[rng.random() for _ in odds] for _ in range(n)])


def antithetic(odds: Odds, n: int, rng: random.Random) -> list[Draw]:
    """`n` draws in pairs, of u and of 1 - u, where u on [0, 1) is turned to an option in order.

    Each draw by itself has the odds it should have; the two of a pair depend on each other, so
    neither may be the other's baseline (`leave_pair_out`).
    """
    shares = []
    for _ in range(0, n, 2):
        shares.append([rng.random() for _ in odds])
        shares.append([1.0 - u for u in shares[-1]])
    return _drawn(odds, shares[:n])


def stratified(odds: Odds, n: int, rng: random.Random) -> list[Draw]:
    """`n` draws, of which each decision takes one from every n-th of its odds (Latin hypercube).

    An option of odds p is drawn floor(n p) times at least and ceil(n p) + 1 times at most;
    which of the draws it is in is independent between decisions. Draws depend on each other.

    Source: McKay, Beckman & Conover, Technometrics 21(2), 1979.
    """
    columns = []
    for _ in odds:
        strata = list(range(n))
        rng.shuffle(strata)
        columns.append([(stratum + rng.random()) / n for stratum in strata])
    return _drawn(odds, list(zip(*columns)))


def _drawn(odds: Odds, shares: Sequence[Sequence[float]]) -> list[Draw]:
    bounds = [list(accumulate(row)) for row in odds]
    return [
        tuple(min(bisect_right(b, u * b[-1]), len(b) - 1) for b, u in zip(bounds, row))
        for row in shares
    ]


def one_hot(odds: Odds, draws: Sequence[Draw], like: Tensor) -> Tensor:
    """The draws as rows of zeros and ones, (N, S), with the device and dtype of `like`."""
    starts = [0, *accumulate(len(row) for row in odds)]
    rows = [[0.0] * starts[-1] for _ in draws]
    for row, draw in zip(rows, draws):
        for start, option in zip(starts, draw):
            row[start + option] = 1.0
    return torch.tensor(rows, device=like.device, dtype=like.dtype)


def flat(odds: Odds, like: Tensor) -> Tensor:
    """The odds as one vector, (S,)."""
    return torch.tensor([p for row in odds for p in row], device=like.device, dtype=like.dtype)


# -- estimators without a memory ---------------------------------------------------------


def reinforce(losses: Tensor, hot: Tensor, p: Tensor, baseline: Tensor | float) -> Tensor:
    """Mean of ``(L - baseline) (onehot - p)``, (S,).

    Unbiased where the baseline does not depend on these draws, however they depend on each
    other.

    Args:
        losses: of each draw, (N,).
        hot: the draws, from `one_hot`, (N, S).
        p: the odds, (S,).
        baseline: from earlier steps, or from other passes of this one.

    Source: Williams, Machine Learning 8, 1992.
    """
    return (losses - baseline) @ (hot - p) / len(losses)


def leave_one_out(losses: Tensor, hot: Tensor, p: Tensor) -> Tensor:
    """`reinforce` where each draw's baseline is the mean loss of the others, (S,).

    Unbiased where draws are independent of each other; N from 2 on. Written with the mean of
    all of them: ``L_i - mean of others = N / (N - 1) (L_i - mean)``.

    Source: Kool, van Hoof & Welling, DeepRLStructPred workshop at ICLR 2019.

    >>> hot, p = torch.eye(2), torch.tensor([0.5, 0.5])
    >>> leave_one_out(torch.tensor([3.0, 1.0]), hot, p)
    tensor([ 1., -1.])
    """
    return (losses - losses.mean()) @ (hot - p) / (len(losses) - 1)


def leave_pair_out(losses: Tensor, hot: Tensor, p: Tensor) -> Tensor:
    """`reinforce` where each draw's baseline is the mean loss of the other pairs, (S,).

    Unbiased for `antithetic` draws; an even N from 4 on.
    """
    pairs = losses.view(-1, 2).sum(1).repeat_interleave(2)
    baseline = (losses.sum() - pairs) / (len(losses) - 2)
    return reinforce(losses, hot, p, baseline)


def conditional(losses: Tensor, p: Tensor) -> Tensor:
    """The gradient of one decision from the losses of all of its options, (K,).

    The other decisions are at one draw, common to all passes. Unbiased; exact if this is the
    only decision.

    >>> conditional(torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.5]))
    tensor([ 0.5000, -0.5000])
    """
    return p * (losses - p @ losses)


# -- an additive model of the loss as a control variate ----------------------------------


def model_gradient(value: Tensor, p: Tensor, blocks: Tensor) -> Tensor:
    """The exact gradient of what a model expects, (S,).

    Args:
        value: what the model says of every option, (S,).
        p: the odds, (S,).
        blocks: 1 where an option belongs to a decision, else 0, (D, S).
    """
    return p * (value - (blocks @ (p * value)) @ blocks)


def blocks_of(odds: Odds, like: Tensor) -> Tensor:
    """1 where an option belongs to a decision, else 0, (D, S)."""
    rows = [torch.full((1, len(row)), 1.0, dtype=like.dtype) for row in odds]
    return torch.block_diag(*rows).to(like.device)


def with_model(losses: Tensor, hot: Tensor, p: Tensor, value: Tensor, blocks: Tensor) -> Tensor:
    """`leave_one_out` on what an additive model leaves of the losses, plus its own gradient, (S,).

    Unbiased for independent draws and a model of earlier steps: what it says of a draw is taken
    off its loss, and the exact gradient of what it says of all draws is added. The closer it is,
    the less is left to the draws.
    """
    return leave_one_out(losses - hot @ value, hot, p) + model_gradient(value, p, blocks)
