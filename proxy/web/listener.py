"""The public listener: its connections, how many there may be, and their end.

Belongs here: what holds for all connections together. Must not know: what is said on them.
"""

from __future__ import annotations

import asyncio
import math
import time

from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.web.connection import Connection
from proxy.web.hits import Hits
from proxy.web.machine import Handler, Machine, Machines


class Listener:
    """Makes a protocol for each connection; `hits` answers plain requests, `handler` all others."""

    def __init__(
        self, handler: Handler, settings: Settings, metrics: Metrics, hits: Hits | None = None
    ) -> None:
        """Take both lanes; without `hits` there is one, which answers alike."""
        self.settings = settings
        self.metrics = metrics
        self.hits = hits
        self.leaving = False
        """Whether replies say that their connection ends."""
        self.asks_peers = settings.access_log != "off"
        """Whether each connection asks who is at its other end."""
        self.closing = False
        """Whether connections end with the reply that is on its way."""
        self._cuts_from = math.inf
        self._connections: set[Connection] = set()
        self._machines = Machines(handler, settings, metrics)

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self)

    def machine(self, connection: Connection) -> Machine:
        """Make aiohttp's side of a connection."""
        return self._machines.make(connection)

    def accept(self, connection: Connection) -> bool:
        """Count a new connection; False if it is one too many."""
        self._connections.add(connection)
        self.metrics.connections.inc()
        if len(self._connections) <= self.settings.max_connections:
            return True
        self.metrics.shed.labels("max_connections").inc()
        return False

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self.metrics.connections.dec()

    def announce(self) -> None:
        """Say `Connection: close` on every reply that begins from now on.

        Plain requests go the other lane's way, which knows how: it is one for each connection.
        """
        self.leaving = True
        self.hits = None

    @property
    def cuts(self) -> bool:
        """Whether replies that are still on their way are cut off, their viewers being there."""
        return time.monotonic() >= self._cuts_from

    @property
    def unheard(self) -> int:
        """Open connections that have not said anything yet."""
        return sum(not connection.has_asked for connection in self._connections)

    @property
    def idle(self) -> int:
        """Open connections on which no reply is on its way."""
        return sum(not connection.is_busy for connection in self._connections)

    def abort(self) -> None:
        """End all connections now; replies that are on their way must not look whole."""
        self._cuts_from = -math.inf
        for connection in list(self._connections):
            if connection.is_busy:
                connection.reset()
            else:
                connection.close()

    async def shutdown(self, timeout: float) -> None:
        """End idle connections now and the others after their reply, all within `timeout` s."""
        ends = time.monotonic() + timeout
        self._cuts_from = min(self._cuts_from, ends)
        self.closing = True
        self.announce()
        for connection in list(self._connections):
            connection.stop()
        sending = {each.sending for each in self._connections if each.sending is not None}
        if sending:
            _, late = await asyncio.wait(sending, timeout=timeout)
            for task in late:  # which resets its connection: what was sent must not look whole
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._machines.shutdown(max(0.0, ends - time.monotonic()))
        for connection in list(self._connections):
            connection.close()
