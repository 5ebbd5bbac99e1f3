"""Processes that are told to stop, or killed, in the middle of what they have just begun."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.company import Company
from tests.fixtures.fleet import fleet
from tests.fixtures.origin import wait_for
from tests.fixtures.serving import serving
from tests.fixtures.storm import Sender, clip_path, forecast, signed

DRAIN = 2.0
LATE = 15.0
"""Seconds beyond the drain timeout that a busy machine may need to end a process."""
WEBHOOKS = 150

both_databases = pytest.mark.parametrize("company", ["sqlite", "postgresql"], indirect=True)


@pytest.mark.timeout(240)
@both_databases
async def test_a_stop_under_load_loses_no_webhook_and_hands_its_jobs_on_at_once(
    company: Company, fal: FakeFal
) -> None:
    known = forecast(WEBHOOKS, fal.url("").rstrip("/"))
    signer, jwks_url = signed(fal)
    for request_id, clip in known.clips.items():
        fal.add(clip_path(request_id), clip, Behaviour(stall_at=1000))
    # The lease is so long that whoever had to wait for its end would be noticed.
    company.cast(0, fal_jwks_url=jwks_url, job_lease="1h", drain_timeout=f"{DRAIN}s")
    half = len(known.deliveries) // 2
    before, during = (
        Sender(company.webhooks, signer, some)
        for some in (known.deliveries[:half], known.deliveries[half:])
    )

    async def at_work() -> bool:
        return len(fal.gets()) > 4  # the first one is the keys

    async def under_load() -> bool:
        return during.answered > 0

    await company.make_catalog()
    async with fleet(company.front):
        await before.run()
        await wait_for(at_work, 60)
        sending = asyncio.create_task(during.run())
        await wait_for(under_load, 60)
        assert not sending.done()
        began = time.monotonic()
        await company.front.stop(DRAIN + LATE)
        print(f"\nstopped after {time.monotonic() - began:.1f} s; {during.answered} answered late")
        taken = before.taken | during.taken
        rows = await company.ask(text("SELECT request_id FROM generations"))
        assert taken <= {row.request_id for row in rows}
        held = text("SELECT request_id FROM jobs WHERE lease_owner IS NOT NULL OR attempts > 0")
        assert await company.ask(held) == []
        for request_id, clip in known.clips.items():
            fal.add(clip_path(request_id), clip)
        await company.front.start()
        await sending
        await company.everything_is_done(120)
        await company.clear()
        await company.front.stop(DRAIN + LATE)
    await company.check(known)


@both_databases
async def test_a_clip_whose_first_viewer_saw_the_process_die_is_stored_without_another_viewer(
    company: Company, fal: FakeFal
) -> None:
    data = make_clip(300_000, 1)
    url = fal.add("/clip.mp4", data, Behaviour(stall_at=200_000))
    settings = {"database_url": company.database_url, "bucket_url": company.bucket.url}
    await company.make_catalog()
    async with serving(company.folder / "data", **settings) as server:
        await server.register("clip", url)
        async with server.client.get(server.url("clip")) as reply:
            await reply.content.readexactly(100_000)
            server.process.kill()  # within the second before anything is written down
            await server.process.wait()
    fal.add("/clip.mp4", data)
    async with serving(company.folder / "data", **settings) as server:
        await server.stored("clip", 30)
        assert (await server.row("clip"))["status"] == "stored"
    assert company.bucket.body("clip") == data
    assert await company.ask(text("SELECT * FROM jobs")) == []


async def test_what_a_killed_process_left_in_a_local_bucket_goes_with_the_next_start(
    tmp_path: Path,
) -> None:
    temp = tmp_path / "data" / "bucket" / ".tmp"
    temp.mkdir(parents=True)
    (temp / "half-written").write_bytes(b"something")  # nothing in the spool remembers it

    async def gone() -> bool:
        return list(temp.iterdir()) == []

    async with serving(tmp_path / "data"):
        await wait_for(gone)
