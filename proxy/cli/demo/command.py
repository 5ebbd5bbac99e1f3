"""`firstview demo`: run everything on one machine, and tell what happens.

Belongs here: the two ways to run it, the signals that end it, and what is printed around the story.
Must not know: how the parts are put together (`stage.py`), or what an event means (`story.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

import uvloop
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.text import Text

from proxy.cli.demo.clips import CLIPS
from proxy.cli.demo.once import run_once
from proxy.cli.demo.ports import HOST
from proxy.cli.demo.stage import (
    ADMIN_TOKEN,
    HURRIED,
    LEISURELY,
    WEBHOOK_PATH,
    Options,
    Stage,
    open_stage,
)
from proxy.cli.demo.story import Story
from proxy.errors import SettingsError
from proxy.settings import Seconds, Size
from proxy.storage import keys


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
    async with open_stage(options, story, HURRIED if once else LEISURELY) as stage:
        for sentence in stage.ports.moved:
            console.print(sentence, style="yellow")
        if not once:
            _print_intro(console, stage, story, options)
            await _unless(stop, _show(stage))
            console.print("\nstopping", style="dim")
            return 0
        return await _unless(stop, run_once(console, stage, story, options))


async def _show(stage: Stage) -> int:
    """Let the application have its clips generated, and go on until told to stop."""
    await stage.studio.run()
    await asyncio.Event().wait()
    return 0


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
            " · a proxy, a bucket and a fake fal; nothing leaves this machine\n",
        )
    )
    page = (f"http://{HOST}:{ports.page}/", "bold underline cyan")
    _print_row(console, "open", Text.assemble(page, "  play a clip, watch others come in"))
    for number, clip in enumerate(CLIPS):
        owned = ", owned already" if story.chapters[clip.request_id].owned else ""
        link = Text(stage.url(clip)).append(f"  {clip.name}{owned}", "dim")
        _print_row(console, "" if number else "clips", link)
    admin = f"http://{HOST}:{ports.admin}"
    _print_row(console, "webhooks", f"{stage.public_url}{WEBHOOK_PATH}")
    _print_row(console, "metrics", f"{admin}/metrics")
    _print_row(console, "API", f"{admin}/api/v1/  Authorization: Bearer {ADMIN_TOKEN}")
    _print_row(console, "bucket", str(stage.data_dir / "bucket" / keys.VIDEOS_PREFIX))
    away = f"{options.latency * 1000:.0f} ms away"
    _print_row(console, "fal.media", f"http://{HOST}:{ports.fal}/  a fake: {options.speed}, {away}")
    _print_row(console, "try twice", f"curl -sD- -o /dev/null {stage.url(CLIPS[-1])}")
    search = f"FIRSTVIEW_DATA_DIR={stage.data_dir} {sys.argv[0]} catalog search"
    _print_row(console, "search", search)
    _print_row(console, "end", "Ctrl-C\n")


def _print_row(console: Console, label: str, value: str | Text) -> None:
    """Print a line that is not folded, however narrow the terminal: links stay links."""
    console.print(Text.assemble((f"  {label:<9}  ", "bold"), value), soft_wrap=True)
