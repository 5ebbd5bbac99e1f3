"""Registrations out of a file or a request's body.

Belongs here: CSV and JSON lines, their encodings, their bounds, and the number of the row at
fault. Must not know: what a field may hold (`said.py`), or any database.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

import orjson

from proxy.catalog import said
from proxy.catalog.said import Check
from proxy.errors import BadRequest
from proxy.records import Generation, Registration

MAX_LINE: Final = 1024 * 1024
"""Bytes of one line; longer ones are refused without being held in memory."""

_MOST_IGNORED: Final = 50
_UTF8_BOM: Final = b"\xef\xbb\xbf"
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_ROW_NAMES: Final = frozenset(field.name for field in fields(Generation))


class Kind(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be used, and all that is wrong with it.

    `row` counts as the file's author sees it: lines of JSON lines, rows of a spreadsheet with its
    header as row 1.
    """

    row: int
    reasons: tuple[str, ...]
    request_id: str | None = None

    def __str__(self) -> str:
        return f"row {self.row}: {'; '.join(self.reasons)}"


def kind_of(name: str) -> Kind | None:
    """Tell a file's kind by its name's ending; None if that says nothing."""
    ending = name.lower().removesuffix(".txt").rpartition(".")[2]
    if ending in {"csv", "tsv"}:
        return Kind.CSV
    return Kind.JSONL if ending in {"jsonl", "ndjson"} else None


class Reader:
    """The rows of a file, one after the other, in bounded memory.

    `ignored` names the columns that mean nothing here, as far as they were met. Raises BadRequest
    when the file as a whole cannot be read: UTF-16, a JSON array, a CSV without a column of ids.
    """

    def __init__(
        self, stream: io.BufferedReader, kind: Kind | None = None, check: Check | None = None
    ) -> None:
        """Take an open file; with no `kind` its first byte tells."""
        self.ignored: dict[str, None] = {}
        self._check = check
        self._lines = _Lines(stream)
        self._kind = kind or self._guess(stream)

    def __iter__(self) -> Iterator[Registration | Refused]:
        return self._csv() if self._kind is Kind.CSV else self._json_lines()

    @staticmethod
    def _guess(stream: io.BufferedReader) -> Kind:
        start = stream.peek(64)[:64].removeprefix(_UTF8_BOM).lstrip()
        return Kind.JSONL if start[:1] in {b"{", b"["} else Kind.CSV

    # -- CSV ---

    def _csv(self) -> Iterator[Registration | Refused]:
        header = next(self._lines, None)
        if header is None:
            return
        delimiter, names = _header(header)
        self._ignore(names)
        source = _Texts(self._lines)
        # strict: a stray quote is refused, not guessed at
        table = csv.reader(source, delimiter=delimiter, strict=True)
        number = 1
        while True:
            number += 1
            try:
                cells = next(table)
            except StopIteration:
                return
            except _Unreadable as error:
                yield Refused(number, (error.reason,))
            except csv.Error as error:
                yield Refused(number, (f"not CSV: {error}; is a quote left open?",))
            else:
                if any(cells):  # spreadsheets write empty rows too
                    yield self._cells(number, names, cells)

    def _cells(self, number: int, names: list[str], cells: list[str]) -> Registration | Refused:
        if len(cells) > len(names) and any(cells[len(names) :]):
            reason = f"{len(cells)} values, but the header names {len(names)} columns"
            return Refused(number, (reason,))
        row: dict[str, object] = {}
        for name, cell in zip(names, cells, strict=False):
            row[name] = row.get(name) or cell
        return self._row(number, row)

    # -- JSON lines ---

    def _json_lines(self) -> Iterator[Registration | Refused]:
        for number, line in enumerate(self._lines, start=1):
            if isinstance(line, _Unreadable):
                yield Refused(number, (line.reason,))
                continue
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if number == 1 and line.lstrip().startswith("["):
                    raise BadRequest(_NOT_AN_ARRAY) from error
                yield Refused(number, (f"not JSON: {error}",))
                continue
            if isinstance(row, list) and number == 1:
                raise BadRequest(_NOT_AN_ARRAY)
            if not isinstance(row, dict):
                yield Refused(number, ("must be a JSON object",))
                continue
            row = {said.plain_name(name): value for name, value in row.items()}
            self._ignore(row)
            yield self._row(number, row)

    # -- both ---

    def _row(self, number: int, row: dict[str, object]) -> Registration | Refused:
        found = said.read(row, self._check)
        if isinstance(found, Registration):
            return found
        request_id = row.get("request_id") or row.get("id")
        return Refused(
            number, tuple(found), str(request_id)[:128] if request_id is not None else None
        )

    def _ignore(self, names: list[str] | dict[str, Any]) -> None:
        if len(self.ignored) < _MOST_IGNORED:
            self.ignored |= {name[:80]: None for name in names if name not in said.KNOWN_NAMES}
            self.ignored.pop("", None)


def _header(line: str | _Unreadable) -> tuple[str, list[str]]:
    """The delimiter, which is the one that is met most, and the columns' names."""
    if isinstance(line, _Unreadable):
        raise BadRequest(f"The header {line.reason}")
    delimiter = max(",;\t", key=line.count)
    try:
        [names] = csv.reader([line], delimiter=delimiter, strict=True)
    except (csv.Error, ValueError) as error:
        raise BadRequest(f"The header is not CSV: {error}") from error
    names = [said.plain_name(name) for name in names]
    if not {"request_id", "id"} & set(names):
        raise BadRequest("The first row must name the columns, and one of them request_id")
    return delimiter, names


_NOT_AN_ARRAY: Final = "This is a JSON array: write one object a line, without brackets or commas"


class _Unreadable(Exception):
    """A line that cannot be text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Lines:
    """Lines of text, ends included, or why a line is none; goes on after such a line."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._first = True

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str | _Unreadable:
        line = self._stream.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        if self._first:
            self._first = False
            if line.startswith(_UTF16_BOMS):
                raise BadRequest("This file is UTF-16: save it as UTF-8")
            line = line.removeprefix(_UTF8_BOM)
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = self._stream.readline(MAX_LINE)
            return _Unreadable(f"is longer than {MAX_LINE} bytes")
        try:
            return line.decode()
        except UnicodeDecodeError:
            return _Unreadable("is not UTF-8 text")


class _Texts:
    """The same for csv.reader, which takes texts only and survives what its source raises."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def __iter__(self) -> _Texts:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if isinstance(line, _Unreadable):
            raise line
        return line


def parse_body(request_id: str, data: bytes, check: Check | None = None) -> Registration:
    """Read the JSON object that registers `request_id`.

    Fields that a generation has but that nobody may set (status, etag, …) are passed over, so
    that what was read can be written back. Raises BadRequest that lists every mistake.
    """
    body = said.json_object(data)
    unknown = sorted(body.keys() - said.KNOWN_NAMES - _ROW_NAMES)
    mistakes = [f"{name[:80]!r} is not a field" for name in unknown]
    named = body.pop("request_id", body.pop("id", None))
    if named is not None and named != request_id:
        mistakes.append("request_id is not the one in the address")
    found = said.read({**body, "request_id": request_id}, check)
    if isinstance(found, Registration) and not mistakes:
        return found
    raise BadRequest("; ".join(mistakes + (found if isinstance(found, list) else [])))
