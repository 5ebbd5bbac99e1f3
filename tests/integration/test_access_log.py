"""One line per request in the log, whichever lane answers, and however the reply ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.app import App
from tests.fakes.fal import Behaviour, FakeFal
from tests.fakes.fal.media import make_clip
from tests.fixtures.looking import path_of
from tests.fixtures.origin import MakeOrigin, Origin, settings_for, wait_for
from tests.fixtures.raw import raw_client

MIB = 1024 * 1024
DATA = make_clip(300_000, 9)
LARGE = make_clip(12 * MIB, 121)  # more than sockets on both sides hold
SECRET = "an-edge-and-its-origin-share-this-secret"
FIELDS = {"User-Agent": "Player/1", "CF-Ray": "8f1-FRA", "X-Request-Id": "mine"}


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


async def line(logs: list[EventDict], exchange: str = "mine") -> EventDict:
    """Wait for the line of an exchange; it is the only one."""

    async def found() -> EventDict | None:
        return next((entry for entry in logs if entry.get("exchange") == exchange), None)

    await wait_for(found)
    [entry] = [each for each in logs if each.get("exchange") == exchange]
    assert entry["event"] == "request"
    return entry


async def warm(origin: Origin, data: bytes = DATA) -> None:
    """Make `clip` a hit."""
    await origin.clip("clip", data)
    await origin.get("clip")
    await origin.stored("clip")
    await origin.get("clip")
    assert origin.app.locator.hot("clip") is not None


def of_all(entry: EventDict) -> EventDict:
    """Check what every line says, and return the rest."""
    rest = dict(entry)
    assert rest.pop("event") == "request"
    assert rest.pop("log_level") == "info"
    assert rest.pop("exchange") == "mine"
    assert rest.pop("client") == "127.0.0.1"
    assert rest.pop("agent") == "Player/1"
    assert rest.pop("ray") == "8f1-FRA"
    assert 0 <= rest.pop("ttfb_ms") <= rest.pop("ms") < 60_000
    rest.pop("timestamp", None)
    return rest


async def test_a_view_of_a_cold_clip_is_told_with_its_source(
    origin: Origin, logs: list[EventDict]
) -> None:
    await origin.clip("clip", DATA)
    await origin.get("clip", FIELDS)
    assert of_all(await line(logs)) == {
        "method": "GET",
        "path": path_of("clip"),
        "request_id": "clip",
        "status": 200,
        "bytes": len(DATA),
        "tier": "upstream",
        "cache": "miss",
    }


@pytest.mark.parametrize("lane", ["plain", "aiohttp"])
async def test_a_hit_is_told_alike_in_both_lanes(
    origin: Origin, logs: list[EventDict], lane: str
) -> None:
    await warm(origin)
    fields = FIELDS | {"Range": "bytes=10-19"}
    if lane == "aiohttp":
        fields["X-Required"] = "nothing"  # looks like a field that the plain lane has to know
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get(path_of("clip") + "?from=mail", fields)
    assert reply.body == DATA[10:20]
    assert of_all(await line(logs)) == {
        "method": "GET",
        "path": path_of("clip"),
        "request_id": "clip",
        "status": 206,
        "range": "bytes=10-19",
        "bytes": 10,
        "tier": "bucket",
        "cache": "hit",
    }


@pytest.mark.parametrize("lane", ["plain", "aiohttp"])
async def test_behind_the_edge_the_client_is_whom_it_names(
    make_origin: MakeOrigin, logs: list[EventDict], lane: str
) -> None:
    origin = await make_origin(origin_secret=SECRET)
    edge = {"X-Firstview-Origin": SECRET, "CF-Connecting-IP": "203.0.113.7"}
    await origin.clip("clip", DATA)
    await origin.get("clip", edge)
    await origin.stored("clip")
    await origin.get("clip", edge)
    fields = FIELDS | edge | ({"X-Required": "nothing"} if lane == "aiohttp" else {})
    async with raw_client(origin.app.public_port) as viewer:
        assert (await viewer.get(path_of("clip"), fields)).status == 200
        entry = await line(logs)
        assert (entry["client"], entry["cache"]) == ("203.0.113.7", "hit")
        # Who does not come through it may name whom he likes.
        named = {"CF-Connecting-IP": "203.0.113.7", "X-Request-Id": "other"}
        assert (await viewer.get(path_of("clip"), named)).status == 403
    assert (await line(logs, "other"))["client"] == "127.0.0.1"
    assert SECRET not in str(logs)


async def test_viewers_of_one_fill_are_told_apart(origin: Origin, logs: list[EventDict]) -> None:
    hold = asyncio.Event()
    await origin.clip("clip", DATA, Behaviour(stall_at=50_000, stall_until=hold))
    first = asyncio.create_task(origin.get("clip", {"X-Request-Id": "one"}))
    await wait_for(lambda: _has_flight(origin))
    second = asyncio.create_task(origin.get("clip", {"X-Request-Id": "two"}))
    await asyncio.sleep(0.05)
    hold.set()
    await asyncio.gather(first, second)
    assert (await line(logs, "one"))["cache"] == "miss"
    assert (await line(logs, "two"))["cache"] in {"joined", "hit"}


async def _has_flight(origin: Origin) -> bool:
    flight = origin.app.flights.get("clip")
    return flight is not None and flight.is_ready


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/nothing/here?verify=abc", 404, "not-found"),
        ("/videos/nobody-knows.mp4", 404, "unknown-clip"),
        ("/videos/a.b.mp4", 404, "invalid-request-id"),
    ],
)
async def test_what_is_refused_says_why(
    origin: Origin, logs: list[EventDict], path: str, status: int, error: str
) -> None:
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.get(path, FIELDS)
    entry = await line(logs)
    assert (entry["status"], entry["error"]) == (status, error)
    assert entry["path"] == path.partition("?")[0]
    assert entry["detail"]


@pytest.mark.parametrize("state", ["warm", "cold"])
@pytest.mark.parametrize("how", ["leaves", "stalls"])
async def test_a_reply_that_is_cut_off_says_how_it_ended(
    make_origin: MakeOrigin, logs: list[EventDict], state: str, how: str
) -> None:
    origin = await make_origin(send_stall_timeout="300ms" if how == "stalls" else "60s")
    await (warm(origin, LARGE) if state == "warm" else origin.clip("clip", LARGE))
    async with raw_client(origin.app.public_port, buffer=16 * 1024) as viewer:
        await viewer.ask(path_of("clip"), FIELDS)
        await viewer.head()
        await viewer.read(1000)
        if how == "leaves":
            linger = struct.pack("ii", 1, 0)
            viewer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            viewer.sock.close()

        async def told() -> bool:
            return any(each["event"] == "request" for each in logs if _is_mine(each))

        await wait_for(told)
    [entry] = [each for each in logs if each["event"] == "request" and _is_mine(each)]
    assert entry["ended"] == {"leaves": "viewer-left", "stalls": "viewer-stalled"}[how]
    assert entry["status"] == 200
    assert 0 < entry["bytes"] < len(LARGE)
    # The warning that tells of the cause has the same name of the exchange.
    resets = [each for each in logs if each["event"] == "reply reset"]
    assert [each["exchange"] for each in resets] == (["mine"] if how == "stalls" else [])
    assert all(each["request_id"] == "clip" for each in resets)


def _is_mine(entry: EventDict) -> bool:
    return entry.get("exchange") == "mine"


def broken(app: App, reason: str) -> dict[str, float]:
    """Replies that broke off, by their tier."""
    [family] = [one for one in app.metrics.registry.collect() if one.name.endswith("s_aborted")]
    return {
        sample.labels["tier"]: sample.value
        for sample in family.samples
        if sample.labels["reason"] == reason and sample.value
    }


@pytest.mark.parametrize("state", ["warm", "cold"])
@pytest.mark.parametrize("how", ["in time", "at once"])
async def test_a_viewer_who_is_cut_off_by_a_stop_is_not_said_to_have_left(
    tmp_path: Path, fal: FakeFal, logs: list[EventDict], how: str, state: str
) -> None:
    app = App(settings_for(tmp_path / "data", drain_timeout="100ms"))
    async with contextlib.AsyncExitStack() as viewers:
        async with app.running(), aiohttp.ClientSession() as session:
            origin = Origin(app, fal, session)
            if state == "warm":
                await warm(origin, LARGE)
                logs.clear()
            else:
                await origin.clip("clip", DATA, Behaviour(stall_at=50_000))
            client = raw_client(app.public_port, buffer=16 * 1024)
            viewer = await viewers.enter_async_context(client)
            await viewer.ask(path_of("clip"), FIELDS)
            await viewer.head()
            if how == "at once":
                app.leaving.hurry()
        entry = await line(logs)
    tier = "bucket" if state == "warm" else "upstream"
    assert (entry["ended"], entry["tier"]) == ("stopped", tier)
    assert broken(app, "stopped") == {tier: 1}
    assert broken(app, "viewer-left") == {}


async def test_a_viewer_who_leaves_while_nothing_comes_is_counted_with_his_tier(
    origin: Origin, logs: list[EventDict]
) -> None:
    await origin.clip("clip", DATA, Behaviour(stall_at=50_000))
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"), FIELDS)
        await viewer.head()
    assert (await line(logs))["ended"] == "viewer-left"
    assert broken(origin.app, "viewer-left") == {"upstream": 1}


async def test_a_slow_viewer_of_a_hit_is_told_of_at_the_end(
    origin: Origin, logs: list[EventDict]
) -> None:
    await warm(origin, LARGE)
    async with raw_client(origin.app.public_port, buffer=16 * 1024) as viewer:
        await viewer.ask(path_of("clip"), FIELDS)
        await viewer.head()
        assert not [each for each in logs if _is_mine(each)]
        await viewer.rest()
    assert of_all(await line(logs))["bytes"] == len(LARGE)


async def test_only_errors_are_told_where_only_they_are_wanted(
    make_origin: MakeOrigin, logs: list[EventDict]
) -> None:
    origin = await make_origin(access_log="errors")
    await warm(origin)
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.get(path_of("clip"))
        await viewer.get("/healthz")
        await viewer.get("/nothing", {"X-Request-Id": "mine"})
    await line(logs)
    assert [each["exchange"] for each in logs if each["event"] == "request"] == ["mine"]


@contextlib.asynccontextmanager
async def stopping_with_hits(
    data_dir: Path, fal: FakeFal, count: int
) -> AsyncIterator[list[EventDict]]:
    with capture_logs() as logs:
        app = App(settings_for(data_dir))
        async with app.running():
            origin = Origin(app, fal, None)  # type: ignore[arg-type]
            await origin.clip("clip", DATA)
            async with raw_client(app.public_port) as viewer:
                await viewer.get(path_of("clip"))
                await origin.stored("clip")
                for _ in range(count):
                    await viewer.get(path_of("clip"), {"Range": "bytes=0-9"})
        yield logs


async def test_lines_of_hits_are_written_before_the_process_ends(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with stopping_with_hits(tmp_path / "data", fal, 20) as logs:
        told = [each for each in logs if each["event"] == "request" and each["status"] == 206]
        assert len(told) == 20
