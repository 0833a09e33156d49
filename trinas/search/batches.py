"""Where the batches of a run come from: a function of the step, or a loader gone through.

A batch that was taken stays the next one until its step is done. So a step that was
interrupted, or failed, is done again with the same data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from trinas._core.errors import CheckpointError, DataError
from trinas.search.nested import each_tensor, tensors_in
from trinas.supernet.seeding import seeded

Batch: TypeAlias = tuple[Any, Any]
"""An input and a target: tensors, or tuples, lists and dictionaries of them."""

Batches: TypeAlias = Callable[[int], Batch]
"""Input and target of a step: a pure function of its number, so that a run can resume.

A target of floating point numbers has the shape of the prediction; other targets are left to
the loss.
"""

Data: TypeAlias = Batches | Iterable[Batch]
"""What a run takes its batches from: a function of the step, or anything that can be gone
through again and again, such as a ``torch.utils.data.DataLoader``."""


@runtime_checkable
class Stateful(Protocol):
    """A loader that says where it is, and goes on from there."""

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class Stream:
    """The batches of one run, one a step.

    A loader is gone through epoch by epoch; nothing of an epoch is kept. What it draws from
    torch's global generator (the order of a shuffling ``DataLoader``, augmentation in the
    process of the run) is a function of seed, epoch and batch, so every epoch has an order of
    its own, and a run that is resumed sees what an uninterrupted one does: a loader with
    `Stateful` methods goes on where it was, another one is gone through up to there.

    Args:
        data: where batches come from.
        name: what the data are called in messages, ``train`` or ``valid``.
        seed: of the run.
        device: of the network. Batches of a loader are brought there; those of a function are
            there already.

    Raises:
        DataError: `data` is neither.
    """

    def __init__(self, data: Data, *, name: str, seed: int, device: torch.device) -> None:
        self.name = name
        self.function = data if callable(data) else None
        if self.function is None and not isinstance(data, Iterable):
            raise DataError(
                "data are a function of the step, or a loader of batches",
                got=f"a {type(data).__name__}",
                at=name,
                fix="Pass batches(step) -> (x, y), or a DataLoader.",
            )
        self._loader: Any = data
        self._seed = seed
        self._device = device
        self._iterator: Iterator[Any] | None = None
        self._epoch = 0
        self._index = 0  # batches taken of this epoch
        self._before: Tensor | None = None  # the loader's own generator, as the epoch began
        self._pending: Batch | None = None

    def take(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            DataError: it is no pair of an input and a target, or lies on another device; or a
                loader has nothing to give.
        """
        if self.function is not None:
            place = f"{self.name}({step})"
            batch = _pair(self.function(step), place)
            self._require_device(batch, place)
            return batch
        if self._pending is None:
            place = f"{self.name}, epoch {self._epoch + 1}, batch {self._index + 1}"
            batch = _pair(self._next(), place)
            # Counted last: what is interrupted here is taken again, from the iterator's place.
            moved = each_tensor(batch, lambda x: x.to(self._device, non_blocking=True))
            self._pending = moved
            return moved
        return self._pending

    def done(self) -> None:
        """The step of the last batch is done."""
        self._pending = None

    def _next(self) -> Any:
        """The next batch; after an interruption the epoch is first gone through up to there."""
        try:
            if self._iterator is None:
                self._begin()
            assert self._iterator is not None
            batch = self._advance(self._iterator, self._index)
        except StopIteration:
            self._iterator = None
        except BaseException:
            self._iterator = None  # who knows where it was left
            raise
        else:
            self._index += 1
            return batch
        if self._index == 0:
            raise DataError(
                "a loader has a batch at least",
                got="none",
                at=f"{self.name}, epoch {self._epoch + 1}",
                fix="An iterator can be gone through once; pass what makes one. Does the loader "
                "drop its last batch?",
            )
        self._epoch, self._index = self._epoch + 1, 0
        return self._next()

    def _begin(self) -> None:
        """Start an epoch, and pass over what was taken of it."""
        own, wanted = self._own_generator(), self._index
        if wanted and own is not None and self._before is not None:
            own.set_state(self._before)
        self._before = None if own is None else own.get_state()
        sampler = getattr(self._loader, "sampler", None)
        set_epoch = getattr(sampler, "set_epoch", None)  # as samplers of several processes have
        if callable(set_epoch):
            set_epoch(self._epoch)
        with seeded(self._number(0)):
            self._iterator = iter(self._loader)
        for index in range(wanted):
            try:
                self._advance(self._iterator, index)
            except StopIteration:
                raise DataError(
                    "a loader has the batches that a run had taken of it",
                    got=f"{index} batches, not {wanted}",
                    at=f"{self.name}, epoch {self._epoch + 1}",
                    fix="Go on with the data of the run that was interrupted.",
                ) from None

    def _advance(self, iterator: Iterator[Any], index: int) -> Any:
        with seeded(self._number(index)):
            return next(iterator)

    def _number(self, index: int) -> int:
        """The seed of what is drawn for a batch of this epoch."""
        place = f"{self._seed}: {self.name}, epoch {self._epoch}, batch {index}"
        return random.Random(place).getrandbits(62)

    def _own_generator(self) -> torch.Generator | None:
        found = getattr(self._loader, "generator", None)
        return found if isinstance(found, torch.Generator) else None

    def _require_device(self, batch: Batch, place: str) -> None:
        for tensor in tensors_in(batch):
            if tensor.device.type != self._device.type:
                raise DataError(
                    "batches lie on the device of the network",
                    got=f"a tensor on {tensor.device}, the network on {self._device}",
                    at=place,
                    fix="Move both, the network before its Search or Training is made.",
                )

    # -- checkpoints ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: plain values, and what the loader says."""
        if self.function is not None:
            return {"kind": "function"}
        says = isinstance(self._loader, Stateful) and self._iterator is not None
        return {
            "kind": "loader",
            "epoch": self._epoch,
            "index": self._index,
            "generator": self._before,
            "loader": self._loader.state_dict() if says else None,
            "pending": self._pending,
        }

    def load_state_dict(self, state: Any) -> None:
        """Go on from there; a loader without a state is gone through up to there.

        Raises:
            CheckpointError: it is no such state, or of data of the other kind.
        """
        kind = "function" if self.function is not None else "loader"
        if not isinstance(state, dict) or state.get("kind") != kind:
            found = state.get("kind") if isinstance(state, dict) else type(state).__name__
            raise CheckpointError(
                "a run resumes with data of the kind that it was saved with",
                got=f"a state of a {found}",
                at=f"{self.name}, a {kind}",
            )
        if kind == "function":
            return
        self._epoch, self._index = (_whole(state, key, self.name) for key in ("epoch", "index"))
        before = state.get("generator")
        self._before = before.cpu() if isinstance(before, Tensor) else None
        self._iterator = None
        loader: Any = self._loader
        if isinstance(loader, Stateful) and state.get("loader") is not None:
            loader.load_state_dict(state["loader"])
            self._iterator = iter(self._loader)
        pending = state.get("pending")
        self._pending = None if pending is None else (pending[0], pending[1])


def _whole(state: dict[str, Any], key: str, name: str) -> int:
    value = state.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CheckpointError(
            "a checkpoint says how far its data were gone through", got=repr(value), at=name
        )
    return value


def _pair(batch: Any, place: str) -> Batch:
    known = isinstance(batch, tuple | list) and len(batch) == 2
    if not known or next(tensors_in(batch[0]), None) is None:
        raise DataError(
            "a batch is a pair of an input tensor and a target",
            got=described(batch),
            at=place,
            fix=f"{place.partition('(')[0].partition(',')[0]} gives both. An input may be a "
            "tuple or a dictionary of tensors.",
        )
    return batch[0], batch[1]


def described(value: object) -> str:
    """What kind of thing it is, for a message."""
    if isinstance(value, tuple | list):
        inside = ", ".join(type(part).__name__ for part in value)
        return f"a {type(value).__name__} of {inside or 'nothing'}"
    return f"a {type(value).__name__}"
