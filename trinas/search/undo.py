"""Taking back a step that did not come to its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_Entry = dict[str, Any]


class Undo:
    """Copies of what a step changes, from before it changed it.

    Buffers (statistics of normalisation) are copied as a step begins, parameters and what
    optimisers remember of them just before an optimiser moves them. The copies are kept and
    written over, so that a step allocates nothing for them.

    Args:
        model: whose buffers change.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._mirrors: dict[int, Tensor] = {}
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._entries: list[tuple[torch.optim.Optimizer, Tensor, _Entry | None]] = []
        self._more: list[Any] = []

    def begin(self) -> None:
        """Start a step: forget the last one, and keep the buffers."""
        self.clear()
        self.keep(list(self._model.buffers()))

    def keep(self, tensors: Sequence[Tensor]) -> None:
        """Keep the values of tensors that are about to change in place."""
        pairs = [(tensor, self._mirror(tensor)) for tensor in tensors]
        if pairs:
            with torch.no_grad():
                _copy([copy for _, copy in pairs], [tensor for tensor, _ in pairs])
        self._tensors += pairs  # only now that they are whole

    def keep_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Keep what the next step of an optimiser changes: what has a gradient."""
        moving = [p for g in optimiser.param_groups for p in g["params"] if p.grad is not None]
        entries = [
            (optimiser, p, dict(optimiser.state[p]) if p in optimiser.state else None)
            for p in moving
        ]
        held = [v for _, _, e in entries for v in (e or {}).values() if isinstance(v, Tensor)]
        self.keep([*moving, *held])
        self._entries += entries

    def keep_call(self, restore: Any) -> None:
        """Keep a function that sets something back."""
        self._more.append(restore)

    def restore(self) -> None:
        """Set everything back to where it was kept; can be done again if interrupted."""
        with torch.no_grad():
            if self._tensors:
                _copy([tensor for tensor, _ in self._tensors], [copy for _, copy in self._tensors])
        for optimiser, parameter, entry in self._entries:
            if entry is None:
                optimiser.state.pop(parameter, None)
            else:
                optimiser.state[parameter] = dict(entry)
        for restore in self._more:
            restore()
        self.clear()

    def clear(self) -> None:
        """Nothing is to be taken back any more."""
        self._tensors, self._entries, self._more = [], [], []

    @property
    def stepped(self) -> bool:
        """Whether an optimiser is about to step, or did."""
        return bool(self._entries)

    @property
    def armed(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._tensors or self._entries or self._more)

    def _mirror(self, tensor: Tensor) -> Tensor:
        known = self._mirrors.get(id(tensor))
        if known is None or known.shape != tensor.shape or known.dtype != tensor.dtype:
            known = self._mirrors[id(tensor)] = torch.empty_like(tensor, requires_grad=False)
        return known


def _copy(into: list[Tensor], values: list[Tensor]) -> None:
    # Hundreds of small tensors in one call, as torch's optimisers do it.
    torch._foreach_copy_(into, values)  # type: ignore[reportPrivateImportUsage]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, signals to interrupt or to end wait: what is done here is done whole."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread alone
        return
    asked: list[int] = []
    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, lambda got, frame: asked.append(got))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in asked:
        signal.raise_signal(number)
