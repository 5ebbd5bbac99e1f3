"""The demo, once: a clip comes in by each of the three ways, and what happened is printed.

Belongs here: the one viewer, and whether what it saw is right. Must not know: how the parts are put
together (`stage.py`), or what an event means (`story.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
from rich.console import Console
from rich.table import Table

from proxy.cli.demo.clips import CLIPS, DemoClip
from proxy.cli.demo.stage import Options, Stage
from proxy.cli.demo.story import Story, size

_STORED_WITHIN: Final = 20.0
_TOLD_WITHIN: Final = 5.0
_LOOK_EVERY: Final = 0.02
_REPORTED: Final = "fal's webhook reports it, nobody looks"
_UNSEEN: Final = (_REPORTED, "no webhook reports it, nobody looks: the sweep has to find it")


@dataclass(frozen=True, slots=True)
class _View:
    """What one viewer saw."""

    status: int
    cache_status: str
    first_byte: float
    seconds: float
    body: bytes
    upstream_requests: int

    @property
    def is_hit(self) -> bool:
        return "; hit" in self.cache_status


class _Viewer:
    """Views clips, and waits for them."""

    def __init__(self, client: aiohttp.ClientSession, stage: Stage, story: Story) -> None:
        self.stage = stage
        self._story = story
        self._client = client

    async def view(self, clip: DemoClip) -> _View:
        """View a whole clip, and wait until that is told: the last byte comes a moment before."""
        chapter = self._story.chapters[clip.request_id]
        told = len(chapter.replies)
        seen = await self._view(clip)

        async def is_told() -> bool:
            return len(chapter.replies) > told

        await _until(is_told, _TOLD_WITHIN)
        return seen

    async def _view(self, clip: DemoClip) -> _View:
        before, started = self.stage.source.requests, time.perf_counter()
        async with self._client.get(self.stage.url(clip)) as response:
            body = await response.content.readany()
            first_byte = time.perf_counter() - started
            body += await response.content.read()
            return _View(
                response.status,
                response.headers.get("Cache-Status", ""),
                first_byte,
                time.perf_counter() - started,
                body,
                self.stage.source.requests - before,
            )

    async def until_stored(self, clip: DemoClip) -> None:
        """The last byte reaches a viewer a moment before the clip is verified and stored.

        And the catalog knows of it a moment before that is told.
        """
        app = self.stage.app

        async def is_stored() -> bool:
            row = await app.generations.get(clip.request_id)
            under_way = clip.request_id in app.ownership or app.flights.get(clip.request_id)
            return row is not None and bool(row.mirrored_at) and not under_way

        await _until(is_stored, _STORED_WITHIN)


async def _until(is_so: Callable[[], Awaitable[bool]], within: float) -> None:
    """Wait until it is so, for so many seconds at most; what is printed next shows if it was."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if await is_so():
            return
        await asyncio.sleep(_LOOK_EVERY)


async def run_once(console: Console, stage: Stage, story: Story, options: Options) -> int:
    """Let a clip come in by each of the three ways; 0 if every later view was a hit, else 1."""
    good = True
    try:
        async with aiohttp.ClientSession(auto_decompress=False, trust_env=False) as client:
            viewer = _Viewer(client, stage, story)
            good &= await _watch_twice(console, viewer, options)
            for clip, way in zip(stage.studio.clips, _UNSEEN, strict=False):
                console.print(f"\nhaving {clip.title} generated; {way}")
                good &= await _come_in_unseen(console, viewer, clip, reported=way == _REPORTED)
    except aiohttp.ClientError as error:
        console.print(f"a view failed: {error}", style="red")
        return 1
    return 0 if good else 1


async def _watch_twice(console: Console, viewer: _Viewer, options: Options) -> bool:
    """View one clip, wait until it is owned, view it again; whether that was a hit."""
    clip = CLIPS[0]
    console.print(
        f"viewing {viewer.stage.url(clip)} twice;"
        f" the source gives {options.speed}, {size(len(clip.data))} in all"
    )
    first = await viewer.view(clip)
    await viewer.until_stored(clip)
    second = await viewer.view(clip)
    _print_views(console, first, second)
    return _judge(console, clip, second, "second", right=first.body == clip.data)


async def _come_in_unseen(
    console: Console, viewer: _Viewer, clip: DemoClip, *, reported: bool
) -> bool:
    """Have a clip generated, wait until it is owned, view it; whether that was a hit."""
    await viewer.stage.studio.generate(clip, reported=reported)
    await viewer.until_stored(clip)
    return _judge(console, clip, await viewer.view(clip), "first")


def _judge(
    console: Console, clip: DemoClip, view: _View, ordinal: str, *, right: bool = True
) -> bool:
    right &= view.body == clip.data
    good = right and view.is_hit and not view.upstream_requests
    if not right:
        console.print("the bytes are not those of the source", style="bold red")
    elif good:
        console.print(
            f"the {ordinal} view came from the owned bucket, {len(view.body):,} bytes,"
            " identical to the source's",
            style="bold green",
        )
    else:
        console.print(f"the {ordinal} view was not a hit", style="bold red")
    return good


def _print_views(console: Console, first: _View, second: _View) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for heading in ("", "first view", "second view"):
        table.add_column(heading, overflow="fold")
    table.add_row("outcome", *("hit" if view.is_hit else "miss" for view in (first, second)))
    table.add_row("status", str(first.status), str(second.status))
    table.add_row("Cache-Status", first.cache_status, second.cache_status)
    table.add_row("first byte", *(f"{view.first_byte * 1000:.1f} ms" for view in (first, second)))
    table.add_row("whole clip", *(f"{view.seconds * 1000:.0f} ms" for view in (first, second)))
    table.add_row("bytes", *(f"{len(view.body):,}" for view in (first, second)))
    table.add_row("requests upstream", *(str(view.upstream_requests) for view in (first, second)))
    console.print(table)
