"""A named collection that refuses duplicates and knows what you may have meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from trinas._core.declared import declared_at
from trinas._core.errors import SpaceError, UnknownNameError
from trinas._core.hints import did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to things of one kind.

    Args:
        kind: what the things are, in the singular ("operation"); used in messages.

    >>> colours = Registry("colour")
    >>> colours.register("red")("#f00")
    '#f00'
    >>> colours["rad"]
    Traceback (most recent call last):
        ...
    trinas._core.errors.UnknownNameError: unknown colour; got 'rad'. Did you mean 'red'? Known: red.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files a thing under `name`.

        A definition that is run once more (a notebook's cell) takes the place of its
        former self.

        Raises:
            SpaceError: `name` is taken by something else.
        """

        def add(item: T) -> T:
            if name in self._items and not _same_definition(item, self._items[name]):
                raise SpaceError(
                    f"{self._kind} names are unique",
                    got=name,
                    at=declared_at(),
                    fix=f"It is taken by {self._items[name]!r}; choose another name.",
                )
            self._items[name] = item
            return item

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except (KeyError, TypeError):
            fix = did_you_mean(name, self._items, then=f"Known: {', '.join(self)}.", most=3)
            raise UnknownNameError(f"unknown {self._kind}", got=repr(name), fix=fix) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)


def _same_definition(new: object, old: object) -> bool:
    """Whether two classes or functions come from the same lines, run twice."""
    names = ("__module__", "__qualname__")
    return all(
        getattr(new, name, None) is not None and getattr(new, name) == getattr(old, name, None)
        for name in names
    )
