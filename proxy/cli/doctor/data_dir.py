"""The data directory: whether it can be written to, what its file system can do, and its room.

Belongs here: looking, in a folder that is removed again. Must not know: what a file system has to
be able to do (`file_systems.py`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.cli.doctor.file_systems import judge_call, judge_kind, kind_of, try_all
from proxy.cli.doctor.finding import Notes, Verdict, failure, fine, size, unchecked, warning
from proxy.cli.doctor.running import apart
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.free_space import free_bytes

_FEW_FILES: Final = 10_000
_LONGEST_COUNT: Final = 5.0
"""Seconds for which cached clips are counted; what is not counted by then is left out."""


@dataclass(frozen=True, slots=True)
class DataDirCheck:
    """See `Check`."""

    settings: Settings
    area: str = "data directory"

    async def run(self, notes: Notes) -> None:
        """Look at it, or at the folder in which `serve` would make it."""
        directory = self.settings.data_dir.absolute()
        notes.trying("looking")
        place = await apart(lambda: nearest(directory))
        there = place == directory
        if (blocking := await apart(lambda: obstacle(directory, place))) is not None:
            mend = "move it away, or set FIRSTVIEW_DATA_DIR to another place"
            notes.add("writable", failure(f"{blocking} is there, and is no folder", mend))
            return
        made = "" if there else f" is not there yet: `firstview serve` makes it in {place}"
        kind = await apart(lambda: kind_of(os.path.realpath(place), _mounts()))
        notes.trying("writing")
        found = await apart(lambda: _try(place))
        if isinstance(found, OSError):
            notes.add("writable", _cannot_write(place, found))
        else:
            notes.add("writable", fine(f"{directory}{made}"))
            for name, error in found.items():
                notes.add(name, judge_call(name, error))
        configured = self.settings.database_url.get_secret_value()
        database = keys.database_url(configured, directory)
        sqlite = database.startswith(f"sqlite:///{directory}/")
        notes.add("file system", judge_kind(kind, sqlite=sqlite))
        notes.trying("counting")
        room = await apart(lambda: room_of(place, directory))
        notes.add("room", judge_room(room, self.settings))
        notes.add("files", judge_files(room.files))


def nearest(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there. Blocks."""
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    return directory


def obstacle(directory: Path, place: Path) -> Path | None:
    """What is in the way of a directory below its `nearest` one: no folder, though it is there."""
    below = directory.relative_to(place).parts[:1]
    first = place.joinpath(*below)
    return first if below and os.path.lexists(first) else None


def _try(place: Path) -> dict[str, OSError | None] | OSError:
    """Try everything in a folder of our own, or say why that cannot be made. Blocks."""
    folder = keys.doctor_dir(place, secrets.token_hex(8))
    try:
        folder.mkdir()
    except OSError as error:
        return error
    try:
        return try_all(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cannot_write(place: Path, error: OSError) -> Verdict:
    return failure(
        f"{place}: {os.strerror(error.errno or 0)}",
        f"let the user that runs firstview (here {os.geteuid()}) write there (chown, or"
        " ReadWritePaths= in systemd, or a volume), or set FIRSTVIEW_DATA_DIR to another place",
    )


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that are free and in all, files that may still be made (None: any), bytes of clips."""

    free: int
    total: int
    files: int | None
    ours: int


def room_of(place: Path, directory: Path) -> Room:
    """Ask the disk below `place`, and count what lies in the cache and the spool. Blocks."""
    disk = os.statvfs(place)
    deadline = time.monotonic() + _LONGEST_COUNT
    folders = (keys.spool_dir(directory), keys.cache_dir(directory))
    return Room(
        free=free_bytes(place),
        total=disk.f_blocks * disk.f_frsize,
        files=disk.f_favail if disk.f_files else None,
        ours=sum(_bytes_below(folder, deadline) for folder in folders),
    )


def _bytes_below(folder: Path, deadline: float) -> int:
    found = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if time.monotonic() > deadline:
                    break
                if entry.is_dir(follow_symlinks=False):
                    found += _bytes_below(Path(entry.path), deadline)
                else:
                    found += entry.stat(follow_symlinks=False).st_size
    except OSError:  # not there yet, or just gone
        return found
    return found


def judge_room(room: Room, settings: Settings) -> Verdict:
    """Compare what is free, and what clips have already, with the budget and the reserve."""
    budget, reserve = int(settings.cache_max_bytes), int(settings.disk_reserve)
    seen = f"{size(room.free)} of {size(room.total)} free"
    if room.free < reserve:
        return failure(
            f"{seen}, less than FIRSTVIEW_DISK_RESERVE ({size(reserve)}): every clip is streamed"
            " through and none stored",
            "make room, or give FIRSTVIEW_DATA_DIR a larger disk",
        )
    fits = room.free + room.ours - reserve
    if fits < budget:
        return warning(
            f"{seen}, too little for FIRSTVIEW_CACHE_MAX_BYTES ({size(budget)}) and"
            f" FIRSTVIEW_DISK_RESERVE ({size(reserve)})",
            f"set FIRSTVIEW_CACHE_MAX_BYTES to {fits // 1024**2}MiB or less, or give it a larger"
            " disk",
        )
    return fine(f"{seen}, enough for the {size(budget)} of FIRSTVIEW_CACHE_MAX_BYTES")


def judge_files(files: int | None) -> Verdict:
    """Judge how many files the disk may still be given."""
    if files is None:
        return unchecked("this file system has no limit that could be asked for")
    if files < _FEW_FILES:
        return warning(
            f"only {files} more files fit (inodes)", "make room, or format it with more inodes"
        )
    return fine(f"{files} more fit")


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return ""
