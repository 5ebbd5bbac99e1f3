"""One line per fill tells its whole story, whatever came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.fakes.bucket import FaultyBucket
from tests.fakes.fal import Behaviour
from tests.fakes.fal.media import make_clip
from tests.fixtures.origin import MakeOrigin, Origin, wait_for
from tests.fixtures.truth import Truth

DATA = make_clip(400_000, 11)


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


async def story(logs: list[EventDict], request_id: str = "clip") -> EventDict:
    """Wait for a fill's line; it is the only one."""

    def lines() -> list[EventDict]:
        return [
            each
            for each in logs
            if (each["event"], each.get("request_id")) == ("fill", request_id)
            and each["log_level"] != "debug"
        ]

    async def found() -> bool:
        return bool(lines())

    await wait_for(found)
    [entry] = lines()
    return entry


def others(logs: list[EventDict]) -> list[str]:
    """What else was said, but for each request's line."""
    return [each["event"] for each in logs if each["event"] not in {"fill", "request", "reply"}]


async def test_a_fill_that_was_stored(origin: Origin, logs: list[EventDict]) -> None:
    await origin.clip("clip", DATA)
    await origin.get("clip")
    row = await origin.stored("clip")
    entry = dict(await story(logs))
    assert others(logs) == []
    for name in ("seconds", "first_ms", "commit_ms"):
        assert 0 <= entry.pop(name) < 60_000
    assert entry == {
        "event": "fill",
        "log_level": "info",
        "request_id": "clip",
        "ended": "whole",
        "tier": "upstream",
        "source": "127.0.0.1",
        "begun_by": "view",
        "bytes": len(DATA),
        "length": len(DATA),
        "joins": 0,
        "resumes": 0,
        "commit": "stored",
        "sha256": row.sha256,
    }


async def test_a_fill_that_broke_and_was_joined(origin: Origin, logs: list[EventDict]) -> None:
    hold = asyncio.Event()
    path = await origin.clip("clip", DATA)
    cut = Behaviour(reset_at=100_000)
    origin.fal.script(path, [cut, cut, Behaviour(stall_at=100_000, stall_until=hold)])
    views = [asyncio.create_task(origin.get("clip")) for _ in range(3)]

    async def resumed() -> bool:
        flight = origin.app.flights.get("clip")
        return flight is not None and (flight.account.resumes, flight.account.joins) == (2, 2)

    await wait_for(resumed)
    hold.set()
    assert all(body == DATA for _, body in await asyncio.gather(*views))
    entry = await story(logs)
    assert (entry["joins"], entry["resumes"]) == (2, 2)
    assert entry["resumed_for"] == "source-unavailable"
    assert (entry["ended"], entry["commit"]) == ("whole", "stored")
    assert others(logs) == []


@pytest.mark.parametrize(
    ("behaviour", "ended"),
    [
        (Behaviour(status=500), "source-unavailable"),
        (Behaviour(status=404), "clip-gone"),
        (Behaviour(body=b"<html></html>"), "not-a-clip"),
    ],
)
async def test_a_fill_that_failed(
    origin: Origin, logs: list[EventDict], behaviour: Behaviour, ended: str
) -> None:
    await origin.clip("clip", DATA, behaviour)
    await origin.get("clip", {"Range": "bytes=5-9"})
    entry = await story(logs)
    assert (entry["ended"], entry["log_level"]) == (ended, "warning")
    assert (entry["tier"], entry["begun_by"]) == ("upstream", "range")
    assert entry["detail"]
    assert "commit" not in entry


async def test_a_fill_without_room(make_origin: MakeOrigin, logs: list[EventDict]) -> None:
    origin = await make_origin(cache_max_bytes="100KiB")
    await origin.clip("clip", DATA)
    assert (await origin.get("clip"))[1] == DATA
    entry = await story(logs)
    assert (entry["ended"], entry["reason"]) == ("streamed-through", "disk")


async def test_a_fill_that_crashed(
    origin: Origin, logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    monkeypatch.setattr("proxy.delivery.pour.Pouring.pour", crash)
    await origin.clip("clip", DATA)
    response, _ = await origin.get("clip")
    assert response.status == 500
    entry = await story(logs)
    assert (entry["ended"], entry["log_level"]) == ("crashed", "error")
    assert isinstance(entry["exc_info"], ZeroDivisionError)


async def test_a_fill_that_nobody_waits_for_any_more(
    make_origin: MakeOrigin, logs: list[EventDict]
) -> None:
    origin = await make_origin(drain_timeout="100ms")
    await origin.clip("clip", DATA, Behaviour(stall_at=100_000))
    view = asyncio.create_task(origin.get("clip"))

    async def begun() -> bool:
        flight = origin.app.flights.get("clip")
        return flight is not None and flight.is_ready

    await wait_for(begun)
    await origin.app.flights.drain(0.05)
    entry = await story(logs)
    assert entry["ended"] == "stopped"
    view.cancel()
    await asyncio.gather(view, return_exceptions=True)


async def test_a_clip_that_the_bucket_does_not_take_at_first(
    make_origin: MakeOrigin, faulty_bucket: FaultyBucket, truth: Truth, logs: list[EventDict]
) -> None:
    origin = await make_origin(bucket_url=truth.url, bucket_attempts=1)
    await origin.clip("clip", DATA)
    await faulty_bucket.down()
    await origin.get("clip")
    entry = await story(logs)
    assert (entry["ended"], entry["commit"]) == ("whole", "bucket-unavailable")
    await faulty_bucket.up()
    await origin.stored("clip")

    async def told() -> bool:
        return "stored" in others(logs)

    await wait_for(told)
    assert set(others(logs)) <= {"kept on disk, will try again", "stored"}


async def test_a_clip_that_comes_back_from_the_bucket(
    make_origin: MakeOrigin, bucket_url: str, logs: list[EventDict]
) -> None:
    if not bucket_url.startswith("s3"):
        return  # what a local bucket has is sent from where it lies
    origin = await make_origin(bucket_url=bucket_url)
    await origin.clip("clip", DATA)
    await origin.get("clip")
    await origin.stored("clip")
    await origin.app.disk.forget("clip")
    origin.app.places.files.drop("clip")
    logs.clear()
    assert (await origin.get("clip"))[1] == DATA
    entry = await story(logs)
    assert (entry["ended"], entry["tier"], entry["source"]) == ("whole", "bucket", "bucket")
    assert "commit" not in entry
