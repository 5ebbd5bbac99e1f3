"""wrk as the load of small replies.

Belongs here: running it for a bounded time, and reading what it says. Must not know: servers'
insides.
"""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.asks import Ask, as_lines
from bench.machine import Cores, pinned
from bench.results import Sample
from bench.server import Server

_SCRIPT = Path(__file__).parent / "load.lua"
_MARKER = "RESULT "
_HEAD = 4096
"""Bytes that no head of a reply is longer than."""


def load(
    server: Server,
    asks: Sequence[Ask],
    *,
    seconds: float,
    connections: int,
    cores: Cores,
    home: Path,
    body: int = 0,
) -> Sample:
    """Ask for these things round and round for a while. Raises RuntimeError if wrk fails.

    `body`: bytes that every reply has; with 0 nobody knows. wrk looks at no status below 400.
    """
    lines = home / "asks.txt"
    lines.write_text(as_lines(asks))
    threads = max(1, len(cores.load) // 2)
    command = ["wrk", "--threads", str(threads), "--connections", str(connections)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", "20s"]
    command += ["--script", str(_SCRIPT), f"http://127.0.0.1:{server.port}/"]
    command += ["--", str(lines)]
    before, load_before = server.cpu(), _children_cpu()
    done = subprocess.run(
        pinned(command, cores.load),
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    used = server.cpu() - before
    if done.returncode:
        raise RuntimeError(f"wrk ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    sample = parse(
        done.stdout,
        cpu_seconds=used,
        load_cpu_seconds=_children_cpu() - load_before,
        resident=server.resident(),
    )
    if body and not fits(sample, body, connections):
        return replace(sample, errors=sample.errors + 1)
    return sample


def fits(sample: Sample, body: int, connections: int) -> bool:
    """Whether as many bytes came as so many replies have, and as those on their way may have."""
    most = (sample.requests + connections) * (body + _HEAD)
    return sample.requests * body <= sample.received <= most


def parse(
    output: str, *, cpu_seconds: float = 0.0, load_cpu_seconds: float = 0.0, resident: int = 0
) -> Sample:
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
        load_cpu_seconds=load_cpu_seconds,
        resident=resident,
    )


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
