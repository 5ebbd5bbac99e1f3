"""The supervisor: so many workers on one address, whatever happens to any of them.

Belongs here: when a worker is started, replaced and stopped. Must not know: what a worker does.

It holds every listening socket, so a connection that waits where a worker has died is accepted by
another. It keeps no clip and no request; when it is killed itself, the workers see their channels
end, and stop.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

import structlog

from proxy.clock import Clock
from proxy.errors import FirstviewError, SettingsError, WorkerFailed
from proxy.settings import Settings
from proxy.supervisor.backoff import Deaths
from proxy.supervisor.crew import Crew, Former
from proxy.supervisor.sockets import Sockets
from proxy.supervisor.worker import PULSES, Worker, how_it_ended
from proxy.telemetry.metrics import Metrics

MARGIN: Final = 20.0
"""Seconds beyond the drain timeout after which a process that is to stop is ended by force."""

log = structlog.get_logger()


class Supervisor:
    """Keeps a worker in each place of the sockets."""

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        command: Sequence[str],
        clock: Clock,
        *,
        former: Former | None = None,
    ) -> None:
        """Take the sockets, and the command that starts a worker; see `Crew` for `former`."""
        self._drain_delay = settings.drain_delay
        self._drain_timeout = settings.drain_timeout
        self._patience = settings.worker_timeout
        self._metrics = Metrics()
        self._crew = Crew(sockets, command, self._metrics, former)
        self._places = range(len(sockets.public))
        self._deaths = [Deaths(clock) for _ in self._places]
        self._locks = [asyncio.Lock() for _ in self._places]
        self._tasks: set[asyncio.Task[object]] = set()
        self._reload = asyncio.Event()

    async def run(
        self,
        stop: asyncio.Event,
        ready: Callable[[], None],
        delay: Callable[[float], Awaitable[None]],
    ) -> None:
        """Start all workers, keep them until `stop` is set, and let them end.

        `ready` is called once all serve; `delay` waits for so many seconds, or for fewer. Raises
        SettingsError or WorkerFailed, in the words of the first worker that cannot start.
        """
        work, stopped = self._go(self._work(ready)), self._go(stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif self._crew.serving:
                await self._announce(delay)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._crew.dismiss(self._drain_timeout + MARGIN)

    async def _announce(self, delay: Callable[[float], Awaitable[None]]) -> None:
        """Let everybody notice. All still serve, and whoever dies meanwhile is replaced."""
        log.info(
            "stopping all workers",
            drain_delay=self._drain_delay,
            drain_timeout=self._drain_timeout,
        )
        self._crew.announce()
        await delay(self._drain_delay)

    async def _work(self, ready: Callable[[], None]) -> None:
        await self._hire(0)  # alone: what is wrong for all of them is said once
        await asyncio.gather(*[self._go(self._hire(place)) for place in self._places[1:]])
        ready()
        while True:
            await self._reload.wait()
            self._reload.clear()
            if await self._replace_these(self._places):
                log.info("reloaded")

    def reload(self) -> None:
        """Replace all workers, one after the other, by new ones that read the settings anew."""
        self._reload.set()

    def hurry(self) -> None:
        """Let nothing finish that takes its time."""
        self._crew.hurry()

    # -- one place ---

    async def _hire(self, place: int) -> None:
        self._deaths[place].begin()
        worker = await self._crew.hire(place)
        self._go(self._watch(worker))
        self._go(self._feel(worker))
        self._go(self._heed(worker))

    async def _watch(self, worker: Worker) -> None:
        """See that a worker which is gone without having been told to is replaced."""
        await worker.gone()
        if worker.told_to_stop:
            return
        worker.told_to_stop = True
        self._crew.arrange()
        if worker.over is not None and worker.over.done():
            self._metrics.worker_deaths.inc()
            why = how_it_ended(worker.over.result())
            log.error("worker died", worker=worker.number, pid=worker.pid, why=why)
        await self._fill(worker.place)

    async def _heed(self, worker: Worker) -> None:
        """Replace a worker that somebody else has sent a SIGTERM to."""
        if await worker.wishes() and not worker.told_to_stop:
            log.info("worker was told to stop: replacing it", worker=worker.number)
            await self._replace_these([worker.place])

    async def _feel(self, worker: Worker) -> None:
        """Kill a worker that does nothing any more: connections would wait for it for ever."""
        while worker in self._crew.living:
            if await worker.hangs(self._patience):
                log.error("worker hangs: killed", worker=worker.number, pid=worker.pid)
                worker.signal(signal.SIGKILL)
                return
            await asyncio.sleep(self._patience / PULSES)

    async def _fill(self, place: int) -> None:
        """Put somebody into a place, however long that takes."""
        while not await self._filled(place):
            pass

    async def _filled(self, place: int) -> bool:
        """Try once; True if somebody is there."""
        await asyncio.sleep(self._deaths[place].pause())
        async with self._locks[place]:
            if self._crew.at[place] in self._crew.serving:  # a reload was first
                return True
            try:
                await self._hire(place)
            except (SettingsError, WorkerFailed, OSError) as error:
                why = str(error)
                self._metrics.worker_deaths.inc()  # or a place that stays empty is nobody's to see
                log.error("no worker could be started", place=place, why=why)  # noqa: TRY400
                return False
        return True

    # -- replacing ---

    async def _replace_these(self, places: Iterable[int]) -> bool:
        """One after the other; False if that was not possible, and the old ones go on."""
        try:
            for place in places:
                await self._replace(place)
        except (SettingsError, WorkerFailed, OSError) as error:
            log.error("not reloaded: the old workers go on", why=str(error))  # noqa: TRY400
            return False
        return True

    async def _replace(self, place: int) -> None:
        """Start another, which accepts in the same place, before the present one stops to."""
        await self._crew.room()
        async with self._locks[place]:
            old = self._crew.at[place]
            await self._hire(place)
            if old is not None:
                old.replaced()

    def _go(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, FirstviewError):  # those are told
            log.error("the supervisor gave something up", exc_info=error)
