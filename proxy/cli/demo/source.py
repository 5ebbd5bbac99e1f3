"""A small stand-in for fal.media: real clips, at a settable speed.

Belongs here: what a well-behaved media host answers, and counting it. Must not know: who asks.
The one that misbehaves is for tests only; it lives in `tests/fakes/fal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from proxy.cli.demo.clips import DemoClip

_TICK: Final = 0.02
"""Seconds between two pieces: short enough that the flow looks even."""
_SMALLEST_PIECE: Final = 1024
_LAST_MODIFIED: Final = "Mon, 02 Nov 2026 09:30:00 GMT"


class DemoSource:
    """Serves clips, `rate` bytes a second on each connection, after `latency` seconds."""

    def __init__(self, clips: Iterable[DemoClip], *, rate: float, latency: float) -> None:
        """Take the clips and how far away they seem to be."""
        self.rate = rate
        self.latency = latency
        self.requests = 0
        self.bytes = 0
        self._clips: dict[str, bytes] = {}
        self.add(clips)

    def add(self, clips: Iterable[DemoClip]) -> None:
        """Have more clips."""
        self._clips |= {clip.fal_path: clip.data for clip in clips}

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_get("/files/{path:.+}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        await asyncio.sleep(self.latency)
        data = self._clips.get(request.path)
        if data is None:
            raise web.HTTPNotFound
        response = _head(data)
        body = data[_span(request, response, data)]
        response.content_length = len(body)
        await response.prepare(request)
        if request.method != "HEAD":
            with contextlib.suppress(ConnectionError):  # whoever asked has left
                await self._pour(response, body)
                await response.write_eof()
        return response

    async def _pour(self, response: web.StreamResponse, body: bytes) -> None:
        """Send evenly: a piece each tick, each at the time when it is due."""
        clock = asyncio.get_running_loop().time
        started = clock()
        piece = max(_SMALLEST_PIECE, int(self.rate * _TICK))
        for position in range(0, len(body), piece):
            await asyncio.sleep(max(0.0, started + position / self.rate - clock()))
            chunk = body[position : position + piece]
            await response.write(chunk)
            self.bytes += len(chunk)


def _head(data: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "video/mp4"
    response.etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    response.headers["Last-Modified"] = _LAST_MODIFIED
    response.headers["Accept-Ranges"] = "bytes"
    return response


def _span(request: web.Request, response: web.StreamResponse, data: bytes) -> slice:
    """Decide which bytes are asked for, and say so in the response; malformed is ignored."""
    whole = slice(0, len(data))
    expected = request.headers.get("If-Range")
    if request.method == "HEAD" or (expected and expected != response.headers["ETag"]):
        return whole
    try:
        asked = request.http_range
    except ValueError:
        return whole
    if asked.start is None:
        return whole
    start, stop, _ = asked.indices(len(data))
    if start >= stop:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{len(data)}"})
    response.set_status(206)
    response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return slice(start, stop)
