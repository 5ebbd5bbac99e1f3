"""Where things are kept: the catalog, the bucket, upstream, the local disk.

Belongs here: opening them and closing them in order. Must not know: what is done with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import aiohttp

from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.generations import Generations
from proxy.clock import Clock
from proxy.records import Seat
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket
from proxy.storage.disk_cache import DiskCache
from proxy.storage.open_files import OpenFiles
from proxy.storage.opening import open_bucket
from proxy.storage.quiet_threads import QuietThreads
from proxy.storage.shared import Shared
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.tracing import open_tracer
from proxy.upstream.fetch import Upstream

if TYPE_CHECKING:  # an optional extra
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

_SHARE = 2
"""Clips that are kept open take no more than one of so many descriptors from viewers."""
_DISK_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """All that outlives a request.

    `has_viewers` is False for a process that only works on jobs: it keeps no copies of clips.
    """

    settings: Settings
    clock: Clock
    metrics: Metrics
    tracer: Tracer | None
    seat: Seat
    has_viewers: bool
    executor: ThreadPoolExecutor
    behind: QuietThreads
    catalog: Catalog
    generations: Generations
    bucket: Bucket
    upstream: Upstream
    shared: Shared
    disk: DiskCache
    files: OpenFiles

    @property
    def spool_dir(self) -> Path:
        """Where all processes of this data directory have their clips on their way in."""
        return keys.spool_dir(self.settings.data_dir)


@contextlib.asynccontextmanager
async def open_places(
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    *,
    seat: Seat,
    has_viewers: bool,
    exporter: SpanExporter | None = None,
) -> AsyncIterator[Places]:
    """Open everything; raises SettingsError, CatalogError or BucketError if that is impossible."""
    descriptors = _raise_file_limit()
    async with contextlib.AsyncExitStack() as stack:
        tracer = await stack.enter_async_context(open_tracer(settings, exporter))
        executor = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="disk")
        stack.push_async_callback(asyncio.to_thread, executor.shutdown)
        behind = QuietThreads(executor)
        stack.push_async_callback(asyncio.to_thread, behind.shutdown)
        await asyncio.get_running_loop().run_in_executor(executor, _make, settings.data_dir)
        files = OpenFiles(min(settings.open_files, max(1, descriptors // _SHARE)))
        stack.callback(files.close)
        catalog = await open_catalog(
            keys.database_url(settings.database_url.get_secret_value(), settings.data_dir),
            times=metrics.catalog,
        )
        stack.push_async_callback(catalog.close)
        session = await stack.enter_async_context(_bucket_session(settings))
        bucket_url = keys.bucket_url(settings.bucket_url, settings.data_dir)
        bucket = await open_bucket(bucket_url, settings, session, metrics.retries)
        stack.push_async_callback(bucket.close)
        upstream = await stack.enter_async_context(
            Upstream(settings, clock=clock, shed=metrics.shed.labels("upstream_max_connections"))
        )
        run = keys.run_dir(settings.data_dir)
        shared = await asyncio.get_running_loop().run_in_executor(executor, Shared, run)
        stack.callback(shared.close)
        disk = DiskCache(
            keys.cache_dir(settings.data_dir),
            shared,
            max_bytes=settings.cache_max_bytes,
            keep_free=settings.disk_reserve,
            patience=settings.cache_room_wait,
            executor=executor,
            on_evict=files.drop,
            evictions=metrics.evictions,
        )
        await disk.start()
        stack.push_async_callback(disk.close)
        yield Places(
            settings=settings,
            clock=clock,
            metrics=metrics,
            tracer=tracer,
            seat=seat,
            has_viewers=has_viewers,
            executor=executor,
            behind=behind,
            catalog=catalog,
            generations=Generations(catalog, **of_new_rows(settings), clock=clock),
            bucket=bucket,
            upstream=upstream,
            shared=shared,
            disk=disk,
            files=files,
        )


class NewRows(TypedDict):
    """What the settings say of rows that are new to the catalog."""

    clip_url: Callable[[str], str]
    keep_prompts: bool
    expires_after: timedelta | None


def of_new_rows(settings: Settings) -> NewRows:
    """What whoever writes generations has to be told."""
    public, expires = settings.public_url.rstrip("/"), settings.upstream_expires_after
    return NewRows(
        clip_url=lambda request_id: f"{public}{keys.clip_path(request_id)}",
        keep_prompts=settings.keep_prompts,
        expires_after=None if expires is None else timedelta(seconds=expires),
    )


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


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)


def _raise_file_limit() -> int:
    """Every viewer and every open clip is a descriptor: take all that the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
