"""The doors: listening sockets of the public address that this process accepts connections from.

Belongs here: opening and closing them. Must not know: what becomes of a connection.

A process has a door of its own. One that serves beside others may be told to mind another's door as
well until somebody is there again; what lies in that socket's backlog is then accepted here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Final

from proxy.errors import cannot_listen
from proxy.settings import Settings
from proxy.web.listener import Listener

OWN_DOOR: Final = -1
"""Name of the door that a process has from its start."""
_BACKLOG: Final = 4096


class Doors:
    """All of them lead to one listener."""

    def __init__(self, listener: Listener) -> None:
        """None is open."""
        self._listener = listener
        self._open: dict[int, list[asyncio.Server]] = {}
        self._closed = False

    async def open(self, name: int, sockets: Iterable[socket.socket]) -> int:
        """Accept from these sockets, which stay the caller's; returns their port.

        Raises SettingsError if another process listens there.
        """
        loop, port = asyncio.get_running_loop(), 0
        servers = self._open.setdefault(name, [])
        for one in sockets:
            copy = one.dup()
            try:
                server = await loop.create_server(self._listener, sock=copy, backlog=_BACKLOG)
            except OSError as error:
                address = self._listener.settings.listen
                raise cannot_listen("FIRSTVIEW_LISTEN", address, error) from error
            port = copy.getsockname()[1]
            servers.append(server)
            if self._closed or self._open.get(name) is not servers:  # shut meanwhile
                server.close()
        return port

    async def open_address(self, name: int, settings: Settings) -> int:
        """Listen on the settings' address; returns its port. Raises SettingsError."""
        loop = asyncio.get_running_loop()
        host, port = settings.listen_address
        try:
            server = await loop.create_server(self._listener, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise cannot_listen("FIRSTVIEW_LISTEN", settings.listen, error) from error
        self._open[name] = [server]
        found: int = server.sockets[0].getsockname()[1]
        return found

    def shut(self, name: int) -> None:
        """Accept no more from that door; connections that came through it stay."""
        for server in self._open.pop(name, []):
            server.close()

    def close(self) -> None:
        """Shut all of them for good."""
        self._closed = True
        for name in list(self._open):
            self.shut(name)
