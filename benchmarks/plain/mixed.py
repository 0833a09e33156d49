"""The one thing that all of these supernets have in common."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trinas import Supernet

KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
"""Layers that hold weights."""


class MixedOp(nn.Module):
    """A choice: the sum of all options, each times its weight."""

    def __init__(self, ops: Iterable[nn.Module]) -> None:
        super().__init__()
        self.ops = nn.ModuleList(ops)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(N, C, H, W) and (K,) in, (N, C', H', W') out."""
        return sum(w * op(x) for w, op in zip(weights, self.ops))  # type: ignore[return-value]  # K > 0


@torch.no_grad()
def copy_weights(net: Supernet, plain: nn.Module) -> None:
    """Give `plain` the weights of `net`, and the statistics of its normalisation.

    Both hold the same layers in the same order.

    Raises:
        ValueError: they do not.
    """
    for ours, theirs in zip(_layers(net.network), _layers(plain), strict=True):
        if not any(isinstance(ours, kind) and isinstance(theirs, kind) for kind in KINDS):
            raise ValueError(f"{ours} here, {theirs} there")
        theirs.load_state_dict(ours.state_dict())


def _layers(module: nn.Module) -> list[nn.Module]:
    found = (m for m in module.modules() if m is not module)  # which may hold the alphas
    return [m for m in found if next(m.parameters(recurse=False), None) is not None]
