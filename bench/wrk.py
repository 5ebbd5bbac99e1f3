"""wrk as the load of warm clips.

Belongs here: running it for a bounded time, and reading what it says. Must not know: servers'
insides.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench.machine import Cores, pinned
from bench.results import Sample
from bench.servers import Server

_SCRIPT = Path(__file__).parent / "load.lua"
_MARKER = "RESULT "


def load(
    server: Server,
    path: str,
    *,
    length: int,
    block: int,
    seconds: int,
    connections: int,
    seed: int,
    cores: Cores,
) -> Sample:
    """Ask for a clip (`block` 0) or ranges of it for a while. Raises RuntimeError if wrk fails."""
    command = [
        "wrk",
        "--threads",
        "1",
        "--connections",
        str(connections),
        "--duration",
        f"{seconds}s",
        "--timeout",
        "20s",
        "--script",
        str(_SCRIPT),
        f"http://127.0.0.1:{server.port}{path}",
        "--",
        str(block),
        str(length),
        str(seed),
    ]
    before = server.cpu()
    done = subprocess.run(
        pinned(command, cores.load),
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
    )
    used = server.cpu() - before
    if done.returncode:
        raise RuntimeError(f"wrk ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return parse(done.stdout, used)


def parse(output: str, cpu_seconds: float = 0.0) -> Sample:
    """Read the line that `load.lua` prints at the end."""
    line = next((line for line in output.splitlines() if line.startswith(_MARKER)), None)
    if line is None:
        raise RuntimeError(f"wrk printed no result:\n{output}")
    found = json.loads(line.removeprefix(_MARKER))
    return Sample(
        requests=found["requests"],
        seconds=found["micros"] / 1e6,
        received=found["bytes"],
        p50=found["p50"] / 1e6,
        p99=found["p99"] / 1e6,
        errors=found["errors"],
        cpu_seconds=cpu_seconds,
    )
