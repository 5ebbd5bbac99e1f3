"""Registrations out of an application's own table in PostgreSQL, which is only ever read.

Belongs here: connecting, which columns mean something, batches, and what a failure means. Must not
know: what a field may hold (`said.py`), or our own catalog.

The table is the one of an application that mirrored its clips by itself: `generations(request_id,
fal_url, cdn_url, status, mirrored_at)`. Its statuses are its own and do not become ours; what it
says it has mirrored is found in the bucket by whoever looks there.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import asyncpg

from proxy.catalog import addresses, said
from proxy.catalog.imports import Refused
from proxy.catalog.said import Check
from proxy.errors import BadRequest, CatalogUnavailable, SettingsError
from proxy.records import Registration

BATCH: Final = 1000
"""Rows fetched, and handed on, at once."""
OPTION: Final = "--from-postgres"

_CONNECT: Final = 10.0
_STATEMENT: Final = 60.0
"""Seconds."""

_COLUMNS: Final = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


class ForeignRows:
    """An application's table, open: its rows in batches, in one snapshot.

    `ignored` names the columns that mean nothing here.
    """

    def __init__(
        self, connection: asyncpg.Connection[Any], table: str, columns: list[str], check: Check
    ) -> None:
        """Take the quoted table and its columns; `opened` makes one."""
        self._connection = connection
        self._table = table
        self._taken = _taken(columns)
        self._check = check
        self.ignored = [name for name in columns if name not in self._taken.values()]

    async def batches(self) -> AsyncIterator[list[Registration | Refused]]:
        """Every row, checked; raises SettingsError, CatalogUnavailable."""
        names = ", ".join(f"{quoted(column)}" for column in self._taken.values())
        fields = list(self._taken)
        # Quoted by us: names cannot be parameters.
        query = f"SELECT {names} FROM {self._table}"  # noqa: S608
        with _explained(self._table):
            cursor = await self._connection.cursor(query)
        number = 0
        while True:
            with _explained(self._table):
                records = await cursor.fetch(BATCH)
            if not records:
                return
            rows = [dict(zip(fields, record.values(), strict=True)) for record in records]
            yield [self._row(number + n, row) for n, row in enumerate(rows, 1)]
            number += len(rows)

    def _row(self, number: int, row: Mapping[str, object]) -> Registration | Refused:
        plain = {name: _plain(value) for name, value in row.items()}
        found = said.read(plain, self._check)
        if isinstance(found, Registration):
            return found
        request_id = plain["request_id"]
        shown = None if request_id is None else str(request_id)[:128]
        return Refused(number, tuple(found), shown)


@contextlib.asynccontextmanager
async def opened(url: str, table: str, check: Check) -> AsyncIterator[ForeignRows]:
    """Connect, read-only, and find the table, `name` or `schema.name`, spelt as it is there.

    Raises SettingsError when it cannot be used as it is, CatalogUnavailable when the database does
    not answer. Neither repeats the address: it may hold a password.
    """
    name = ".".join(quoted(part) for part in _parts(table))
    connection = await _connected(url)
    try:
        with _explained(table):
            columns = await _columns(connection, table, name)
        yield ForeignRows(connection, name, columns, check)
    finally:
        with contextlib.suppress(Exception):  # whatever it was, it is over
            await connection.close(timeout=_CONNECT)


async def _columns(connection: asyncpg.Connection[Any], table: str, name: str) -> list[str]:
    """Begin the snapshot that all is read from, and look which columns there are."""
    await connection.transaction(isolation="repeatable_read", readonly=True).start()
    columns = [row["attname"] for row in await connection.fetch(_COLUMNS, name)]
    if not columns:
        raise SettingsError(
            f"{OPTION}: there is no table {table}; give its name with --table, as schema.table if"
            " need be, capitals included"
        )
    if "request_id" not in _taken(columns):
        raise SettingsError(f"{OPTION}: the table {table} has no column request_id")
    return columns


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever characters it has (PostgreSQL, 4.1.1)."""
    return '"' + name.replace('"', '""') + '"'


def _parts(table: str) -> list[str]:
    parts = table.split(".")
    if len(parts) > 2 or not all(parts) or "\0" in table:  # noqa: PLR2004 - schema and table
        raise SettingsError("--table must be a table's name, or schema.table")
    return parts


async def _connected(url: str) -> asyncpg.Connection[Any]:
    unusable = (
        f"{OPTION} is not a usable PostgreSQL address: write postgresql://user@host/database, and"
        " percent-encode special characters; the password may come from PGPASSWORD or ~/.pgpass"
    )
    if url.partition(":")[0] not in {"postgresql", "postgres"}:
        raise SettingsError(unusable)
    try:
        address = addresses.for_asyncpg(url)
        return await asyncpg.connect(
            address,
            timeout=_CONNECT,
            command_timeout=_STATEMENT,
            # Poolers hand a statement that one connection prepared to another one.
            statement_cache_size=0,
        )
    except (SettingsError, ValueError, asyncpg.ClientConfigurationError):
        raise SettingsError(unusable) from None
    except asyncpg.InvalidAuthorizationSpecificationError:  # a wrong password too
        raise SettingsError(f"{OPTION}: the database refuses this user or password") from None
    except asyncpg.InvalidCatalogNameError:
        raise SettingsError(f"{OPTION}: there is no such database") from None
    except asyncpg.InsufficientPrivilegeError:
        raise SettingsError(f"{OPTION}: this user may not connect to this database") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise CatalogUnavailable(f"{OPTION}: the database cannot be reached.") from None


@contextlib.contextmanager
def _explained(table: str) -> Iterator[None]:
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise SettingsError(f"{OPTION}: this user may not read the table {table}") from error
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise SettingsError(f"{OPTION}: the table {table} was changed meanwhile") from error
    except (asyncpg.DataError, OverflowError, ValueError) as error:  # years before Christ, say
        raise BadRequest(f"{OPTION}: the table {table} cannot be read: {error}") from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CatalogUnavailable(f"{OPTION}: the database stopped answering.") from error


def _taken(columns: list[str]) -> dict[str, str]:
    """Which column says what: of each field's names the first that the table has.

    Other than in a file, `id` is never the request id: in a database it is the row's own.
    """
    plain = {said.plain_name(column): column for column in reversed(columns)}
    taken = {}
    for names in said.NAMES:
        candidates = names[:1] if names[0] == "request_id" else names
        name = next((name for name in candidates if name in plain), None)
        if name is not None:
            taken[names[0]] = plain[name]
    return taken


def _plain(value: object) -> object:
    """A value as `said.py` reads it, which knows texts and numbers."""
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral() else float(value)
    return value
