"""Where the batches of a run come from: a function of the step, or a loader gone through.

A batch that was taken stays the next one until its step is done. So a step that was
interrupted, or failed, is done again with the same data.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import torch

from trinas._core.errors import CheckpointError, DataError
from trinas.search.batches import (
    Batch,
    Data,
    brought_to,
    pair_of,
    require_device,
    usable,
)
from trinas.search.loading import load_part
from trinas.search.place import Place, Stateful, said_by, set_states, states_of
from trinas.supernet.seeding import seeded

_PERSISTENT = (
    "workers that persist draw on from epoch to epoch, and what they draw from here on is not "
    "what they would have without the interruption; at {}. For exact resume give the loader "
    "persistent_workers=False."
)


class Stream:
    """The batches of one run, one a step.

    A loader is gone through epoch by epoch; nothing of an epoch is kept. What it draws from
    torch's global generator (the order of a shuffling ``DataLoader``, augmentation in the
    process of the run) is a function of the seed and of how many batches there were, so every
    epoch has an order of its own, and a run that is resumed sees what an uninterrupted one does:
    a loader with `Stateful` methods goes on where it was, another one is gone through up to there.

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
        # Each is stored in one go: who is interrupted leaves the old one or the new one.
        self._at: tuple[Place, Iterator[Any] | None] = (Place(), None)
        self._taken: tuple[Batch, Place, Iterator[Any]] | None = None
        self._touched = False  # whether anything was drawn of the loader

    def take(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            DataError: it is no pair of an input and a target, or lies on another device; or a
                loader has nothing to give.
        """
        if self.function is not None:
            place = f"{self.name}({step})"
            batch = pair_of(self.function(step), place)
            require_device(batch, self._device, place)
            return usable(batch)
        if self._taken is None:
            self._taken = self._next()
        return self._taken[0]

    def done(self) -> None:
        """The step of the last batch is done."""
        if self._taken is not None:
            self._at, self._taken = self._taken[1:], None

    def _next(self) -> tuple[Batch, Place, Iterator[Any]]:
        """The next batch, the place behind it, and the iterator that is there."""
        place, iterator = self._at
        if iterator is None:
            place, iterator = self._open(place)
        else:  # if this fails, who knows where the iterator was left
            self._at = attrs.evolve(place, now=states_of(self._loader)), None
        try:
            found = self._draw(iterator, place.total)
        except StopIteration:
            if place.index:
                place, iterator = self._begin(
                    attrs.evolve(place, epoch=place.epoch + 1, index=0, began=None)
                )
            found = self._first(iterator, place)
        at = f"{self.name}, epoch {place.epoch + 1}, batch {place.index + 1}"
        batch = usable(brought_to(pair_of(found, at), self._device))
        behind = attrs.evolve(
            place,
            index=place.index + 1,
            total=place.total + 1,
            loader=said_by(self._loader),
        )
        return batch, behind, iterator

    def _first(self, iterator: Iterator[Any], place: Place) -> Any:
        try:
            return self._draw(iterator, place.total)
        except StopIteration:
            raise DataError(
                "a loader has a batch at least",
                got="none",
                at=f"{self.name}, epoch {place.epoch + 1}",
                fix="An iterator can be gone through once; pass what makes one. Does the loader "
                "drop its last batch?",
            ) from None

    def _begin(self, place: Place) -> tuple[Place, Iterator[Any]]:
        """Start an epoch; or start it again, where it had begun."""
        if place.began is None:
            place = attrs.evolve(place, began=states_of(self._loader))
        sampler = getattr(self._loader, "sampler", None)
        set_epoch = getattr(sampler, "set_epoch", None)  # as samplers of several processes have
        if callable(set_epoch):
            set_epoch(place.epoch)
        with seeded(self._number(place.total - place.index)):
            return place, iter(self._loader)

    def _open(self, place: Place) -> tuple[Place, Iterator[Any]]:
        """An iterator at a place that none is at."""
        if place.now is None:  # others may have drawn from its generators since it was loaded
            place = attrs.evolve(place, now=states_of(self._loader))
            self._at = place, None
        if place.began is None:  # the very first; kept, so that it can be done again
            set_states(self._loader, place.now)
            with seeded(self._number(0)):
                place = attrs.evolve(place, began=place.now, loader=said_by(self._loader))
            self._at = place, None
            return self._begin(place)
        set_states(self._loader, place.began)
        persists = place.epoch > 0 or self._touched
        knows = place.loader is not None and isinstance(self._loader, Stateful)
        if knows:
            self._set_loader(place)
        place, iterator = self._begin(place)
        if not knows:
            self._pass_over(iterator, place)
            if persists and getattr(self._loader, "persistent_workers", False):
                warnings.warn(_PERSISTENT.format(self.name), UserWarning, stacklevel=2)
        if place.index:
            set_states(self._loader, place.now)
        return place, iterator

    def _set_loader(self, place: Place) -> None:
        with seeded(self._number(place.total - place.index)):
            load_part(self._loader, copy.deepcopy(place.loader), f"loader of {self.name}")

    def _pass_over(self, iterator: Iterator[Any], place: Place) -> None:
        """Go through what was taken of an epoch."""
        if iterator is self._loader and self._touched:
            raise DataError(
                "an iterator is gone through once",
                got=f"one to go back to batch {place.index + 1} of",
                at=self.name,
                fix="Pass what makes one, such as a list or a DataLoader.",
            )
        for index in range(place.index):
            try:
                self._draw(iterator, place.total - place.index + index)
            except StopIteration:
                raise DataError(
                    "a loader has the batches that a run had taken of it",
                    got=f"{index} batches, not {place.index}",
                    at=f"{self.name}, epoch {place.epoch + 1}",
                    fix="Go on with the data of the run that was interrupted.",
                ) from None

    def _draw(self, iterator: Iterator[Any], number: int) -> Any:
        self._touched = True
        with seeded(self._number(number)):
            return next(iterator)

    def _number(self, batch: int) -> int:
        """The seed of what is drawn for a batch."""
        return random.Random(f"{self._seed}: {self.name}, batch {batch}").getrandbits(62)

    # -- checkpoints ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: plain values, and what the loader says."""
        if self.function is not None:
            return {"kind": "function"}
        place, iterator = self._at
        if iterator is not None or place.now is None:
            place = attrs.evolve(place, now=states_of(self._loader))
        return {"kind": "loader", **place.as_dict()}

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
        place = Place.of(state, self._loader, self.name)
        if place.loader is not None and isinstance(self._loader, Stateful):
            self._set_loader(place)  # to see whether it fits; it is done again where it is opened
        set_states(self._loader, place.now)
        self._at, self._taken = (attrs.evolve(place, now=None), None), None
