"""Bad input gets a clear answer, is logged once, and loses nothing."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.errors import CatalogUnavailable
from proxy.records import Generation, Registration
from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.looking import metric, not_at_hand, nothing_is_left, objects, path_of
from tests.fixtures.origin import ADMIN_TOKEN, MakeOrigin, Origin, wait_for
from tests.fixtures.raw import RawReply, raw_client

DATA = make_clip(100_000, 90)
BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


def check_problem(reply: RawReply, status: int, slug: str) -> dict[str, Any]:
    """A problem document (RFC 9457) that a person and a program understand."""
    fields = reply.head.fields
    assert (reply.status, reply.is_complete) == (status, True)
    assert fields["content-type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(reply.body)
    assert body["type"].endswith(slug)
    assert body["status"] == status
    assert body["title"]
    assert "Traceback" not in str(body)
    if status not in {405, 410}:
        assert fields["cache-control"] == "no-store"
    return body


async def ask(origin: Origin, path: str, headers: dict[str, str] | None = None) -> RawReply:
    async with raw_client(origin.app.public_port) as viewer:
        return await viewer.get(path, headers)


# -- addresses and methods ---


@pytest.mark.parametrize(
    "name",
    [
        "-begins-with-a-dash.mp4",
        "with.a.dot.mp4",
        "with%20space.mp4",
        "..%2f..%2fetc%2fpasswd.mp4",
        "../../etc/passwd.mp4",
        f"{'a' * 129}.mp4",
        "other-ending.webm",
        "no-ending",
        "caf%C3%A9.mp4",
        "nul%00.mp4",
        ".mp4",
        "",
    ],
)
async def test_a_malformed_id_is_not_looked_up(origin: Origin, name: str) -> None:
    with capture_logs() as logs:
        reply = await ask(origin, f"/videos/{name}")
    check_problem(reply, 404, "invalid-request-id")
    assert [entry["error"] for entry in logs] == ["invalid-request-id"]


@pytest.mark.parametrize("path", ["/", "/video/x.mp4", "/videos", "//videos/x.mp4", "/metrics"])
async def test_any_other_address_is_404(origin: Origin, path: str) -> None:
    check_problem(await ask(origin, path), 404, "not-found")


async def test_an_unknown_id_is_404_and_logged_once(origin: Origin) -> None:
    with capture_logs() as logs:
        reply = await ask(origin, path_of("nobody-knows"))
    body = check_problem(reply, 404, "unknown-clip")
    assert reply.head.fields["x-request-id"] in body.values()
    [entry] = logs
    assert (entry["error"], entry["status"]) == ("unknown-clip", 404)
    assert entry["log_level"] == "info"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_another_method_is_405_with_what_is_allowed(origin: Origin, method: str) -> None:
    await origin.clip("clip", DATA)
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get(path_of("clip"), {"Content-Length": "0"}, method)
        check_problem(reply, 405, "method-not-allowed")
        assert reply.head.fields["allow"] == "GET, HEAD, OPTIONS"
        assert (await viewer.get(path_of("clip"))).body == DATA


async def test_a_body_that_nobody_asked_for_does_not_confuse_the_connection(
    origin: Origin,
) -> None:
    await origin.clip("clip", DATA)
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"), {"Content-Length": "5"})
        await viewer.send(b"hello")
        assert (await viewer.reply()).body == DATA
        assert (await viewer.get(path_of("clip"))).body == DATA


# -- ranges and conditions ---


@pytest.mark.parametrize(
    "field",
    [
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=-",
        "bytes=-1-11",
        "items=0-1",
        "bytes=0-1-2",
        "=",
        "\t",
    ],
)
@pytest.mark.parametrize("temperature", ["cold", "warm"])
async def test_a_range_that_is_none_gets_the_whole_clip(
    origin: Origin, field: str, temperature: str
) -> None:
    """Peers 19 (pulpcore#3052)."""
    await origin.clip("clip", DATA)
    if temperature == "warm":
        await origin.get("clip")
        await origin.stored("clip")
    reply = await ask(origin, path_of("clip"), {"Range": field})
    assert (reply.status, reply.body) == (200, DATA)


@pytest.mark.parametrize("field", ["bytes=100000-", "bytes=-0", "bytes=5-4", f"bytes={10**30}-"])
@pytest.mark.parametrize("temperature", ["cold", "warm"])
async def test_a_range_without_a_byte_is_416_with_the_length(
    origin: Origin, field: str, temperature: str
) -> None:
    """Peers 19 (pulpcore#3054): a start past the end was streamed."""
    await origin.clip("clip", DATA)
    if temperature == "warm":
        await origin.get("clip")
        await origin.stored("clip")
    reply = await ask(origin, path_of("clip"), {"Range": field})
    check_problem(reply, 416, "range-not-satisfiable")
    assert reply.head.fields["content-range"] == f"bytes */{len(DATA)}"
    await origin.stored("clip")
    await nothing_is_left(origin)


async def test_a_condition_that_fails_is_412_and_one_that_holds_is_304(origin: Origin) -> None:
    await origin.clip("clip", DATA)
    first = await ask(origin, path_of("clip"))
    etag = first.head.fields["etag"]
    check_problem(
        await ask(origin, path_of("clip"), {"If-Match": '"other"'}), 412, "precondition-failed"
    )
    assert (await ask(origin, path_of("clip"), {"If-None-Match": etag})).status == 304
    stale = await ask(origin, path_of("clip"), {"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (stale.status, stale.body) == (200, DATA)


# -- what is no HTTP ---


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"BREW /videos/x.mp4 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /videos/x.mp4 HTTP/9.9\r\n\r\n",
        b"GET /videos/x.mp4 HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET /videos/x.mp4 HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        (
            b"GET /videos/x.mp4 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        ),
        b"GET /videos/x.mp4 HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_400_and_logged_once(origin: Origin, junk: bytes) -> None:
    with capture_logs() as logs:
        async with raw_client(origin.app.public_port) as viewer:
            await viewer.send(junk)
            reply = await viewer.reply()
            await viewer.read(1)
            assert viewer.end != "open"
    check_problem(reply, 400, "bad-request")
    [line] = logs
    assert line["event"] == "not http"
    assert (line["client"], line["status"], line["error"]) == ("127.0.0.1", 400, "bad-request")
    assert metric(origin, "firstview_requests_total", status="400", tier="none") == 1


@pytest.mark.parametrize(
    "header",
    [
        {"X-Large": "x" * 17_000},
        {f"X-{number}": "x" * 1000 for number in range(120)},
        {f"X-{number}": "x" * 15_000 for number in range(9)},
    ],
    ids=["one line", "many", "in all"],
)
async def test_a_header_that_is_too_large_is_431(origin: Origin, header: dict[str, str]) -> None:
    await origin.clip("clip", DATA)
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"), header)
        reply = await viewer.reply()
    size = sum(len(name) + len(value) + 4 for name, value in header.items())
    if size > 128 * 1024 or len(header) == 1:
        check_problem(reply, 431, "header-too-large")
        assert metric(origin, "firstview_requests_total", status="431", tier="none") == 1
    else:
        assert (reply.status, reply.body) == (200, DATA)


async def test_a_header_that_never_ends_is_cut_off(make_origin: MakeOrigin) -> None:
    origin = await make_origin(header_timeout="300ms")
    async with raw_client(origin.app.public_port) as slow:
        await slow.send(b"GET /videos/x.mp4 HTTP/1.1\r\nHost: ")
        await slow.read(1)
        assert slow.end in {"fin", "rst"}
    async with raw_client(origin.app.public_port) as silent:
        await silent.read(1)
        assert silent.end in {"fin", "rst"}
    assert metric(origin, "firstview_shed_total", limit="header_timeout") == 2


async def test_a_second_header_that_never_ends_is_cut_off_too(make_origin: MakeOrigin) -> None:
    origin = await make_origin(header_timeout="300ms")
    await origin.clip("clip", DATA)
    async with raw_client(origin.app.public_port) as slow:
        assert (await slow.get(path_of("clip"))).body == DATA
        await slow.send(b"GET /vid")
        await slow.read(1)
        assert slow.end in {"fin", "rst"}


async def test_connections_past_the_limit_are_told_to_come_back(make_origin: MakeOrigin) -> None:
    """Peers 12 (tag#72): unbounded ingress."""
    origin = await make_origin(max_connections=2)
    async with (
        raw_client(origin.app.public_port) as first,
        raw_client(origin.app.public_port) as second,
        raw_client(origin.app.public_port) as third,
    ):
        for each in (first, second):
            assert (await each.get("/healthz")).status == 200
        reply = await third.reply()
        check_problem(reply, 503, "overloaded")
        assert "retry-after" in reply.head.fields


async def test_viewers_past_the_limit_are_told_to_come_back_and_hits_go_on(
    make_origin: MakeOrigin,
) -> None:
    """Peers 12 (tag#72): health, metrics and hits are exempt."""
    origin = await make_origin(max_viewers=1)
    hold = asyncio.Event()
    await origin.clip("warm", DATA)
    await origin.get("warm")
    await origin.stored("warm")
    await origin.get("warm")
    await origin.clip("cold", DATA, Behaviour(stall_at=50_000, stall_until=hold))
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("cold"))
        await viewer.head()
        refused = await ask(origin, path_of("cold"))
        check_problem(refused, 503, "overloaded")
        assert "retry-after" in refused.head.fields
        assert (await ask(origin, path_of("warm"))).body == DATA
        assert (await ask(origin, "/healthz")).status == 200
        hold.set()
        assert await viewer.rest() == DATA


async def test_fills_past_the_limit_are_told_to_come_back(make_origin: MakeOrigin) -> None:
    origin = await make_origin(max_fills=1)
    hold = asyncio.Event()
    await origin.clip("one", DATA, Behaviour(stall_at=50_000, stall_until=hold))
    await origin.clip("two", DATA)
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("one"))
        await viewer.head()
        check_problem(await ask(origin, path_of("two")), 503, "overloaded")
        hold.set()
        assert await viewer.rest() == DATA
    await origin.stored("one")
    assert (await ask(origin, path_of("two"))).body == DATA


# -- generations that have no clip ---


async def test_a_pending_generation_says_when_to_ask_again(origin: Origin) -> None:
    await origin.app.generations.register([Registration(request_id="soon")])
    reply = await ask(origin, path_of("soon"))
    check_problem(reply, 404, "clip-not-ready")
    assert reply.head.fields["retry-after"] == "5"
    await origin.clip("soon", DATA)  # and does not remember it
    assert (await ask(origin, path_of("soon"))).body == DATA


async def test_a_failed_generation_is_gone_for_good(origin: Origin) -> None:
    await origin.app.generations.mark_failed("failed", "content policy: /secret/path")
    reply = await ask(origin, path_of("failed"))
    check_problem(reply, 410, "clip-failed")
    assert b"secret" not in reply.body


async def _refusals(origin: Origin, count: int) -> Generation:
    async def are_counted() -> Generation | None:
        row = await origin.row("clip")
        return row if row is not None and row.refusals == count else None

    return await wait_for(are_counted)


@pytest.fixture
async def ageing(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> list[timedelta]:
    """Put a time here and the origin's wall clock is ahead by it."""
    ahead = [timedelta()]
    real = origin.app.clock.now

    def now() -> datetime:
        return real() + ahead[-1]

    monkeypatch.setattr(origin.app.clock, "now", now)
    return ahead


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_clip_is_lost_only_after_three_refusals_over_an_hour(
    origin: Origin, ageing: list[timedelta], status: int
) -> None:
    await origin.clip("clip", DATA, Behaviour(status=status))
    for count, minutes in ((1, 0), (2, 1), (3, 59)):
        ageing.append(timedelta(minutes=minutes))
        reply = await ask(origin, path_of("clip"))
        check_problem(reply, 410, "clip-gone")
        assert reply.head.fields["cache-control"] == "public, max-age=60"
        assert (await _refusals(origin, count)).status == "available"
    ageing.append(timedelta(minutes=61))
    origin.app.locator.refresh("clip")
    check_problem(await ask(origin, path_of("clip")), 410, "clip-gone")
    assert (await _refusals(origin, 4)).status == "lost"
    asked = origin.gets("clip")
    origin.app.locator.refresh("clip")
    check_problem(await ask(origin, path_of("clip")), 410, "clip-gone")
    assert origin.gets("clip") == asked  # nobody is asked any more
    assert await objects(origin) == []


async def test_a_source_that_is_down_loses_nothing(origin: Origin, ageing: list[timedelta]) -> None:
    """Peers 29 (nginx-s3-gateway): an outage looked like "gone"."""
    path = await origin.clip("clip", DATA, Behaviour(status=503))
    for hours in range(5):
        ageing.append(timedelta(hours=hours))
        check_problem(await ask(origin, path_of("clip")), 502, "source-unavailable")
    row = await origin.row("clip")
    assert row is not None
    assert (row.status, row.refusals) == ("available", 0)
    origin.fal.add(path, DATA)
    assert (await ask(origin, path_of("clip"))).body == DATA


# -- the catalog is away ---


async def test_hits_go_on_while_the_catalog_is_away(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = await make_origin(facts_ttl="50ms")
    await origin.clip("warm", DATA)
    await origin.get("warm")
    await origin.stored("warm")
    await origin.clip("cold", DATA)

    async def away(_request_id: str) -> Generation:
        await asyncio.sleep(0)
        raise CatalogUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(origin.app.generations, "get", away)
        patch.setattr(origin.app.generations, "at_hand", not_at_hand)
        for _ in range(4):
            await asyncio.sleep(0.03)  # past facts_ttl: what is here is served all the same
            assert (await ask(origin, path_of("warm"))).body == DATA
        for name in ("cold", "unheard-of"):
            with capture_logs() as logs:
                reply = await ask(origin, path_of(name))
            check_problem(reply, 503, "catalog-unavailable")
            assert "retry-after" in reply.head.fields
            assert len([entry for entry in logs if entry.get("path") == path_of(name)]) == 1
    assert (await ask(origin, path_of("cold"))).body == DATA


async def test_a_fill_is_finished_and_stored_when_the_catalog_went_away_during_it(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = asyncio.Event()
    await origin.clip("clip", DATA, Behaviour(stall_at=50_000, stall_until=hold))

    async def away(*_: object, **__: object) -> bool:
        await asyncio.sleep(0)
        raise CatalogUnavailable

    async def tried() -> bool:
        return metric(origin, "firstview_store_failures_total", error="catalog-unavailable") > 0

    with monkeypatch.context() as patch:
        async with raw_client(origin.app.public_port) as viewer:
            await viewer.ask(path_of("clip"))
            await viewer.head()
            patch.setattr(origin.app.generations, "mark_stored", away)
            hold.set()
            assert await viewer.rest() == DATA
        await wait_for(tried)
        assert (await ask(origin, path_of("clip"))).body == DATA
    await origin.stored("clip")
    await nothing_is_left(origin)
    assert origin.gets("clip") == 1


# -- the admin API ---


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("PUT", "/api/v1/generations/clip", {}, b"{}", 401),
        ("PUT", "/api/v1/generations/clip", {"Authorization": "Bearer wrong"}, b"{}", 401),
        ("PUT", "/api/v1/generations/clip", {"Authorization": "Basic dGVzdA=="}, b"{}", 401),
        ("PUT", "/api/v1/generations/clip", BEARER, b"{not json", 400),
        ("PUT", "/api/v1/generations/clip", BEARER, b"[]", 400),
        ("PUT", "/api/v1/generations/clip", BEARER, b'{"fal_url": 5}', 400),
        ("PUT", "/api/v1/generations/clip", BEARER, b'{"fal_url": "https://evil.test/x"}', 400),
        ("PUT", "/api/v1/generations/-bad-", BEARER, b"{}", 404),
        ("PUT", "/api/v1/generations/clip", BEARER, b" " * (1 << 20) + b"  ", 413),
        ("GET", "/api/v1/generations/nobody", BEARER, b"", 404),
        ("DELETE", "/metrics", {}, b"", 405),
        ("GET", "/nowhere", {}, b"", 404),
    ],
)
async def test_the_admin_api_says_what_is_wrong(
    origin: Origin, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with origin.client.request(
        method, origin.admin(path), headers=headers, data=io.BytesIO(body)
    ) as response:
        assert response.status == status
        assert response.content_type == "application/problem+json"
        assert (await response.json(content_type=None))["status"] == status
    assert await origin.row("clip") is None
