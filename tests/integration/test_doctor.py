"""`firstview doctor` against real servers: all is well, and each thing that can be wrong is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from proxy.catalog import schema
from proxy.catalog.engine import migrate_catalog, open_catalog
from proxy.cli import main
from proxy.cli.doctor import command
from proxy.cli.doctor.data_dir import DataDirCheck
from proxy.cli.doctor.database import DatabaseCheck
from proxy.cli.doctor.directory import DirectoryCheck
from proxy.cli.doctor.fal import FalCheck
from proxy.cli.doctor.finding import Finding, Mark, Notes
from proxy.cli.doctor.public import PublicCheck
from proxy.cli.doctor.running import Check, run_checks
from proxy.cli.doctor.s3 import S3Check
from proxy.clock import Clock
from proxy.errors import SettingsError
from proxy.http_dates import http_date
from proxy.security.links import Links
from proxy.settings import Settings
from proxy.storage import keys
from tests.fakes.bucket import Fault, FaultyBucket
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fakes.fal_api import FakeFalApi
from tests.fakes.webhooks import JWKS_PATH, Signer
from tests.fixtures.catalog import let_asyncpg_read_its_files
from tests.fixtures.clock import StandingClock
from tests.fixtures.origin import MakeOrigin, Origin, settings_for
from tests.fixtures.servers import free_port
from tests.fixtures.truth import Truth
from tests.integration.test_command_line import firstview

CLIP = make_clip(100_000)


async def look(*checks: Check) -> dict[str, Finding]:
    """Findings by their check's name; of several checks, by `area/name`."""
    found = await run_checks(checks)
    several = len(checks) > 1
    return {f"{each.area}/{each.check}" if several else each.check: each for each in found}


def dated(fal: FakeFal) -> None:
    """Publish fal's keys, as fal does: with a Date."""
    how = Behaviour(headers={"Date": http_date(Clock().now())}, last_modified=None)
    fal.add(JWKS_PATH, Signer(1).jwks(), how)


def wrong(found: dict[str, Finding]) -> dict[str, str]:
    """What is not well, and what to do about it."""
    bad = {Mark.FAILS, Mark.WARNING}
    return {name: each.advice for name, each in found.items() if each.mark in bad}


async def all_checks(settings: Settings, url: str | None = None) -> Sequence[Check]:
    return await asyncio.to_thread(command.checks_of, settings, Clock(), url)


# --- all is well ---------------------------------------------------------------------------------


async def test_a_healthy_origin_on_one_machine_has_nothing_to_mend(
    make_origin: MakeOrigin, fal: FakeFal
) -> None:
    dated(fal)
    async with FakeFalApi() as api:
        origin = await make_origin(
            max_connections=100,  # whatever the limits of the machine that runs the tests
            open_files=10,
            fal_jwks_url=fal.url(JWKS_PATH),
            fal_key=api.key,
            fal_queue_url=api.queue_url,
            fal_api_url=api.api_url,
        )
        await origin.clip("shown", CLIP)
        await origin.get("shown")
        await origin.stored("shown")
        before = _tree(origin.app.settings.data_dir)
        url = f"http://127.0.0.1:{origin.app.public_port}"
        found = await look(*await all_checks(origin.app.settings, url))
    assert _tree(origin.app.settings.data_dir) == before
    assert not [each for each in found.values() if each.mark is Mark.FAILS]
    for name in (
        "data directory/locks",
        "data directory/hard links",
        "data directory/sendfile",
        "bucket/conditional write",
        "bucket/range",
        "bucket/remove",
        "database/schema",
        "database/write",
        "fal/webhook keys",
        "fal/key",
        "public address/health",
        "public address/a clip",
        "public address/a range",
        "public address/caching",
    ):
        assert found[name].mark is Mark.OK, found[name]


async def test_a_healthy_set_up_of_servers_has_nothing_to_mend(
    tmp_path: Path, truth: Truth, aws_environment: None, postgres_database: str
) -> None:
    await migrate_catalog(postgres_database)
    settings = settings_for(tmp_path, bucket_url=truth.url, database_url=postgres_database)
    found = await look(S3Check(settings, truth.name, Clock()), DatabaseCheck(settings, 1, Clock()))
    # A machine that tests keep busy is slow, and servers without a history have no rules.
    slow = {"database/latency", "database/clock", "bucket/clock"}
    assert set(wrong(found)) <= {"bucket/lifecycle"} | slow
    assert {"bucket/remove", "database/write", "database/connections"} <= found.keys()
    assert truth.keys() == []
    assert truth.uploads() == []


