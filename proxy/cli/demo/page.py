"""The demo's page: a small site of its own, as the owner's application would have one.

Belongs here: the page's addresses and the state that it asks for again and again. Must not know:
how clips are served; the page plays them from the proxy's own address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.cli.demo.chapters import Chapter
from proxy.cli.demo.clips import CLIPS, static_file
from proxy.cli.demo.source import DemoSource
from proxy.cli.demo.story import Story
from proxy.records import Generation, Status
from proxy.telemetry.metrics import Metrics

_FILES: Final[Mapping[str, str]] = {
    "index.html": "text/html",
    "demo.css": "text/css",
    "demo.js": "text/javascript",
    **{f"{clip.name}.jpg": "image/jpeg" for clip in CLIPS},
}


Rows = Callable[[Sequence[str]], Awaitable[Mapping[str, Generation]]]
"""What the catalog says of some ids."""


class DemoPage:
    """Serves the page. `public_url` is the proxy's public address."""

    def __init__(
        self,
        story: Story,
        rows: Rows,
        source: DemoSource,
        metrics: Metrics,
        *,
        public_url: str,
        speed: str,
    ) -> None:
        """Take what the page shows."""
        self._story = story
        self._rows = rows
        self._source = source
        self._metrics = metrics
        self._public_url = public_url
        self._speed = speed

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_get("/", self._file)
        app.router.add_get("/state.json", self._state)
        app.router.add_get("/{name}", self._file)
        return app

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in _FILES:
            raise web.HTTPNotFound
        policy = (
            f"default-src 'self'; media-src {self._public_url}; img-src 'self' data:;"
            " base-uri 'none'; form-action 'none'"
        )
        return web.Response(
            body=static_file(name),
            content_type=_FILES[name],
            charset=None if name.endswith(".jpg") else "utf-8",
            headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"},
        )

    async def _state(self, _request: web.Request) -> web.Response:
        served, replies = _totals(self._metrics)
        chapters = dict(self._story.chapters)
        rows = await self._rows(list(chapters))
        state = {
            "speed": self._speed,
            "fal": {"requests": self._source.requests, "bytes": self._source.bytes},
            "served": {"replies": replies, "bytes": served},
            "clips": [
                self._clip(chapter, row)
                for request_id, chapter in chapters.items()
                if (row := rows.get(request_id)) is not None
            ],
        }
        return web.Response(
            body=orjson.dumps(state),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    def _clip(self, chapter: Chapter, row: Generation) -> dict[str, Any]:
        clip = chapter.clip
        return {
            "id": clip.request_id,
            "name": clip.name,
            "take": clip.take,
            "model": clip.model,
            "prompt": clip.prompt,
            "prompt_hash": row.prompt_hash,
            "status": row.status,
            "came": chapter.came,
            "url": row.cdn_url,
            "bytes": row.content_length,
            "index": "end" if clip.index_at_end else "start",
            "owned": row.status is Status.STORED,
            "stored_seconds": chapter.seconds and round(chapter.seconds, 2),
            "sha256": chapter.sha256,
            "replies": [
                {
                    "view": reply.view,
                    "status": reply.status,
                    "range": reply.range,
                    "cache_status": reply.cache_status,
                    "hit": reply.hit,
                    "ms": reply.ms,
                }
                for reply in chapter.replies
            ],
        }


def _totals(metrics: Metrics) -> tuple[int, int]:
    """Bytes of clips and number of clip replies that viewers were sent, as /metrics has them."""
    served = replies = 0.0
    for sample in (s for metric in metrics.registry.collect() for s in metric.samples):
        if sample.name == "firstview_sent_bytes_total":
            served += sample.value
        elif sample.name == "firstview_requests_total" and sample.labels["tier"] != "none":
            replies += sample.value
    return int(served), int(replies)
