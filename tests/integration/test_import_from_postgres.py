"""`firstview import --from-postgres` takes over the table of an application that had its own way.

That is a table such as `generations(request_id, fal_url, cdn_url, status, mirrored_at)`, in which
finished rows say COMPLETED and rows on their way say MIRRORING.
"""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.schema import HEAD
from proxy.records import Generation, Status
from tests.integration.test_command_line import firstview

pytestmark = pytest.mark.timeout(180)  # each command is a process, which has to begin first

URL = "https://v3b.fal.media/files/b/{}/clip.mp4"
TABLE = """
    CREATE TABLE generations (id bigserial, request_id text, user_id uuid, status text);
    ALTER TABLE generations ADD COLUMN fal_url TEXT;
    ALTER TABLE generations ADD COLUMN cdn_url TEXT;
    ALTER TABLE generations ADD COLUMN mirrored_at TIMESTAMPTZ;
"""
ROWS = f"""
    INSERT INTO generations (request_id, fal_url, cdn_url, status, mirrored_at) VALUES
    ('done', '{URL.format("done")}', 'https://cdn.yourapp.com/videos/done.mp4', 'COMPLETED', now()),
    ('moving', '{URL.format("moving")}', NULL, 'MIRRORING', NULL),
    ('asked', NULL, NULL, 'IN_QUEUE', NULL)
"""


def execute(url: str, *statements: str) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return list(await connection.fetch(statements[-1]))
        finally:
            await connection.close()

    return asyncio.run(run())


def rows(folder: Path, *ids: str) -> list[Generation]:
    async def read() -> list[Generation | None]:
        catalog = await open_catalog(f"sqlite:///{folder}/data/catalog.sqlite")
        try:
            return [await Generations(catalog, clip_url=str).get(name) for name in ids]
        finally:
            await catalog.close()

    return [row for row in asyncio.run(read()) if row is not None]


