"""What is counted when it happens, in a running firstview."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy import __version__
from proxy.app import App
from tests.fakes.bucket import Fault, FaultyBucket
from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.looking import metric, path_of, viewers
from tests.fixtures.origin import MakeOrigin, Origin, settings_for, wait_for
from tests.fixtures.raw import raw_client

SIZE = 300_000
DATA = make_clip(SIZE, 60)
TIER = "bucket"
"""Where hits come from when the bucket is a directory."""


async def hit(origin: Origin) -> None:
    """Make `clip` a hit."""
    await origin.clip("clip", DATA)
    await origin.get("clip")
    await origin.stored("clip")
    await origin.get("clip")


async def page(origin: Origin) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape finds."""
    text = await (await origin.client.get(origin.admin("/metrics"))).text()
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(origin: Origin, name: str, **labels: str) -> float:
    """One value of a scrape."""
    return (await page(origin))[name, tuple(labels.items())]


def timed(origin: Origin, name: str, tier: str) -> float:
    return metric(origin, f"firstview_{name}_seconds_count", tier=tier)


async def test_every_reply_about_a_clip_is_timed_once_whichever_lane_it_takes(
    origin: Origin,
) -> None:
    await hit(origin)
    names = ("first_byte", "reply")
    assert [timed(origin, name, "upstream") for name in names] == [1, 1]
    before = [timed(origin, name, TIER) for name in names]
    async with raw_client(origin.app.public_port) as viewer:
        etag = (await viewer.get(path_of("clip"))).head.fields["etag"]
        await viewer.get(path_of("clip"), {"Range": "bytes=0-9"})
        await viewer.get(path_of("clip"), {"If-None-Match": etag})
        await viewer.get(path_of("clip"), method="HEAD")
        for fields in ({"Range": "bytes=0-9,20-29"}, {"Accept-Ranges": "x", "Expect": ""}):
            await viewer.get(path_of("clip"), fields)  # the other lane's
    for name, then in zip(names, before, strict=True):
        assert timed(origin, name, TIER) == then + 6


async def test_a_hit_whose_viewer_is_slow_is_timed_to_its_end(origin: Origin) -> None:
    large = make_clip(12_000_000, 61)
    await origin.clip("clip", large)
    await origin.get("clip")
    await origin.stored("clip")
    await origin.get("clip")
    before = timed(origin, "reply", TIER)
    async with raw_client(origin.app.public_port, buffer=16 * 1024) as viewer:
        await viewer.ask(path_of("clip"))
        await viewer.head()
        assert metric(origin, "firstview_slow_hits") == 1
        assert timed(origin, "reply", TIER) == before
        assert await viewer.rest() == large
    await wait_for(lambda: is_so(metric(origin, "firstview_slow_hits") == 0))
    assert timed(origin, "reply", TIER) == before + 1


async def is_so(said: bool) -> bool:
    return said


async def test_hits_are_not_counted_where_that_is_switched_off(make_origin: MakeOrigin) -> None:
    origin = await make_origin(hit_metrics=False)
    await hit(origin)
    counted = ("firstview_requests_total", "firstview_sent_bytes_total")
    before = await page(origin)
    async with raw_client(origin.app.public_port) as viewer:
        for _ in range(3):
            reply = await viewer.get(path_of("clip"), {"Range": "bytes=10-19"})
            assert reply.body == DATA[10:20]
    after = await page(origin)
    assert {key: value for key, value in after.items() if key[0] in counted} == {
        key: value for key, value in before.items() if key[0] in counted
    }
    await origin.clip("other", DATA)
    await origin.get("other")
    assert metric(origin, "firstview_requests_total", status="200", tier="upstream") == 2


async def test_viewers_who_join_a_fill_are_counted(origin: Origin) -> None:
    hold = asyncio.Event()
    await origin.clip("clip", DATA, Behaviour(stall_at=100_000, stall_until=hold))
    first = asyncio.create_task(origin.get("clip"))
    await viewers(origin, 1)
    others = [asyncio.create_task(origin.get("clip")) for _ in range(3)]
    await viewers(origin, 4)
    assert await scraped(origin, "firstview_fills_in_flight") == 1
    hold.set()
    assert [body for _, body in await asyncio.gather(first, *others)] == [DATA] * 4
    assert metric(origin, "firstview_joins_total") == 3
    await origin.stored("clip")
    assert metric(origin, "firstview_fill_seconds_count", source="upstream") == 1


