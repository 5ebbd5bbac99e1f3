"""The demo's ports: those that were asked for, or any that are free.

Belongs here: finding them. Must not know: what listens on them.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.errors import SettingsError

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the four listen; `moved` says in words which defaults were taken already."""

    public: int
    admin: int
    page: int
    fal: int
    moved: tuple[str, ...] = ()


def choose_ports(asked: Mapping[str, int | None]) -> Ports:
    """Find a port for each listener; `asked` has those of the options that were given, by name.

    A default that is taken is replaced by any free one; a port of 0 asks for just that. Raises
    SettingsError for one that was asked for and is taken.
    """
    moved: list[str] = []
    chosen: list[int] = []
    wanted = {"port": 8080, "admin-port": 8081, "page-port": 8082, "fal-port": 8083}
    with contextlib.ExitStack() as held:
        for name, default in wanted.items():
            wish = asked.get(name)
            port = _bind(held, default if wish is None else wish)
            if port is None and wish is not None:
                raise SettingsError(f"--{name}: port {wish} is taken; leave it out to find one")
            if port is None:
                port = _bind(held, 0) or 0
                moved.append(f"port {default} is taken, so {port} it is (--{name})")
            chosen.append(port)
    public, admin, page, fal = chosen
    return Ports(public=public, admin=admin, page=page, fal=fal, moved=tuple(moved))


def _bind(held: contextlib.ExitStack, port: int) -> int | None:
    """Hold a port while the others are being chosen, so that no two get the same; None if taken."""
    probe = held.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((HOST, port))
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            return None
        raise
    found: int = probe.getsockname()[1]
    return found
