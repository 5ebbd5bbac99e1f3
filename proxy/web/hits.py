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
from proxy.settings import Settings
from proxy.storage.open_files import ServedFile
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.tally import QUICK, RANGE
from proxy.telemetry.values import NEAR, STOPPED
from proxy.web import exchange, headers, plain
from proxy.web.access import Access, Hit
from proxy.web.broken import Breakages
from proxy.web.connection import Connection
from proxy.web.gate import Gate
from proxy.web.headers import ReplyPolicy
from proxy.web.ranges import ByteRange
from proxy.web.reply import plan, stable_of

_SMALL = 4 * 1024
"""Bytes of a body that go out in one call with their head; a copy of more costs more than a call.

Measured: 1.1 against 1.3 us for 1 KiB, 1.7 against 1.4 for 8 KiB, 7.4 against 3.0 for 64 KiB.
"""

_NOTHING = ByteRange(0, 0)


class Hits:
    """The fast lane."""

    def __init__(
        self,
        settings: Settings,
        locator: Locator,
        gate: Gate,
        policy: ReplyPolicy,
        metrics: Metrics,
        *,
        access: Access | None = None,
    ) -> None:
        """Take the corridor's near end, who gets in, what replies say, and who logs hits."""
        self._most = min(plain.MOST, settings.max_line_bytes, settings.max_header_bytes)
        self._parse = gate.parser()
        self._find = gate.finder()
        self._policy = policy
        self._metrics = metrics
        counted = settings.hit_metrics
        self._tallies = {tier: metrics.hits(tier) if counted else None for tier in NEAR}
        self._breakages = Breakages(locator, metrics)
        self._access = access if access is not None and access.tells_hits else None
        self._broken = access if access is not None and access.tells_breaks else None

    # In one piece, as each call would be a hundredth of what all of this takes.
    def answer(self, connection: Connection, data: bytes) -> bool:  # noqa: C901, PLR0912
        """Answer what has just come in; False if nothing was done, as it is not for this lane."""
        came = time.monotonic()
        asked = self._parse(data) if len(data) <= self._most else None
        file = None if asked is None else self._find(asked[1])
        if asked is None or file is None:
            return False
        method, _, fields = asked
        try:
            viewer = connection.viewer()
            status, lines, segments = plan(fields, file.facts, method=method)
            span = segments[0] if segments else _NOTHING
            if not isinstance(span, ByteRange):  # several ranges
                return False
            body = _read(file, span)
        except (FirstviewError, OSError):
            return False  # the other lane will say why
        name = exchange.name(fields.get("X-Request-Id"))
        first = time.monotonic()
        lines += headers.exchange_fields(name, first - came)
        head = headers.head(status, stable_of(file, self._policy) + lines)
        start, stop = span
        position = start
        try:
            taken = viewer.offer(head + body, more=not body and start < stop)
            if taken >= len(head):
                position += taken - len(head)
                if not body and start < stop:
                    position += viewer.offer_file(file.fd, start, stop)
        except FirstviewError as error:
            hit = _Hit(connection, file, status, name, data, came, first, position - start)
            self._break_off(hit, error, hit.sent)
            return True
        if position == stop and taken >= len(head):
            tally = self._tallies[file.tier]
            if tally is not None:  # in place, as a call would double what it takes
                spent = (first if body else time.monotonic()) - came
                tally.seconds += spent
                tally.size += stop - start
                if status == RANGE:
                    tally.ranges += 1
                else:
                    tally.others[status] += 1
                if spent > QUICK:
                    tally.slow(spent)
            connection.answered(came)
            access = self._access
            if access is not None and access.takes(first):
                # In order: a name for each costs more than all the rest of this.
                access.hit(
                    Hit(
                        came,
                        first,
                        time.monotonic(),
                        data,
                        name,
                        status,
                        file.tier,
                        stop - start,
                        connection.peer,
                    )
                )
        else:
            sent = position - start
            self._metrics.sent(file.tier).value += sent
            hit = _Hit(connection, file.acquire(), status, name, data, came, first, sent)
            rest = self._finish(hit, viewer, head[taken:], ByteRange(position, stop))
            connection.go_on(asyncio.get_running_loop().create_task(rest))
        return True

    async def _finish(self, hit: _Hit, viewer: ViewerSocket, head: bytes, span: ByteRange) -> None:
        """Send what the socket did not take at once, at the viewer's pace."""
        before, metrics, tier = viewer.sent, self._metrics, hit.file.tier
        metrics.slow_hits.inc()

        def sent() -> int:
            return max(0, viewer.sent - before - len(head))

        try:
            if head:
                await viewer.send(head, more=span.start < span.stop)
            metrics.first_byte.labels(tier).observe(time.monotonic() - hit.came)
            await viewer.send_file(hit.file.fd, span.start, span.stop, begun=True)
            metrics.replies(hit.status, tier).value += 1
            metrics.reply.labels(tier).observe(time.monotonic() - hit.came)
            if self._access is not None and self._access.takes(time.monotonic()):
                self._access.hit(hit.told(hit.sent + sent()))
        except FirstviewError as error:
            self._break_off(hit, error, hit.sent + sent())
        except BaseException:  # told to stop: what was sent must not look whole
            self._cut_off(hit, hit.sent + sent())
            raise
        finally:
            metrics.sent(tier).value += sent()
            metrics.slow_hits.dec()
            hit.file.release()
            hit.connection.gone_on()

    def _break_off(self, hit: _Hit, error: FirstviewError, sent: int) -> None:
        """The reply cannot be finished: reset the connection, never end it cleanly."""
        if hit.connection.is_cut:
            self._cut_off(hit, sent)
            return
        if self._broken is not None:
            self._broken.hit(hit.told(sent, error.slug))
        self._breakages.note(
            error,
            exchange=hit.name,
            path=plain.path_of(hit.asked),
            request_id=hit.file.facts.request_id,
            tier=hit.file.tier,
            hit=True,
        )
        hit.connection.reset()

    def _cut_off(self, hit: _Hit, sent: int) -> None:
        """As `_break_off`, because this process ends."""
        self._metrics.aborted.labels(STOPPED, hit.file.tier).inc()
        if self._broken is not None:
            self._broken.hit(hit.told(sent, STOPPED))
        hit.connection.reset()


class _Hit(NamedTuple):
    """A reply that takes its time, or breaks."""

    connection: Connection
    file: ServedFile
    status: int
    name: str
    asked: bytes
    came: float
    first: float
    sent: int
    """Bytes of the clip that the socket took at once."""

    def told(self, sent: int, ended: str | None = None) -> Hit:
        """What the access log keeps of it, now that it is over; `sent`: bytes of the clip."""
        return Hit(
            came=self.came,
            first=self.first,
            over=time.monotonic(),
            asked=self.asked,
            exchange=self.name,
            status=self.status,
            tier=self.file.tier,
            bytes=sent,
            peer=self.connection.peer,
            ended=ended,
        )


def _read(file: ServedFile, span: ByteRange) -> bytes:
    """Read a small body; nothing of a larger one.

    Raises OSError, FirstviewError if the file does not have it.
    """
    start, stop = span
    if not 0 < stop - start <= _SMALL:
        return b""
    body = os.pread(file.fd, stop - start, start)
    if len(body) < stop - start:
        raise FirstviewError
    return body
