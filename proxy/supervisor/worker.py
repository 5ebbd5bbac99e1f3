"""One worker process, seen from the supervisor.

Belongs here: starting it, knowing when it serves, telling it to stop, noticing its end. Must not
know: the other workers, or what one does when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Sequence
from typing import Any, Final

import structlog

from proxy.errors import SettingsError, WorkerFailed
from proxy.supervisor.channel import Asked, Channel
from proxy.supervisor.orders import Orders
from proxy.supervisor.sockets import Sockets
from proxy.supervisor.totals import SAMPLES, Totals

READY: Final = "ready"
FAILED: Final = "failed"
LEAVING: Final = "leaving"
"""What a worker says: it serves; it cannot start, and why; it accepts no connections any more."""
PULSE: Final = "pulse"
"""What it is asked: whether its event loop still turns."""
STANDING: Final = "standing"
"""What it asks: how all of them stand; see `proxy.telemetry.health.Standing`."""
WISH: Final = "wish"
"""What else it says: somebody wants it to stop, who is not the supervisor."""
ACCEPT: Final = "accept"
LEAVE: Final = "leave"
REPLACED: Final = "replaced"
ANNOUNCE: Final = "announce"
STOP: Final = "stop"
HURRY: Final = "hurry"
"""What it is told: accept in another's place too; no longer; stop, there is time; all are going to
stop; stop within the drain timeout; stop now."""

PULSES: Final = 4
"""How often it is asked for a sign of life within the time that it has for one."""
_START_TIMEOUT: Final = 120.0
"""Seconds from a process's start until it serves, or until it is asked whether it lives: clips that
wait for the bucket are proven first, and they may be as many as the disk holds."""
_START_PATIENCE: Final = 20.0
"""Seconds that it has for an answer."""

log = structlog.get_logger()


class Worker:
    """A process. `place` is its own on the public address."""

    def __init__(self, number: int, place: int, totals: Totals) -> None:
        """Use `start`."""
        self.number = number
        self.place = place
        self.channel: Channel | None = None
        self.covers: set[int] = set()
        """Places of others that it accepts in until somebody is there again."""
        self.told_to_stop = False
        self.over: asyncio.Task[int] | None = None
        """Ends with the process, and has its exit code: below 0 the signal that killed it."""
        self._totals = totals
        self._process: asyncio.subprocess.Process | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leaving = asyncio.Event()
        self._wished = asyncio.Event()

    # -- its life ---

    async def start(self, command: Sequence[str], sockets: Sockets, of: int, asked: Asked) -> None:
        """Start it, and return when it serves; `asked` answers its questions.

        One that takes its time is waited for as long as it gives a sign of life: to kill it would
        make it begin anew, for ever. Raises SettingsError or WorkerFailed with its own words, or
        WorkerFailed if it had none.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            orders = Orders(
                number=self.number,
                of=of,
                place=self.place,
                channel=theirs.fileno(),
                public=tuple(tuple(one.fileno() for one in place) for place in sockets.public),
                admin=tuple(one.fileno() for one in sockets.admin),
            )
            self.channel = await Channel.opened(ours, told=self._told, asked=asked)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command, orders.written(), pass_fds=orders.descriptors
                )
            except BaseException:
                self.channel.close()
                raise
        self._totals.began(self)
        self.over = asyncio.create_task(self._live(), name=f"worker {self.number}")
        await self._serving()

    async def _serving(self) -> None:
        assert self.over is not None  # noqa: S101 - for mypy; `start` has begun it
        either: set[asyncio.Future[Any]] = {self._ready, self.over}
        while True:
            await asyncio.wait(either, timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if self._ready.done():
                return self._ready.result()
            if self.over.done():
                raise WorkerFailed(
                    f"a worker process {how_it_ended(self.over.result())} at its start"
                )
            if await self.hangs(_START_PATIENCE):
                self.signal(signal.SIGKILL)
                raise WorkerFailed(
                    f"a worker process hung at its start, for {_START_TIMEOUT:.0f} s"
                )
            log.info("worker is still starting", worker=self.number, pid=self.pid)

    async def _live(self) -> int:
        """Hear it out, and see it end: whatever it said last has been heard by then."""
        assert self._process is not None  # noqa: S101 - for mypy; `start` has made it
        assert self.channel is not None  # noqa: S101 - the same
        await self.channel.run()
        code = await self._process.wait()
        self._totals.ended(self)
        self._leaving.set()
        self._wished.set()
        return code

    @property
    def serves(self) -> bool:
        """Whether it has said that it is ready, and neither that it leaves nor ended."""
        return self.has_begun and not self._leaving.is_set()

    @property
    def has_begun(self) -> bool:
        """Whether it has ever said that it is ready; before that it answers nothing in time."""
        return self._ready.done() and self._ready.exception() is None

    @property
    def pid(self) -> int:
        """Process id; 0 before there is one."""
        return 0 if self._process is None else self._process.pid

    async def hangs(self, patience: float) -> bool:
        """Feel its pulse; True if there is none within so many seconds, False if it has ended.

        It is asked several times within them: should this process be the one that was stopped or
        had no turn, that costs one of them, and not the worker's life.
        """
        assert self.channel is not None  # noqa: S101 - for mypy; nobody asks before `start`
        for _ in range(PULSES):
            try:
                await self.channel.ask(PULSE, patience / PULSES)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            return False
        return True

    async def gone(self) -> None:
        """Wait until it accepts no more connections, because it stops or because it is dead."""
        await self._leaving.wait()

    async def wishes(self) -> bool:
        """Wait until somebody else wants it to stop; False if it ends before."""
        await self._wished.wait()
        return self.serves

    # -- what is said ---

    def _told(self, what: str, body: Any) -> None:  # noqa: ANN401 - any JSON
        if what == SAMPLES:
            self._totals.said(self, body)
        elif what == LEAVING:
            self._leaving.set()
        elif what == WISH:
            self._wished.set()
        elif what == READY and not self._ready.done():
            self._ready.set_result(None)
        elif what == FAILED and not self._ready.done():
            kind = SettingsError if body["settings"] else WorkerFailed
            self._ready.set_exception(kind(body["detail"]))

    def cover(self, place: int) -> None:
        """Let it accept in another's place as well."""
        self.covers.add(place)
        self._tell(ACCEPT, place)

    def uncover(self, place: int) -> None:
        """Leave that place to its own worker again."""
        self.covers.discard(place)
        self._tell(LEAVE, place)

    def replaced(self) -> None:
        """Let it end when its replies have; another has its place."""
        self.told_to_stop = True
        self._tell(REPLACED)

    def announce(self) -> None:
        """Let it tell everybody that it is going to stop."""
        self._tell(ANNOUNCE)

    def stop(self) -> None:
        """Let it end within the drain timeout.

        A signal may also come from elsewhere, to all processes at once, and long before its time:
        one that has started heeds what it is told here, and no signal.
        """
        self.told_to_stop = True
        self._tell(STOP)
        if not self._ready.done():
            self.signal(signal.SIGTERM)

    def hurry(self) -> None:
        """Let it end now, in good order."""
        self._tell(HURRY)

    def _tell(self, what: str, body: object = None) -> None:
        if self.channel is not None:
            self.channel.tell(what, body)

    def signal(self, which: signal.Signals) -> None:
        """Send it a signal, if it still is there."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(which)


def how_it_ended(code: int) -> str:
    """Words for an exit code."""
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
