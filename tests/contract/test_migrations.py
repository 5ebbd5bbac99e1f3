"""Whatever a database has to begin with, migrating gives exactly the tables that the code uses."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from blockbuster import BlockBuster
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import schema
from proxy.catalog.drivers import Limits
from proxy.catalog.engine import connect, migrate_catalog, open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.migrations import apply
from proxy.catalog.tables import generations, metadata
from proxy.errors import CatalogError, CatalogUnavailable, SchemaOutdated, SettingsError
from proxy.records import Registration, Status
from tests.fixtures.catalog import let_asyncpg_read_its_files

URL = "https://v3b.fal.media/files/b/one/clip.mp4"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER_COLUMNS = {"gated"}
OLD_ROWS = [
    {"request_id": f"r{n}", "status": Status.AVAILABLE, "fal_url": URL, "created_at": NOON}
    for n in range(9)
] + [{"request_id": "own", "status": Status.STORED, "fal_url": None, "created_at": NOON}]


@pytest.fixture(autouse=True)
def _guard(_event_loop_guard: BlockBuster) -> None:
    let_asyncpg_read_its_files(_event_loop_guard)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalog.sqlite"
    url: str = request.getfixturevalue("postgres_url")
    return url


async def run(url: str, work: Callable[[Connection], Any]) -> Any:
    """Let synchronous code work in one transaction, past all that opening does."""
    catalog = await connect(url, Limits())

    async def apart(connection: AsyncConnection) -> Any:
        return await connection.run_sync(work)

    try:
        return await catalog.write(apart)
    finally:
        await catalog.close()


async def execute(url: str, *statements: str) -> None:
    await run(url, lambda connection: [connection.execute(text(each)) for each in statements])


async def make_first_release(url: str) -> None:
    """Make the tables as firstview 0.1 did: without any record of a revision."""
    await migrate_to(url, "0001")
    await execute(url, "DROP TABLE alembic_version")


async def migrate_to(url: str, revision: str) -> None:
    scripts = await asyncio.to_thread(apply.load)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(apply, "HEAD", revision)
        await run(url, lambda connection: apply.upgrade(connection, scripts))


# --- what a database is like --------------------------------------------------------------------

_POSTGRESQL = (
    """SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
              co.collname, pg_get_expr(d.adbin, d.adrelid)
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
       LEFT JOIN pg_collation co ON co.oid = a.attcollation
       LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
       WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relname <> 'alembic_version'""",
    """SELECT conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid)
       FROM pg_constraint WHERE connamespace = 'public'::regnamespace
       AND conrelid::regclass::text <> 'alembic_version'""",
    """SELECT tablename, indexname, indexdef FROM pg_indexes
       WHERE schemaname = 'public' AND tablename <> 'alembic_version'""",
)
_SQLITE = ("SELECT type, name, sql FROM sqlite_master WHERE tbl_name <> 'alembic_version'",)


def shape(connection: Connection) -> list[tuple[Any, ...]]:
    """All that the database itself knows of its tables, as text where it keeps text."""
    queries = _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL
    rows = [tuple(row) for query in queries for row in connection.execute(text(query))]
    plain = [tuple(re.sub(r"\s+", " ", str(value)) for value in row) for row in rows]
    return sorted(plain)


def all_rows(connection: Connection) -> list[tuple[Any, ...]]:
    """What the first release kept of its rows."""
    columns = [column for column in generations.c if column.name not in LATER_COLUMNS]
    found = connection.execute(select(*columns).order_by(generations.c.request_id))
    return [tuple(row) for row in found]


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, metadata))


async def shape_of_the_tables(url: str) -> list[tuple[Any, ...]]:
    """Make the tables directly, look, and take them away again."""
    await run(url, metadata.create_all)
    wanted: list[tuple[Any, ...]] = await run(url, shape)
    await run(url, metadata.drop_all)
    assert await run(url, shape) == []
    return wanted


async def test_from_nothing_come_exactly_the_tables(database_url: str) -> None:
    wanted = await shape_of_the_tables(database_url)
    assert await migrate_catalog(database_url) is None
    assert await run(database_url, shape) == wanted
    assert await run(database_url, differences) == []


async def test_what_makes_the_tables_what_they_are_is_looked_at(database_url: str) -> None:
    """The comparison above would be worth nothing if it were blind to these."""
    await migrate_catalog(database_url)
    seen = repr(await run(database_url, shape))
    for detail in (
        "generations_status_is_known",
        "'lost'" if "sqlite" in database_url else "lost",
        "jobs_kind_is_known",
        "asked AND dead_at IS NULL"
        if "sqlite" in database_url
        else "(asked AND (dead_at IS NULL))",
        "generations_by_prompt_and_time",
    ):
        assert detail in seen
    if "postgresql" in database_url:
        assert "('generations', 'request_id', 'character varying(128)', 'True', 'C'" in seen
        assert "('jobs', 'request_id', 'character varying(128)', 'True', 'C'" in seen
        assert "('jobs', 'due_at', 'timestamp with time zone', 'True'" in seen


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "as 0.1 left it"])
async def test_from_the_first_release_come_the_tables_with_all_that_was_in_them(
    database_url: str, recorded: bool
) -> None:
    wanted = await shape_of_the_tables(database_url)
    await (migrate_to(database_url, "0001") if recorded else make_first_release(database_url))
    await run(database_url, lambda connection: connection.execute(insert(generations), OLD_ROWS))
    before = await run(database_url, all_rows)
    assert await migrate_catalog(database_url) == "0001"
    assert await run(database_url, all_rows) == before
    assert await run(database_url, shape) == wanted
    assert await run(database_url, differences) == []
    catalog = await open_catalog(database_url)
    counts = await Generations(catalog, clip_url=str).count_by_status()
    assert (counts[Status.STORED], counts[Status.AVAILABLE]) == (1, 9)
    await catalog.close()


async def test_the_first_release_had_the_index_that_goes(database_url: str) -> None:
    await make_first_release(database_url)
    gone = re.compile(r"\bgenerations_by_prompt\b")
    assert gone.search(repr(await run(database_url, shape)))
    await migrate_catalog(database_url)
    assert not gone.search(repr(await run(database_url, shape)))


async def test_migrating_again_does_nothing(database_url: str) -> None:
    await migrate_catalog(database_url)
    before = await run(database_url, shape)
    assert await migrate_catalog(database_url) == schema.HEAD
    assert await run(database_url, shape) == before


async def test_many_at_once_migrate_once(database_url: str) -> None:
    await make_first_release(database_url)
    found = await asyncio.gather(*(migrate_catalog(database_url) for _ in range(6)))
    assert sorted(found, key=str) == ["0001", *[schema.HEAD] * 5]
    assert await run(database_url, differences) == []


async def test_a_step_that_fails_leaves_everything_as_it_was(database_url: str) -> None:
    await make_first_release(database_url)
    # In the way of the last thing but one that the step makes.
    await execute(
        database_url, "CREATE INDEX generations_by_prompt_and_time ON generations (prompt_hash)"
    )
    before = await run(database_url, shape)
    with pytest.raises((CatalogUnavailable, DBAPIError)) as failed:
        await migrate_catalog(database_url)
    assert "already exists" in str(failed.value.__cause__)
    assert await run(database_url, shape) == before
    await execute(database_url, "DROP INDEX generations_by_prompt_and_time")
    assert await migrate_catalog(database_url) == "0001"


async def test_an_applications_own_generations_are_refused_and_left_alone(
    database_url: str,
) -> None:
    await execute(
        database_url,
        "CREATE TABLE generations (request_id text, fal_url text, cdn_url text, status text)",
    )
    before = await run(database_url, shape)
    with pytest.raises(SettingsError, match=r"--from-postgres"):
        await open_catalog(database_url, migrate=True)
    assert await run(database_url, shape) == before


# --- opening ------------------------------------------------------------------------------------


async def test_the_head_is_the_last_of_the_steps() -> None:
    scripts = await asyncio.to_thread(apply.load)
    steps = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(steps)) == schema.REVISIONS
    assert scripts.get_heads() == [schema.HEAD]


def test_a_schema_that_is_up_to_date_costs_no_import_of_alembic(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from proxy.catalog.engine import open_catalog
async def main():
    catalog = await open_catalog("sqlite:///{tmp_path}/catalog.sqlite")
    await catalog.close()
asyncio.run(main())
print("alembic" in sys.modules)
"""
    for expected in ("True", "False"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
        )
        assert done.stdout.strip() == expected