def test_the_table_of_an_application_becomes_our_rows(tmp_path: Path, postgres_url: str) -> None:
    execute(postgres_url, TABLE, ROWS)
    before = execute(postgres_url, "SELECT * FROM generations ORDER BY id")
    done = firstview(
        tmp_path,
        "import",
        "--from-postgres",
        postgres_url,
        FIRSTVIEW_PUBLIC_URL="https://c.example",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 created, 0 updated, 0 repointed, 0 unchanged, 0 refused (")
    assert (
        "columns that mean nothing here: id, user_id, status, cdn_url, mirrored_at" in done.stdout
    )
    assert done.stderr == ""
    finished, moving, asked = rows(tmp_path, "done", "moving", "asked")
    # What it mirrored is stored for us only once it is found in our bucket.
    assert (finished.status, finished.fal_url) == (Status.AVAILABLE, URL.format("done"))
    assert finished.cdn_url == "https://c.example/videos/done.mp4"
    assert finished.mirrored_at is None
    assert moving.status is Status.AVAILABLE
    assert (asked.status, asked.fal_url) == (Status.PENDING, None)
    assert execute(postgres_url, "SELECT * FROM generations ORDER BY id") == before


def test_importing_again_changes_nothing(tmp_path: Path, postgres_url: str) -> None:
    execute(postgres_url, TABLE, ROWS)
    firstview(tmp_path, "import", "--from-postgres", postgres_url)
    before = rows(tmp_path, "done", "moving", "asked")
    again = firstview(tmp_path, "import", "--from-postgres", postgres_url, "--json")
    report = json.loads(again.stdout)
    assert (report["usable"], report["unchanged"], report["created"]) == (3, 3, 0)
    assert rows(tmp_path, "done", "moving", "asked") == before


def test_columns_that_are_known_by_name_are_taken_in_their_own_types(
    tmp_path: Path, postgres_url: str
) -> None:
    execute(
        postgres_url,
        """CREATE TABLE clips (request_id uuid, "Video URL" varchar, app text, prompt text,
           file_size numeric, duration interval, width smallint, height numeric,
           created_at timestamp, completed_at timestamptz)""",
        f"""INSERT INTO clips VALUES
           ('0198c5a2-0000-7000-8000-000000000001', '{URL.format("x")}', 'fal-ai/veo3', 'a cat',
            123456789, '5.5 seconds', 1920, 1080, '2026-11-01 10:00:00.5',
            '2026-11-01 12:00:00+02')""",
    )
    done = firstview(tmp_path, "import", "--from-postgres", postgres_url, "--table", "clips")
    assert done.returncode == 0, done.stderr
    [row] = rows(tmp_path, "0198c5a2-0000-7000-8000-000000000001")
    assert (row.fal_url, row.model) == (URL.format("x"), "fal-ai/veo3")
    assert (row.content_length, row.duration) == (123456789, 5.5)
    assert (row.width, row.height) == (1920, 1080)
    assert row.created_at == datetime(2026, 11, 1, 10, 0, 0, 500_000, tzinfo=UTC)
    assert row.completed_at == datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert (row.prompt, row.prompt_hash is None) == (None, False)


def test_the_tables_own_id_is_never_taken_for_fals(tmp_path: Path, postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE generations (id text, request_id text, fal_url text, url text)",
        f"INSERT INTO generations VALUES ('row1', NULL, '{URL.format('a')}', NULL),"
        "('row2', 'named', NULL, 'https://cdn.yourapp.com/videos/named.mp4')",
    )
    done = firstview(tmp_path, "import", "--from-postgres", postgres_url)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["row 1: request_id is missing"]
    [row] = rows(tmp_path, "row1", "row2", "named")
    assert (row.request_id, row.status) == ("named", Status.PENDING)


def test_refused_rows_are_shown_and_written_and_the_others_registered(
    tmp_path: Path, postgres_url: str
) -> None:
    execute(
        postgres_url,
        TABLE,
        ROWS,
        """INSERT INTO generations (request_id, fal_url) VALUES
           ('../up', NULL), ('foreign', 'https://evil.example/clip.mp4')""",
    )
    done = firstview(
        tmp_path, "import", "--from-postgres", postgres_url, "--refused", "refused.csv"
    )
    assert done.returncode == 1
    assert "3 created" in done.stdout
    assert "2 refused" in done.stdout
    written = (tmp_path / "refused.csv").read_text().splitlines()
    assert written[0] == "row,request_id,reason"
    assert written[1].startswith("4,../up,")
    assert written[2].startswith("5,foreign,fal_url: The clip's source is not on the list")


def test_a_dry_run_touches_no_catalog(tmp_path: Path, postgres_url: str) -> None:
    execute(postgres_url, TABLE, ROWS)
    done = firstview(tmp_path, "import", "--from-postgres", postgres_url, "--dry-run")
    assert done.returncode == 0
    assert done.stdout.startswith("3 rows could be registered, 0 would be refused")
    assert not (tmp_path / "data").exists()


def test_many_rows_come_in_batches(tmp_path: Path, postgres_url: str) -> None:
    execute(
        postgres_url,
        TABLE,
        "INSERT INTO generations (request_id, fal_url) SELECT 'r' || n,"
        " 'https://fal.media/files/' || n || '/a.mp4' FROM generate_series(1, 2501) n",
    )
    done = firstview(tmp_path, "import", "--from-postgres", postgres_url, "--json")
    report = json.loads(done.stdout)
    assert (report["usable"], report["created"], report["refused"]) == (2501, 2501, 0)
    assert [row.request_id for row in rows(tmp_path, "r1", "r2501")] == ["r1", "r2501"]


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ("app.generations", "app.generations"),
        ("Clip-Table", '"Clip-Table"'),
        ('odd"; DROP TABLE generations; --', '"odd""; DROP TABLE generations; --"'),
    ],
)
def test_any_name_of_a_table_is_only_a_name(
    tmp_path: Path, postgres_url: str, table: str, where: str
) -> None:
    execute(
        postgres_url,
        "CREATE SCHEMA app",
        "CREATE TABLE generations (request_id text)",
        f"CREATE TABLE {where} (request_id text)",
        f"INSERT INTO {where} VALUES ('a')",
    )
    done = firstview(tmp_path, "import", "--from-postgres", postgres_url, "--table", table)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 created")
    assert execute(postgres_url, "SELECT to_regclass('generations') AS t")[0]["t"] is not None


