"""The proxy itself: passes requests on to a real S3 server, faults and rules applied.

The Host field is passed on unchanged, because it is part of what a client signs; the server
behind checks the signature that was made for this address.

Belongs here: sockets and streams. Must not know: what the code under test should make of it.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.fakes.bucket.faults import Fault, find
from tests.fakes.bucket.operations import operation_of
from tests.fakes.bucket.rules import R2Rules, Refusal
from tests.fixtures.servers import free_port

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "date", "server"}
_ADDED_BY_AIOHTTP = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
_CHUNK = 64 * 1024
_CODES = {
    204: "",
    301: "PermanentRedirect",
    403: "AccessDenied",
    404: "NoSuchKey",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}
"""The usual error code of a status."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: `status` is None if it was never answered."""

    operation: str
    key: str
    status: int | None
    headers: dict[str, str]
    """Names in lower case."""


class _BrokenOff(Exception):
    """The client's connection has been reset, as a fault demanded."""


class FaultyBucket:
    """An S3 endpoint on loopback; an async context manager."""

    def __init__(self, backend: str, rules: R2Rules | None = None) -> None:
        """Take the real server's URL, and R2's rules if they hold."""
        self.faults: list[Fault] = []
        self.log: list[Seen] = []
        self.rules = rules
        self.most_at_once: Counter[str] = Counter()
        """The most requests of each operation that were in progress together."""
        self._at_once: Counter[str] = Counter()
        self._backend = backend
        self._port = free_port()  # nobody is to have it while this one is down
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._released = asyncio.Event()

    @property
    def endpoint_url(self) -> str:
        """Where it listens, also while it is down."""
        return f"http://127.0.0.1:{self._port}"

    def seen(self, operation: str) -> list[Seen]:
        """Every request of one operation, in the order they ended."""
        return [request for request in self.log if request.operation == operation]

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), auto_decompress=False
        )
        await self.up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        await self.down()
        if self._session is not None:
            await self._session.close()

    async def up(self) -> None:
        """Listen, on the same port as ever."""
        if self._runner is not None:
            return
        server = web.Server(self._handle)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()

    async def down(self) -> None:
        """Close the listening socket and every connection: refused from here on."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def quiet(self) -> None:
        """Wait until no request is being answered: the late ones have landed by then."""
        async with asyncio.timeout(20):
            while any(self._at_once.values()):  # noqa: ASYNC110 - requests end in many places
                await asyncio.sleep(0.01)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        operation, key = operation_of(request.method, request.rel_url.raw_path, request.query)
        fault = find(self.faults, operation, key)
        status: int | None = None
        self._at_once[operation] += 1
        most = max(self.most_at_once[operation], self._at_once[operation])
        self.most_at_once[operation] = most
        try:
            reply = await self._answer(request, operation, key, fault)
            status = reply.status
        except (_BrokenOff, ConnectionError, aiohttp.ClientError):
            _reset(request)
            return web.Response(status=500)
        else:
            return reply
        finally:
            self._at_once[operation] -= 1
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.log.append(Seen(operation, key, status, headers))

    async def _answer(
        self, request: web.BaseRequest, operation: str, key: str, fault: Fault
    ) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            # botocore waits for it; a low-level aiohttp server leaves it to its handler.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault.delay:
            await self._wait(fault.delay)
        if fault.status is not None:
            return await _refuse(request, (fault.status, fault.code or _CODES[fault.status]))
        if fault.answer_whole is not None:
            return web.Response(body=fault.answer_whole, headers={"ETag": '"whole"'})
        if self.rules is not None:
            refusal = self.rules.refuse(operation, key, request.query, request.headers)
            if refusal is not None:
                return await _refuse(request, refusal)
        if request.method == "POST":
            return await self._answer_post(request, operation, fault)
        return await self._pass_on(request, self._body(request, fault), fault)

    async def _answer_post(
        self, request: web.BaseRequest, operation: str, fault: Fault
    ) -> web.StreamResponse:
        body = await request.content.read()
        if self.rules is not None and operation == "CompleteMultipartUpload":
            refusal = self.rules.refuse_parts(request.query["uploadId"], body)
            if refusal is not None:
                return await _refuse(request, refusal)
        return await self._pass_on(request, body, fault)

    async def _pass_on(
        self, request: web.BaseRequest, body: bytes | AsyncIterator[bytes], fault: Fault
    ) -> web.StreamResponse:
        assert self._session is not None
        headers = _passed_on(request.headers)
        has_body = "Content-Length" in headers or isinstance(body, bytes)
        async with self._session.request(
            request.method,
            URL(self._backend + request.raw_path, encoded=True),
            headers=headers,
            data=body if has_body else None,
            allow_redirects=False,
            skip_auto_headers=_ADDED_BY_AIOHTTP,
        ) as answer:
            if fault.lose_reply:
                await answer.read()
                raise _BrokenOff
            reply = web.StreamResponse(status=answer.status, headers=_passed_on(answer.headers))
            await reply.prepare(request)
            await self._send_reply(request, reply, answer, fault)
            return reply

    async def _body(self, request: web.BaseRequest, fault: Fault) -> AsyncIterator[bytes]:
        passed = 0
        async for chunk in _paced(request.content, fault):
            passed += len(chunk)
            if fault.reset_request_at is not None and passed >= fault.reset_request_at:
                _reset(request)
                raise _BrokenOff
            if fault.stall_request_at is not None and passed >= fault.stall_request_at:
                await self._wait(3600)
                raise _BrokenOff
            yield chunk

    async def _send_reply(
        self,
        request: web.BaseRequest,
        reply: web.StreamResponse,
        answer: aiohttp.ClientResponse,
        fault: Fault,
    ) -> None:
        limits = (fault.reset_reply_at, fault.cut_reply_at, fault.stall_reply_at)
        left = next((limit for limit in limits if limit is not None), None)
        if request.method != "HEAD":
            async for chunk in _paced(answer.content, fault):
                await reply.write(chunk if left is None else chunk[:left])
                if left is not None:
                    left = max(0, left - len(chunk))
                    if left == 0:
                        break
        if fault.stall_reply_at is not None:
            await self._wait(3600)
        if fault.cut_reply_at is not None and request.transport is not None:
            await asyncio.sleep(0.05)
            request.transport.close()
            return
        if left is not None:
            raise _BrokenOff
        await reply.write_eof()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)


def _passed_on(headers: "aiohttp.typedefs.LooseHeaders") -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


async def _paced(source: aiohttp.StreamReader, fault: Fault) -> AsyncIterator[bytes]:
    """Pass chunks on, no faster than the fault's rate; backpressure is the reader's own."""
    started, passed = time.monotonic(), 0
    while chunk := await source.read(
        _CHUNK if fault.rate is None else max(1, min(_CHUNK, int(fault.rate / 20)))
    ):
        passed += len(chunk)
        if fault.rate is not None:
            await asyncio.sleep(max(0.0, started + passed / fault.rate - time.monotonic()))
        yield chunk


async def _refuse(request: web.BaseRequest, refusal: Refusal) -> web.StreamResponse:
    """Answer as S3 does, once the request's body has been read to its end."""
    while await request.content.read(_CHUNK):
        pass
    status, code = refusal
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>fault</Message></Error>'
    reply = web.Response(status=status)
    if status >= 300:
        reply = web.Response(status=status, text=text, content_type="application/xml")
    await reply.prepare(request)
    await reply.write_eof()
    return reply


def _reset(request: web.BaseRequest) -> None:
    """Close the client's connection with RST, not FIN."""
    transport = request.transport
    if transport is None:
        return
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
