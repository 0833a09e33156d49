"""Static regions compiled by torch, once for all places that are built alike."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from trinas.ops import Cut
from trinas.supernet.mixing import scaled_sum
from trinas.supernet.order import Block, Part

Region: TypeAlias = Callable[..., Tensor]

_WHOLE = Cut()


class Compiled:
    """Compiled functions by what they compute.

    Args:
        options: for `torch.compile`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {"dynamic": True, "fullgraph": True, **options}
        self._functions: dict[tuple[Any, ...], Region] = {}

    def __call__(
        self,
        region: Block,
        modules: Sequence[nn.Module | None],
        cuts: Sequence[Cut | None],
        scores: Sequence[Sequence[Tensor]],
        inputs: Sequence[Tensor],
    ) -> Tensor:
        """The result of a region.

        Args:
            region: what is computed.
            modules: of its operations, step by step.
            cuts: how much of each runs; None where nothing is searched.
            scores: weights that a result is multiplied by, step by step.
            inputs: what the region reads.
        """
        recipe = region.recipe
        # What torch would compile anew for is told apart here, so that each function has
        # its own allowance of variants, and they do not add up.
        key = (
            recipe,
            tuple(_form(cut) for cut in cuts),
            tuple(map(len, scores)),
            torch.is_grad_enabled(),
            tuple(_kind(x) for x in inputs),
            torch.is_autocast_enabled(inputs[0].device.type),
            any(module.training for module in modules if module is not None),
        )
        if key not in self._functions:
            self._functions[key] = torch.compile(_function(recipe), **self._options)
        return self._functions[key](modules, cuts, scores, inputs)

    def __getstate__(self) -> dict[str, Any]:
        # Compiled code is made again by whoever loads this.
        return {**self.__dict__, "_functions": {}}


def _form(cut: Cut | None) -> tuple[object, ...]:
    if cut is None:
        return ()
    sides = ((type(side), isinstance(side, int) and side == 1) for side in (cut.ins, cut.outs))
    return *sides, cut.same if isinstance(cut.same, bool) else None


def _kind(x: Tensor) -> tuple[object, ...]:
    """What torch takes no number for: it holds sizes of 1 for constants."""
    return x.dtype, x.device.type, x.requires_grad, tuple(n == 1 for n in x.shape)


def _function(recipe: tuple[Part, ...]) -> Region:
    def region(
        modules: Sequence[nn.Module],
        cuts: Sequence[Cut | None],
        scores: Sequence[Sequence[Tensor]],
        inputs: Sequence[Tensor],
    ) -> Tensor:
        values = list(inputs)
        for part, module, cut, weights in zip(recipe, modules, cuts, scores):
            xs = [values[i] for i in part.inputs]
            if part.operation is None:
                y = merged(part.kind, xs, part.coefs)
            else:
                y = part.operation.run(module, xs[0], _WHOLE if cut is None else cut)
            for weight in weights:
                y = y * weight.to(y.dtype)
            values.append(y)
        return values[-1]

    # torch keeps compiled variants by code object, of which closures share one.
    code = region.__code__.replace()
    return types.FunctionType(code, region.__globals__, closure=region.__closure__)


def merged(kind: str, inputs: Sequence[Tensor], coefs: tuple[float, ...]) -> Tensor:
    """The result of a ``concat``, a ``product``, or a sum with factors."""
    if kind == "concat":
        return torch.cat(list(inputs), dim=1)
    if kind == "product":
        return functools.reduce(operator.mul, inputs)
    factors = coefs or (1.0,) * len(inputs)
    return scaled_sum(inputs, factors)