async def test_postgresql_is_migrated_only_by_who_says_so(postgres_url: str) -> None:
    with pytest.raises(SchemaOutdated, match="run `firstview catalog migrate`") as outdated:
        await open_catalog(postgres_url)
    assert isinstance(outdated.value, CatalogError)
    assert not outdated.value.retryable
    assert await run(postgres_url, shape) == []
    await migrate_to(postgres_url, "0001")
    with pytest.raises(SchemaOutdated):
        await open_catalog(postgres_url)
    catalog = await open_catalog(postgres_url, migrate=True)
    assert await schema.current(catalog) == schema.HEAD
    await catalog.close()
    await (await open_catalog(postgres_url)).close()


async def test_sqlite_migrates_itself_unless_it_is_told_not_to(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    await make_first_release(url)
    with pytest.raises(SchemaOutdated):
        await open_catalog(url, migrate=False)
    catalog = await open_catalog(url)
    assert await schema.current(catalog) == schema.HEAD
    await catalog.close()


async def test_a_newer_schema_is_used_and_said(database_url: str) -> None:
    await migrate_catalog(database_url)
    await execute(
        database_url,
        "UPDATE alembic_version SET version_num = '0999'",
        "ALTER TABLE generations ADD COLUMN later text",
    )
    with structlog.testing.capture_logs() as log:
        catalog = await open_catalog(database_url, migrate=True)
    assert [(line["log_level"], line["revision"]) for line in log] == [("warning", "0999")]
    rows = Generations(catalog, clip_url=str)
    assert await rows.register([Registration(request_id="a", fal_url=URL)]) == ["created"]
    assert await schema.current(catalog) == "0999"
    await catalog.close()
    assert await migrate_catalog(database_url) == "0999"


async def test_a_migration_waits_for_a_table_no_longer_than_others_can_bear(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_first_release(postgres_url)
    monkeypatch.setattr("proxy.catalog.engine._LONGEST_TABLE_LOCK_WAIT", "100ms")
    catalog = await connect(postgres_url, Limits())
    held, done = asyncio.Event(), asyncio.Event()

    async def hold(connection: AsyncConnection) -> None:
        await connection.execute(text("LOCK TABLE generations IN ROW EXCLUSIVE MODE"))
        held.set()
        await done.wait()

    holding = asyncio.create_task(catalog.write(hold))
    await held.wait()
    with pytest.raises(CatalogUnavailable):
        await migrate_catalog(postgres_url)
    done.set()
    await holding
    assert await migrate_catalog(postgres_url) == "0001"
    await catalog.close()
