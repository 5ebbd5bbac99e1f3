"""`POST /webhooks/fal` through a real listener, a real catalog and a real fetch of fal's keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.catalog.notices import Notices
from proxy.clock import Clock
from proxy.delivery.send import Sender
from proxy.errors import CatalogUnavailable, Overloaded
from proxy.records import Generation, Notice
from proxy.security.jwks import Signers
from proxy.upstream.allowlist import Policy, check_url
from proxy.upstream.fal_jwks import FalJwks
from proxy.web.gate import Gate
from proxy.web.listener import Listener
from proxy.web.public import Public
from proxy.web.videos import Videos
from proxy.web.webhooks import Webhooks
from tests.fakes.fal import Behaviour, FakeFal
from tests.fakes.webhooks import JWKS_PATH, Signer, failed, publish, succeeded, video
from tests.fixtures.origin import MakeOrigin, Origin, wait_for
from tests.fixtures.raw import RawClient, RawReply, raw_client

PATH = "/webhooks/fal"
SIGNER, OTHER = Signer(1), Signer(2)
CLIP = "http://127.0.0.1/files/b/koala/clip.mp4"
RESULTS = {
    *("accepted", "duplicate", "late", "failed", "resolving"),
    *("bad-signature", "bad-request", "too-large", "timeout", "unavailable"),
}


class ShiftedClock(Clock):
    """The real clock, wrong by as much as the test says."""

    def __init__(self) -> None:
        self.off = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.off)

    def monotonic(self) -> float:
        return super().monotonic() + self.off


class Desk:
    """The real notices, unless the test says that something goes wrong there."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self.error: Exception | None = None
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def take(self, notice: Notice) -> str:
        self.entered.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return await self._notices.take(notice)


@dataclass
class Hooks:
    """A public listener that takes webhooks, and what is behind it."""

    origin: Origin
    port: int
    desk: Desk
    clock: ShiftedClock
    heard: list[str] = field(default_factory=list)

    async def post(
        self,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        by: Signer = SIGNER,
        **signed: Any,
    ) -> RawReply:
        """Send one signed webhook on a connection of its own."""
        async with raw_client(self.port) as client:
            return await send(client, body, headers, by=by, **signed)

    async def row(self, request_id: str) -> Generation:
        """The catalog's row, which must be there."""
        row = await self.origin.row(request_id)
        assert row is not None
        return row

    def counts(self) -> dict[str, float]:
        """Webhooks so far by result, without those that never happened."""
        registry = self.origin.app.metrics.registry
        found = {
            result: registry.get_sample_value("firstview_webhooks_total", {"result": result})
            for result in RESULTS
        }
        assert None not in found.values(), "a result that is not counted from zero"
        return {result: count for result, count in found.items() if count}


async def send(
    client: RawClient,
    body: bytes,
    headers: dict[str, str] | None = None,
    *,
    by: Signer = SIGNER,
    **signed: Any,
) -> RawReply:
    """Send one signed webhook and read its answer."""
    fields = {"Content-Length": str(len(body)), **by.headers(body, **signed), **(headers or {})}
    await client.ask(PATH, fields, "POST")
    await client.send(body)
    return await client.reply()


