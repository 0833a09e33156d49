"""Computing a part of a network a second time, as activation checkpointing does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Again:
    """Modules as they were when this was made, for computing once more what they computed.

    Their modes and tensors are those of then, which differ from those of now under
    `batch_statistics` and `torch.func.functional_call`; running statistics do not move a
    second time. It can be entered again, as differentiating twice does.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._then = [(m, {**m._parameters}, {**m._buffers}, m.training) for m in modules]
        self._now: list[tuple[nn.Module, dict[str, Any], dict[str, Any], bool, Any]] = []

    def __enter__(self) -> None:
        self._now = [
            (m, {**m._parameters}, {**m._buffers}, m.training, getattr(m, "momentum", None))
            for m, *_ in self._then
        ]
        for module, parameters, buffers, training in self._then:
            module._parameters.update(parameters)
            module._buffers.update(buffers)
            module.training = training
            if isinstance(module, _BatchNorm):
                module.momentum = 0.0
                module._buffers["num_batches_tracked"] = None

    def __exit__(self, *_: object) -> None:
        for module, parameters, buffers, training, momentum in self._now:
            module._parameters.update(parameters)
            module._buffers.update(buffers)
            module.training = training
            if isinstance(module, _BatchNorm):
                module.momentum = momentum
