"""One row of a SQLite file at hand: read on the event loop, where that waits for nobody.

Belongs here: asking without SQLAlchemy's machinery, whose size is most of what a first byte would
wait for on a core that has just done something else. Must not know: what is asked, or who asks.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Dialect, Select

from proxy.looks import Looks

Read = Callable[[Any], Any] | None


class AtHand:
    """A connection of the event loop's own to an existing file, opened when it is first used."""

    def __init__(self, path: str, dialect: Dialect) -> None:
        """Take the file's path, and how its values are written."""
        self._path = path
        self._dialect = dialect
        self._looks = Looks()
        self._connection: sqlite3.Connection | None = None
        self._known: dict[Select[*tuple[Any, ...]], tuple[str, Sequence[Read]]] = {}

    def first(
        self, statement: Select[*tuple[Any, ...]], given: tuple[str, ...]
    ) -> tuple[Any, ...] | None:
        """The first row that a statement selects, which is kept for good; None: there is none.

        `given` are its parameters, in their order. Raises BlockingIOError where it would have to
        wait: the file is locked or broken, or its disk slow. A thread has the patience to see.
        """
        try:
            return self._looks.here(lambda: self._first(statement, given))
        except sqlite3.Error as error:
            raise BlockingIOError(errno.EAGAIN, "the catalog is busy") from error

    def _first(
        self, statement: Select[*tuple[Any, ...]], given: tuple[str, ...]
    ) -> tuple[Any, ...] | None:
        if statement not in self._known:
            self._known[statement] = self._prepared(statement)
        sql, reads = self._known[statement]
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, timeout=0.0, isolation_level=None)
            self._connection.execute("PRAGMA query_only = ON")
        row = self._connection.execute(sql, given).fetchone()
        if row is None:
            return None
        return tuple(
            value if read is None else read(value) for value, read in zip(row, reads, strict=True)
        )

    def _prepared(self, statement: Select[*tuple[Any, ...]]) -> tuple[str, Sequence[Read]]:
        types = [column.type.dialect_impl(self._dialect) for column in statement.selected_columns]
        reads = [one.result_processor(self._dialect, None) for one in types]
        return str(statement.compile(dialect=self._dialect)), reads

    def close(self) -> None:
        """Close the connection; harmless when repeated."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
