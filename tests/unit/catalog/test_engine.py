"""Foreign exceptions mean one of two things, and no address is ever repeated."""

import inspect
import sqlite3
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import exc

from proxy.catalog import addresses
from proxy.catalog.away import is_away, known
from proxy.catalog.engine import open_catalog
from proxy.errors import CatalogUnavailable, SettingsError

_SQLALCHEMY = [
    kind
    for kind in vars(exc).values()
    if inspect.isclass(kind)
    and issubclass(kind, Exception)
    and not issubclass(kind, Warning)
    and kind.__module__ == "sqlalchemy.exc"
]
_SQLITE = [
    kind
    for kind in vars(sqlite3).values()
    if inspect.isclass(kind) and issubclass(kind, sqlite3.Error)
]
_POSTGRES = [
    kind
    for kind in vars(asyncpg.exceptions).values()
    if inspect.isclass(kind) and issubclass(kind, Exception) and not issubclass(kind, Warning)
]


def _decided(kind: type[BaseException]) -> type[BaseException] | None:
    return next((base for base in kind.__mro__ if base in known()), None)


@pytest.mark.parametrize("kind", _SQLALCHEMY, ids=lambda kind: kind.__name__)
def test_every_exception_of_sqlalchemy_is_decided_by_a_class_of_its_branch(
    kind: type[Exception],
) -> None:
    decided = _decided(kind)
    # Only what derives from the root alone may fall through to it: new branches must be looked at.
    assert decided is not None
    assert decided is not exc.SQLAlchemyError or kind is exc.SQLAlchemyError


@pytest.mark.parametrize("kind", [*_SQLITE, *_POSTGRES], ids=lambda kind: kind.__name__)
def test_every_exception_of_the_drivers_is_decided(kind: type[Exception]) -> None:
    assert _decided(kind) is not None or issubclass(kind, ValueError)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        exc.TimeoutError(),
        exc.OperationalError("", {}, sqlite3.OperationalError("database is locked")),
        exc.DBAPIError("", {}, asyncpg.exceptions.CannotConnectNowError("starting up")),
        exc.DBAPIError("", {}, asyncpg.exceptions.AdminShutdownError("bye")),
        exc.DBAPIError("", {}, asyncpg.exceptions.ReadOnlySQLTransactionError("standby")),
        exc.ProgrammingError("", {}, asyncpg.exceptions.InsufficientPrivilegeError("no")),
        asyncpg.exceptions.InvalidPasswordError("no"),
        asyncpg.exceptions.TooManyConnectionsError("full"),
        sqlite3.DatabaseError("file is not a database"),
    ],
    ids=lambda error: type(getattr(error, "orig", None) or error).__name__,
)
def test_an_outage_is_away(error: Exception) -> None:
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        exc.IntegrityError("", {}, sqlite3.IntegrityError("NOT NULL")),
        exc.ProgrammingError("", {}, asyncpg.exceptions.UndefinedColumnError("no")),
        exc.DBAPIError("", {}, asyncpg.exceptions.CharacterNotInRepertoireError("NUL")),
        exc.InvalidRequestError(),
        ValueError(),
        KeyError(),
    ],
    ids=lambda error: type(getattr(error, "orig", None) or error).__name__,
)
def test_a_mistake_in_a_statement_is_a_bug(error: Exception) -> None:
    assert not is_away(error)


def test_a_value_that_postgresql_cannot_take_is_a_bug() -> None:
    translated = Exception("value out of int64 range")
    translated.__cause__ = asyncpg.exceptions.DataError("value out of int64 range")
    assert not is_away(exc.InterfaceError("", {}, translated))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:s3cret@host/db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "postgresql://u:s3cret@x@host/db",
        "postgresql://u:s3/cret@host/db",
        "postgresql://u:s3cret@host:99999/db",
        "postgresql://u:s3cret@[::1/db",
        "postgresql://u:s3cret@host/db?s3cret",
        "postgresql://u:s3cret@127.0.0.1:1/db?sslmode=s3cret",
    ],
)
@pytest.mark.blocking  # asyncpg looks for certificates
async def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        await open_catalog(url)
    assert "FIRSTVIEW_DATABASE_URL" in refused.value.detail
    assert refused.value.__cause__ is None
    assert "s3cret" not in repr(refused.value)


@pytest.mark.blocking
async def test_a_server_that_is_not_there_is_unavailable_and_its_password_stays_secret() -> None:
    with pytest.raises(CatalogUnavailable) as away:
        await open_catalog("postgresql://u:s3cret@127.0.0.1:1/db")
    error: BaseException | None = away.value
    while error is not None:
        assert "s3cret" not in repr(error)
        error = error.__cause__ or error.__context__


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogUnavailable):
        await open_catalog(f"sqlite:///{tmp_path}/file/catalog.sqlite")


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_text("not a database" * 1000)
    with pytest.raises(CatalogUnavailable):
        await open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite")


async def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a?b #c%20"
    await (await open_catalog(f"sqlite:///{folder}/catalog.sqlite")).close()
    assert (folder / "catalog.sqlite").exists()


def test_what_only_libpq_understands_is_dropped() -> None:
    url = "postgres://u:p%40ss@host/db?sslmode=require&channel_binding=require&connect_timeout=5"
    assert addresses.for_asyncpg(url) == (
        "postgres://u:p%40ss@host/db?sslmode=require&application_name=firstview"
    )
