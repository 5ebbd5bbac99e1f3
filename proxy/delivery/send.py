"""Send: one stretch of a clip from wherever it is to one viewer.

Belongs here: choosing, byte by byte, between the whole file, the spool and the source itself.
Must not know: HTTP heads, or how the clip was located.

    whole file ─────────────────────────────▶ sendfile
    flight, near the watermark ─▶ spool ────▶ sendfile up to the watermark, wait, again
    flight, far ahead of it ────▶ the source, by range, beside the fill
    flight without room ────────▶ the source, whatever it takes
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.clock import Clock
from proxy.delivery.flights import Flight
from proxy.delivery.sources import Source
from proxy.delivery.through import Held, Through
from proxy.delivery.view import View
from proxy.delivery.viewer import ViewerSocket
from proxy.errors import (
    DiskExhausted,
    FirstviewError,
    SourceChanged,
    SourceUnavailable,
    ViewerLeft,
    ViewerStalled,
)
from proxy.records import ByteStream
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics


class Sender:
    """Sends stretches; what all of them share."""

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        """Take the limits."""
        self.settings = settings
        self.clock = clock
        self.metrics = metrics
        # Slow viewers of far ranges must never take all the connections that fills need.
        self.places = settings.upstream_max_connections // 2

    async def send(self, viewer: ViewerSocket, view: View, start: int, stop: int) -> None:
        """Send bytes `start` up to `stop` of a clip.

        Raises ViewerLeft, ViewerStalled, or what made the rest of the clip unavailable: then the
        connection has to be reset, as the reply's length is already announced.
        """
        if view.file is not None:
            await viewer.send_file(view.file.fd, start, stop)
            return
        if view.flight is None:
            msg = "a view without a place"
            raise AssertionError(msg)
        await _Stretch(self, viewer, view, view.flight, ByteSpan(start, stop)).send()


class ByteSpan(NamedTuple):
    """Bytes `start` up to `stop`, exclusive."""

    start: int
    stop: int


class _Stretch:
    """One stretch of a clip that is not whole here yet."""

    def __init__(
        self, sender: Sender, viewer: ViewerSocket, view: View, flight: Flight, span: ByteSpan
    ) -> None:
        self._settings = sender.settings
        self._clock = sender.clock
        self._metrics = sender.metrics
        self._sender = sender
        self._viewer = viewer
        self._view = view
        self._flight = flight
        self._position, self._stop = span

    async def send(self) -> None:
        await self._send_beside()
        while self._position < self._stop:
            facts = await self._flight.ready()
            if facts.etag != self._view.facts.etag:
                msg = "the source told one length with a range, and another with the whole clip"
                raise SourceChanged(msg)
            if self._flight.spool is None:
                await self._send_through()
                return
            try:
                await self._send_spool()
            except DiskExhausted:
                await self._send_through()

    # -- from the spool ---

    async def _send_spool(self) -> None:
        spool = self._flight.spool
        if spool is None:
            return
        while self._position < self._stop:
            ahead = spool.ahead(self._position)[: self._stop - self._position]
            if ahead:
                await self._viewer.send(ahead)
                self._position += len(ahead)
                continue
            readable = min(await spool.past(self._position), self._stop)
            await self._viewer.send_file(spool.fd, self._position, readable)
            self._position = readable

    # -- beside the fill ---

    async def _send_beside(self) -> None:
        """Ask the source for a far range; whatever goes wrong with that, the spool will have it."""
        if not self._is_far():
            return
        try:
            with self._flight.seek(self._settings.seek_streams) as taken:
                if not taken or self._sender.places <= 0:
                    self._metrics.seeks.labels("no_place").inc()
                    return
                self._sender.places -= 1
                try:
                    await self._read_beside()
                finally:
                    self._sender.places += 1
        finally:
            self._flight.go()

    async def _read_beside(self) -> None:
        stream = await self._open_beside()
        if stream is None:
            return
        try:
            await self._copy(stream)
            self._metrics.seeks.labels("ok").inc()
        except (ViewerLeft, ViewerStalled):
            raise
        except FirstviewError as error:
            self._metrics.seeks.labels(error.slug).inc()
        finally:
            await stream.close()

    def _is_far(self) -> bool:
        source, spool = self._view.source, self._flight.spool
        if self._view.early is not None:
            return True
        if source is None or not source.seekable() or (self._flight.is_ready and spool is None):
            return False
        readable = 0 if spool is None else spool.mark.readable
        ended = spool is not None and spool.mark.ended
        return not ended and self._position > readable + self._settings.seek_ahead

    def _beside(self, way: str, count: int) -> None:
        source = self._view.source
        if source is not None:
            self._metrics.beside_bytes.labels(source.tier, way).inc(count)

    async def _open_beside(self) -> ByteStream | None:
        """Open the range; None if the source did not answer with just that range."""
        source, early = self._view.source, self._view.early
        self._view.early = None
        try:
            if early is not None:
                stream = await early
            elif source is not None:
                stream = await self._open(source)
            else:
                return None
        except FirstviewError as error:
            self._metrics.seeks.labels(error.slug).inc()
            return None
        if not self._fits(stream):
            self._metrics.seeks.labels("ignored").inc()
            await stream.close()
            return None
        return stream

    async def _open(self, source: Source) -> ByteStream:
        return await source.open(self._position, self._stop, validator=self._flight.validator)

    def _fits(self, stream: ByteStream) -> bool:
        head, validator = stream.head, self._flight.validator
        same = validator is None or head.validator == validator
        return same and head.start == self._position and head.total == self._view.facts.length

    async def _copy(self, stream: ByteStream) -> None:
        """Send a stream up to the end of the stretch; raises when it breaks before that."""
        while self._position < self._stop:
            chunk = await stream.read()
            if not chunk:
                msg = "the source ended before the range did"
                raise SourceUnavailable(msg)
            chunk = chunk[: self._stop - self._position]
            self._beside("seek", len(chunk))
            await self._viewer.send(chunk)
            self._flight.go()
            self._position += len(chunk)

    # -- through, without a spool ---

    async def _send_through(self) -> None:
        """Read the source for this viewer alone."""
        source, spool, validator = self._view.source, self._flight.spool, self._flight.validator
        if source is None:
            raise SourceUnavailable
        held = Held.nothing(self._position)
        if spool is not None and validator is None:  # only its bytes say which clip it was
            proof = await spool.proof(self._position)
            held = Held(start=0, stop=self._position, digest=proof)
        await Through(
            self._settings,
            self._clock,
            self._viewer,
            source,
            length=self._view.facts.length,
            validator=validator,
            held=held,
            stop=self._stop,
            delivered=lambda count: self._beside("through", count),
        ).send()
        self._position = self._stop
