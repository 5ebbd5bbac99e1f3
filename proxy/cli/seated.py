"""One worker of several, for as long as it lives.

Belongs here: what a worker says to the supervisor and does for it. Must not know: how anything is
served, or who the other workers are.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from typing import Any, Final

import structlog

from proxy.app import App
from proxy.app.health import Supervised
from proxy.app.listeners import Sockets
from proxy.cli import failing
from proxy.cli.running import Stop, until_stopped
from proxy.errors import FirstviewError, SettingsError
from proxy.settings import Settings, load
from proxy.supervisor.channel import Channel
from proxy.supervisor.orders import Orders
from proxy.supervisor.totals import SAMPLES
from proxy.supervisor.worker import (
    ACCEPT,
    ANNOUNCE,
    FAILED,
    HURRY,
    LEAVE,
    LEAVING,
    PULSE,
    READY,
    REPLACED,
    STANDING,
    STOP,
    WISH,
)
from proxy.telemetry.health import Standing
from proxy.telemetry.log import written_aside
from proxy.telemetry.samples import Family, from_wire, to_wire

_PATIENCE: Final = 5.0
"""Seconds that the supervisor gets to ask all workers what they have counted."""
_QUICKLY: Final = 1.0
"""Seconds that it gets to say how all of them stand."""

log = structlog.get_logger()


class Seated:
    """A worker, from its start until it has told the supervisor all that it counted."""

    def __init__(self, orders: Orders, stop: Stop) -> None:
        """Take over the sockets that it has inherited."""
        self._orders = orders
        self._stop = stop
        self._public = [tuple(map(_inherited, place)) for place in orders.public]
        self._admin = tuple(map(_inherited, orders.admin))
        self._channel: Channel | None = None
        self._app: App | None = None
        self._minding: set[asyncio.Task[int]] = set()
        self._replaced = False
        self._ending = False
        self._heard_at = time.monotonic()

    async def run(self) -> int:
        """Serve until told to stop; returns the exit code.

        By the supervisor: a signal may come to all processes at once, and is the supervisor's to
        heed. One that comes to this process alone is passed on as a wish.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: self._tell(WISH))
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        self._channel = await Channel.opened(
            _inherited(self._orders.channel), told=self._told, asked=self._asked
        )
        listening = asyncio.create_task(self._listen())
        try:
            await self._serve()
        except FirstviewError as error:
            wrong = isinstance(error, SettingsError)
            self._channel.tell(FAILED, {"detail": failing.told(error), "settings": wrong})
            return 1
        finally:
            await self._channel.flush()
            listening.cancel()
        return 0

    async def _listen(self) -> None:
        assert self._channel is not None  # noqa: S101 - for mypy; `run` has opened it
        await self._channel.run()
        self._end()  # the supervisor is gone, and with it who replaces us

    async def _serve(self) -> None:
        settings = load()
        with written_aside(settings, worker=self._orders.number):
            await self._serve_by(settings)

    async def _serve_by(self, settings: Settings) -> None:
        assert self._channel is not None  # noqa: S101 - for mypy; `run` has opened it
        orders = self._orders
        self._app = app = App(
            settings,
            seat=orders.seat,
            sockets=Sockets(self._public[orders.place], self._admin),
            crew=self._crew,
            supervised=Supervised(self._standing, lambda: time.monotonic() - self._heard_at),
        )
        async with app.running():
            self._channel.tell(READY)
            await self._stop.wait()
            log.info("stopping")
            app.leaving.announce()
            self._leave(app)
            self._channel.tell(LEAVING)
            if self._replaced:  # else it answers probes until the end
                await app.close_admin()
            await app.leaving.quiet(replaced=self._replaced)
        self._channel.tell(SAMPLES, to_wire(app.own_figures()))

    def _leave(self, app: App) -> None:
        """Accept no more; what is held open by nobody refuses whoever comes, at once."""
        app.doors.close()
        for place in (*self._public, self._admin):
            for one in place:
                one.close()

    # -- between it and the supervisor ---

    async def _crew(self) -> list[Family]:
        assert self._channel is not None  # noqa: S101 - for mypy; nobody asks before `run`
        return from_wire(await self._channel.ask(SAMPLES, _PATIENCE))

    async def _standing(self) -> Standing:
        assert self._channel is not None  # noqa: S101 - for mypy; nobody asks before `run`
        found = Standing(**await self._channel.ask(STANDING, _QUICKLY))
        self._heard_at = time.monotonic()
        return found

    def _tell(self, what: str) -> None:
        if self._channel is not None:
            self._channel.tell(what)

    async def _asked(self, what: str) -> Any:  # noqa: ANN401 - any JSON
        self._heard_at = time.monotonic()
        if what == PULSE:
            return None
        if what != SAMPLES or self._app is None:
            raise LookupError(what)
        await self._app.look()
        return to_wire(self._app.own_figures())

    def _end(self) -> None:
        """Stop; for one that was replaced: within the drain timeout; if it stops already: now."""
        ended_before, self._ending = self._ending, True
        if not self._stop.is_set():
            self._stop.tell(signal.SIGTERM)
        elif self._app is not None:
            wait = 0.0 if ended_before else self._app.settings.drain_timeout
            asyncio.get_running_loop().call_later(wait, self._app.leaving.hurry)

    def _told(self, what: str, body: Any) -> None:  # noqa: ANN401 - any JSON
        if what == STOP:
            self._end()
        if self._app is None:
            return
        if what == REPLACED:
            self._replaced = True
            self._app.take_longer(self._app.settings.replace_timeout)
            self._stop.tell(signal.SIGTERM)
        elif what == ANNOUNCE:
            self._app.leaving.announce()
        elif what == HURRY:
            self._app.leaving.hurry()
        elif what == ACCEPT and not self._stop.is_set():
            minding = asyncio.create_task(self._app.doors.open(body, self._public[body]))
            self._minding.add(minding)
            minding.add_done_callback(self._minding.discard)
        elif what == LEAVE:
            self._app.doors.shut(body)


def _inherited(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    return sock


async def _sit(orders: Orders, stop: Stop) -> int:
    return await Seated(orders, stop).run()


def run(orders: Orders) -> int:
    """Do what the orders say; returns the exit code."""
    return until_stopped(lambda stop: _sit(orders, stop))
