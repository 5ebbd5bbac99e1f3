"""What a foreign exception of the database means: it is away just now, or we have made a mistake.

Belongs here: the map of SQLAlchemy's and the drivers' exceptions. Must not know: what is done about
either.
"""

from __future__ import annotations

import functools
import sqlite3
import sys
from typing import Final

from sqlalchemy import exc

# ruff: noqa: PLC0415 - asyncpg, 3 MiB, is imported only where PostgreSQL is used

_AWAY: Final[tuple[type[BaseException], ...]] = (
    exc.DBAPIError,
    exc.DatabaseError,
    exc.DisconnectionError,
    exc.InterfaceError,
    exc.InternalError,
    exc.InvalidatePoolError,
    exc.OperationalError,
    exc.TimeoutError,
    sqlite3.Error,
    OSError,  # TimeoutError, refused and reset connections, names and certificates too
    EOFError,
)
_BUGS: Final[tuple[type[BaseException], ...]] = (
    exc.SQLAlchemyError,
    exc.ArgumentError,
    exc.CircularDependencyError,
    exc.CompileError,
    exc.DataError,
    exc.EmulatedDBAPIException,
    exc.IdentifierError,
    exc.IntegrityError,
    exc.InvalidRequestError,
    exc.NotSupportedError,
    exc.ProgrammingError,
    exc.StatementError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)

_KNOWN: Final = dict.fromkeys(_AWAY, True) | dict.fromkeys(_BUGS, False)

# Classes of SQLSTATE (PostgreSQL, appendix A) that speak of the statement, not of the server.
_BUG_STATES: Final = frozenset({"0A", "20", "21", "22", "23", "26", "2F", "34", "42", "44"})
_INSUFFICIENT_PRIVILEGE: Final = "42501"


def known() -> dict[type[BaseException], bool]:
    """Which classes of exceptions mean "away" (True) and which "our mistake" (False).

    Away: the database is away, full, locked, starting or misconfigured, and nothing is wrong with
    the call. A mistake: the statement or a value in it is wrong; hiding that would only repeat it.
    """
    return _KNOWN | _of_postgres() if "asyncpg" in sys.modules else _KNOWN


@functools.cache
def _of_postgres() -> dict[type[BaseException], bool]:
    import asyncpg

    return {
        asyncpg.InterfaceError: True,
        asyncpg.InternalClientError: True,
        asyncpg.PostgresError: True,
        asyncpg.DataError: False,  # the client's: a value that does not fit its column
    }


def is_away(error: BaseException) -> bool:
    """Say whether `error` means that the database cannot serve just now."""
    origin = getattr(error, "orig", None) or error
    cause = origin.__cause__
    if cause is not None and type(cause).__module__.startswith("asyncpg."):
        import asyncpg

        if isinstance(cause, asyncpg.DataError):
            return False
    state = getattr(origin, "sqlstate", None)
    if state:
        return state == _INSUFFICIENT_PRIVILEGE or state[:2] not in _BUG_STATES
    kinds = known()
    return next((kinds[kind] for kind in type(error).__mro__ if kind in kinds), False)