@pytest.fixture
def postgres_database(request: pytest.FixtureRequest, postgres_url: str) -> str:
    let_asyncpg_read_its_files(request.getfixturevalue("_event_loop_guard"))
    return postgres_url


def _tree(folder: Path) -> set[str]:
    """What lies there; a database's log comes and goes."""
    return {str(p) for p in folder.rglob("*") if not p.name.startswith("catalog.sqlite-")}


# --- the command ---------------------------------------------------------------------------------


def test_nothing_is_made_where_there_is_nothing_yet(tmp_path: Path) -> None:
    jwks = f"http://127.0.0.1:{free_port()}/"
    done = firstview(
        tmp_path,
        "doctor",
        "--json",
        FIRSTVIEW_UPSTREAM_ALLOW_INSECURE="true",
        FIRSTVIEW_FAL_JWKS_URL=jwks,
        FIRSTVIEW_PUBLIC_URL=jwks,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    failed = {each["check"] for each in report["findings"] if each["mark"] == "fails"}
    assert {"webhook keys", "health"} <= failed <= {"webhook keys", "health", "descriptors"}
    assert report["healthy"] is False
    assert report["counts"]["fails"] == len(failed)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def two_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTVIEW_MAX_FILLS", "0")
    monkeypatch.setenv("FIRSTVIEW_LISTN", ":1")


def test_wrong_settings_are_listed_and_nothing_else_is_tried(
    two_mistakes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(url=None, as_json=False) == 2
    said = capsys.readouterr().out
    assert said.count("  fails  ") == 2
    assert "is it FIRSTVIEW_LISTEN?" in said
    assert "data directory" not in said


@pytest.mark.parametrize("start", [main.serve, main.worker])
def test_every_mistake_stops_the_start(two_mistakes: None, start: Callable[[], None]) -> None:
    with pytest.raises(SettingsError) as caught:
        start()
    assert [line.partition(":")[0] for line in caught.value.detail.splitlines()] == [
        "FIRSTVIEW_MAX_FILLS",
        "FIRSTVIEW_LISTN",
    ]


async def test_a_check_that_never_ends_is_ended_and_named() -> None:
    class Hangs:
        area = "disk"

        async def run(self, notes: Notes) -> None:
            notes.trying("reading")
            await asyncio.sleep(3600)

    class Breaks:
        area = "other"

        async def run(self, notes: Notes) -> None:
            raise RuntimeError("a mistake")

    found = await run_checks([Hangs(), Breaks()], longest=0.05)
    assert [(each.check, each.mark) for each in found] == [
        ("reading", Mark.FAILS),
        ("trying", Mark.FAILS),
    ]
    assert "no answer within 0.05 s" in found[0].seen


# --- the data directory and a directory as the bucket --------------------------------------------


async def test_a_data_directory_that_is_read_only_fails(tmp_path: Path) -> None:
    # /proc is read only for root too.
    found = await look(DataDirCheck(settings_for(Path("/proc/sys/kernel"))))
    assert found["writable"].mark is Mark.FAILS
    assert "FIRSTVIEW_DATA_DIR" in found["writable"].advice


async def test_a_bucket_directory_that_cannot_be_made_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root = tmp_path / "file" / "bucket"
    found = await look(DirectoryCheck(settings_for(tmp_path), root.as_uri()))
    assert found["open"].mark is Mark.FAILS
    assert "FIRSTVIEW_BUCKET_URL" in found["open"].advice


async def test_a_bucket_directory_on_another_disk_is_pointed_out(tmp_path: Path) -> None:
    found = await look(DirectoryCheck(settings_for(Path("/proc")), tmp_path.as_uri()))
    assert found["kind"].mark is Mark.WARNING
    assert found["range"].mark is Mark.OK


# --- S3 ------------------------------------------------------------------------------------------


@pytest.fixture
def s3(tmp_path: Path, truth: Truth) -> S3Check:
    return S3Check(settings_for(tmp_path, bucket_attempts=1), truth.name, Clock(), pause=0.01)


async def test_a_wrong_key_is_named(
    s3: S3Check, aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    found = await look(s3)
    assert "AWS_SECRET_ACCESS_KEY" in found["list"].advice
    assert [each.mark for each in found.values()].count(Mark.FAILS) == 1


@pytest.mark.blocking  # botocore looks for keys in files, once, where the environment has none
async def test_keys_that_nobody_has_set_are_named(
    s3: S3Check, aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = await look(s3)
    assert "there are no credentials" in found["list"].seen
    assert "AWS_ACCESS_KEY_ID" in found["list"].advice


async def test_a_bucket_that_is_not_there_is_named(tmp_path: Path, aws_environment: None) -> None:
    found = await look(S3Check(settings_for(tmp_path), "nobodys", Clock()))
    assert "there is no bucket 'nobodys'" in found["list"].seen
    assert "FIRSTVIEW_BUCKET_URL" in found["list"].advice


async def test_a_store_that_nobody_runs_is_named(
    s3: S3Check, aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    found = await look(s3)
    assert "AWS_ENDPOINT_URL_S3" in found["list"].advice
    assert found["the rest"].mark is Mark.UNCHECKED


async def test_a_skewed_clock_is_seen_by_the_stores_date(
    s3: S3Check, truth: Truth, aws_environment: None
) -> None:
    skewed = S3Check(s3.settings, s3.bucket, StandingClock())
    found = await look(skewed)
    assert found["clock"].mark is not Mark.OK
    assert "chrony" in found["clock"].advice
    assert truth.keys() == []


@pytest.mark.parametrize(
    "missing",
    [
        # Each set can be found in one round.
        {
            "HeadObject": ("look", "s3:GetObject"),
            "GetObject": ("range", "s3:GetObject"),
            "ListParts": ("list parts", "s3:ListMultipartUploadParts"),
            "ListMultipartUploads": ("list uploads", "s3:ListBucketMultipartUploads"),
            "AbortMultipartUpload": ("abort", "s3:AbortMultipartUpload"),
            "DeleteObject": ("remove", "s3:DeleteObject"),
        },
        {
            "ListObjectsV2": ("list", "s3:ListBucket"),
            "PutObject": ("write", "s3:PutObject"),
            "CreateMultipartUpload": ("upload in parts", "s3:PutObject"),
        },
    ],
)
async def test_each_right_that_is_missing_is_named(
    s3: S3Check, faulty_bucket: FaultyBucket, truth: Truth, missing: dict[str, tuple[str, str]]
) -> None:
    faulty_bucket.faults += [Fault(operation=name, status=403) for name in missing]
    found = await look(s3)
    for check, right in missing.values():
        assert found[check].mark is Mark.FAILS
        assert right in found[check].advice
    left = truth.keys()  # what could not be removed
    assert len(left) == ("DeleteObject" in missing)
    assert all(key in found["left behind"].advice for key in left)


async def test_what_a_killed_doctor_left_is_removed_by_the_next(
    s3: S3Check, aws_environment: None, truth: Truth
) -> None:
    truth.client.put_object(Bucket=truth.name, Key=keys.doctor_key("old"), Body=b"x")
    truth.put("a-clip", b"x")
    later = StandingClock()
    later.go(days=3650)
    await look(S3Check(s3.settings, s3.bucket, later))
    assert truth.keys() == [keys.clip_key("a-clip")]


async def test_r2s_peace_between_two_writes_is_kept(s3: S3Check, r2_bucket: FaultyBucket) -> None:
    assert r2_bucket.rules is not None
    r2_bucket.rules.between = 0.05
    settings = s3.settings.model_copy(update={"bucket_conditional_complete": False})
    found = await look(S3Check(settings, s3.bucket, Clock(), pause=0.06))
    assert set(wrong(found)) <= {"lifecycle", "clock"}
    assert found["conditional write"].mark is Mark.OK


# --- the database --------------------------------------------------------------------------------


async def test_a_schema_that_is_missing_says_the_command(postgres_database: str) -> None:
    settings = settings_for(Path("data"), database_url=postgres_database)
    found = await look(DatabaseCheck(settings, 1, Clock()))
    assert "firstview catalog migrate" in found["schema"].advice
    assert found["write"].mark is Mark.UNCHECKED


async def test_more_processes_than_connections_is_a_warning(postgres_database: str) -> None:
    await migrate_catalog(postgres_database)
    settings = settings_for(Path("data"), database_url=postgres_database)
    found = await look(DatabaseCheck(settings, 50, Clock()))
    assert "max_connections" in found["connections"].advice


async def test_a_database_that_is_read_only_is_named(postgres_database: str) -> None:
    await migrate_catalog(postgres_database)
    read_only = f"{postgres_database}?default_transaction_read_only=on"
    found = await look(DatabaseCheck(settings_for(Path("d"), database_url=read_only), 1, Clock()))
    assert "25006" in found["write"].seen
    assert "primary" in found["write"].advice


async def test_a_database_that_is_not_there_is_named(postgres_database: str) -> None:
    url = f"{postgres_database}_not"
    found = await look(DatabaseCheck(settings_for(Path("d"), database_url=url), 1, Clock()))
    assert "create the database" in found["open"].advice


async def test_a_server_that_is_not_there_is_named(postgres_database: str) -> None:
    url = f"postgresql://me:s3cret@127.0.0.1:{free_port()}/x"
    found = await look(DatabaseCheck(settings_for(Path("d"), database_url=url), 1, Clock()))
    assert "start the server" in found["open"].advice
    assert "s3cret" not in repr(found)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"no database" * 1000)
    found = await look(DatabaseCheck(settings_for(tmp_path), 1, Clock()))
    assert "restore a backup" in found["open"].advice


async def test_an_old_sqlite_is_no_reason_to_worry(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    catalog = await open_catalog(url)
    await catalog.write(
        lambda connection: connection.exec_driver_sql(
            f"UPDATE alembic_version SET version_num = '{schema.REVISIONS[0]}'"
        )
    )
    await catalog.close()
    found = await look(DatabaseCheck(settings_for(tmp_path), 1, Clock()))
    assert found["schema"].mark is Mark.OK
    assert "brings it there" in found["schema"].seen


# --- fal -----------------------------------------------------------------------------------------


async def test_a_key_that_fal_refuses_is_named(fal: FakeFal) -> None:
    dated(fal)
    async with FakeFalApi() as api:
        settings = settings_for(
            Path("data"),
            fal_jwks_url=fal.url(JWKS_PATH),
            fal_key="wrong",
            fal_queue_url=api.queue_url,
            fal_api_url=api.api_url,
        )
        found = await look(FalCheck(settings, Clock()))
    assert found["key"].mark is Mark.FAILS
    assert "FIRSTVIEW_FAL_KEY" in found["key"].advice
    assert "wrong" not in repr(found["key"])


@pytest.mark.parametrize("body", [b"<html>", b'{"keys": []}'])
async def test_keys_that_are_none_are_named(fal: FakeFal, body: bytes) -> None:
    fal.add(JWKS_PATH, body, Behaviour())
    found = await look(FalCheck(settings_for(Path("d"), fal_jwks_url=fal.url(JWKS_PATH)), Clock()))
    assert "FIRSTVIEW_FAL_JWKS_URL" in found["webhook keys"].advice
    assert found["key"].mark is Mark.UNCHECKED


async def test_keys_that_cannot_be_had_are_told_by_what_the_network_said(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/keys"
    found = await look(FalCheck(settings_for(tmp_path, fal_jwks_url=url), Clock()))
    assert found["webhook keys"].mark is Mark.FAILS
    assert "clip" not in found["webhook keys"].seen
    assert "Cannot connect to host 127.0.0.1" in found["webhook keys"].seen


async def test_a_clock_that_is_off_would_refuse_fals_webhooks(fal: FakeFal) -> None:
    dated(fal)
    settings = settings_for(Path("d"), fal_jwks_url=fal.url(JWKS_PATH))
    clock = StandingClock()
    clock.go(days=3650)
    found = await look(FalCheck(settings, clock))
    assert found["clock"].mark is Mark.FAILS


# --- the public address --------------------------------------------------------------------------


async def test_nobody_at_the_address_fails_only_where_it_was_chosen(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    chosen = await look(PublicCheck(settings_for(tmp_path, public_url=url), Clock()))
    assert chosen["health"].mark is Mark.FAILS
    assert "Connection refused" in chosen["health"].seen
    by_option = await look(PublicCheck(settings_for(tmp_path), Clock(), url))
    assert by_option["health"].mark is Mark.FAILS


KEYS = f"new:{'k' * 32},old:{'o' * 32}"


async def test_a_gated_clip_is_shown_by_a_signed_link_alone(make_origin: MakeOrigin) -> None:
    origin = await make_origin(gated=True, signing_keys=KEYS)
    await origin.clip("shown", CLIP)
    url = f"http://127.0.0.1:{origin.app.public_port}"
    settings = origin.app.settings
    await _store_behind_the_gate(origin)
    found = await look(PublicCheck(settings, Clock(), url))
    assert set(wrong(found)) == {"address"}
    assert found["signed link"].mark is Mark.OK
    assert found["without a link"].mark is Mark.OK
    other = settings.model_copy(update={"signing_keys": SecretStr(f"new:{'x' * 32}")})
    found = await look(PublicCheck(other, Clock(), url))
    assert "FIRSTVIEW_SIGNING_KEYS" in found["a clip"].seen
    assert "clocks agree" in found["a clip"].advice


async def _store_behind_the_gate(origin: Origin) -> None:
    links = Links(origin.app.settings.keys_of_links, 60.0)
    path = links.sign(keys.clip_path("shown"), int(Clock().now().timestamp())).path
    async with origin.client.get(f"http://127.0.0.1:{origin.app.public_port}{path}") as reply:
        assert reply.status == 200
        await reply.read()
    await origin.stored("shown")


async def test_an_origin_that_answers_without_the_edges_secret_is_pointed_out(
    make_origin: MakeOrigin, tmp_path: Path
) -> None:
    secret = SecretStr("s" * 32)
    for lock, mark in ((secret, Mark.OK), (SecretStr(""), Mark.WARNING)):
        origin = await make_origin(tmp_path / mark, origin_secret=lock)
        listen = f"127.0.0.1:{origin.app.public_port}"
        settings = origin.app.settings.model_copy(
            update={"origin_secret": secret, "listen": listen}
        )
        found = await look(PublicCheck(settings, Clock(), f"http://{listen}"))
        assert found["origin lock"].mark is mark, found


async def test_an_edge_that_keeps_a_copy_for_each_query_is_pointed_out(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin()
    await origin.clip("shown", CLIP)
    await origin.get("shown")
    await origin.stored("shown")
    async with _Edge(f"http://127.0.0.1:{origin.app.public_port}") as edge:
        found = await look(PublicCheck(origin.app.settings, Clock(), edge.url))
        assert found["front"].mark is Mark.OK
        assert found["cache rule"].mark is Mark.WARNING
        assert "query out of the cache key" in found["cache rule"].advice
        edge.ranges = False
        found = await look(PublicCheck(origin.app.settings, Clock(), edge.url))
        assert "seek" in found["a range"].advice


class _Edge:
    """A proxy that says what Cloudflare says, with a cache rule that minds the query."""

    def __init__(self, origin: str) -> None:
        self.ranges = True
        self._origin = origin
        self._seen: set[str] = set()
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        cached = "HIT" if request.raw_path in self._seen else "MISS"
        self._seen.add(request.raw_path)
        wanted = request.headers.get("Range") if self.ranges else None
        headers = {"Range": wanted} if wanted else {}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self._origin + request.raw_path, headers=headers
            ) as reply,
        ):
            fields = {
                name: reply.headers[name]
                for name in ("ETag", "Accept-Ranges", "Cache-Control", "Content-Range")
                if name in reply.headers
            }
            fields |= {"CF-Ray": "8a1b-FRA", "CF-Cache-Status": cached}
            if request.method == "HEAD":
                fields["Content-Length"] = reply.headers["Content-Length"]
            return web.Response(status=reply.status, headers=fields, body=await reply.read())
