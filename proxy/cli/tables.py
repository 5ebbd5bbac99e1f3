"""A table that fits the terminal, written page by page so that any number of rows can pass.

Belongs here: widths. Must not know: what is in it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size

from proxy.cli.words import printable

_GAP: Final = 2
_LEAST: Final = 12
"""Columns of a terminal that a text keeps which may be cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`cut`: may be cut to fit; `optional`: may be left out, the rightmost first."""

    heading: str
    right: bool = False
    cut: bool = False
    optional: bool = False


class Listing:
    """Lines of a table. The first page settles the widths; `width` None: everything is shown."""

    def __init__(self, columns: Sequence[Column], *, width: int | None) -> None:
        """Take the columns; see `terminal_width`."""
        self._columns = columns
        self._width = width
        self._widths: list[int] | None = None

    def lines(self, rows: Sequence[Sequence[str]]) -> Iterator[str]:
        """The lines of one page, the headings before the first."""
        shown = [[printable(cell) for cell in row] for row in rows]
        headings = [column.heading for column in self._columns]
        if self._widths is None:
            self._widths = self._fit([headings, *shown])
            yield self._line(headings)
        for row in shown:
            yield self._line(row)

    def _fit(self, rows: Sequence[Sequence[str]]) -> list[int]:
        """Widths by column; 0: left out."""
        widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
        if self._width is None:
            return widths
        optional = [at for at, column in enumerate(self._columns) if column.optional]
        while optional and self._excess(widths, least=True) > 0:
            widths[optional.pop()] = 0
        for at, column in enumerate(self._columns):
            if column.cut and widths[at]:
                excess = max(0, self._excess(widths, least=False))
                widths[at] = max(min(widths[at], _LEAST), widths[at] - excess)
        return widths

    def _excess(self, widths: Sequence[int], *, least: bool) -> int:
        """Columns by which a line is too wide; `least`: even if all that may be cut is."""
        used = [
            min(width, _LEAST) if least and column.cut else width
            for width, column in zip(widths, self._columns, strict=True)
            if width
        ]
        return sum(used) + _GAP * (len(used) - 1) - (self._width or 0)

    def _line(self, cells: Sequence[str]) -> str:
        parts = []
        for cell, width, column in zip(cells, self._widths or (), self._columns, strict=True):
            if width:
                parts.append(_cell(cell, width, column))
        return (" " * _GAP).join(parts).rstrip()


def _cell(cell: str, width: int, column: Column) -> str:
    missing = width - cell_len(cell)
    if missing < 0 and column.cut:
        return set_cell_size(cell, width - 1) + "…"
    return " " * missing + cell if column.right else cell + " " * missing


def terminal_width() -> int | None:
    """Columns of the terminal that is written to; None: it is a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
