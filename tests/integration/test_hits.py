"""Hits in their own lane: slow viewers, viewers who leave, clips that go, the listener's end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path

import pytest
from aiohttp.web_request import BaseRequest
from structlog.testing import capture_logs

from proxy.storage.open_files import OpenFile
from proxy.web.connection import Connection
from proxy.web.machine import Sent
from proxy.web.public import Public
from tests.fakes.fal import FakeFal, make_clip
from tests.fixtures.looking import metric, path_of
from tests.fixtures.origin import MakeOrigin, Origin, running_origin, wait_for
from tests.fixtures.raw import RawClient, raw_client

MIB = 1024 * 1024
LARGE = make_clip(12 * MIB, 120)  # more than sockets on both sides hold
SMALL_BUFFER = 16 * 1024


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that were not answered by the lane for hits."""
    asked: list[str] = []
    answer = Public.__call__

    async def spy(self: Public, request: BaseRequest, connection: Connection) -> Sent:
        asked.append(request.raw_path)
        return await answer(self, request, connection)

    monkeypatch.setattr(Public, "__call__", spy)
    return asked


async def open_clip(origin: Origin, elsewhere: list[str], data: bytes = LARGE) -> OpenFile:
    """Make `clip` a hit."""
    await origin.clip("clip", data)
    await origin.get("clip")
    await origin.stored("clip")
    await origin.get("clip")
    file = origin.app.locator.hot("clip")
    assert file is not None
    elsewhere.clear()
    return file


async def begin(viewer: RawClient, fields: dict[str, str] | None = None) -> bytes:
    """Ask for the clip and read a little of it."""
    await viewer.ask(path_of("clip"), fields)
    await viewer.head()
    return await viewer.read(1000)


def aborted(origin: Origin, file: OpenFile, reason: str) -> float:
    """Replies from a file that did not reach their end."""
    name = "firstview_replies_aborted_total"
    return metric(origin, name, reason=reason, tier=file.tier)


async def is_released(file: OpenFile, users: int = 1) -> None:
    """Wait until nobody but who keeps it open has the file."""

    async def released() -> bool:
        return file._users == users

    await wait_for(released)


async def test_a_slow_viewer_gets_every_byte(origin: Origin, elsewhere: list[str]) -> None:
    file = await open_clip(origin, elsewhere)
    async with raw_client(origin.app.public_port, buffer=SMALL_BUFFER) as viewer:
        begun = await begin(viewer)
        assert file._users == 2
        assert begun + await viewer.rest() == LARGE
        await is_released(file)
        assert (await viewer.get(path_of("clip"), {"Range": "bytes=5-9"})).body == LARGE[5:10]
    assert elsewhere == []


async def test_what_was_asked_meanwhile_is_answered_after_it(
    origin: Origin, elsewhere: list[str]
) -> None:
    await open_clip(origin, elsewhere)
    async with raw_client(origin.app.public_port, buffer=SMALL_BUFFER) as viewer:
        begun = await begin(viewer)
        for path in (path_of("clip"), "/healthz", path_of("clip")):
            await viewer.ask(path, {"Range": "bytes=7-8"})
        assert begun + await viewer.rest() == LARGE
        assert (await viewer.reply()).body == LARGE[7:9]
        assert (await viewer.reply()).body == b"ok\n"
        assert (await viewer.reply()).body == LARGE[7:9]


@pytest.mark.parametrize("how", ["resets", "closes"])
async def test_a_viewer_who_leaves_in_the_middle_holds_nothing(
    origin: Origin, elsewhere: list[str], how: str
) -> None:
    file = await open_clip(origin, elsewhere)
    async with raw_client(origin.app.public_port, buffer=SMALL_BUFFER) as viewer:
        await begin(viewer)
        if how == "resets":
            linger = struct.pack("ii", 1, 0)
            viewer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        viewer.sock.close()
        await is_released(file)

    async def is_counted() -> bool:
        return aborted(origin, file, "viewer-left") == 1

    await wait_for(is_counted)
    assert elsewhere == []


async def test_a_clip_that_is_forgotten_is_sent_to_its_end_and_closed(
    origin: Origin, elsewhere: list[str]
) -> None:
    file = await open_clip(origin, elsewhere)
    async with raw_client(origin.app.public_port, buffer=SMALL_BUFFER) as viewer:
        begun = await begin(viewer)
        await origin.app.locator.forget("clip")
        assert origin.app.locator.hot("clip") is None
        assert begun + await viewer.rest() == LARGE
    await is_released(file, users=0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)


async def test_a_viewer_who_stops_reading_is_reset(
    make_origin: MakeOrigin, elsewhere: list[str]
) -> None:
    origin = await make_origin(send_stall_timeout="300ms")
    file = await open_clip(origin, elsewhere)
    with capture_logs() as logs:
        async with raw_client(origin.app.public_port, buffer=SMALL_BUFFER) as viewer:
            await begin(viewer)
            await is_released(file)
            await viewer.rest()
            assert viewer.end == "rst"
    [line] = [line for line in logs if line["event"] == "reply reset"]
    assert (line["error"], line["path"]) == ("viewer-stalled", path_of("clip"))
    assert origin.app.locator.hot("clip") is file  # it is the viewer who is in doubt
    assert elsewhere == []


