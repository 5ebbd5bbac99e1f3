"""One connection of the public listener: aiohttp's parser, with our limits around it.

Belongs here: how long and how large a request may be, how many connections there are, and the
viewer's socket beneath the transport. Must not know: routes, clips.

aiohttp 3.14 has no limit on how slowly a header may come, on all fields together, or on the
number of connections: those three are here.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from aiohttp.web_request import BaseRequest

from proxy.delivery.viewer import ViewerSocket
from proxy.errors import BadRequest, FirstviewError, HeaderTooLarge, Overloaded
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.web import headers
from proxy.web.problems import render

_MOST_FIELDS = 1024
"""Fields of one request; aiohttp's own 128 are few where an edge adds to what a browser sends."""

_UNFRAMED = "the request's body is not framed as HTTP has it"

Handler = Callable[[BaseRequest, "Connection"], Awaitable["Sent"]]

log = structlog.get_logger()


class Sent:
    """A reply that is on its way already: what aiohttp asks of a response, and nothing more."""

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        """Say whether the connection may be used again."""
        self.keep_alive = keep_alive

    async def prepare(self, _request: BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self) -> None:
        """Nothing is left to write."""


class Listener(web.Server):
    """Makes connections, counts them, and passes their requests to one handler."""

    def __init__(self, handler: Handler, settings: Settings, metrics: Metrics) -> None:
        """Take the handler and the limits."""
        super().__init__(
            self._dispatch,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=settings.keepalive_timeout,
            max_line_size=int(settings.max_line_bytes),
            max_field_size=int(settings.max_line_bytes),
            max_headers=_MOST_FIELDS,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self.settings = settings
        self.metrics = metrics
        self._handle = handler

    async def _dispatch(self, request: BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        if connection.sends_much and header_size(request) > self.settings.max_header_bytes:
            self.metrics.shed.labels("max_header_bytes").inc()
            return connection.handle_error(request, 400, HeaderTooLarge())
        return cast("web.StreamResponse", await self._handle(request, connection))

    async def shutdown(self, timeout: float | None = None) -> None:
        """End idle connections now and the others after their reply, all within `timeout`."""
        self.pre_shutdown()  # without it an idle connection is waited for like a busy one
        await super().shutdown(timeout)

    def __call__(self) -> RequestHandler:
        """Make the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = (
        "_body",
        "_carried",
        "_header_bytes",
        "_header_timer",
        "_listener",
        "_viewer",
        "sends_much",
    )

    def __init__(self, listener: Listener, **options: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Use `Listener`."""
        super().__init__(listener, **options)
        self._listener = listener
        self._viewer: ViewerSocket | None = None
        self._body: StreamReader | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._carried = 0
        """Bytes that came uncounted, with a request's end: the next header may begin in them."""
        self.sends_much = False
        """Whether a header that is larger than allowed may have come in one piece."""

    # -- its life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept, unless there are too many already."""
        super().connection_made(transport)
        metrics, limit = self._listener.metrics, self._listener.settings.max_connections
        metrics.connections.inc()
        if len(self._listener.connections) > limit:
            metrics.shed.labels("max_connections").inc()
            self._refuse(Overloaded())
            return
        self._watch_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of the viewer before the descriptor's number can be anyone else's."""
        self._listener.metrics.connections.dec()
        if self._header_timer is not None:
            self._header_timer.cancel()
        if self._viewer is not None:
            self._viewer.leave()
        super().connection_lost(exc)

    def viewer(self) -> ViewerSocket:
        """The socket below the transport, whose own buffer stays empty. Raises ConnectionError.

        It is a duplicate: uvloop and asyncio refuse to watch a transport's own descriptor.
        """
        if self.transport is None:
            raise ConnectionResetError
        if self._viewer is None:
            under = self.transport.get_extra_info("socket")
            sock = socket.socket(under.family, under.type, under.proto, os.dup(under.fileno()))
            sock.setblocking(False)
            self._viewer = ViewerSocket(sock, self._listener.settings.send_stall_timeout)
        return self._viewer

    def reset(self) -> None:
        """End the connection so that nobody can take what was sent for whole."""
        if self._viewer is not None:
            self._viewer.reset_on_close()
        if self.transport is not None:
            self.transport.abort()

    # -- slow and large headers ---

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and watch a header that is not complete yet."""
        most, before = self._listener.settings.max_header_bytes, len(self._messages)
        in_body = self._body is not None
        so_far = self._carried + self._header_bytes + len(data)
        self.sends_much = self.sends_much or so_far > most
        super().data_received(data)
        self._follow_body(before)
        if self._messages or not data or in_body:
            begins = data and (in_body or len(self._messages) > before)
            self._carried, self._header_bytes = len(data) if begins else so_far, 0
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
            return
        self._header_bytes += len(data)
        if self._header_bytes > most:
            self._listener.metrics.shed.labels("max_header_bytes").inc()
            self._refuse(HeaderTooLarge())
        elif self._header_timer is None:
            self._watch_header()

    def _follow_body(self, before: int) -> None:
        """Keep the body that the parser is in the middle of, whether or not anybody reads it.

        aiohttp's compiled parser tells the next reader of a framing error, never the body's own,
        who would wait on. A new message before a body's end can be nothing else.
        """
        for _, body in itertools.islice(self._messages, before, None):
            if self._body is not None and not self._body.is_eof():
                self._body.set_exception(RequestPayloadError(_UNFRAMED))
                self._body.feed_eof()  # nothing is left to be read and thrown away
            self._body = body
        if self._body is not None and self._body.is_eof():
            self._body = None

    def _watch_header(self) -> None:
        loop = asyncio.get_running_loop()
        wait = self._listener.settings.header_timeout
        self._header_timer = loop.call_later(wait, self._header_late)

    def _header_late(self) -> None:
        self._header_timer = None
        if not self._messages and not self._request_in_progress:
            self._listener.metrics.shed.labels("header_timeout").inc()
            self.force_close()

    def _refuse(self, error: FirstviewError) -> None:
        """Answer without having a request, and close; in the middle of a reply, reset."""
        if self._request_in_progress:
            self.reset()
            return
        problem = render(error, request_id="-")
        fields = [*problem.fields, ("Connection", "close")]
        if self.transport is not None:
            self.transport.write(headers.head(problem.status, b"", fields) + problem.body)
        self.force_close()

    # -- what aiohttp could not parse ---

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP as a problem document; one line in the log, without a trace."""
        if status == 400:  # noqa: PLR2004
            log.info("not http", peer=request.remote, error=str(message or exc)[:200])
            error = _name_refusal(exc, message)
        else:
            log.error("handler failed", exc_info=exc)
            error = FirstviewError()
        problem = render(error, request_id="-")
        reply = web.Response(status=problem.status, body=problem.body)
        reply.headers.update(problem.fields)
        reply.force_close()
        return reply


def _name_refusal(exc: BaseException | None, message: str | None) -> FirstviewError:
    """Tell what is too large apart from what is no HTTP at all."""
    if isinstance(exc, LineTooLong | HeaderTooLarge) or "Too many headers" in (message or ""):
        return HeaderTooLarge()
    return BadRequest("the request is not HTTP/1.1 as RFC 9112 has it")


def header_size(request: BaseRequest) -> int:
    """Bytes of a request's line and fields, as they came over the wire (RFC 9112 §2.1)."""
    line = len(f"{request.method} {request.raw_path} HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + 4 for name, value in request.raw_headers) + 2
