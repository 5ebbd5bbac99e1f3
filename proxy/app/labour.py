"""Labour: what is done without a viewer: jobs, their worker, the sweep that files them.

Belongs here: which part gets which, and what runs in which kind of process. Must not know: what any
of them does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from proxy.app.corridor import Corridor, cancel
from proxy.app.grace import Grace
from proxy.app.places import Places, of_new_rows
from proxy.catalog.jobs import Jobs
from proxy.catalog.leases import Leases
from proxy.catalog.notices import Notices
from proxy.catalog.sweeping import Sweeping
from proxy.jobs.check import Checker
from proxy.jobs.mirror import MirrorHandler
from proxy.jobs.resolve import Resolver
from proxy.jobs.runs import OnDone
from proxy.jobs.sweep import Sweeper
from proxy.jobs.turns import Turns
from proxy.jobs.upkeep import Upkeep
from proxy.jobs.worker import Worker
from proxy.records import JobKind
from proxy.upstream.allowlist import Policy, check_url
from proxy.upstream.fal_api import FalApi


@dataclass(frozen=True, slots=True, kw_only=True)
class Labour:
    """`worker` and `sweeper` run by themselves only if this process was told so."""

    jobs: Jobs
    notices: Notices
    resolver: Resolver
    worker: Worker
    sweeper: Sweeper


@contextlib.asynccontextmanager
async def open_labour(
    places: Places,
    corridor: Corridor,
    grace: Grace,
    *,
    works: bool,
    sweeps: bool,
    on_done: OnDone | None = None,
) -> AsyncIterator[Labour]:
    """Build it, and start what `works` and `sweeps` say; `on_done` hears of every job run."""
    settings, clock, metrics = places.settings, places.clock, places.metrics
    async with contextlib.AsyncExitStack() as stack:
        notices = Notices(
            places.catalog,
            **of_new_rows(settings),
            clock=clock,
            most=settings.webhook_batch,
            queue=settings.webhook_queue,
        )
        stack.push_async_callback(notices.close)
        api = await stack.enter_async_context(FalApi(settings, clock=clock))
        policy = Policy.of(settings.upstream_hosts, insecure=settings.upstream_allow_insecure)
        resolver = Resolver(
            api,
            notices=notices,
            generations=places.generations,
            check=lambda url: check_url(url, policy),
            settings=settings,
            clock=clock,
            metrics=metrics,
        )
        stack.push_async_callback(resolver.close)
        corridor.locator.resolves = resolver
        jobs = Jobs(places.catalog, clock=clock)
        owner = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        worker = Worker(
            jobs,
            {
                JobKind.MIRROR: MirrorHandler(corridor.mirrors, places.generations, jobs),
                JobKind.RESOLVE: resolver,
            },
            settings,
            clock=clock,
            metrics=metrics,
            owner=owner,
            on_done=on_done,
        )
        turns = Turns(Leases(places.catalog, clock=clock), owner=owner, length=settings.job_lease)
        sweeping = Sweeping(
            places.catalog, clock=clock, expires_after=of_new_rows(settings)["expires_after"]
        )
        sweeper = Sweeper(sweeping, places.bucket, turns, settings, clock=clock, metrics=metrics)
        if works:
            await stack.enter_async_context(_running(worker, grace))
        if sweeps:
            await stack.enter_async_context(_sweeping(places, corridor, sweeper, sweeping, turns))
        yield Labour(jobs=jobs, notices=notices, resolver=resolver, worker=worker, sweeper=sweeper)


@contextlib.asynccontextmanager
async def _sweeping(
    places: Places, corridor: Corridor, sweeper: Sweeper, sweeping: Sweeping, turns: Turns
) -> AsyncIterator[None]:
    """All that is done every so often: the sweep, the rolling check, this process's own upkeep."""
    settings, clock, metrics = places.settings, places.clock, places.metrics
    checker = Checker(
        sweeping,
        places.generations,
        places.bucket,
        turns,
        settings,
        clock=clock,
        metrics=metrics,
        doubt=corridor.locator.doubt,
    )
    upkeep = Upkeep(
        sweeping,
        places.disk,
        settings,
        clock=clock,
        metrics=metrics,
        retry_kept=corridor.ownership.storing.retry_now,
    )
    tasks = [
        asyncio.create_task(sweeper.run(), name="sweep"),
        asyncio.create_task(checker.run(), name="rolling check"),
        asyncio.create_task(upkeep.run(), name="upkeep"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            await cancel(task)


@contextlib.asynccontextmanager
async def _running(worker: Worker, grace: Grace) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.run(), name="worker")
    try:
        yield
    finally:
        await worker.close(grace.left)
        await task
