"""The machine: descriptors, cores, memory.

Belongs here: what the kernel allows this process, against what the settings ask for. Must not know:
disks, networks.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.cli.doctor.finding import Notes, Verdict, failure, fine, size, warning
from proxy.cli.doctor.running import apart
from proxy.settings import MOST_WORKERS, Settings

_OWN: Final = 256
"""Descriptors that a process has for itself: database, bucket, locks, listeners, files."""
_BASE: Final = 100 * 1024**2
"""Bytes of a worker that does nothing yet."""
_FACTS: Final = 1024
"""Bytes of memory for what is known of one clip."""
_CONNECTION: Final = 16 * 1024
"""Bytes of memory of one idle connection."""
_SEND: Final = 256 * 1024
"""Bytes of memory of one upload that is being sent; see `file_slice.CHUNK`."""

_CGROUP: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/proc/meminfo"))


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """See `Check`."""

    settings: Settings
    area: str = "machine"

    async def run(self, notes: Notes) -> None:
        """Ask the kernel."""
        notes.trying("limits")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        workers = workers_of(self.settings)
        notes.add("descriptors", judge_descriptors(hard, self.settings))
        notes.add("workers", judge_workers(workers, len(os.sched_getaffinity(0))))
        texts = await apart(_read)
        notes.add("memory", judge_memory(memory_of(*texts), workers, self.settings))


def workers_of(settings: Settings) -> int:
    """How many processes `serve` starts here."""
    if settings.workers == "auto":
        return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return settings.workers


def judge_descriptors(hard: int, settings: Settings) -> Verdict:
    """Compare the hard limit, to which `serve` raises its own, with what connections need.

    `hard` is -1 where there is none. Clips that are kept open take half of all at most.
    """
    viewers = settings.max_connections + settings.upstream_max_connections + _OWN
    wanted = viewers + min(settings.open_files, viewers)
    mend = (
        f"raise the limit to {wanted} (LimitNOFILE= in systemd, --ulimit nofile= for containers,"
        " /etc/security/limits.conf), or lower FIRSTVIEW_MAX_CONNECTIONS"
    )
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return fine(f"{'any number' if hard < 0 else hard} for each process, {wanted} are enough")
    seen = f"{hard} for each process; {settings.max_connections} connections and what they need"
    if hard < viewers:
        return failure(
            f"{seen} take {viewers}: further viewers would be refused by the kernel", mend
        )
    return warning(f"{seen} take {wanted} with all clips that are kept open", mend)


def judge_workers(workers: int, cores: int) -> Verdict:
    """Compare processes with the cores that they may use."""
    seen = f"{workers} on {cores} {'core' if cores == 1 else 'cores'}"
    if workers > cores:
        return warning(
            f"{seen}: they wait for each other", f"set FIRSTVIEW_WORKERS to {cores}, or to auto"
        )
    if workers < cores:
        return fine(f"{seen}; FIRSTVIEW_WORKERS=auto uses all")
    return fine(seen)


def memory_of(cgroup: str, meminfo: str) -> int | None:
    """Bytes that there are: the control group's limit, or what the machine has available.

    Takes the texts of `memory.max` (docs.kernel.org/admin-guide/cgroup-v2.html) and of
    /proc/meminfo; None if neither says.
    """
    found = [int(cgroup)] if cgroup.strip().isdigit() else []
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and rest.split()[:1]:
            found.append(int(rest.split()[0]) * 1024)
    return min(found, default=None)


def judge_memory(available: int | None, workers: int, settings: Settings) -> Verdict:
    """Compare what there is with what all workers would take at their limits."""
    each = (
        _BASE
        + settings.facts_max * _FACTS
        + settings.max_fills * 2 * int(settings.upstream_read_buffer)
        + settings.max_connections * _CONNECTION
        + settings.max_uploads * _SEND
        + settings.webhook_bodies * int(settings.webhook_max_bytes)
    )
    need = workers * each
    took = f"{size(need)} for {workers} {'worker' if workers == 1 else 'workers'} at their limits"
    if available is None:
        return fine(f"{took}; how much there is cannot be told")
    seen = f"{size(available)} available, {took}"
    if available < workers * _BASE:
        return failure(seen, "give it more memory, or lower FIRSTVIEW_WORKERS")
    if available < need:
        return warning(
            seen,
            "give it more memory, or lower FIRSTVIEW_WORKERS, FIRSTVIEW_MAX_CONNECTIONS,"
            " FIRSTVIEW_MAX_FILLS or FIRSTVIEW_FACTS_MAX",
        )
    return fine(seen)


def _read() -> Iterable[str]:
    texts = []
    for path in _CGROUP:
        try:
            texts.append(path.read_text())
        except OSError:
            texts.append("")
    return texts
