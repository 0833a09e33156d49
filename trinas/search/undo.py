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
    written over, so that a step allocates nothing for them. And it is kept which tensors the
    layers had: others are lent to them for the time of a pass.

    Args:
        model: whose buffers change.
        keeps: whether anything is copied; not where nobody takes a step back.
    """

    def __init__(self, model: nn.Module, *, keeps: bool = True) -> None:
        self._model = model
        self._keeps = keeps
        self._owned: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._groups: list[tuple[_Entry, _Entry]] = []
        self._ids: set[int] = set()
        self._mirrors: dict[int, Tensor] = {}
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._entries: list[tuple[torch.optim.Optimizer, Tensor, _Entry | None]] = []
        self._more: list[Any] = []

    def begin(self) -> None:
        """Start a step: forget the last one, and keep the buffers."""
        self.clear()
        self._owned = [
            (own, dict(own))
            for layer in self._model.modules()
            for own in (layer._parameters, layer._buffers)
            if own
        ]
        self.keep(list(self._model.buffers()))

    def keep(self, tensors: Sequence[Tensor]) -> None:
        """Keep the values of tensors that are about to change in place."""
        # What two optimisers move is kept as the first found it.
        new = {id(tensor): tensor for tensor in tensors if id(tensor) not in self._ids}
        pairs = [(tensor, self._mirror(tensor)) for tensor in new.values() if self._keeps]
        if pairs:
            with torch.no_grad():
                _copy([copy for _, copy in pairs], [tensor for tensor, _ in pairs])
        self._tensors += pairs  # only now that they are whole
        self._ids |= new.keys()

    def keep_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Keep what the next step of an optimiser changes: what has a gradient, and settings."""
        self.keep_settings(optimiser)
        moving = [p for g in optimiser.param_groups for p in g["params"] if p.grad is not None]
        entries = [
            (optimiser, p, dict(optimiser.state[p]) if p in optimiser.state else None)
            for p in moving
        ]
        held = [v for _, _, e in entries for v in (e or {}).values() if isinstance(v, Tensor)]
        self.keep([*moving, *held])
        self._entries += entries

    def keep_settings(self, optimiser: torch.optim.Optimizer) -> None:
        """Keep the settings in the groups of an optimiser, such as rates."""
        groups = [(group, dict(group)) for group in optimiser.param_groups]
        self.keep([v for _, kept in groups for v in kept.values() if isinstance(v, Tensor)])
        self._groups += groups

    def keep_call(self, restore: Any) -> None:
        """Keep a function that sets something back."""
        self._more.append(restore)

    def restore(self) -> None:
        """Set everything back to where it was kept; can be done again if interrupted."""
        for own, kept in self._owned:
            own.update(kept)
        with torch.no_grad():
            if self._tensors:
                _copy([tensor for tensor, _ in self._tensors], [copy for _, copy in self._tensors])
        for optimiser, parameter, entry in self._entries:
            if entry is None:
                optimiser.state.pop(parameter, None)
            else:
                optimiser.state[parameter] = dict(entry)
        for group, settings in reversed(self._groups):  # the first that was kept is the oldest
            group.update(settings)
            for key in group.keys() - settings.keys():
                del group[key]
        for restore in self._more:
            restore()
        self.clear()

    def clear(self) -> None:
        """Nothing is to be taken back any more."""
        self._tensors, self._entries, self._groups = [], [], []
        self._owned, self._more, self._ids = [], [], set()

    def forget_copies(self) -> None:
        """Give back the memory of copies, of which some are of what is gone."""
        self._mirrors.clear()

    @property
    def stepped(self) -> bool:
        """Whether an optimiser is about to step, or did."""
        return bool(self._entries)

    @property
    def armed(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._owned or self._tensors or self._entries or self._groups or self._more)

    def _mirror(self, tensor: Tensor) -> Tensor:
        known = self._mirrors.get(id(tensor))
        if known is None or known.shape != tensor.shape or known.dtype != tensor.dtype:
            known = self._mirrors[id(tensor)] = torch.empty_like(tensor, requires_grad=False)
        return known


def _copy(into: list[Tensor], values: list[Tensor]) -> None:
    # Hundreds of small tensors in one call, as torch's optimisers do it.
    torch._foreach_copy_(into, values)  # type: ignore[reportPrivateImportUsage]


_ASKING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)  # not all systems have them all
)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, signals (to interrupt, to end, alarms) wait: what is done here is done whole."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread alone
        return
    asked: list[int] = []
    before: dict[int, Any] = {}
    try:
        for number in _ASKING:
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, lambda got, frame: asked.append(got))
        yield
    finally:
        _give_back(before)
    for number in asked:
        signal.raise_signal(number)


def _give_back(before: dict[int, Any]) -> None:
    """Set handlers as they were, all of them, even if one that is back interrupts this."""
    try:
        while before:
            number, handler = next(iter(before.items()))
            signal.signal(number, handler)
            del before[number]
    except BaseException:
        _give_back(before)
        raise
