"""The expected loss over the options of one decision, and its exact gradient.

Of ``E[L] = sum_k q_k L_k``, with L_k the loss where the decision stands at option k, the
gradient with respect to q_k is L_k, and that of everything else the mean of theirs. All L_k come
from one pass of what stands before the decision and a tail for each option
(`Network.outputs_at_exits`), so nothing is drawn and nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

import trinas as tn

Option = str | int
Loss = Callable[[Tensor, Tensor], Tensor]


def losses_at_exits(
    net: tn.Supernet, mixture: tn.Mixture, path: str, loss: Loss, batch: tuple[Tensor, Tensor]
) -> dict[Option, Tensor]:
    """The loss at each living option of a decision, the others as they are mixed.

    Args:
        net: the supernet.
        mixture: of this supernet.
        path: a decision of operations, paths or depths.
        loss: of prediction and target, a tensor of no dimensions.
        batch: input and target.
    """
    x, y = batch
    outputs = net.network.outputs_at_exits(x, mixture, path)
    return {option: loss(y_hat, y) for option, y_hat in outputs.items()}


def shares(mixture: tn.Mixture, path: str) -> dict[Option, Tensor]:
    """The probability of each option, differentiable: the weights, or the odds behind a draw."""
    start, decision = mixture.graph.offsets[path], mixture.graph.decisions[path]
    slots = range(start, start + len(decision.options))
    drawn = any(mixture.host[k] != mixture.host_odds[k] for k in slots)
    flat = mixture.odds if drawn else mixture.weights
    return dict(zip(decision.options, (flat[k] for k in slots)))


def expected(losses: Mapping[Option, Tensor], q: Mapping[Option, Tensor]) -> Tensor:
    """``sum_k q_k L_k``; backward gives the exact gradients of logits and layers.

    >>> q = torch.tensor([0.25, 0.75], requires_grad=True)
    >>> losses = {"a": torch.tensor(2.0), "b": torch.tensor(4.0)}
    >>> expected(losses, {"a": q[0], "b": q[1]}).backward()
    >>> q.grad
    tensor([2., 4.])
    """
    return torch.stack([q[option] * loss for option, loss in losses.items()]).sum()
