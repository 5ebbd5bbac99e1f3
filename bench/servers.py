"""The servers that are compared, and the fake fal.media behind both.

Belongs here: starting them in a directory of their own, knowing when they answer, and ending them
by their process ids. Must not know: scenarios, load.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import nginx
from bench.machine import Cores, children, cpu_seconds, pinned
from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.records import Registration
from proxy.storage import keys

_FIRSTVIEW = Path(sys.executable).with_name("firstview")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on a loopback port."""

    name: str
    port: int
    pid: int
    admin_port: int = 0

    @property
    def pids(self) -> list[int]:
        """The process that was started, and its workers."""
        return [self.pid, *children(self.pid)]

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return cpu_seconds(self.pids)

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels, from the admin listener."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines())
        return sum(float(value) for key, _, value in lines if key.partition("{")[0] == name)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both servers, over one upstream."""

    nginx: Server
    firstview: Server
    home: Path

    def asked(self) -> int:
        """How often the upstream was asked since the last call."""
        log = self.home / "upstream" / "asked.log"
        count = len(log.read_bytes().splitlines())
        os.truncate(log, 0)  # opened for appending: nginx goes on at the new end
        return count


@contextlib.contextmanager
def running(
    home: Path, cores: Cores, clips: Iterable[str], settings: dict[str, str] | None = None
) -> Iterator[Pair]:
    """Start all three; `clips` are the ids that firstview's catalog knows."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(_upstream(home / "upstream", cores))
        peer = stack.enter_context(_cache(home / "nginx", upstream.port, cores))
        ours = stack.enter_context(
            _firstview(home / "firstview", upstream.port, clips, cores, settings or {})
        )
        yield Pair(peer, ours, home)


@dataclass(frozen=True, slots=True)
class Alone:
    """firstview without a peer, its upstream, and the address of its catalog."""

    firstview: Server
    home: Path
    database: str
    source: str
    """Where its upstream has files; `/<kind>-<id>.mp4` is `files/<kind>.mp4`."""


@contextlib.contextmanager
def alone(home: Path, cores: Cores, settings: dict[str, str] | None = None) -> Iterator[Alone]:
    """Start firstview and its upstream, whose `home / "files"` may hold a key set as well."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(_upstream(home / "upstream", cores))
        base = f"http://127.0.0.1:{upstream.port}"
        given = {"FIRSTVIEW_FAL_JWKS_URL": f"{base}/jwks.json", **(settings or {})}
        server = _firstview(home / "firstview", upstream.port, [], cores, given)
        ours = stack.enter_context(server)
        yield Alone(ours, home, _database(home / "firstview", given), f"{base}/files")


def _upstream(home: Path, cores: Cores) -> contextlib.AbstractContextManager[Server]:
    port = _free_port()
    text = nginx.upstream_config(home, port, home.parent / "files")
    return _nginx("upstream", home, port, text, cores.upstream)


def _cache(home: Path, upstream: int, cores: Cores) -> contextlib.AbstractContextManager[Server]:
    port = _free_port()
    return _nginx("nginx", home, port, nginx.cache_config(home, port, upstream), cores.server)


@contextlib.contextmanager
def _nginx(
    name: str, home: Path, port: int, config: str, cores: frozenset[int]
) -> Iterator[Server]:
    home.mkdir()
    path = home / "nginx.conf"
    path.write_text(config)
    command = ["nginx", "-p", str(home), "-e", str(home / "error.log"), "-c", str(path)]
    with _process(pinned(command, cores), home / "output.log") as process:
        _wait_for(port, process, home / "output.log")
        yield Server(name, port, process.pid)


@contextlib.contextmanager
def _firstview(
    home: Path, upstream: int, clips: Iterable[str], cores: Cores, settings: dict[str, str]
) -> Iterator[Server]:
    home.mkdir()
    database = _database(home, settings)
    asyncio.run(_register(database, f"http://127.0.0.1:{upstream}/files", list(clips)))
    port, admin = _free_port(), _free_port()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("FIRSTVIEW_")
    } | {
        "FIRSTVIEW_DATA_DIR": str(home),
        "FIRSTVIEW_LISTEN": f"127.0.0.1:{port}",
        "FIRSTVIEW_ADMIN_LISTEN": f"127.0.0.1:{admin}",
        "FIRSTVIEW_UPSTREAM_HOSTS": "127.0.0.1",
        "FIRSTVIEW_UPSTREAM_ALLOW_INSECURE": "true",
        **settings,
    }
    command = pinned([str(_FIRSTVIEW), "serve"], cores.server)
    with _process(command, home / "output.log", environment) as process:
        _wait_for(port, process, home / "output.log")
        _wait_for(admin, process, home / "output.log")
        yield Server("firstview", port, process.pid, admin)


def _database(data_dir: Path, settings: dict[str, str]) -> str:
    return keys.database_url(settings.get("FIRSTVIEW_DATABASE_URL", ""), data_dir)


async def _register(database: str, base: str, clips: list[str]) -> None:
    catalog = await open_catalog(database, migrate=True)
    try:
        rows = Generations(catalog, clip_url=keys.clip_path)
        await rows.register(
            [Registration(request_id=clip, fal_url=f"{base}/{clip}.mp4") for clip in clips]
        )
    finally:
        await catalog.close()


@contextlib.contextmanager
def _process(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, stdin=subprocess.DEVNULL
        )
    try:
        yield process
    finally:
        workers = children(process.pid) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # viewers that are still being served, on purpose
            for pid in [process.pid, *workers]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    text = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} does not answer:\n{text}")