async def test_bytes_of_a_far_range_are_counted_apart_from_the_fills(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(seek_ahead="64KiB")
    hold, data = asyncio.Event(), make_clip(2_000_000, 62)
    await origin.clip("clip", data, Behaviour(stall_at=100_000, stall_until=hold))
    async with raw_client(origin.app.public_port) as watcher:
        await watcher.ask(path_of("clip"))
        await watcher.head()
        _, body = await origin.get("clip", {"Range": "bytes=1500000-1599999"})
        assert body == data[1_500_000:1_600_000]
        beside = metric(origin, "firstview_beside_bytes_total", source="upstream", way="seek")
        assert beside == 100_000
        hold.set()
        assert await watcher.rest() == data
    assert metric(origin, "firstview_filled_bytes_total", source="upstream") == len(data)


async def test_bytes_that_are_streamed_through_are_counted(make_origin: MakeOrigin) -> None:
    origin = await make_origin(cache_max_bytes="100KiB")
    await origin.clip("clip", DATA)
    assert (await origin.get("clip"))[1] == DATA
    through = metric(origin, "firstview_beside_bytes_total", source="upstream", way="through")
    assert through == SIZE
    assert metric(origin, "firstview_fills_total", source="upstream", outcome="no-room") == 1


async def test_a_fill_that_is_one_too_many_is_counted(make_origin: MakeOrigin) -> None:
    origin = await make_origin(max_fills=1)
    hold = asyncio.Event()
    await origin.clip("clip", DATA, Behaviour(stall_at=100_000, stall_until=hold))
    await origin.clip("other", DATA)
    first = asyncio.create_task(origin.get("clip"))
    await viewers(origin, 1)
    refused, _ = await origin.get("other")
    assert refused.status == 503
    assert metric(origin, "firstview_shed_total", limit="max_fills") == 1
    assert await scraped(origin, "firstview_limit", limit="max_fills") == 1
    hold.set()
    await first


async def test_a_host_that_keeps_failing_is_seen_to_rest(make_origin: MakeOrigin) -> None:
    origin = await make_origin(upstream_breaker_failures=1, fill_stall_timeout="100ms")
    await hit(origin)
    host = origin.fal.url("").removeprefix("http://").rstrip("/")
    assert await scraped(origin, "firstview_upstream_resting", host=host) == 0
    assert await scraped(origin, "firstview_upstream_breakers", state="closed") == 1
    await origin.clip("broken", DATA, Behaviour(status=500))
    await origin.get("broken")
    assert await scraped(origin, "firstview_upstream_resting", host=host) == 1
    assert await scraped(origin, "firstview_upstream_breakers", state="open") == 1
    assert await scraped(origin, "firstview_upstream_breakers", state="closed") == 0


async def test_a_process_without_viewers_is_none_of_those_that_serve(
    origin: Origin, tmp_path: Path
) -> None:
    assert await scraped(origin, "firstview_workers") == 1
    async with App(settings_for(tmp_path / "worker")).working() as app:
        address = f"http://127.0.0.1:{app.admin_port}/metrics"
        text = await (await origin.client.get(address)).text()
    assert "\nfirstview_workers 0.0\n" in text
    assert "\nprocess_open_fds " in text


async def test_a_scrape_tells_of_the_process_and_of_the_machine(origin: Origin) -> None:
    await hit(origin)
    found = await page(origin)
    limits = {
        name: found[f"firstview_disk_{name}_bytes", ()] for name in ("limit", "reserve", "free")
    }
    settings = origin.app.settings
    assert limits["limit"] == settings.cache_max_bytes
    assert limits["reserve"] == settings.disk_reserve
    assert limits["free"] > 0
    [build] = [key for key in found if key[0] == "firstview_build_info"]
    assert dict(build[1])["version"] == __version__
    assert found["process_open_fds", ()] > 0
    assert found["process_cpu_seconds_total", ()] > 0
    assert found["firstview_catalog_seconds_count", (("kind", "write"), ("result", "ok"))] > 0
    assert found["firstview_commit_seconds_count", (("result", "ok"),)] == 1
    assert found["firstview_kept_bytes", ()] == 0


async def test_a_bucket_that_is_away_shows_in_pinned_bytes_retries_and_commits(
    make_origin: MakeOrigin, faulty_bucket: FaultyBucket, s3_bucket_name: str, tmp_path: Path
) -> None:
    away: dict[str, Any] = {
        "bucket_url": f"s3://{s3_bucket_name}",
        "bucket_attempts": 2,
        "bucket_retry_wait": "50ms",
        "bucket_retry_max_wait": "100ms",
    }
    origin = await make_origin(**away)
    faulty_bucket.faults.append(Fault(operation="PutObject", status=500, times=1000))
    await origin.clip("clip", DATA)
    await origin.get("clip")

    async def tried() -> bool:
        return metric(origin, "firstview_commit_seconds_count", result="failed") > 0

    await wait_for(tried)
    assert await scraped(origin, "firstview_kept_bytes") == SIZE
    assert await scraped(origin, "firstview_kept_clips") == 1
    assert 0 < await scraped(origin, "firstview_oldest_kept_seconds") < 60
    assert metric(origin, "firstview_bucket_retries_total", call="put") > 0
    faulty_bucket.faults.clear()
    await origin.stored("clip")
    assert await scraped(origin, "firstview_kept_bytes") == 0
    assert await scraped(origin, "firstview_oldest_kept_seconds") == 0
    assert metric(origin, "firstview_commit_seconds_count", result="ok") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_errors_and_other_addresses_are_counted_without_a_tier(
    origin: Origin, method: str
) -> None:
    before = await page(origin)
    for path in ("/healthz", "/videos/unknown.mp4", "/nowhere"):
        await origin.client.request(method, origin.url("x").replace("/videos/x.mp4", path))
    after = await page(origin)
    for status, count in (("200", 1), ("404", 2)):
        key = ("firstview_requests_total", (("status", status), ("tier", "none")))
        assert after[key] - before[key] == count
