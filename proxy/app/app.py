"""One running firstview: an origin with its listeners, or a process that only works on jobs.

Belongs here: in what order the groups of parts start and stop. Must not know: what is in them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from proxy.app import data_dir
from proxy.app.corridor import Corridor, cancel, open_corridor
from proxy.app.doors import Doors
from proxy.app.figures import Crew, Figures
from proxy.app.grace import Grace
from proxy.app.health import Health, Stage, Supervised
from proxy.app.labour import Labour, open_labour
from proxy.app.leaving import Leaving
from proxy.app.listeners import Listening, Sockets, listen, listen_admin
from proxy.app.places import Places, open_places
from proxy.catalog.engine import Catalog
from proxy.catalog.generations import Generations
from proxy.clock import Clock
from proxy.delivery.flights import Flights
from proxy.delivery.locate import Locator
from proxy.delivery.own import Ownership
from proxy.jobs.runs import OnDone
from proxy.records import Seat
from proxy.settings import Settings
from proxy.storage.bucket import Bucket
from proxy.storage.disk_cache import DiskCache
from proxy.telemetry import lag
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.samples import Family
from proxy.upstream.fetch import Upstream

if TYPE_CHECKING:  # an optional extra
    from opentelemetry.sdk.trace.export import SpanExporter

ALONE: Final = Seat()
"""The seat of a process that has no others beside it."""

NO_SOCKETS: Final = Sockets()
"""What a process has that opens its addresses itself."""


class App:
    """One process: its parts, and the addresses it listens on."""

    def __init__(
        self,
        settings: Settings,
        *,
        seat: Seat = ALONE,
        sockets: Sockets = NO_SOCKETS,
        crew: Crew | None = None,
        supervised: Supervised | None = None,
        exporter: SpanExporter | None = None,
    ) -> None:
        """Take the settings; use `running`.

        A process that serves beside others is given its seat, the listening sockets that it shares
        with them, the way to what all of them have counted, and what it knows of its supervisor.
        `exporter`: where spans go, if not where the environment says.
        """
        self.settings = settings
        self.seat = seat
        self._sockets = sockets
        self._crew = crew
        self._exporter = exporter
        self.metrics = Metrics()
        self.clock = Clock()
        self._places: Places | None = None
        self._corridor: Corridor | None = None
        self._labour: Labour | None = None
        self._admin = contextlib.AsyncExitStack()
        self.admin_port = 0
        """Port of the admin listener, 0 without one."""
        self._grace = Grace(settings.drain_timeout, self.clock)
        self._health = Health(settings, self.clock, supervised)
        self.leaving = Leaving(self._health, self._grace, self.clock)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        """Start everything, and stop it in the opposite order. Raises what is misconfigured.

        The probes are answered from before the first viewer until after the last one.
        """
        async with contextlib.AsyncExitStack() as stack:
            works = self.settings.worker
            await self._open(stack, has_viewers=True, works=works, sweeps=works)
            await self._open_admin(stack)
            self.leaving.listening = await stack.enter_async_context(
                listen(
                    self.places,
                    self.corridor,
                    self.labour,
                    self._grace,
                    sockets=self._sockets.public,
                )
            )
            stack.callback(self._end)
            self._health.stage = Stage.SERVING
            yield self

    @contextlib.asynccontextmanager
    async def working(
        self, *, works: bool = True, sweeps: bool = True, on_done: OnDone | None = None
    ) -> AsyncIterator[App]:
        """Be a process without viewers; one that sweeps by itself has the admin listener too.

        `works`: jobs are claimed and done. `on_done` hears of every job that was run. Raises what
        is misconfigured.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack, has_viewers=False, works=works, sweeps=sweeps, on_done=on_done)
            if sweeps:
                await self._open_admin(stack)
            stack.callback(self._end)
            self._health.stage = Stage.SERVING
            yield self

    async def _open(
        self,
        stack: contextlib.AsyncExitStack,
        *,
        has_viewers: bool,
        works: bool,
        sweeps: bool,
        on_done: OnDone | None = None,
    ) -> None:
        lagging = asyncio.create_task(lag.watch(self.metrics.lag), name="event loop's lag")
        stack.push_async_callback(cancel, lagging)
        with data_dir.opened(self.settings.data_dir):
            self._places = await stack.enter_async_context(
                open_places(
                    self.settings,
                    self.clock,
                    self.metrics,
                    seat=self.seat,
                    has_viewers=has_viewers,
                    exporter=self._exporter,
                )
            )
            self._corridor = await stack.enter_async_context(
                open_corridor(self._places, self._grace)
            )
        self._labour = await stack.enter_async_context(
            open_labour(
                self._places,
                self._corridor,
                self._grace,
                works=works,
                sweeps=sweeps,
                on_done=on_done,
            )
        )
        self.leaving.take(self._corridor, self._labour)

    async def _open_admin(self, stack: contextlib.AsyncExitStack) -> None:
        self._health.watch(self.places, self.corridor)
        stack.callback(self._health.close)
        await stack.enter_async_context(self._admin)
        self.admin_port = await self._admin.enter_async_context(
            listen_admin(
                self.places,
                self.corridor,
                self.labour,
                self._health,
                sockets=self._sockets.admin,
                crew=self._crew,
            )
        )
        stack.push_async_callback(self.leaving.finish)

    async def close_admin(self) -> None:
        """Answer the owner no more: another process does, on the same socket."""
        await self._admin.aclose()

    def _end(self) -> None:
        self.leaving.announce()
        self._grace.begin()

    def take_longer(self, seconds: float) -> None:
        """Let replies and fills finish within so many seconds, not within the drain timeout."""
        self._grace.lengthen(seconds)

    def own_figures(self) -> list[Family]:
        """What this process alone has counted."""
        return self._figures.own()

    async def look(self) -> None:
        """Bring up to date what `own_figures` says and has to be asked for."""
        await self._figures.look_at_this_process()

    @property
    def _figures(self) -> Figures:
        return Figures(self.places, self.corridor, self.labour)

    # -- its parts ---

    @property
    def doors(self) -> Doors:
        """Where it accepts connections."""
        return self._public.doors

    @property
    def _public(self) -> Listening:
        if self.leaving.listening is None:
            raise AssertionError("the application has no public listener")
        return self.leaving.listening

    @property
    def places(self) -> Places:
        """Where things are kept."""
        if self._places is None:
            raise AssertionError("the application is not running")
        return self._places

    @property
    def corridor(self) -> Corridor:
        """What finds and fills clips."""
        if self._corridor is None:
            raise AssertionError("the application is not running")
        return self._corridor

    @property
    def labour(self) -> Labour:
        """What is done without a viewer."""
        if self._labour is None:
            raise AssertionError("the application is not running")
        return self._labour

    @property
    def public_port(self) -> int:
        """Port of the public listener."""
        return self._public.port

    @property
    def catalog(self) -> Catalog:
        """The open catalog."""
        return self.places.catalog

    @property
    def generations(self) -> Generations:
        """Its generations."""
        return self.places.generations

    @property
    def bucket(self) -> Bucket:
        """The owned bucket."""
        return self.places.bucket

    @property
    def upstream(self) -> Upstream:
        """Where clips come from."""
        return self.places.upstream

    @property
    def disk(self) -> DiskCache:
        """The disk cache."""
        return self.places.disk

    @property
    def flights(self) -> Flights:
        """Clips on their way in."""
        return self.corridor.flights

    @property
    def ownership(self) -> Ownership:
        """Clips between verified and stored."""
        return self.corridor.ownership

    @property
    def locator(self) -> Locator:
        """What finds clips."""
        return self.corridor.locator
