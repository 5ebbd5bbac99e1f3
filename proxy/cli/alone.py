"""One process that serves alone, until SIGHUP makes it the supervisor of its successor.

Belongs here: changing places without a gap. Must not know: how anything is served, or how a
supervisor keeps its workers.

Whoever started this process knows it by its id, so it cannot simply be replaced by another. It
starts one that accepts on the same sockets, lets its own viewers finish, and is a supervisor from
then on, which replaces that one in turn.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

import structlog

from proxy.app import App
from proxy.app.listeners import Sockets as Listened
from proxy.cli import signals
from proxy.cli.running import Stop, either
from proxy.clock import Clock
from proxy.errors import FirstviewError
from proxy.settings import Settings
from proxy.supervisor.sockets import Sockets
from proxy.supervisor.supervisor import Supervisor
from proxy.telemetry.of_processes import without_vitals
from proxy.telemetry.samples import Family, counted

log = structlog.get_logger()


class Alone:
    """`command` starts a worker, once there is a reason to."""

    def __init__(
        self, settings: Settings, sockets: Sockets, command: Sequence[str], stop: Stop
    ) -> None:
        """Take the sockets, which stay the caller's."""
        self._settings = settings
        self._sockets = sockets
        self._command = command
        self._stop = stop
        self._reload = asyncio.Event()
        self._supervisor: Supervisor | None = None
        self._supervising: asyncio.Task[None] | None = None
        self._shortening: asyncio.Task[None] | None = None
        self._last_word: list[Family] | None = None

    async def run(self, serving: Callable[[], None]) -> None:
        """Serve until told to stop; `serving` is called once it does. Raises FirstviewError."""
        signals.heed(signal.SIGHUP, self._told_to_reload)
        listened = Listened(self._sockets.public[0], self._sockets.admin)
        app = App(self._settings, sockets=listened)
        async with self._stop.insisting(lambda: self._hurry(app)):
            async with app.running():
                serving()
                await self._until_replaced(app)
                if self._supervising is None:
                    await self._stop_serving(app)
                else:
                    await self._make_way(app)
            self._last_word = counted(without_vitals(app.own_figures()))
            if self._shortening is not None:
                self._shortening.cancel()
            if self._supervising is not None:
                await self._supervising

    def _told_to_reload(self) -> None:
        if self._supervisor is not None:
            self._supervisor.reload()
        else:
            self._reload.set()

    def _hurry(self, app: App) -> None:
        app.leaving.hurry()
        if self._supervisor is not None:
            self._supervisor.hurry()

    # -- from one process to two ---

    async def _until_replaced(self, app: App) -> None:
        """Return when told to stop, or when a worker accepts beside this process."""
        while not self._stop.is_set() and self._supervising is None:
            await either(self._stop, self._reload)
            if not self._stop.is_set():
                self._reload.clear()
                await self._start_another(app)

    async def _start_another(self, app: App) -> None:
        ready = asyncio.Event()
        supervisor = Supervisor(
            self._settings,
            self._sockets.copied(),
            self._command,
            Clock(),
            former=lambda: self._counted_before(app),
        )
        run = supervisor.run(self._stop, ready.set, self._stop.delay)
        supervising = asyncio.create_task(run, name="supervisor")
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({supervising, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if ready.is_set():
            self._supervisor, self._supervising = supervisor, supervising
            if self._reload.is_set():  # since this one read the settings they may have changed
                supervisor.reload()
            return
        try:
            await supervising
        except (FirstviewError, OSError) as error:
            log.error("not reloaded: the old process goes on", why=str(error))  # noqa: TRY400

    async def _counted_before(self, app: App) -> list[Family]:
        if self._last_word is not None:
            return self._last_word
        return without_vitals(app.own_figures())  # of this very process the supervisor tells them

    # -- the end of this one's own viewers ---

    async def _stop_serving(self, app: App) -> None:
        log.info(
            "stopping",
            drain_delay=self._settings.drain_delay,
            drain_timeout=self._settings.drain_timeout,
        )
        app.leaving.announce()
        await self._stop.delay(self._settings.drain_delay)
        app.doors.close()
        self._sockets.close()
        await app.leaving.quiet(replaced=False)

    async def _make_way(self, app: App) -> None:
        """Accept no more, here: the worker does. Its supervisor has sockets of its own."""
        app.metrics.workers.set(0)
        app.take_longer(self._settings.replace_timeout)
        app.leaving.announce()
        app.doors.close()
        self._sockets.close()
        await app.close_admin()
        log.info("reloaded")
        self._shortening = asyncio.create_task(self._shorten(app))
        await app.leaving.quiet(replaced=True)

    async def _shorten(self, app: App) -> None:
        """Once all is to stop its viewers have no more time than those of the worker."""
        await self._stop.wait()
        await asyncio.sleep(self._settings.drain_delay + self._settings.drain_timeout)
        app.leaving.hurry()
