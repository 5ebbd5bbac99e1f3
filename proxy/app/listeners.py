"""The listeners: the public one, and the owner's.

Belongs here: what is behind each address, and opening and closing the sockets. Must not know: how
anything is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import web

from proxy.app.corridor import Corridor
from proxy.app.doors import OWN_DOOR, Doors
from proxy.app.figures import Crew, Figures
from proxy.app.grace import Grace
from proxy.app.health import Health
from proxy.app.labour import Labour
from proxy.app.places import Places
from proxy.catalog.search import Search
from proxy.delivery.send import Sender
from proxy.errors import cannot_listen
from proxy.security.jwks import Signers
from proxy.security.links import Links
from proxy.upstream.allowlist import Policy, check_url
from proxy.upstream.fal_jwks import FalJwks
from proxy.web.access import Access
from proxy.web.admin import Admin
from proxy.web.gate import Gate
from proxy.web.hits import Hits
from proxy.web.listener import Listener
from proxy.web.probes import Probes
from proxy.web.public import Public
from proxy.web.traced import TracedHits, TracedPublic
from proxy.web.videos import Videos
from proxy.web.webhooks import Webhooks

_SHUTDOWN: Final = 5.0
"""Seconds that what the owner has asked for last gets to be answered."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """Listening sockets that somebody else has opened; none: open the addresses of the settings."""

    public: tuple[socket.socket, ...] = ()
    admin: tuple[socket.socket, ...] = ()


@dataclass(frozen=True, slots=True)
class Listening:
    """The open public listener: where it accepts, what it makes of that, and its port."""

    doors: Doors
    listener: Listener
    port: int


@contextlib.asynccontextmanager
async def listen(
    places: Places,
    corridor: Corridor,
    labour: Labour,
    grace: Grace,
    *,
    sockets: tuple[socket.socket, ...] = (),
) -> AsyncIterator[Listening]:
    """Open the public listener, which lets its replies finish at the end.

    Raises SettingsError for an address that cannot be had.
    """
    settings, metrics = places.settings, places.metrics
    async with contextlib.AsyncExitStack() as stack:
        sender = Sender(settings, places.clock, metrics)
        gate = Gate(settings, corridor.locator, places.clock)
        presign = places.bucket.presigned if settings.redirect_stored else None
        videos = Videos(settings, corridor.locator, gate, sender, metrics, presign=presign)
        webhooks = await stack.enter_async_context(_open_webhooks(places, corridor, labour))
        access = Access.of(settings, behind_edge=gate.is_locked)
        await asyncio.to_thread(access.start)
        stack.push_async_callback(asyncio.to_thread, access.close)
        tracer = places.tracer
        public = (Public if tracer is None else partial(TracedPublic, tracer))(
            videos, webhooks, gate, metrics, access=access
        )
        hits = None
        if not videos.tells and presign is None:
            lane = Hits if tracer is None else TracedHits
            hits = lane(settings, corridor.locator, gate, videos.policy, metrics, access=access)
        listener = Listener(public, settings, metrics, hits)
        stack.push_async_callback(lambda: listener.shutdown(grace.left))
        doors = Doors(listener)
        stack.callback(doors.close)
        if sockets:
            port = await doors.open(OWN_DOOR, sockets)
        else:
            port = await doors.open_address(OWN_DOOR, settings)
        yield Listening(doors, listener, port)


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
async def listen_admin(
    places: Places,
    corridor: Corridor,
    labour: Labour,
    health: Health,
    *,
    sockets: tuple[socket.socket, ...] = (),
    crew: Crew | None = None,
) -> AsyncIterator[int]:
    """Open the admin listener; gives its port. Raises SettingsError as `listen` does."""
    settings = places.settings
    policy = Policy.of(settings.upstream_hosts, insecure=settings.upstream_allow_insecure)
    figures = Figures(places, corridor, labour, crew)
    admin = Admin(
        settings,
        generations=places.generations,
        search=Search(places.catalog),
        jobs=labour.jobs,
        links=Links(settings.keys_of_links, settings.link_life),
        bucket=places.bucket,
        locator=corridor.locator,
        clock=places.clock,
        figures=figures.written,
        probes=Probes(health.alive, health.ready),
        allowed=lambda url: check_url(url, policy),
        wake=labour.worker.wake,
    )
    runner = web.AppRunner(admin.app(), access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        sites: list[web.BaseSite] = [web.SockSite(runner, one.dup()) for one in sockets]
        try:
            for site in sites or [web.TCPSite(runner, *settings.admin_address)]:
                await site.start()
        except OSError as error:
            raise cannot_listen("FIRSTVIEW_ADMIN_LISTEN", settings.admin_listen, error) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
