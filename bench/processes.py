"""Processes that a run starts: until they answer, what they use, and their end.

Belongs here: starting on chosen cores, free ports, ending by process id. Must not know: which
programs they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.machine import descendants, pinned

_PATIENCE = 60.0


@contextlib.contextmanager
def started(
    command: list[str],
    cores: frozenset[int],
    log: Path,
    ports: tuple[int, ...],
    environment: dict[str, str] | None = None,
) -> Iterator[int]:
    """Run a command until the end of the block, from when all its loopback ports answer.

    Gives the process id. Raises RuntimeError, with what it has printed, if it does not answer.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(command, cores),
            stdout=output,
            stderr=output,
            env=environment,
            stdin=subprocess.DEVNULL,
            # One of them makes a session of its own, and Linux shares out a busy core by session:
            # all shall have one.
            start_new_session=True,
        )
    try:
        for port in ports:
            _wait_for(port, process, log)
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    below = descendants(process.pid) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:  # viewers that are still being served, on purpose
        for pid in [process.pid, *below]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    text = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} does not answer:\n{text}")
