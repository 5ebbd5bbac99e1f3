"""One running server, as scenarios see it.

Belongs here: where it answers, what its processes use, its metrics. Must not know: how it was
started.
"""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import dataclass

from bench.machine import cpu_seconds, descendants, resident_bytes


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on a loopback port."""

    name: str
    port: int
    pid: int
    admin_port: int = 0
    prefix: str = "/videos/"

    def path(self, clip: str) -> str:
        """Where it has a clip."""
        return f"{self.prefix}{clip}.mp4"

    @property
    def pids(self) -> list[int]:
        """The process that was started, and all below it."""
        return [self.pid, *descendants(self.pid)]

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return cpu_seconds(self.pids)

    def resident(self) -> int:
        """Bytes of RAM of all its processes together."""
        return sum(map(resident_bytes, self.pids))

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels, from the admin listener."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines())
        return sum(float(value) for key, _, value in lines if key.partition("{")[0] == name)
