"""What a search spends: passes through the network, counted as they run, and seconds."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

BACKWARD = 3
"""A pass with its backward counts as three forward passes: gradients of activations and of
weights each cost about what the forward pass does."""


class Passes:
    """Counts the passes of a supernet while it is in force.

    A pass counts 1, or 3 where its result asks for a gradient (whether or not a backward
    pass follows, and whatever it leaves out).

    Args:
        net: a `trinas.Supernet`, or any module with its ``network``.

    Attributes:
        spent: passes so far, in forward passes.
        seconds: processor time in force (one thread's, where torch has one thread).

    >>> import torch, trinas as tn
    >>> net = tn.compile_supernet(tn.lower(tn.conv(3, 2), (1, 8, 8)))
    >>> with Passes(net) as passes:
    ...     _ = net(torch.rand(2, 1, 8, 8))
    ...     with torch.no_grad():
    ...         _ = net(torch.rand(2, 1, 8, 8))
    >>> passes.spent
    4.0
    """

    def __init__(self, net: nn.Module) -> None:
        self._network = net.get_submodule("network")
        self.spent = 0.0
        self.seconds = 0.0

    def __enter__(self) -> Passes:
        self._hook = self._network.register_forward_hook(self._count)
        self._start = time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.process_time() - self._start
        self._hook.remove()

    def _count(self, module: nn.Module, given: Any, result: Any) -> None:
        tensors = [result] if isinstance(result, Tensor) else []
        gradient = any(t.requires_grad for t in tensors) if tensors else torch.is_grad_enabled()
        self.spent += BACKWARD if gradient else 1
