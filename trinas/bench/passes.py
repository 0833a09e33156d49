"""What a search spends: passes through the network, counted as they run, and seconds."""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from torch import Tensor, nn

from trinas.space.decision import Option
from trinas.supernet import Mixture, Network
from trinas.supernet.order import Order

BACKWARD = 3
"""A pass with its backward counts as three forward passes: gradients of activations and of
weights each cost about what the forward pass does."""


class Passes:
    """Counts the passes of a supernet while it is in force.

    A pass counts 1, or 3 where its result asks for a gradient (whether or not a backward
    pass follows, and whatever it leaves out). One with several ends (`Network.outputs_at_exits`)
    counts for as many as it runs more operations than the pass of its mixture.

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
        network = self._network
        if isinstance(network, Network):
            network.outputs_at_exits = functools.partial(self._at_exits, network)  # type: ignore[method-assign]  # for a while
        self._start = time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.process_time() - self._start
        self._hook.remove()
        vars(self._network).pop("outputs_at_exits", None)

    def _count(self, module: nn.Module, given: Any, result: Any) -> None:
        tensors = [result] if isinstance(result, Tensor) else []
        gradient = any(t.requires_grad for t in tensors) if tensors else torch.is_grad_enabled()
        self.spent += BACKWARD if gradient else 1

    def _at_exits(
        self, network: Network, x: Tensor, mixture: Mixture, path: str, **options: Any
    ) -> dict[Option, Tensor]:
        outputs = type(network).outputs_at_exits(network, x, mixture, path, **options)
        exits = network.plan.exits(path, tuple(outputs), mixture.alive, skip=network.skip)
        whole = network.plan.order(mixture.alive, skip=network.skip)
        share = _operations(exits.order) / max(1, _operations(whole))
        gradient = any(y.requires_grad for y in outputs.values())
        self.spent += share * (BACKWARD if gradient else 1)
        return outputs


def _operations(order: Order) -> int:
    return sum(live.step.operation is not None for live in order.lives)
