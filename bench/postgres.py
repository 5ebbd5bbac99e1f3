"""A PostgreSQL for one run of the benchmarks, thrown away at the end.

Belongs here: making a cluster, starting and stopping its server. Must not know: what is kept in
it. Nothing of a PostgreSQL that may run on this machine already is touched.

Its settings are PostgreSQL's own: every commit is on the disk before it is confirmed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import pinned

_SUPERUSER = "firstview"
_VERSIONS = Path("/usr/lib/postgresql")
# Clients of this machine may be set up for another server (PGSERVICE, PGPASSWORD, ...).
_ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def programs() -> Path | None:
    """Where PostgreSQL's own programs are; None where it is not installed."""
    versions = sorted(
        _VERSIONS.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    found = shutil.which("initdb") or next(map(str, versions), None)
    return None if found is None else Path(found).resolve().parent


@contextlib.contextmanager
def cluster(where: Path, cores: frozenset[int]) -> Iterator[str]:
    """Run a server with the programs of `where` on these cores; gives its database's address."""
    identity = _unprivileged()
    # A folder of its own: the unprivileged user may not enter this user's.
    folder = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
    try:
        if identity:
            os.chown(folder, identity["user"], identity["group"])
        _run([where / "initdb", f"--pgdata={folder}/data", f"--username={_SUPERUSER}",
              "--auth=trust", "--encoding=UTF8", "--no-locale"], folder, identity)  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [str(where / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        with (folder / "log").open("wb") as output:
            server = subprocess.Popen(
                pinned(command, cores),
                cwd=folder,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **identity,
            )
        try:
            _wait_for(where, port, server, folder / "log")
            yield f"postgresql://{_SUPERUSER}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown: it waits for no client
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> dict[str, Any]:
    """As whom to start PostgreSQL, which refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise RuntimeError("there is no unprivileged user to run PostgreSQL as; root may not")


def _run(command: list[str | Path], folder: Path, identity: dict[str, Any]) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **identity,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stderr}")


def _wait_for(where: Path, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    asking = [str(where / "pg_isready"), "--host=127.0.0.1", f"--port={port}", "--quiet"]
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        if subprocess.run(asking, env=_ENVIRONMENT, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL does not answer:\n{log.read_text(errors='replace')[-2000:]}")