def chunked(*pieces: bytes) -> bytes:
    """The pieces in chunked coding (RFC 9112 §7.1)."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def result(reply: RawReply) -> str:
    """What a webhook was answered."""
    assert (reply.status, reply.is_complete) == (200, True), reply
    assert reply.head.fields["content-type"] == "application/json"
    answer: dict[str, str] = json.loads(reply.body)
    assert list(answer) == ["result"]
    return answer["result"]


def check_refused(reply: RawReply, status: int, slug: str) -> dict[str, Any]:
    """A problem document, whole, however much of the request was read."""
    assert (reply.status, reply.is_complete) == (status, True), reply
    body: dict[str, Any] = json.loads(reply.body)
    assert body["type"] == f"urn:firstview:problem:{slug}"
    if status == 503:
        assert int(reply.head.fields["retry-after"]) > 0
    return body


def lines(logs: list[Any]) -> list[Any]:
    """The lines about webhooks."""
    return [entry for entry in logs if entry["event"].startswith("webhook")]


MakeHooks = Callable[..., Awaitable[Hooks]]


@pytest.fixture
async def make_hooks(make_origin: MakeOrigin, fal: FakeFal) -> AsyncIterator[MakeHooks]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(**changes: Any) -> Hooks:
            publish(fal, SIGNER)
            changes = {"fal_jwks_url": fal.url(JWKS_PATH), **changes}
            origin = await make_origin(**changes)
            app, settings, metrics = origin.app, origin.app.settings, origin.app.metrics
            source = await stack.enter_async_context(FalJwks(settings))
            clock = ShiftedClock()
            signers = Signers(settings, source.fetch, clock)
            stack.push_async_callback(signers.close)
            notices = Notices(app.catalog, clip_url=lambda name: f"http://cdn/videos/{name}.mp4")
            stack.push_async_callback(notices.close)
            hooks = Hooks(origin, 0, Desk(notices), clock)
            policy = Policy.of(settings.upstream_hosts, insecure=True)
            webhooks = Webhooks(
                settings,
                signers=signers,
                notices=hooks.desk,
                check=lambda url: check_url(url, policy),
                heard=hooks.heard.append,
                metrics=metrics,
                clock=clock,
            )
            sender = Sender(settings, app.clock, metrics)
            gate = Gate(settings, app.locator, clock)
            videos = Videos(settings, app.locator, gate, sender, metrics)
            listener = Listener(Public(videos, webhooks, gate, metrics), settings, metrics)
            stack.push_async_callback(listener.shutdown, 1.0)
            loop = asyncio.get_running_loop()
            server = await loop.create_server(listener, "127.0.0.1", 0)
            stack.callback(server.close)
            hooks.port = server.sockets[0].getsockname()[1]
            return hooks

        yield make


@pytest.fixture
async def hooks(make_hooks: MakeHooks) -> Hooks:
    return await make_hooks()


# -- what fal tells ---


async def test_a_finished_generation_is_known_when_fal_has_its_answer(hooks: Hooks) -> None:
    output = video(CLIP, file_size=123, duration=5.0, width=1280, height=720)
    with capture_logs() as logs:
        assert result(await hooks.post(succeeded("req-1", output))) == "accepted"
    row = await hooks.row("req-1")
    assert (row.status, row.fal_url, row.content_length) == ("available", CLIP, 123)
    assert (row.duration, row.width, row.height) == (5.0, 1280, 720)
    assert len(hooks.heard) == 1
    assert hooks.counts() == {"accepted": 1}
    [line] = lines(logs)
    assert line["log_level"] == "info"
    assert (line["request_id"], line["result"]) == ("req-1", "accepted")


async def test_what_fal_repeats_changes_nothing(hooks: Hooks) -> None:
    body = succeeded("req-1", video(CLIP))
    assert result(await hooks.post(body)) == "accepted"
    before = await hooks.row("req-1")
    for _ in range(3):
        assert result(await hooks.post(body)) == "duplicate"
    assert result(await hooks.post(failed("req-1", "Late"))) == "late"
    assert await hooks.row("req-1") == before
    assert len(hooks.heard) == 1
    assert hooks.counts() == {"accepted": 1, "duplicate": 3, "late": 1}


async def test_a_failed_generation_is_written_down_with_fals_reason(hooks: Hooks) -> None:
    assert result(await hooks.post(failed("req-1", "Invalid status code: 422"))) == "failed"
    row = await hooks.row("req-1")
    assert (row.status, row.error) == ("failed", "fal reports: Invalid status code: 422")
    assert hooks.heard == []


async def test_a_result_that_fal_could_not_send_is_asked_for(hooks: Hooks) -> None:
    body = succeeded("req-1", None, payload_error="not serializable")
    assert result(await hooks.post(body)) == "resolving"
    assert (await hooks.row("req-1")).status == "pending"
    assert len(hooks.heard) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"[1, 2]", "is not a JSON object"),
        (b'{"status": "OK"}', "has no request_id"),
        (succeeded("../etc/passwd", video(CLIP)), "no request id but '../etc/passwd'"),
        (succeeded("a" * 200, video(CLIP)), "no request id but"),
        (succeeded("req-1", video(CLIP), status="COMPLETED"), "the status 'COMPLETED'"),
        (succeeded("req-1", {"video": {"file_name": "x"}}), "holds no address"),
        (succeeded("req-1", {"images": []}), "no video in the output"),
        (succeeded("req-1", video("data:video/mp4;base64,AAAA")), "sync_mode"),
    ],
)
async def test_what_cannot_be_understood_is_kept_with_its_reason(
    hooks: Hooks, body: bytes, reason: str
) -> None:
    with capture_logs() as logs:
        assert result(await hooks.post(body)) == "failed"
    row = await hooks.row("req-1")
    assert row.status == "failed"
    assert reason in str(row.error)
    [line] = lines(logs)
    assert reason in line["reason"]
    assert hooks.counts() == {"failed": 1}


async def test_a_foreign_url_is_shown_to_the_owner_and_to_nobody_else(hooks: Hooks) -> None:
    url = "https://evil.example/clip.mp4?token=s3cret"
    with capture_logs() as logs:
        reply = await hooks.post(succeeded("req-1", video(url)))
    assert result(reply) == "failed"
    row = await hooks.row("req-1")
    assert row.fal_url is None
    assert url in str(row.error)
    assert "FIRSTVIEW_UPSTREAM_HOSTS" in str(row.error)
    [line] = lines(logs)
    assert "evil.example" in line["reason"]
    assert "s3cret" not in str(logs)
    assert b"evil" not in reply.body


async def test_without_any_usable_id_there_is_nothing_to_write(hooks: Hooks) -> None:
    for body in (b"{", succeeded("a/b", video(CLIP))):
        reply = await hooks.post(body, request_id="../../etc/passwd")
        check_refused(reply, 400, "bad-request")
    assert hooks.counts() == {"bad-request": 2}


# -- who tells it ---


async def test_a_webhook_of_somebody_else_is_refused(hooks: Hooks) -> None:
    body = succeeded("req-1", video(CLIP))
    with capture_logs() as logs:
        reply = await hooks.post(body, by=OTHER)
    check_refused(reply, 401, "bad-signature")
    assert reply.head.fields["www-authenticate"].startswith("Signature")
    check_refused(
        await hooks.post(body, {"X-Fal-Webhook-Request-Id": "req-2"}), 401, "bad-signature"
    )
    assert await hooks.origin.row("req-1") is None
    assert hooks.counts() == {"bad-signature": 2}
    [line] = lines(logs)
    assert (line["request_id"], line["result"]) == ("req-1", "bad-signature")
    assert OTHER.headers(body)["X-Fal-Webhook-Signature"] not in str(logs)
    assert [entry["event"] for entry in logs if entry["event"].startswith("request")] == []


@pytest.mark.parametrize(
    ("off", "status"), [(0, 200), (298, 200), (302, 401), (-298, 200), (-302, 401), (86_400, 401)]
)
async def test_a_webhook_is_believed_for_five_minutes(
    hooks: Hooks, off: float, status: int
) -> None:
    at = datetime.now(UTC).timestamp()
    hooks.clock.off = off
    reply = await hooks.post(succeeded("req-1", video(CLIP)), at=at)
    assert reply.status == status
    if status == 401:
        assert "Timestamp" in check_refused(reply, 401, "bad-signature")["detail"]


@pytest.mark.parametrize("name", list(SIGNER.headers(b"")))
async def test_each_of_the_four_fields_must_be_there_once(hooks: Hooks, name: str) -> None:
    body = succeeded("req-1", video(CLIP))
    fields = {"Content-Length": str(len(body)), **SIGNER.headers(body)}
    without = {key: value for key, value in fields.items() if key != name}
    twice = {**fields, name.lower(): fields[name]}
    for headers in (without, {**fields, name: ""}, twice):
        async with raw_client(hooks.port) as client:
            await client.ask(PATH, headers, "POST")
            await client.send(body)
            problem = check_refused(await client.reply(), 401, "bad-signature")
        assert name in problem["detail"]
    assert hooks.counts() == {"bad-signature": 3}


async def test_new_keys_are_believed_as_soon_as_somebody_signs_with_them(
    make_hooks: MakeHooks, fal: FakeFal
) -> None:
    hooks = await make_hooks(jwks_refetch_wait="1s")
    await hooks.post(succeeded("req-1", video(CLIP)))
    publish(fal, OTHER, padded=True)
    hooks.clock.off = 2
    assert result(await hooks.post(succeeded("req-2", video(CLIP)), by=OTHER)) == "accepted"
    check_refused(await hooks.post(succeeded("req-3", video(CLIP))), 401, "bad-signature")
    assert len(fal.requests(JWKS_PATH)) == 2


async def test_a_flood_of_forged_webhooks_does_not_become_one_of_fetches(
    hooks: Hooks, fal: FakeFal
) -> None:
    body = succeeded("req-1", video(CLIP))
    replies = await asyncio.gather(*(hooks.post(body, by=OTHER) for _ in range(40)))
    assert {reply.status for reply in replies} == {401}
    assert len(fal.requests(JWKS_PATH)) == 1


async def test_without_keys_fal_is_asked_to_come_back(make_hooks: MakeHooks, fal: FakeFal) -> None:
    hooks = await make_hooks()
    fal.script(JWKS_PATH, [Behaviour(status=500)])
    body = succeeded("req-1", video(CLIP))
    check_refused(await hooks.post(body), 503, "signers-unknown")
    hooks.clock.off = 61
    assert result(await hooks.post(body)) == "accepted"
    assert hooks.counts() == {"unavailable": 1, "accepted": 1}


async def test_old_keys_serve_while_fal_is_unreachable(hooks: Hooks, fal: FakeFal) -> None:
    await hooks.post(succeeded("req-1", video(CLIP)))
    await fal.stop()
    hooks.clock.off = 48 * 3600
    at = hooks.clock.now().timestamp()
    assert result(await hooks.post(succeeded("req-2", video(CLIP)), at=at)) == "accepted"


# -- what keeps it from being written down ---


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (CatalogUnavailable(), "catalog-unavailable"),
        (Overloaded(), "overloaded"),
        (RuntimeError("nobody thought of this: https://secret.example/?token=1"), "overloaded"),
        (TimeoutError(), "overloaded"),
    ],
)
async def test_what_cannot_be_written_down_is_not_acknowledged(
    hooks: Hooks, error: Exception, slug: str
) -> None:
    body = succeeded("req-1", video(CLIP))
    hooks.desk.error = error
    with capture_logs() as logs:
        reply = await hooks.post(body)
    check_refused(reply, 503, slug)
    assert b"secret" not in reply.body
    crashed = [entry for entry in logs if entry["event"] == "webhook crashed"]
    assert len(crashed) == (0 if isinstance(error, CatalogUnavailable | Overloaded) else 1)
    assert [entry["result"] for entry in logs if entry["event"] == "webhook"] == ["unavailable"]
    assert hooks.heard == []
    hooks.desk.error = None
    assert result(await hooks.post(body)) == "accepted"
    assert hooks.counts() == {"unavailable": 1, "accepted": 1}


async def test_a_client_that_hangs_up_loses_its_answer_and_nothing_else(hooks: Hooks) -> None:
    body = succeeded("req-1", video(CLIP))
    hooks.desk.gate.clear()
    async with raw_client(hooks.port) as client:
        fields = {"Content-Length": str(len(body)), **SIGNER.headers(body)}
        await client.ask(PATH, fields, "POST")
        await client.send(body)
        await hooks.desk.entered.wait()
    hooks.desk.gate.set()
    neighbour = await hooks.post(succeeded("req-2", video(CLIP)), request_id="req-2")
    assert result(neighbour) == "accepted"
    assert result(await hooks.post(body)) in {"accepted", "duplicate"}


# -- HTTP ---


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_any_other_method_is_405(hooks: Hooks, method: str) -> None:
    async with raw_client(hooks.port) as client:
        reply = await client.get(PATH, {"Content-Length": "0"}, method)
        assert (reply.status, reply.head.fields["allow"]) == (405, "POST")
        assert (await client.get("/healthz")).status == 200
    assert hooks.counts() == {}


@pytest.mark.parametrize("path", [f"{PATH}/", "/webhooks", "/webhooks/other", f"/x{PATH}"])
async def test_other_addresses_are_404(hooks: Hooks, path: str) -> None:
    async with raw_client(hooks.port) as client:
        assert (await client.get(path, {"Content-Length": "0"}, "POST")).status == 404


async def test_a_query_of_the_owners_own_is_let_through(hooks: Hooks) -> None:
    body = succeeded("req-1", video(CLIP))
    async with raw_client(hooks.port) as client:
        fields = {"Content-Length": str(len(body)), **SIGNER.headers(body)}
        await client.ask(f"{PATH}?tenant=7", fields, "POST")
        await client.send(body)
        assert result(await client.reply()) == "accepted"


async def test_a_connection_serves_many_webhooks(hooks: Hooks) -> None:
    async with raw_client(hooks.port) as client:
        for number in range(5):
            reply = await send(client, succeeded(f"req-{number}", video(CLIP)))
            assert result(reply) == "accepted"
        assert (await client.get("/healthz")).status == 200
    assert hooks.counts() == {"accepted": 5}


async def test_webhooks_that_come_in_one_piece_are_answered_one_by_one(hooks: Hooks) -> None:
    wire = b""
    for number in range(3):
        body = succeeded(f"req-{number}", video(CLIP))
        fields = "".join(f"{name}: {value}\r\n" for name, value in SIGNER.headers(body).items())
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{fields}"
        if number % 2:
            framed = chunked(body[:10], body[10:])
            wire += f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed
        else:
            wire += f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        wire += b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with raw_client(hooks.port) as client:
        await client.send(wire)
        for _ in range(3):
            assert result(await client.reply()) == "accepted"
            assert (await client.reply()).body == b"ok\n"


async def test_a_body_may_come_in_chunks_of_any_size(hooks: Hooks) -> None:
    body = succeeded("req-1", video(CLIP))
    fields = {"Transfer-Encoding": "chunked", **SIGNER.headers(body)}
    async with raw_client(hooks.port) as client:
        await client.ask(PATH, fields, "POST")
        await client.send(chunked(*(bytes([byte]) for byte in body)))
        assert result(await client.reply()) == "accepted"
        assert (await client.get("/healthz")).status == 200


async def test_a_slow_body_is_no_slow_header(make_hooks: MakeHooks) -> None:
    """It comes for longer than a header may take, and ends in the middle of a piece."""
    hooks = await make_hooks(header_timeout="300ms")
    body = succeeded("req-1", video(CLIP))
    fields = {"Content-Length": str(len(body)), **SIGNER.headers(body)}
    async with raw_client(hooks.port) as client:
        await client.ask(PATH, fields, "POST")
        for at in range(0, len(body), 40):
            await asyncio.sleep(0.15)
            await client.send(body[at : at + 40])
        assert result(await client.reply()) == "accepted"
        await asyncio.sleep(0.5)  # an idle connection is not a slow header either
        assert (await client.get("/healthz")).status == 200


async def test_only_so_many_bodies_are_held_in_memory(make_hooks: MakeHooks) -> None:
    hooks = await make_hooks(webhook_bodies=1)
    body = succeeded("req-1", video(CLIP))
    fields = {"Content-Length": str(len(body)), **SIGNER.headers(body)}
    async with raw_client(hooks.port) as first, raw_client(hooks.port) as second:
        await first.ask(PATH, fields | {"Expect": "100-continue"}, "POST")
        assert (await first.head()).status == 100
        reply = await send(second, succeeded("req-2", video(CLIP)))
        assert (reply.status, reply.head.fields["retry-after"]) == (503, "2")
        await first.send(body)
        assert result(await first.reply()) == "accepted"
    async with raw_client(hooks.port) as again:
        assert result(await send(again, succeeded("req-2", video(CLIP)))) == "accepted"


async def test_a_slow_header_after_a_body_is_still_a_slow_header(make_hooks: MakeHooks) -> None:
    hooks = await make_hooks(header_timeout="200ms")
    async with raw_client(hooks.port) as client:
        assert result(await send(client, succeeded("req-1", video(CLIP)))) == "accepted"
        await client.send(b"GET /healthz HTT")
        with pytest.raises(ConnectionResetError):
            await client.head()
        assert client.end == "fin"


async def test_a_header_is_not_larger_for_having_begun_with_a_body(hooks: Hooks) -> None:
    body = succeeded("req-1", video(CLIP))
    lines = [b"X-Padding-%d: %b\r\n" % (number, b"x" * 10_000) for number in range(20)]
    async with raw_client(hooks.port) as client:
        fields = {"Content-Length": str(len(body)), **SIGNER.headers(body)}
        await client.ask(PATH, fields, "POST")
        await client.send(body + b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(lines[:10]))
        assert result(await client.reply()) == "accepted"
        await client.send(b"".join(lines[10:]) + b"\r\n")
        assert (await client.reply()).status == 431


async def test_a_body_larger_than_any_header_is_read(hooks: Hooks) -> None:
    padding = "x" * (1024 * 1024 - 1000)
    body = succeeded("req-1", {**video(CLIP), "padding": padding})
    assert 1024 * 1024 - 1000 < len(body) <= 1024 * 1024
    async with raw_client(hooks.port) as client:
        for expected in ("accepted", "duplicate"):
            assert result(await send(client, body)) == expected
            assert (await client.get("/healthz")).status == 200
        large = {f"X-Padding-{number}": "x" * 10_000 for number in range(14)}
        assert (await client.get("/healthz", large)).status == 431


async def test_ten_megabytes_are_refused_before_they_are_sent(hooks: Hooks) -> None:
    async with raw_client(hooks.port) as client:
        fields = {"Content-Length": str(10 * 1024 * 1024), **SIGNER.headers(b"")}
        await client.ask(PATH, fields, "POST")
        reply = await client.reply()
        check_refused(reply, 413, "body-too-large")
        assert reply.head.fields["connection"] == "close"
        with contextlib.suppress(ConnectionError):
            await client.send(b"x" * (10 * 1024 * 1024))
    assert hooks.counts() == {"too-large": 1}


async def test_a_client_that_sends_ten_megabytes_first_gets_its_answer_too(hooks: Hooks) -> None:
    reply = await hooks.post(b"x" * (10 * 1024 * 1024))
    check_refused(reply, 413, "body-too-large")


async def test_chunks_without_end_are_refused_while_they_come(hooks: Hooks) -> None:
    async with raw_client(hooks.port) as client:
        fields = {"Transfer-Encoding": "chunked", **SIGNER.headers(b"")}
        await client.ask(PATH, fields, "POST")
        await client.send(chunked(b"x" * (1024 * 1024 + 1)).removesuffix(b"0\r\n\r\n"))
        reply = await client.reply()
        check_refused(reply, 413, "body-too-large")
        assert reply.head.fields["connection"] == "close"
    assert hooks.counts() == {"too-large": 1}


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_does_not_come_is_not_waited_for(
    make_hooks: MakeHooks, framing: str
) -> None:
    hooks = await make_hooks(webhook_body_timeout="300ms")
    framed = {"Content-Length": "100"} if framing == "length" else {"Transfer-Encoding": "chunked"}
    async with raw_client(hooks.port) as client:
        await client.ask(PATH, {**framed, **SIGNER.headers(b"")}, "POST")
        trickle = asyncio.create_task(
            _trickle(client, b"1\r\nx\r\n" if framing != "length" else b"x")
        )
        reply = await client.reply()
        check_refused(reply, 408, "request-timeout")
        assert reply.head.fields["connection"] == "close"
        assert await client.read(1) == b""
        trickle.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await trickle
    assert hooks.counts() == {"timeout": 1}


async def _trickle(client: RawClient, piece: bytes) -> None:
    for _ in range(50):
        await client.send(piece)
        await asyncio.sleep(0.05)


async def test_a_body_that_is_no_http_is_refused_at_once(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_client(hooks.port) as client:
        await client.ask(PATH, {"Transfer-Encoding": "chunked", **SIGNER.headers(b"")}, "POST")
        await client.send(b"5\r\nhello\r\n")
        await asyncio.sleep(0.05)
        await client.send(b"zz\r\nthis is no chunk\r\n")
        reply = await asyncio.wait_for(client.reply(), 2.0)
        check_refused(reply, 400, "bad-request")
        assert await client.read(1) == b""
    assert hooks.counts() == {"bad-request": 1}
    assert caplog.records == [], "what a client does wrong is no crash of aiohttp's"
    assert result(await hooks.post(succeeded("req-1", video(CLIP)))) == "accepted"


async def test_a_client_that_leaves_in_the_middle_of_a_body_is_forgotten(hooks: Hooks) -> None:
    with capture_logs() as logs:
        async with raw_client(hooks.port) as client:
            await client.ask(PATH, {"Content-Length": "100", **SIGNER.headers(b"")}, "POST")
            await client.send(b"half of it")

        async def noticed() -> bool:
            return [entry["result"] for entry in lines(logs)] == ["left"]

        await wait_for(noticed)
    assert hooks.counts() == {}
    assert result(await hooks.post(succeeded("req-1", video(CLIP)))) == "accepted"


async def test_a_client_that_asks_first_is_told_to_go_on(hooks: Hooks) -> None:
    body = succeeded("req-1", video(CLIP))
    fields = {"Content-Length": str(len(body)), **SIGNER.headers(body), "Expect": "100-continue"}
    async with raw_client(hooks.port) as client:
        await client.ask(PATH, fields, "POST")
        assert (await client.head()).status == 100
        await client.send(body)
        assert result(await client.reply()) == "accepted"
        assert (await client.get("/healthz")).status == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Content-Length": "10000000"}, 413),
        ({"X-Fal-Webhook-Signature": "none"}, 401),
    ],
)
async def test_a_client_that_asks_first_may_be_told_not_to(
    hooks: Hooks, change: dict[str, str], status: int
) -> None:
    fields = {"Content-Length": "100", **SIGNER.headers(b""), "Expect": "100-continue", **change}
    async with raw_client(hooks.port) as client:
        await client.ask(PATH, fields, "POST")
        reply = await client.reply()
        assert (reply.status, reply.head.fields["connection"]) == (status, "close")


async def test_a_webhook_without_a_body_is_refused(hooks: Hooks) -> None:
    async with raw_client(hooks.port) as client:
        await client.ask(PATH, OTHER.headers(b""), "POST")
        check_refused(await client.reply(), 401, "bad-signature")
        assert (await client.get("/healthz")).status == 200
