"""The application: builds every part, opens the listeners, and closes all of it in order.

Belongs here: which part gets which, and in what order they start and stop. Must not know: what
any of them does.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.clock import Clock
from proxy.delivery.candidates import Candidates
from proxy.delivery.fill import Fills
from proxy.delivery.flights import Flights
from proxy.delivery.locate import Locator
from proxy.delivery.near import Near
from proxy.delivery.own import Ownership
from proxy.delivery.remembered import Remembered
from proxy.delivery.send import Sender
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.disk_cache import DiskCache
from proxy.storage.open_files import OpenFiles
from proxy.storage.opening import open_bucket
from proxy.telemetry.metrics import Metrics
from proxy.upstream.allowlist import Policy, check_url
from proxy.upstream.fetch import Upstream
from proxy.web.admin import Admin
from proxy.web.connection import Listener
from proxy.web.public import Public
from proxy.web.videos import Videos

_DISK_THREADS = 8
_BACKLOG = 4096

log = structlog.get_logger()


class App:
    """One running firstview: its parts, and the addresses it listens on."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; use `running`."""
        self.settings = settings
        self.metrics = Metrics()
        self.clock = Clock()
        self.files = OpenFiles(settings.open_files)
        self.flights = Flights(settings.max_fills)
        self.public_port = 0
        self.admin_port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        """Start everything, and stop it in the opposite order. Raises what is misconfigured."""
        async with contextlib.AsyncExitStack() as stack:
            await self._open_places(stack)
            await self._open_corridor(stack)
            await self._listen(stack)
            yield self

    async def _open_places(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        _raise_file_limit()
        self._executor = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk")
        stack.push_async_callback(asyncio.to_thread, self._executor.shutdown)
        await asyncio.get_running_loop().run_in_executor(self._executor, _make, settings.data_dir)
        stack.callback(self.files.close)
        url = keys.database_url(settings.database_url.get_secret_value(), settings.data_dir)
        self.catalog = await open_catalog(url)
        stack.push_async_callback(self.catalog.close)
        public = settings.public_url.rstrip("/")
        self.generations = Generations(
            self.catalog, clip_url=lambda name: f"{public}{keys.clip_path(name)}", clock=self.clock
        )
        session = await stack.enter_async_context(_bucket_session(settings))
        bucket_url = keys.bucket_url(settings.bucket_url, settings.data_dir)
        self.bucket = await open_bucket(bucket_url, settings, session)
        stack.push_async_callback(self.bucket.close)
        self.upstream = await stack.enter_async_context(Upstream(settings, clock=self.clock))
        self.disk = DiskCache(
            keys.cache_dir(settings.data_dir),
            max_bytes=settings.cache_max_bytes,
            keep_free=settings.disk_reserve,
            executor=self._executor,
            on_evict=self.files.drop,
            evictions=self.metrics.evictions,
        )
        await self.disk.load()

    async def _open_corridor(self, stack: contextlib.AsyncExitStack) -> None:
        settings, spool_dir = self.settings, keys.spool_dir(self.settings.data_dir)
        self.ownership = Ownership(
            settings,
            bucket=self.bucket,
            rows=self.generations,
            disk=self.disk,
            files=self.files,
            spool_dir=spool_dir,
            executor=self._executor,
            clock=self.clock,
            metrics=self.metrics,
        )
        await self.ownership.load()
        stack.push_async_callback(self.ownership.close)
        fills = Fills(
            settings,
            spool_dir=spool_dir,
            disk=self.disk,
            owner=self.ownership,
            executor=self._executor,
            clock=self.clock,
            metrics=self.metrics,
        )
        rows = Remembered(settings, self.generations, self.clock, self.metrics)
        self.locator = Locator(
            settings,
            near=Near(self.bucket, self.disk, self.files, self.ownership),
            rows=rows,
            candidates=Candidates(settings, self.bucket, self.upstream, self.clock, self.metrics),
            flights=self.flights,
            fills=fills,
        )
        self.ownership.on_stored = rows.stored
        stack.push_async_callback(self.flights.drain, settings.drain_timeout)
        retries = asyncio.create_task(self.ownership.run(), name="kept clips")
        stack.push_async_callback(_cancel, retries)

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        sender = Sender(settings, self.clock, self.metrics)
        videos = Videos(settings, self.locator, sender, self.metrics)
        listener = Listener(Public(videos, self.metrics), settings, self.metrics)
        stack.push_async_callback(listener.shutdown, settings.drain_timeout)
        host, port = settings.listen_address
        loop = asyncio.get_running_loop()
        server = await loop.create_server(listener, host, port, backlog=_BACKLOG)
        self.public_port = server.sockets[0].getsockname()[1]
        stack.callback(server.close)

        policy = Policy.of(settings.upstream_hosts, insecure=settings.upstream_allow_insecure)
        admin = Admin(
            settings,
            generations=self.generations,
            locator=self.locator,
            metrics=self.metrics,
            refresh=self._refresh_gauges,
            ready=self._check_ready,
            allowed=lambda url: check_url(url, policy),
        )
        runner = web.AppRunner(admin.app(), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, *settings.admin_address)
        await site.start()
        self.admin_port = runner.addresses[0][1]

    def _refresh_gauges(self) -> None:
        self.metrics.fills_in_flight.set(len(self.flights))
        self.metrics.kept.set(len(self.ownership))
        self.metrics.cached_clips.set(len(self.disk))
        self.metrics.disk_used.set(self.disk.used)

    async def _check_ready(self) -> None:
        """Hits need no catalog; everything else does. Raises CatalogUnavailable."""
        await self.catalog.ping()


@contextlib.asynccontextmanager
async def _bucket_session(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        read_bufsize=int(settings.upstream_read_buffer),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.bucket_connect_timeout),
    ) as session:
        yield session


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)


def _raise_file_limit() -> None:
    """Every viewer and every open clip is a descriptor: take all that the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
