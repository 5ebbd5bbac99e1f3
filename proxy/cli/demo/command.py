"""`firstview demo`: run everything on one machine, and tell what happens.

Belongs here: the two ways to run it, the signals that end it, and what is printed around the story.
Must not know: how the parts are put together (`stage.py`), or what an event means (`story.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import uvloop
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.cli.demo.clips import CLIPS
from proxy.cli.demo.stage import HOST, Options, Stage, open_stage
from proxy.cli.demo.story import Story, size
from proxy.errors import SettingsError
from proxy.settings import Seconds, Size
from proxy.storage import keys

_STORED_WITHIN: Final = 10.0
_LOOK_EVERY: Final = 0.02


def read_rate(text: str) -> float:
    """Turn `1MiB/s` into bytes a second. Raises SettingsError."""
    try:
        return float(TypeAdapter(Size).validate_python(text.strip().removesuffix("/s")))
    except ValidationError as error:
        raise SettingsError(f"--speed: {text!r} is not a speed, such as 1MiB/s") from error


def read_seconds(text: str) -> float:
    """Turn `80ms` into seconds. Raises SettingsError."""
    try:
        return float(TypeAdapter(Seconds).validate_python(text))
    except ValidationError as error:
        raise SettingsError(f"--latency: {text!r} is not a time, such as 80ms") from error


def run(options: Options, *, once: bool) -> int:
    """Run the demo until it is told to stop, or `once`; returns the exit code.

    Raises SettingsError for options that cannot be used.
    """
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width; 80 columns would fold the tables
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(options, console, once=once))


async def _run(options: Options, console: Console, *, once: bool) -> int:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)

    def tell(line: Text) -> None:
        console.print(Text.assemble((time.strftime("%H:%M:%S  "), "dim"), line))

    story = Story(CLIPS, speed=options.speed, tell=tell)
    story.listen()
    async with open_stage(options, story) as stage:
        for sentence in stage.ports.moved:
            console.print(sentence, style="yellow")
        if not once:
            _print_intro(console, stage, story, options)
            await stop.wait()
            console.print("\nstopping", style="dim")
            return 0
        return await _unless(stop, _watch_twice(console, stage, options))


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, int]) -> int:
    """Do the work and return its exit code, or 1 when told to stop before it is done."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        return 1
    return working.result()


# --- until it is told to stop -------------------------------------------------------------------


def _print_intro(console: Console, stage: Stage, story: Story, options: Options) -> None:
    ports = stage.ports
    console.print(
        Text.assemble(
            ("firstview demo", "bold"),
            " · a proxy, a bucket and a fake fal.media; nothing leaves this machine\n",
        )
    )
    page = (f"http://{HOST}:{ports.page}/", "bold underline cyan")
    _print_row(console, "open", Text.assemble(page, "  play a clip, then view it again"))
    for number, (request_id, chapter) in enumerate(story.chapters.items()):
        owned = ", owned already" if chapter.owned else ""
        link = Text(_url(stage, request_id)).append(f"  {chapter.clip.name}{owned}", "dim")
        _print_row(console, "" if number else "clips", link)
    _print_row(console, "metrics", f"http://{HOST}:{ports.admin}/metrics")
    _print_row(console, "bucket", str(stage.data_dir / "bucket" / keys.VIDEOS_PREFIX))
    away = f"{options.latency * 1000:.0f} ms away"
    _print_row(console, "fal.media", f"http://{HOST}:{ports.fal}/  a fake: {options.speed}, {away}")
    _print_row(console, "try twice", f"curl -sD- -o /dev/null {_url(stage, CLIPS[-1].request_id)}")
    _print_row(console, "end", "Ctrl-C\n")


def _print_row(console: Console, label: str, value: str | Text) -> None:
    """Print a line that is not folded, however narrow the terminal: links stay links."""
    console.print(Text.assemble((f"  {label:<9}  ", "bold"), value), soft_wrap=True)


def _url(stage: Stage, request_id: str) -> str:
    return stage.public_url + keys.clip_path(request_id)


# --- once ---------------------------------------------------------------------------------------


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


async def _watch_twice(console: Console, stage: Stage, options: Options) -> int:
    """View one clip, wait until it is owned, view it again; 0 if that was a hit, else 1."""
    clip = CLIPS[0]
    url = _url(stage, clip.request_id)
    console.print(
        f"viewing {url} twice; the source gives {options.speed}, {size(len(clip.data))} in all"
    )
    try:
        async with aiohttp.ClientSession(auto_decompress=False, trust_env=False) as client:
            first = await _view(client, stage, url)
            await _until_stored(stage, clip.request_id)
            second = await _view(client, stage, url)
    except aiohttp.ClientError as error:
        console.print(f"a view failed: {error}", style="red")
        return 1
    _print_views(console, first, second)
    right = first.body == second.body == clip.data
    good = second.is_hit and not second.upstream_requests and right
    if not right:
        console.print("the bytes are not those of the source", style="bold red")
    elif good:
        console.print(
            f"the second view came from the owned bucket, {len(second.body):,} bytes,"
            " identical to the source's",
            style="bold green",
        )
    else:
        console.print("the second view was not a hit", style="bold red")
    return 0 if good else 1


async def _view(client: aiohttp.ClientSession, stage: Stage, url: str) -> _View:
    before, started = stage.source.requests, time.perf_counter()
    async with client.get(url) as response:
        body = await response.content.readany()
        first_byte = time.perf_counter() - started
        body += await response.content.read()
        return _View(
            response.status,
            response.headers.get("Cache-Status", ""),
            first_byte,
            time.perf_counter() - started,
            body,
            stage.source.requests - before,
        )


async def _until_stored(stage: Stage, request_id: str) -> None:
    """The last byte reaches a viewer a moment before the clip is verified and stored."""
    end = time.monotonic() + _STORED_WITHIN
    while time.monotonic() < end:
        row = await stage.app.generations.get(request_id)
        if row is not None and row.mirrored_at and stage.app.flights.get(request_id) is None:
            return
        await asyncio.sleep(_LOOK_EVERY)


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
