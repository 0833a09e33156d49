"""A table as it is printed: on a terminal, or in a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

Cells = tuple[str, ...]


def _cells(values: Iterable[str]) -> Cells:
    return tuple(values)


def _rows(values: Iterable[Iterable[str]]) -> tuple[Cells, ...]:
    return tuple(tuple(row) for row in values)


@attrs.frozen(kw_only=True)
class Sheet:
    """Words in rows and columns, with notes below.

    Attributes:
        title: what it is.
        head: name of every column.
        rows: as many cells each.
        notes: sentences, in Markdown.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.

    >>> sheet = Sheet(title="Numbers", head=("n", "square"), rows=[("3", "9")], notes=["Small."])
    >>> print(sheet.text())
    Numbers
    <BLANKLINE>
    n  square
    3  9
    <BLANKLINE>
    - Small.
    >>> print(sheet.markdown())
    | n | square |
    |---|---|
    | 3 | 9 |
    <BLANKLINE>
    - Small.
    """

    title: str
    head: Cells = attrs.field(converter=_cells)
    rows: tuple[Cells, ...] = attrs.field(converter=_rows)
    notes: Cells = attrs.field(default=(), converter=_cells)

    def __attrs_post_init__(self) -> None:
        """Refuse rows that do not fit."""
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"{self.title}: a row has not {len(self.head)} cells")

    def text(self) -> str:
        """For a terminal: columns aligned."""
        lines = [self.head, *self.rows]
        widths = [max(len(row[k]) for row in lines) for k in range(len(self.head))]
        body = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in lines]
        return "\n".join([self.title, "", *body, *self._notes()])

    def markdown(self) -> str:
        """For a page, without the title, which is a heading there."""
        body = [_line(self.head), "|" + "---|" * len(self.head), *map(_line, self.rows)]
        return "\n".join([*body, *self._notes()])

    def _notes(self) -> list[str]:
        return ["", *(f"- {note}" for note in self.notes)] if self.notes else []


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