# --- what cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "table", "said"),
    [
        ("SELECT 1", "generations", "there is no table generations; give its name with --table"),
        ("SELECT 1", "nowhere.generations", "there is no table nowhere.generations"),
        ("SELECT 1", "a.b.c", "--table must be a table's name, or schema.table"),
        ("SELECT 1", "a.", "--table must be a table's name, or schema.table"),
        (
            "CREATE TABLE generations (id text)",
            "generations",
            "the table generations has no column request_id",
        ),
    ],
)
def test_a_table_that_cannot_be_one_is_named(
    tmp_path: Path, postgres_url: str, make: str, table: str, said: str
) -> None:
    execute(postgres_url, make)
    done = firstview(tmp_path, "import", "--from-postgres", postgres_url, "--table", table)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_times_that_no_calendar_has_are_refused_or_named(tmp_path: Path, postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE generations (request_id text, created_at timestamptz)",
        "INSERT INTO generations VALUES ('good', now()), ('endless', 'infinity')",
    )
    done = firstview(tmp_path, "import", "--from-postgres", postgres_url)
    assert "1 created" in done.stdout
    assert "created_at must be a time of the years 1970 to 2999" in done.stdout + done.stderr
    execute(postgres_url, "INSERT INTO generations VALUES ('roman', '0044-03-15 BC')")
    done = firstview(tmp_path, "import", "--from-postgres", postgres_url)
    assert done.returncode == 2
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_that_may_not_be_read_is_named(tmp_path: Path, postgres_url: str) -> None:
    role = f"reader_{postgres_url[-12:]}"
    execute(postgres_url, TABLE, f"CREATE ROLE {role} LOGIN")
    other = postgres_url.replace("//firstview@", f"//{role}:s3cret@")
    done = firstview(tmp_path, "import", "--from-postgres", other)
    execute(postgres_url, f"DROP ROLE {role}")
    assert done.returncode == 2
    assert "this user may not read the table" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("postgresql://u:s3cret@127.0.0.1:1/db", 3, "the database cannot be reached"),
        ("mysql://u:s3cret@127.0.0.1/db", 2, "not a usable PostgreSQL address"),
        ("postgresql://u:s3/cret@127.0.0.1/db", 2, "not a usable PostgreSQL address"),
        ("s3cret", 2, "not a usable PostgreSQL address"),
        ("postgresql://u@127.0.0.1:1/db?sslmode=s3cret", 2, "not a usable PostgreSQL address"),
    ],
)
def test_an_address_that_cannot_be_used_is_never_repeated(
    tmp_path: Path, url: str, code: int, said: str
) -> None:
    done = firstview(tmp_path, "import", "--from-postgres", url)
    assert done.returncode == code
    assert said in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert "s3/cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_not_there_is_said(tmp_path: Path, postgres_url: str) -> None:
    other = postgres_url.rpartition("/")[0] + "/nothere"
    done = firstview(tmp_path, "import", "--from-postgres", other)
    assert done.returncode == 2
    assert "there is no such database" in done.stderr


def test_a_file_or_a_table_is_needed_and_not_both(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("request_id\na\n")
    for arguments in ((), ("clips.csv", "--from-postgres", "postgresql://h/db")):
        done = firstview(tmp_path, "import", *arguments)
        assert done.returncode == 2
        assert "give either a FILE or --from-postgres URL" in done.stderr


# --- our own catalog in PostgreSQL --------------------------------------------------------------


def test_our_own_postgresql_is_not_migrated_by_an_import(tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "clips.csv").write_text("request_id\na\n")
    outdated = firstview(tmp_path, "import", "clips.csv", FIRSTVIEW_DATABASE_URL=postgres_url)
    assert outdated.returncode == 3
    assert "run `firstview catalog migrate`" in outdated.stderr
    migrated = firstview(tmp_path, "catalog", "migrate", FIRSTVIEW_DATABASE_URL=postgres_url)
    assert (migrated.returncode, migrated.stdout) == (
        0,
        f"the catalog's schema is migrated: none → {HEAD}\n",
    )
    done = firstview(tmp_path, "import", "clips.csv", FIRSTVIEW_DATABASE_URL=postgres_url)
    assert done.returncode == 0, done.stderr
    again = firstview(tmp_path, "catalog", "migrate", FIRSTVIEW_DATABASE_URL=postgres_url)
    assert again.stdout == f"nothing to do: the catalog's schema is {HEAD}\n"


def test_serve_refuses_an_old_schema_in_one_line(tmp_path: Path, postgres_url: str) -> None:
    done = firstview(tmp_path, "serve", FIRSTVIEW_DATABASE_URL=postgres_url)
    assert done.returncode == 3
    assert done.stderr == (
        "firstview: The catalog's schema is older than this firstview: run `firstview catalog"
        " migrate`.\n"
    )


def test_migrating_says_so_as_json(tmp_path: Path) -> None:
    first = firstview(tmp_path, "catalog", "migrate", "--json")
    assert json.loads(first.stdout) == {"from": None, "to": HEAD, "migrated": True}
    again = firstview(tmp_path, "catalog", "migrate", "--json")
    assert json.loads(again.stdout) == {"from": HEAD, "to": HEAD, "migrated": False}
