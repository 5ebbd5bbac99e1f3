"""The listening sockets, which outlive every worker.

Belongs here: binding them, one place on the public address for each worker. Must not know: who
accepts from them.

The places share the address by SO_REUSEPORT: the kernel spreads new connections over them by a hash
of both ends. A socket without the option is bound first, for a moment, because with it the kernel
would let a second supervisor of the same user take half of the first one's connections.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.errors import cannot_listen
from proxy.settings import Settings

Place = tuple[socket.socket, ...]
"""One socket for each address that the name stands for: mostly one."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """All that the supervisor holds open. Bound, but not yet listening: the workers do that."""

    public: tuple[Place, ...]
    admin: Place

    @property
    def public_port(self) -> int:
        """Port of the public address."""
        return _port(self.public[0])

    @property
    def admin_port(self) -> int:
        """Port of the admin address."""
        return _port(self.admin)

    def copied(self) -> Sockets:
        """The same sockets, to be closed on their own."""
        return Sockets(tuple(map(_copy, self.public)), _copy(self.admin))

    def close(self) -> None:
        """Let go of all of them; a second call does nothing."""
        for place in (*self.public, self.admin):
            _close(place)


def open_sockets(settings: Settings, places: int) -> Sockets:
    """Bind both addresses; one place is nobody's to share. Raises SettingsError for a taken one."""
    with contextlib.ExitStack() as undo:
        host, port = settings.listen_address
        public: list[Place] = []
        try:
            if port and places > 1:
                _close(_bind(host, port))
            for _ in range(places):
                public.append(_bind(host, port, shared=places > 1))
                undo.callback(_close, public[-1])
                port = port or _port(public[0])
        except OSError as error:
            raise cannot_listen("FIRSTVIEW_LISTEN", settings.listen, error) from error
        try:
            admin = _bind(*settings.admin_address)
        except OSError as error:
            raise cannot_listen("FIRSTVIEW_ADMIN_LISTEN", settings.admin_listen, error) from error
        undo.pop_all()
        return Sockets(tuple(public), admin)


def _bind(host: str, port: int, *, shared: bool = False) -> Place:
    """Bind every address that `host` stands for, the first of them to any port if `port` is 0."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    place: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            bound = socket.socket(family, kind, protocol)
            place.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # else it would take the IPv4 address of the same port
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((address[0], port, *address[2:]))
            port = port or _port(place)
    except OSError:
        _close(place)
        raise
    return tuple(place)


def _port(place: Iterable[socket.socket]) -> int:
    port: int = next(iter(place)).getsockname()[1]
    return port


def _copy(place: Place) -> Place:
    return tuple(one.dup() for one in place)


def _close(place: Iterable[socket.socket]) -> None:
    for one in place:
        one.close()
