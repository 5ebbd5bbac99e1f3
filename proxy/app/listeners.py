"""The listeners: the public one, and the owner's.

Belongs here: what is behind each address, and opening and closing the sockets. Must not know: how
anything is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from aiohttp import web

from proxy.app.corridor import Corridor
from proxy.app.gauges import gauges_of
from proxy.app.grace import Grace
from proxy.app.labour import Labour
from proxy.app.places import Places
from proxy.catalog.search import Search
from proxy.delivery.send import Sender
from proxy.errors import SettingsError
from proxy.security.jwks import Signers
from proxy.upstream.allowlist import Policy, check_url
from proxy.upstream.fal_jwks import FalJwks
from proxy.web.admin import Admin
from proxy.web.connection import Listener
from proxy.web.public import Public
from proxy.web.videos import Videos
from proxy.web.webhooks import Webhooks

_BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the listeners are; 0: not listening."""

    public: int = 0
    admin: int = 0


@contextlib.asynccontextmanager
async def listen(
    places: Places, corridor: Corridor, labour: Labour, grace: Grace
) -> AsyncIterator[Ports]:
    """Open both listeners; the public one lets its replies finish at the end.

    Raises SettingsError for an address that cannot be had.
    """
    settings, metrics = places.settings, places.metrics
    async with contextlib.AsyncExitStack() as stack:
        sender = Sender(settings, places.clock, metrics)
        videos = Videos(settings, corridor.locator, sender, metrics)
        webhooks = await stack.enter_async_context(_open_webhooks(places, corridor, labour))
        listener = Listener(Public(videos, webhooks, metrics), settings, metrics)
        stack.push_async_callback(lambda: listener.shutdown(grace.left))
        host, port = settings.listen_address
        loop = asyncio.get_running_loop()
        with _naming("FIRSTVIEW_LISTEN", settings.listen):
            server = await loop.create_server(listener, host, port, backlog=_BACKLOG)
        stack.callback(server.close)
        public = server.sockets[0].getsockname()[1]
        admin = await stack.enter_async_context(listen_admin(places, corridor, labour))
        yield Ports(public, admin)


@contextlib.asynccontextmanager
async def _open_webhooks(
    places: Places, corridor: Corridor, labour: Labour
) -> AsyncIterator[Webhooks]:
    settings, clock = places.settings, places.clock

    def heard(request_id: str) -> None:
        corridor.locator.refresh(request_id)
        labour.worker.wake()

    policy = Policy.of(settings.upstream_hosts, insecure=settings.upstream_allow_insecure)
    async with FalJwks(settings) as jwks:
        signers = Signers(settings, jwks.fetch, clock)
        try:
            yield Webhooks(
                settings,
                signers=signers,
                notices=labour.notices,
                check=lambda url: check_url(url, policy),
                heard=heard,
                metrics=places.metrics,
                clock=clock,
            )
        finally:
            await signers.close()


@contextlib.asynccontextmanager
async def listen_admin(places: Places, corridor: Corridor, labour: Labour) -> AsyncIterator[int]:
    """Open the admin listener; gives its port. Raises SettingsError as `listen` does."""
    settings = places.settings
    policy = Policy.of(settings.upstream_hosts, insecure=settings.upstream_allow_insecure)
    admin = Admin(
        settings,
        generations=places.generations,
        search=Search(places.catalog),
        jobs=labour.jobs,
        locator=corridor.locator,
        metrics=places.metrics,
        clock=places.clock,
        refresh=gauges_of(places, corridor, labour),
        ready=places.catalog.ping,  # hits need no catalog; everything else does
        allowed=lambda url: check_url(url, policy),
        wake=labour.worker.wake,
    )
    runner = web.AppRunner(admin.app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, *settings.admin_address)
        with _naming("FIRSTVIEW_ADMIN_LISTEN", settings.admin_listen):
            await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def _naming(setting: str, address: str) -> Iterator[None]:
    """Say in one sentence which address cannot be had: mostly it is another process's."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror  # names that are not found
        hint = "; every process needs one of its own" if number == errno.EADDRINUSE else ""
        raise SettingsError(f"{setting}: cannot listen on {address}: {why}{hint}") from error
