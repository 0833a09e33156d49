"""What a search decides: a named domain."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

Kind: TypeAlias = Literal["operation", "path", "depth", "width", "inputs"]
Option: TypeAlias = str | int
Picked: TypeAlias = str | int | tuple[int, ...]


def chosen(picked: Picked) -> tuple[Option, ...]:
    """The options that an outcome picks: one, or the several inputs that are kept."""
    return picked if isinstance(picked, tuple) else (picked,)


@attrs.frozen
class Decision:
    """One decision of a space.

    Attributes:
        path: its name, the same in every process.
        kind: ``operation`` (a choice), ``path`` (the exit of a tree or trellis), ``depth``
            (of a repeat), ``width``, or ``inputs`` (which edges into a cell's step stay).
        options: the candidates; labels, or numbers for depth, width and inputs.
        never: options that are searched but not derived.
        order: for every option the index of the one before it on its path, -1 for none;
            None where options have no order. Sorted sparsestmax uses it.
        keep: how many options are picked together (``inputs`` only, else 1).
    """

    path: str
    kind: Kind
    options: tuple[Option, ...]
    never: tuple[Option, ...] = ()
    order: tuple[int, ...] | None = None
    keep: int = 1

    def index(self, option: Option) -> int:
        """The place of `option` among the options."""
        return self.options.index(option)

    @property
    def derivable(self) -> tuple[Option, ...]:
        """The options that a genotype may pick."""
        return tuple([o for o in self.options if o not in self.never])

    def allows(self, picked: object) -> bool:
        """Whether `picked` is a valid outcome."""
        if self.kind == "inputs":
            return (
                isinstance(picked, tuple)
                and len(picked) == self.keep
                and all(type(p) is int and p in self.options for p in picked)
                and list(picked) == sorted(set(picked))
            )
        # 8.0 and True equal 8 and 1, but are read differently elsewhere.
        return type(picked) in (int, str) and picked in self.derivable
