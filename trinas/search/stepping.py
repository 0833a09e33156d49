"""What steps are made with: Adam in one kernel, its rate, its step, the precision of a pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from trinas.search.checks import require_finite


def adam(
    parameters: Sequence[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Adam:
    """Adam over `parameters`; one fused kernel where torch has it (CPU and CUDA)."""
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.Adam(parameters, lr=lr, betas=betas, fused=fused)


def forget(optimiser: torch.optim.Optimizer, gone: Iterable[Tensor]) -> None:
    """Take parameters out of an optimiser, with what it remembers of them."""
    ids = {id(p) for p in gone}
    for group in optimiser.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in ids]
    for parameter in [p for p in optimiser.state if id(p) in ids]:
        del optimiser.state[parameter]


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Go on with this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def descend(
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    *,
    clip: float | None,
    what: str,
    at: str,
) -> Tensor:
    """One step along the gradients, clipped.

    Args:
        optimiser: of `parameters`.
        parameters: those whose gradients are clipped together.
        clip: their largest norm, or None.
        what: the gradients' name in a message.
        at: phase and step.

    Returns:
        Zero, or NaN where the gradients are not finite: added to a loss it makes a report tell,
        where a device has steps queued and nobody looks at a norm.

    Raises:
        DivergenceError: the norm is not finite, on the CPU, before anything moves.
    """
    norm = nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
    require_finite(norm, what, at=at)
    optimiser.step()
    return 0.0 * norm


def precision(x: Tensor, dtype: torch.dtype | None) -> torch.autocast:
    """The context of a pass over `x`: automatic mixed precision in `dtype`, none where None."""
    return torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None)