@pytest.mark.parametrize("field", ["bytes=0-", "bytes=5000000-5001000"])
async def test_a_file_that_is_cut_short_resets_and_is_not_used_again(
    origin: Origin, elsewhere: list[str], field: str
) -> None:
    file = await open_clip(origin, elsewhere)
    os.truncate(Path(f"/proc/self/fd/{file.fd}"), 4 * MIB)
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"), {"Range": field})
        with contextlib.suppress(ConnectionResetError):  # of a small range not even the head came
            head = await viewer.head()
            assert len(await viewer.rest()) < head.length
        assert viewer.end == "rst"
    assert origin.app.locator.hot("clip") is not file
    assert aborted(origin, file, "internal") == 1


async def test_replies_and_bytes_are_counted_exactly(origin: Origin, elsewhere: list[str]) -> None:
    file = await open_clip(origin, elsewhere)

    def counted() -> list[float]:
        tier = file.tier
        return [
            metric(origin, "firstview_requests_total", status="200", tier=tier),
            metric(origin, "firstview_requests_total", status="206", tier=tier),
            metric(origin, "firstview_requests_total", status="304", tier=tier),
            metric(origin, "firstview_sent_bytes_total", tier=tier),
        ]

    before = counted()
    async with raw_client(origin.app.public_port) as viewer:
        etag = (await viewer.get(path_of("clip"))).head.fields["etag"]
        for _ in range(5):
            await viewer.get(path_of("clip"), {"Range": "bytes=10-19"})
        await viewer.get(path_of("clip"), {"Range": "bytes=0-99999", "If-Range": etag})
        await viewer.get(path_of("clip"), {"If-None-Match": etag})
        await viewer.get(path_of("clip"), method="HEAD")
    steps = [now - then for now, then in zip(counted(), before, strict=True)]
    assert steps == [2, 6, 1, len(LARGE) + 50 + 100_000]
    assert elsewhere == []


async def test_the_time_to_a_reply_is_measured_of_hits_and_of_others(
    origin: Origin, elsewhere: list[str]
) -> None:
    await open_clip(origin, elsewhere)  # a hit among others
    await origin.get("clip")
    assert metric(origin, "firstview_first_byte_seconds_count", tier="upstream") == 1
    assert metric(origin, "firstview_first_byte_seconds_count", tier="bucket") == 2


# -- the connection ---


async def test_a_connection_of_hits_alone_ends_when_it_is_idle(
    make_origin: MakeOrigin, elsewhere: list[str]
) -> None:
    origin = await make_origin(keepalive_timeout="600ms", header_timeout="300ms")
    await open_clip(origin, elsewhere)
    async with raw_client(origin.app.public_port) as viewer:
        for _ in range(3):
            assert (await viewer.get(path_of("clip"))).body == LARGE
        await viewer.read(1)
        assert viewer.end == "fin"
    assert metric(origin, "firstview_shed_total", limit="header_timeout") == 0
    assert elsewhere == []


async def test_a_long_reply_is_not_idle(make_origin: MakeOrigin, elsewhere: list[str]) -> None:
    origin = await make_origin(keepalive_timeout="300ms", header_timeout="300ms")
    await open_clip(origin, elsewhere)
    async with raw_client(origin.app.public_port, buffer=SMALL_BUFFER) as viewer:
        begun = await begin(viewer)
        await asyncio.sleep(0.5)  # longer than it may be idle
        assert begun + await viewer.rest() == LARGE


async def test_a_header_that_never_ends_is_cut_off_after_a_hit_too(
    make_origin: MakeOrigin, elsewhere: list[str]
) -> None:
    origin = await make_origin(header_timeout="300ms")
    await open_clip(origin, elsewhere)
    async with raw_client(origin.app.public_port) as slow:
        await slow.get(path_of("clip"), {"Range": "bytes=0-9"})
        await slow.send(b"GET /vid")
        await slow.read(1)
        assert slow.end in {"fin", "rst"}
    assert metric(origin, "firstview_shed_total", limit="header_timeout") == 1
    assert elsewhere == []


async def test_a_request_longer_than_a_line_may_be_is_not_answered_as_a_hit(
    make_origin: MakeOrigin, elsewhere: list[str]
) -> None:
    origin = await make_origin(max_line_bytes="1KiB")
    await open_clip(origin, elsewhere)
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get(path_of("clip"), {"X-Long": "x" * 2000})
    assert reply.status == 431


async def test_a_listener_that_closes_lets_a_hit_finish_and_then_ends(
    tmp_path: Path, fal: FakeFal, elsewhere: list[str]
) -> None:
    async with contextlib.AsyncExitStack() as clients:
        async with running_origin(tmp_path / "data", fal, drain_timeout="10s") as origin:
            await open_clip(origin, elsewhere)
            port = origin.app.public_port
            viewer = await clients.enter_async_context(raw_client(port, buffer=SMALL_BUFFER))
            idle = await clients.enter_async_context(raw_client(port))
            await idle.get(path_of("clip"), {"Range": "bytes=0-9"})
            begun = await begin(viewer)

            async def see_the_rest() -> bytes:
                await idle.read(1)  # ended at once
                body = begun + await viewer.rest()
                await viewer.read(1)
                return body

            rest = asyncio.create_task(see_the_rest())
        assert await rest == LARGE
        assert (viewer.end, idle.end) == ("fin", "fin")


async def test_a_hit_that_does_not_finish_in_time_is_reset(
    tmp_path: Path, fal: FakeFal, elsewhere: list[str]
) -> None:
    async with contextlib.AsyncExitStack() as clients:
        async with running_origin(tmp_path / "data", fal, drain_timeout="300ms") as origin:
            file = await open_clip(origin, elsewhere)
            port = origin.app.public_port
            viewer = await clients.enter_async_context(raw_client(port, buffer=SMALL_BUFFER))
            await begin(viewer)
        assert file._users == 0
        await viewer.rest()
        assert viewer.end == "rst"
