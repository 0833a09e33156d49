"""What steps are made with: Adam in one kernel, its rate, the precision of a pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


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


def precision(x: Tensor, dtype: torch.dtype | None) -> torch.autocast:
    """The context of a pass over `x`: automatic mixed precision in `dtype`, none where None."""
    return torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None)
