"""aiohttp's lane: its parser and its request machinery, with our limits around them.

Belongs here: everything that HTTP allows and `plain.py` does not know, and how large a request may
be. Must not know: routes, clips, the connection's other lane.

aiohttp 3.14 has no limit on all fields together, and its idle timeout would not know of requests
that never came here: the first is here, the second is the connection's.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from aiohttp.web_request import BaseRequest

from proxy.errors import BadRequest, FirstviewError, HeaderTooLarge
from proxy.security.links import without_token
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.values import NONE
from proxy.web.connection import Connection
from proxy.web.problems import render

_MOST_FIELDS = 1024
"""Fields of one request; aiohttp's own 128 are few where an edge adds to what a browser sends."""

_NEVER = 10 * 365 * 86400.0
"""Seconds after which aiohttp may end an idle connection: the connection has a timer of its own."""

_UNFRAMED = "the request's body is not framed as HTTP has it"

Handler = Callable[[BaseRequest, Connection], Awaitable["Sent"]]

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


class Machines(web.Server):
    """Makes machines, and passes their requests to one handler."""

    def __init__(self, handler: Handler, settings: Settings, metrics: Metrics) -> None:
        """Take the handler and the limits."""
        super().__init__(
            self._dispatch,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_NEVER,
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
        machine = cast("Machine", request.protocol)
        if machine.sends_much and header_size(request) > self.settings.max_header_bytes:
            self.metrics.shed.labels("max_header_bytes").inc()
            return machine.handle_error(request, 400, HeaderTooLarge())
        try:
            return cast("web.StreamResponse", await self._handle(request, machine.connection))
        finally:
            machine.connection.answered(time.monotonic())

    def make(self, connection: Connection) -> Machine:
        """Make the machine of a connection that needs one."""
        loop = asyncio.get_running_loop()
        return Machine(self, connection, loop=loop, **self._kwargs)


class Machine(RequestHandler):
    """aiohttp's protocol for one connection."""

    __slots__ = (
        "_at_boundary",
        "_body",
        "_carried",
        "_header_bytes",
        "_machines",
        "connection",
        "sends_much",
    )

    def __init__(
        self,
        machines: Machines,
        connection: Connection,
        **options: Any,  # noqa: ANN401 - aiohttp's own
    ) -> None:
        """Use `Machines`."""
        super().__init__(machines, **options)
        self._machines = machines
        self.connection = connection
        self._body: StreamReader | None = None
        self._header_bytes = 0
        self._carried = 0
        """Bytes that came uncounted, with a request's end: the next header may begin in them."""
        self._at_boundary = True
        self.sends_much = False
        """Whether a header that is larger than allowed may have come in one piece."""

    # -- what the connection asks ---

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._waiter is None or bool(self._messages)

    @property
    def in_header(self) -> bool:
        """Whether a request has begun to come whose header is not complete."""
        return self._header_bytes > 0

    @property
    def at_rest(self) -> bool:
        """Whether the next byte is a request's first, and may as well be answered elsewhere."""
        return (
            self._at_boundary
            and self._waiter is not None
            and not self._messages
            and self._body is None
            and not self._close
            and not self._force_close
            and not self._upgraded
        )

    # -- large headers ---

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count a header that is not complete yet."""
        most, before = self._machines.settings.max_header_bytes, len(self._messages)
        in_body = self._body is not None
        so_far = self._carried + self._header_bytes + len(data)
        self.sends_much = self.sends_much or so_far > most
        super().data_received(data)
        self._follow_body(before)
        if data:
            # A header cannot end like that without being complete, nor can a body that has ended.
            self._at_boundary = data.endswith(b"\r\n\r\n")
        if self._messages or not data or in_body:
            begins = data and (in_body or len(self._messages) > before)
            self._carried, self._header_bytes = len(data) if begins else so_far, 0
            return
        self._header_bytes += len(data)
        if self._header_bytes > most:
            self._machines.metrics.shed.labels("max_header_bytes").inc()
            self._refuse(HeaderTooLarge())

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

    def _refuse(self, error: FirstviewError) -> None:
        """Answer without having a request, and close; in the middle of a reply, reset."""
        if self._request_in_progress:
            self.connection.reset()
            return
        self._tell(error, error.detail)
        self._machines.metrics.replies(error.status, NONE).value += 1
        self.connection.refuse(error)
        self.force_close()

    def _tell(self, error: FirstviewError, detail: str) -> None:
        """Log what was refused before it was a request, with what a request's line would say."""
        event = "not http" if isinstance(error, BadRequest) else "header too large"
        client = self.connection.peer or "-"
        log.info(event, client=client, status=error.status, error=error.slug, detail=detail)

    # -- what aiohttp could not parse ---

    def handle_error(
        self,
        request: BaseRequest,  # noqa: ARG002 - aiohttp gives it
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP as a problem document; one line in the log, without a trace."""
        if status == 400:  # noqa: PLR2004
            error = _name_refusal(exc, message)
            self._tell(error, without_token(str(message or exc))[:200])
        else:
            log.error("handler failed", exc_info=exc)
            error = FirstviewError()
        problem = render(error, request_id="-")
        self._machines.metrics.replies(problem.status, NONE).value += 1
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
