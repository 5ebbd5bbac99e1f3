"""One request and its reply: the little that every answer needs, whatever it is about.

Belongs here: the exchange's id, its clock, its body, its per-reply fields and its one line in the
log, but for how that is written. Must not know: routes, clips.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time

import structlog
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_request import BaseRequest

from proxy.delivery.viewer import ViewerSocket
from proxy.errors import BadRequest, BodyTooLarge, FirstviewError, RequestTimeout
from proxy.security.links import without_token
from proxy.telemetry.metrics import Metrics
from proxy.web import headers
from proxy.web.access import Access, Reply
from proxy.web.connection import Connection
from proxy.web.machine import Sent
from proxy.web.problems import render

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PREFIX = os.urandom(4).hex()
_COUNT = itertools.count(1)

log = structlog.get_logger()


class Exchange:
    """One request on one connection, until its reply is sent."""

    __slots__ = (
        "_crash",
        "_error",
        "_first",
        "_keep_alive",
        "_metrics",
        "_started",
        "bytes",
        "cache",
        "client",
        "connection",
        "ended",
        "id",
        "is_private",
        "request",
        "request_id",
        "status",
        "tier",
        "trace",
    )

    def __init__(self, request: BaseRequest, connection: Connection, metrics: Metrics) -> None:
        """Begin; the client's X-Request-Id is kept if it is fit to be repeated."""
        self.request = request
        self.connection = connection
        self._metrics = metrics
        self._started = time.perf_counter()
        self._keep_alive = request.keep_alive
        self.id = name(request.headers.get("X-Request-Id"))
        self.client: str | None = connection.peer
        """Who asks: the other end, unless a trusted edge has said for whom it asks."""
        self.request_id: str | None = None
        """The clip that is asked for, if it is one."""
        self.status: int | None = None
        self.tier: str | None = None
        self.cache: str | None = None
        """What a cache is to this reply: `hit`, `miss`, or `joined` for another's miss."""
        self.bytes: int | None = None
        """Bytes of the clip that were sent."""
        self.ended: str | None = None
        """How the reply ended, if it did not reach its end."""
        self.trace: str | None = None
        """Trace that it belongs to, if there is one."""
        self._first: float | None = None
        self._error: FirstviewError | None = None
        self._crash: BaseException | None = None
        self.is_private = False
        """Whether what is said is for this viewer alone, errors too."""

    def spent(self) -> float:
        """Seconds since the request was there."""
        return time.perf_counter() - self._started

    @property
    def path(self) -> str:
        """What is asked for, without its query, or a link's token that stands before it."""
        return without_token(self.request.raw_path.partition("?")[0])

    def viewer(self) -> ViewerSocket:
        """The socket to send the reply on."""
        return self.connection.viewer()

    def fields(self) -> bytes:
        """Lines that every reply carries; Server-Timing says how long it took to get here."""
        lines = headers.exchange_fields(self.id, self.spent())
        self._keep_alive &= not self.connection.is_leaving
        if not self._keep_alive:
            return lines + b"Connection: close\r\n"
        if self.request.version.minor == 0:
            return lines + b"Connection: keep-alive\r\n"
        return lines

    async def body(self, most: int, patience: float) -> bytes:
        """Read the request's body: at most `most` bytes, within `patience` seconds in all.

        A client that waits to be asked for it is asked (`Expect`, RFC 9110 §10.1.1). Raises
        BodyTooLarge as soon as that is known, RequestTimeout, BadRequest for a body that is not
        framed as HTTP has it, and what `ViewerSocket.send` raises.
        """
        request, content = self.request, self.request.content
        if (request.content_length or 0) > most:
            raise BodyTooLarge
        expected = request.headers.get("Expect", "").lower() == "100-continue"
        if expected and request.version.minor > 0 and content.total_bytes == 0:
            await self.viewer().send(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, size = [], 0
        try:
            async with asyncio.timeout(patience):
                while piece := await content.readany():
                    pieces.append(piece)
                    size += len(piece)
                    if size > most:
                        raise BodyTooLarge
        except TimeoutError:
            raise RequestTimeout from None
        except RequestPayloadError as error:
            raise BadRequest(str(error)) from error
        return b"".join(pieces)

    def begun(self, status: int, request_id: str, cache_status: str) -> None:
        """Log, at level debug only, that a clip's reply has begun."""
        if log.is_enabled_for(logging.DEBUG):
            log.debug(
                "reply",
                exchange=self.id,
                request_id=request_id,
                status=status,
                range=self.request.headers.get("Range"),
                cache_status=cache_status,
                ms=round(self.spent() * 1000, 2),
            )

    def answered(self, status: int) -> None:
        """Note that the reply's head is out; whatever follows, this was its status."""
        self.status = status
        self._first = self.spent()

    def sent(self, status: int, tier: str) -> Sent:
        """Count a reply that went out whole."""
        if self.status is None:
            self.answered(status)
        self.tier = tier
        self._metrics.replies(status, tier).value += 1
        return Sent(keep_alive=self._keep_alive)

    async def send_plain(self, status: int, block: bytes, body: bytes = b"") -> Sent:
        """Send a reply that is not about a clip; `block` holds its own field lines."""
        length = [] if status == 204 else [("Content-Length", str(len(body)))]  # noqa: PLR2004
        head = headers.head(status, block + self.fields(), length)
        await self.viewer().send(head + (b"" if self.request.method == "HEAD" else body))
        return self.sent(status, "none")

    async def send_problem(
        self, error: BaseException, cors_origin: str, *, logged: bool = False
    ) -> Sent:
        """Send an error as a problem document; `logged`: a crash has its line already.

        Where the request's body has not come whole the connection ends with the reply: its client
        may send the rest, or, told nothing by a 100, the next request (RFC 9110 §10.1.1).
        """
        problem = render(
            error,
            request_id=self.id,
            instance=self.path,
            cors_origin=cors_origin,
            is_private=self.is_private,
        )
        self.status = problem.status
        if isinstance(error, FirstviewError):
            self._error = error
        else:
            self._error, self._crash = FirstviewError(), None if logged else error
        content = self.request.content
        self._keep_alive &= content.is_eof() and content.exception() is None
        head = headers.head(problem.status, headers.block(problem.fields) + self.fields())
        await self.viewer().send(head + (b"" if self.request.method == "HEAD" else problem.body))
        self.answered(problem.status)
        return self.sent(problem.status, "none")

    def tell(self, access: Access) -> None:
        """Have the access log tell of it, now that it is over."""
        if self._crash is None and not access.tells_breaks:
            return
        fields, error = self.request.headers, self._error
        access.note(
            Reply(
                exchange=self.id,
                method=self.request.method,
                path=self.path,
                request_id=self.request_id,
                status=self.status,
                range=fields.get("Range"),
                bytes=self.bytes,
                tier=self.tier,
                cache=self.cache,
                first=self._first,
                seconds=self.spent(),
                client=self.client,
                ray=fields.get("CF-Ray"),
                agent=fields.get("User-Agent"),
                ended=self.ended,
                error=None if error is None else error.slug,
                detail=None if error is None else str(error),
                trace=self.trace,
            ),
            self._crash,
        )


def name(given: str | None) -> str:
    """Name an exchange: as the client did, if that is fit to be repeated, else anew."""
    if given is None or _ID.fullmatch(given) is None:
        return f"{_PREFIX}-{next(_COUNT):x}"
    return given
