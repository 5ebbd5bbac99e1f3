"""`firstview health`: ask the process behind this machine's admin listener how it is.

Belongs here: which address is asked, and what its answer means. Must not know: what makes a process
alive or ready.
"""

from __future__ import annotations

import http.client
import sys
from typing import Final

from proxy.cli.exit_codes import PARTLY
from proxy.errors import SettingsError
from proxy.settings import Settings

_PATIENCE: Final = 5.0
"""Seconds; the image's health check gives the whole command ten."""
_MOST: Final = 65_536
_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - all addresses; asked is one


def run(settings: Settings, *, ready: bool) -> int:
    """Ask once and print the answer; returns the exit code: 0 healthy, 1 not, or nobody answers.

    Raises SettingsError where the settings do not say which port it is.
    """
    host, port = settings.admin_address
    if port == 0:
        raise SettingsError(
            "FIRSTVIEW_ADMIN_LISTEN: port 0 takes any that is free, and nobody else knows which:"
            " give it a number"
        )
    try:
        healthy, said = _ask(_HERE.get(host, host), port, "/readyz" if ready else "/livez")
    except (OSError, http.client.HTTPException) as error:
        healthy, said = False, f"no answer from {host}:{port}: {error}"
    print(said, file=sys.stdout if healthy else sys.stderr)
    return 0 if healthy else PARTLY


def _ask(host: str, port: int, path: str) -> tuple[bool, str]:
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status == http.client.OK, reply.read(_MOST).decode(errors="replace").strip()
    finally:
        connection.close()
