"""Hits: plain requests for clips that are open here, answered in the moment they come.

Belongs here: the way of such a request, which waits for nothing: one parse, one look-up, one head,
one or two system calls. Must not know: aiohttp, where clips come from, what a head consists of.

Every decision is the other lane's own: `plan` says what the reply is, `headers` how it is written.
Whatever cannot be answered so, this lane leaves untouched to the other.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import NamedTuple

from proxy.delivery.locate import Locator
from proxy.delivery.viewer import ViewerSocket
from proxy.errors import FirstviewError
from proxy.storage.open_files import OpenFile
from proxy.telemetry.metrics import Metrics
from proxy.web import exchange, headers, plain
from proxy.web.broken import Breakages
from proxy.web.connection import Connection
from proxy.web.headers import ReplyPolicy
from proxy.web.plain import Plain
from proxy.web.ranges import ByteRange
from proxy.web.reply import plan, stable_of

_SMALL = 16 * 1024
"""Bytes of a body that go out in one call with their head: a copy is cheaper than a call."""


_NOTHING = ByteRange(0, 0)


class Hits:
    """The fast lane."""

    def __init__(self, locator: Locator, policy: ReplyPolicy, metrics: Metrics) -> None:
        """Take the corridor's near end, and what the other lane's replies say."""
        self._locator = locator
        self._policy = policy
        self._metrics = metrics
        self._breakages = Breakages(locator, metrics)

    def answer(self, connection: Connection, data: bytes) -> bool:
        """Answer what has just come in; False if nothing was done, as it is not for this lane."""
        came = time.monotonic()
        asked = plain.parse(data)
        file = None if asked is None else self._locator.hot(asked.request_id)
        if asked is None or file is None:
            return False
        try:
            viewer = connection.viewer()
            status, lines, segments = plan(asked.fields, file.facts, method=asked.method)
            span = segments[0] if segments else _NOTHING
            if not isinstance(span, ByteRange):  # several ranges
                return False
            body = b""
            if 0 < span.stop - span.start <= _SMALL:
                body, span = _read(file, span), _NOTHING
        except (FirstviewError, OSError):
            return False  # the other lane will say why
        name = exchange.name(asked.fields.get("X-Request-Id"))
        lines += headers.exchange_fields(name, time.monotonic() - came)
        head = headers.head(status, stable_of(file, self._policy) + lines)
        reply = _Reply(asked, name, file, status, viewer.sent + len(head))
        self._send(connection, viewer, reply, head + body, span)
        connection.answered(came)
        return True

    # -- sending ---

    def _send(
        self,
        connection: Connection,
        viewer: ViewerSocket,
        reply: _Reply,
        data: bytes,
        span: ByteRange,
    ) -> None:
        """Send what the socket takes at once, and leave the rest to a task."""
        position, stop = span
        try:
            data = data[viewer.offer(data, more=position < stop) :]
            if not data and position < stop:
                position += viewer.offer_file(reply.file.fd, position, stop)
        except FirstviewError as error:
            self._break_off(connection, reply, error)
        else:
            if data or position < stop:
                reply.file.acquire()
                rest = self._send_rest(connection, viewer, reply, data, ByteRange(position, stop))
                connection.go_on(asyncio.get_running_loop().create_task(rest))
                return
            self._metrics.replies(reply.status, reply.file.tier).value += 1
        self._count_bytes(viewer, reply)

    async def _send_rest(
        self,
        connection: Connection,
        viewer: ViewerSocket,
        reply: _Reply,
        data: bytes,
        span: ByteRange,
    ) -> None:
        try:
            if data:
                await viewer.send(data, more=span.start < span.stop)
            await viewer.send_file(reply.file.fd, span.start, span.stop)
            self._metrics.replies(reply.status, reply.file.tier).value += 1
        except FirstviewError as error:
            self._break_off(connection, reply, error)
        except BaseException:  # told to stop: what was sent must not look whole
            connection.reset()
            raise
        finally:
            self._count_bytes(viewer, reply)
            reply.file.release()
            connection.gone_on()

    def _count_bytes(self, viewer: ViewerSocket, reply: _Reply) -> None:
        if viewer.sent > reply.before:
            self._metrics.sent(reply.file.tier).value += viewer.sent - reply.before

    def _break_off(self, connection: Connection, reply: _Reply, error: FirstviewError) -> None:
        """The reply cannot be finished: reset the connection, never end it cleanly."""
        asked = reply.asked
        self._breakages.note(
            error,
            exchange=reply.name,
            path=plain.path_of(asked),
            request_id=asked.request_id,
            tier=reply.file.tier,
            hit=True,
        )
        connection.reset()


class _Reply(NamedTuple):
    """A reply that is being sent, and what is said of it; `before` its body were so many bytes."""

    asked: Plain
    name: str
    file: OpenFile
    status: int
    before: int


def _read(file: OpenFile, span: ByteRange) -> bytes:
    """Read a small body. Raises OSError, FirstviewError if the file does not have it."""
    body = os.pread(file.fd, span.stop - span.start, span.start)
    if len(body) < span.stop - span.start:
        raise FirstviewError
    return body
