"""Running until told to stop: an event loop, and what signals mean to it.

Belongs here: SIGTERM and Ctrl-C, and how much is logged beside a report. Must not know: what runs,
or how it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import structlog
import uvloop

from proxy.cli import signals
from proxy.settings import Settings
from proxy.telemetry.log import configure

T = TypeVar("T")

_BY_SIGNAL: Final = 128
"""A process that a signal ended has this and the signal's number as its exit code, in shells."""
ECHO: Final = 0.1
"""Seconds within which a second SIGTERM is the first one again: `timeout` sends its own to the
process, and then to the whole group."""
_LAST_LINE: Final = 0.5
"""Seconds for the thread that writes the log."""
_SHOW_CURSOR: Final = "\x1b[?25h"

log = structlog.get_logger()


class Stop(asyncio.Event):
    """Set by the first SIGTERM or Ctrl-C; a second Ctrl-C ends the process at once.

    That is as safe as a power cut: what was in hand is taken over when its leases run out. A second
    SIGTERM sets `again`, for those who can end sooner and still in good order.
    """

    def __init__(self) -> None:
        """Nobody has said anything yet."""
        super().__init__()
        self.by: signal.Signals | None = None
        self.again = asyncio.Event()
        self._told_at = -math.inf
        self._patience: float | None = None
        self._watchdog: threading.Timer | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of whoever stopped before all was done."""
        return _BY_SIGNAL + (self.by or signal.SIGTERM)

    @property
    def drained(self) -> int:
        """The exit code of whoever is done when it is told to stop: 0, unless it had to hurry."""
        return self.exit_code if self.again.is_set() else 0

    def tell(self, by: signal.Signals) -> None:
        """Take a signal."""
        if by is signal.SIGTERM:
            before, self._told_at = self._told_at, time.monotonic()
            if self._told_at - before < ECHO:
                return
        if self.is_set() and by is signal.SIGINT:
            if sys.stderr.isatty():  # a progress bar may have hidden it
                os.write(sys.stderr.fileno(), f"{_SHOW_CURSOR}\n".encode())
            os._exit(_BY_SIGNAL + by)
        if self.is_set():
            self.again.set()
        elif self._patience is not None:
            self._watchdog = threading.Timer(self._patience, self._end_by_force)
            self._watchdog.daemon = True
            self._watchdog.start()
        self.by = self.by or by
        self.set()

    def end_within(self, seconds: float) -> None:
        """See that the process ends so long after it was told to, whatever holds it.

        By a thread: a disk or a database that hangs may hold the loop's end, or a thread's.
        """
        self._patience = seconds

    def _end_by_force(self) -> None:
        log.error("ended by force: it did not stop in time", seconds=self._patience)
        time.sleep(_LAST_LINE)
        os._exit(self.exit_code)

    def ended(self) -> None:
        """All is done: nobody has to see to it any more."""
        if self._watchdog is not None:
            self._watchdog.cancel()

    async def delay(self, seconds: float) -> None:
        """Wait until load balancers have noticed: nobody who typed Ctrl-C, or insists, waits."""
        if self.by is signal.SIGTERM:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.again.wait(), seconds)

    @contextlib.asynccontextmanager
    async def insisting(self, hurry: Callable[[], None]) -> AsyncIterator[None]:
        """Call `hurry` if a second SIGTERM comes within the block."""

        async def insisted() -> None:
            await self.again.wait()
            log.warning("told to stop again: what is not done is left to the next process")
            hurry()

        task = asyncio.create_task(insisted())
        try:
            yield
        finally:
            task.cancel()


async def either(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def log_no_less_than(level: str, settings: Settings) -> None:
    """Log only what is so severe, or what FIRSTVIEW_LOG_LEVEL says if somebody has set it."""
    chosen = settings.log_level if "log_level" in settings.model_fields_set else level
    configure(settings, level=chosen)


def until_stopped(work: Callable[[Stop], Awaitable[T]]) -> T:
    """Run `work` on an event loop of its own, and tell it when to stop; returns what it does."""
    stop = Stop()

    async def told() -> T:
        for by in (signal.SIGTERM, signal.SIGINT):
            signals.heed(by, partial(stop.tell, by))
        return await work(stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(told())
    finally:
        stop.ended()
