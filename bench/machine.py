"""The machine that is measured on: its cores, who runs on which, its memory and disk.

Belongs here: what the operating system says. Must not know: scenarios.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TOUCHED = 1024 * 1024
_VERSIONS = {
    "nginx": ["nginx", "-v"],
    "varnish": ["varnishd", "-V"],
    "trafficserver": ["traffic_server", "--version"],
    "wrk": ["wrk", "-v"],
}


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the servers, the load and the fake fal.media run on."""

    server: frozenset[int]
    load: frozenset[int]
    upstream: frozenset[int]
    everything: frozenset[int]
    note: str

    @classmethod
    def choose(cls, found: Iterable[int]) -> Cores:
        """Give the servers one of these cores, and nobody else that core if there are two."""
        cores = sorted(found)
        everything = frozenset(cores)
        if len(cores) == 1:
            note = "1 core: servers and load share it, so figures say little"
            return cls(everything, everything, everything, everything, note)
        server, rest = frozenset(cores[:1]), cores[1:]
        upstream = frozenset(rest[-1:])
        load = frozenset(rest[:-1]) or upstream
        note = f"{len(cores)} cores: servers on one, load on "
        note += "another, which the upstream shares" if load == upstream else f"{len(load)}"
        return cls(server, load, upstream, everything, note)

    @property
    def everyone(self) -> Cores:
        """Servers, load and upstream on all cores."""
        cores = self.everything
        return Cores(cores, cores, cores, cores, f"{len(cores)} cores, shared by all")


@contextlib.contextmanager
def running_on(cores: frozenset[int]) -> Iterator[None]:
    """Have this process, the load, on these cores until the end of the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pinned(command: list[str], cores: frozenset[int]) -> list[str]:
    """The command, run on these cores only."""
    return ["taskset", "-c", ",".join(map(str, sorted(cores))), *command]


def cpu_seconds(pids: list[int]) -> float:
    """CPU that processes have used so far, all their threads, user and system."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def descendants(pid: int) -> list[int]:
    """Children of a process, and theirs; a process that ends meanwhile has none."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, found) for one in (child, *descendants(child))]


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def free_bytes(path: Path) -> int:
    """Room on the disk below a directory."""
    return shutil.disk_usage(path).free


def touch_memory(folder: Path, count: int) -> None:
    """Use that many bytes of page cache, and free them again.

    A virtual machine's memory that nobody has used for a while is taken from the host at the
    first touch, which costs several times what writing a page does. Whoever is measured next
    should not be the one who pays.
    """
    piece = b"\xaa" * _TOUCHED
    path = folder / "touched"
    with path.open("wb", buffering=0) as file:
        for _ in range(-(-count // _TOUCHED)):
            file.write(piece)
    path.unlink()


def describe(cores: Cores) -> dict[str, str]:
    """What a reader of the figures has to know of this machine; not whose it is."""
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return {
        "cores": cores.note,
        "processor": _processor(),
        "memory": f"{memory / 1024**3:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "load average before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "firstview": metadata.version("firstview"),
        **{name: found for name in _VERSIONS if (found := version(name))},
    }


def version(name: str) -> str:
    """A server's version; empty where it is not installed."""
    command = _VERSIONS[name]
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    match = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return match[0] if match else "?"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
