"""The machine that is measured on: its cores, who runs on which, its disk.

Belongs here: what the operating system says. Must not know: scenarios.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_TOUCHED = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the servers, the load and the fake fal.media run on."""

    server: frozenset[int]
    load: frozenset[int]
    upstream: frozenset[int]
    note: str

    @classmethod
    def choose(cls) -> Cores:
        """Give the servers a core of their own where there are two or more."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) == 1:
            everyone = frozenset(cores)
            note = "1 core: servers and load share it, so figures say little"
            return cls(everyone, everyone, everyone, note)
        server, load = frozenset(cores[:1]), frozenset(cores[1:2])
        upstream = frozenset(cores[2:3]) or load
        note = f"{len(cores)} cores: servers on one, load on another"
        if upstream == load:
            note += ", which the upstream shares"
        return cls(server, load, upstream, note)

    @classmethod
    def shared(cls) -> Cores:
        """Let everyone run everywhere."""
        everyone = frozenset(os.sched_getaffinity(0))
        return cls(everyone, everyone, everyone, f"{len(everyone)} cores, shared by all")


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


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


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
