"""`/livez` and `/readyz`: what is wrong, in words, and which of it sends viewers elsewhere."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from proxy.app import App
from tests.fakes.bucket import Fault, FaultyBucket
from tests.fakes.fal import FakeFal, make_clip
from tests.fixtures.gate import Gate, through
from tests.fixtures.origin import MakeOrigin, Origin, running_origin, settings_for, wait_for
from tests.fixtures.raw import raw_client
from tests.fixtures.truth import Truth

JSON = {"Accept": "application/json"}


async def probe(origin: Origin, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
    """Status and JSON of a probe, which is never slow."""
    began = time.monotonic()
    async with origin.client.get(origin.admin(path), headers=JSON) as reply:
        found: dict[str, Any] = await reply.json()
        assert reply.headers["Cache-Control"] == "no-store"
    assert time.monotonic() - began < 5.0
    return reply.status, found


async def until(origin: Origin, **states: str) -> dict[str, Any]:
    """Ask until these parts are in these states."""

    async def look() -> dict[str, Any] | None:
        parts: dict[str, Any] = (await probe(origin))[1]["parts"]
        are = {name: parts[name]["state"] for name in states}
        return parts if are == states else None

    return await wait_for(look, 20)


async def test_a_process_that_is_well_says_so_as_text_and_as_json(origin: Origin) -> None:
    for path, verdict in (("/livez", "alive"), ("/readyz", "ready")):
        async with origin.client.get(origin.admin(path)) as reply:
            assert reply.status == 200
            assert reply.content_type == "text/plain"
            lines = (await reply.text()).splitlines()
        assert lines[0] == verdict
        assert all(line.endswith(": ok") for line in lines[1:])
        status, found = await probe(origin, path)
        assert (status, found["ok"], found["verdict"]) == (200, True, verdict)
        assert [f"{part}: ok" for part in found["parts"]] == lines[1:]


async def test_what_all_replicas_have_in_common_makes_none_of_them_unready(
    tmp_path: Path,
    fal: FakeFal,
    faulty_bucket: FaultyBucket,
    truth: Truth,
    postgres_url: str,
    gate: Gate,
) -> None:
    settings = {
        "database_url": through(gate, postgres_url),
        "bucket_url": truth.url,
        "bucket_attempts": 1,
        "drain_timeout": "200ms",
        "disk_reserve": "1000TiB",
    }
    async with running_origin(tmp_path / "data", fal, **settings) as origin:
        fault = Fault(status=403, code="AccessDenied", times=1_000_000)
        faulty_bucket.faults.append(fault)
        gate.freeze()
        parts = await until(origin, catalog="degraded", bucket="degraded", disk="degraded")
        assert "no answer for" in parts["catalog"]["detail"]
        assert "are served" in parts["catalog"]["detail"]
        assert "403" in parts["bucket"]["detail"]
        assert "FIRSTVIEW_DISK_RESERVE" in parts["disk"]["detail"]
        status, found = await probe(origin)
        assert (status, found["verdict"]) == (200, "ready, degraded")
        await gate.open()
        await until(origin, catalog="ok", disk="degraded")


async def test_a_bucket_that_answers_and_takes_nothing_is_told_of(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    faulty_bucket.faults.append(
        Fault(operation="PutObject", status=403, code="AccessDenied", times=1_000_000)
    )
    async with running_origin(
        tmp_path / "data", fal, bucket_url=truth.url, drain_timeout="200ms"
    ) as origin:
        await origin.clip("clip", make_clip(10_000, 1))
        await origin.get("clip")
        parts = await until(origin, storing="degraded", bucket="ok")
        assert "403 AccessDenied" in parts["storing"]["detail"]


async def test_a_schema_that_is_too_old_is_told_of(origin: Origin) -> None:
    path = origin.app.settings.data_dir / "catalog.sqlite"

    def turn_back() -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE alembic_version SET version_num = '0001'")

    await asyncio.to_thread(turn_back)
    parts = await until(origin, catalog="degraded")
    assert "firstview catalog migrate" in parts["catalog"]["detail"]


async def test_a_disk_that_is_gone_sends_viewers_elsewhere(make_origin: MakeOrigin) -> None:
    origin = await make_origin()
    health = origin.app._health
    health._settings = health._settings.model_copy(update={"data_dir": Path("/nowhere/at/all")})
    await until(origin, disk="failing")
    assert (await probe(origin))[0] == 503
    assert (await probe(origin, "/livez"))[0] == 200


async def test_a_process_that_is_about_to_stop_says_so_at_once_and_ends_each_connection(
    origin: Origin,
) -> None:
    data = make_clip(10_000, 2)
    await origin.clip("clip", data)
    await origin.get("clip")
    await origin.stored("clip")
    async with raw_client(origin.app.public_port) as viewer:
        first = await viewer.get("/videos/clip.mp4")
        assert (await probe(origin))[0] == 200
        origin.app.leaving.announce()
        status, found = await probe(origin)
        assert (status, found["verdict"]) == (503, "not ready")
        assert "told to stop" in found["parts"]["process"]["detail"]
        assert (await probe(origin, "/livez"))[0] == 200
        last = await viewer.get("/videos/clip.mp4")
        assert (first.body, last.body) == (data, data)
        assert "connection" not in first.head.fields
        assert last.head.fields["connection"] == "close"
        assert await viewer.read(1) == b""
        assert viewer.end == "fin"
    async with raw_client(origin.app.public_port) as late:
        assert (await late.get("/healthz")).head.fields["connection"] == "close"


async def test_a_process_without_viewers_answers_probes_until_its_jobs_have_ended(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with (
        App(settings_for(tmp_path / "data")).working(works=False) as app,
        aiohttp.ClientSession() as client,
    ):
        origin = Origin(app, fal, client)
        assert [(await probe(origin, path))[0] for path in ("/livez", "/readyz")] == [200, 200]
        app.leaving.announce()
        assert [(await probe(origin, path))[0] for path in ("/livez", "/readyz")] == [200, 503]
