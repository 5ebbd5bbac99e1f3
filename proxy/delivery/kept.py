"""Kept clips: whole, verified spool files that are not stored yet, pinned until they are.

Belongs here: what is known of one, and finding them again after a restart. Must not know: when
they are tried again.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from proxy.errors import FirstviewError
from proxy.records import ClipFacts
from proxy.storage.bucket import Upload
from proxy.storage.disk_cache import Reservation
from proxy.storage.facts_file import StoredFacts, read_facts, write_facts
from proxy.storage.open_files import OpenFile

_EMPTY = ".empty"
"""Ending of a file that is about to take an unfinished one's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundClip:
    """A whole clip in the spool of an earlier process, open and locked."""

    fd: int
    path: Path
    facts: ClipFacts
    sha256: str
    fal_url: str
    prompt_hash: str | None


@dataclass(slots=True)
class Spooled:
    """What the spool of an earlier process held: whole clips, and what it did not finish.

    Of the latter an empty file is left, so that a process which dies before all has been seen to
    leaves the next one to do it; see `forget_unfinished`.
    """

    whole: list[FoundClip] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Kept:
    """One clip between verified and stored. `due` is on the monotonic clock, in seconds.

    `busy` while something is being done with it; `superseded` once its id means another clip.
    """

    facts: ClipFacts
    sha256: str
    fal_url: str
    prompt_hash: str | None
    path: Path
    reservation: Reservation
    file: OpenFile
    upload: Upload | None = None
    committed: bool = False
    superseded: bool = False
    busy: bool = False
    discarded: bool = False
    tries: int = 0
    due: float = 0.0
    failure: FirstviewError | None = None
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once an attempt to store it has ended; `failure` is what the last one failed with."""

    @classmethod
    def from_disk(cls, found: FoundClip, reservation: Reservation) -> Kept:
        """Take up what `find_kept` found, its descriptor and its lock too."""
        return cls(
            facts=found.facts,
            sha256=found.sha256,
            fal_url=found.fal_url,
            prompt_hash=found.prompt_hash,
            path=found.path,
            reservation=reservation,
            file=OpenFile(found.fd, found.facts, "disk"),
            tries=1,  # it is on the disk already, and its id may mean another clip by now
        )

    def write(self, *, durable: bool) -> None:
        """Say beside the file what it is; `durable`: both survive a loss of power. Blocks."""
        if durable:
            os.fsync(self.file.fd)
        write_facts(
            self.path.with_suffix(".json"),
            self.facts,
            sha256=self.sha256,
            fal_url=self.fal_url,
            prompt_hash=self.prompt_hash,
            durable=durable,
        )

    def delete(self) -> None:
        """Remove the file and then what is said beside it. Blocks.

        In this order: whoever finds a file of which nothing is said takes it for unfinished.
        """
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".json").unlink(missing_ok=True)


def find_kept(spool_dir: Path) -> Spooled:
    """Whole clips whose bytes still have their digest; every other file here is emptied.

    A file that another process has locked is left alone: it is filling it, or keeping it. Of two
    clips of one id, the newer one is what the id was last pointed at. Blocks.
    """
    spool_dir.mkdir(parents=True, exist_ok=True)
    spooled, newest = Spooled(), dict[str, FoundClip]()
    for path in sorted(spool_dir.glob("*.part"), key=_age):
        fd = _lock(path)
        if fd is None:
            continue
        clip = _whole(path, fd)
        if clip is None:
            _empty(path, fd)
            spooled.unfinished.append(path)
            continue
        older = newest.pop(clip.facts.request_id, None)
        if older is not None:
            _remove(older.path, older.fd)
        newest[clip.facts.request_id] = clip
    spooled.whole = list(newest.values())
    for path in spool_dir.glob(f"*{_EMPTY}"):
        path.unlink(missing_ok=True)
    for path in spool_dir.glob("*.json*"):
        name = path.name.partition(".json")[0]
        if path.name.endswith(".tmp") or not (spool_dir / f"{name}.part").exists():
            path.unlink(missing_ok=True)
    return spooled


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # another process of this machine is at work
        return 0


def _lock(path: Path) -> int | None:
    """Open a file and take its lock; None if another process has it, or the file is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _whole(path: Path, fd: int) -> FoundClip | None:
    stored = read_facts(path.with_suffix(".json"))
    if stored is None or stored.sha256 is None or stored.fal_url is None:
        return None
    if not _holds(fd, stored):
        return None
    return FoundClip(
        fd=fd,
        path=path,
        facts=stored.facts,
        sha256=stored.sha256,
        fal_url=stored.fal_url,
        prompt_hash=stored.prompt_hash,
    )


def _holds(fd: int, stored: StoredFacts) -> bool:
    if os.fstat(fd).st_size != stored.facts.length:
        return False
    with open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == stored.sha256


def forget_unfinished(paths: Iterable[Path]) -> None:
    """Remove what `find_kept` has emptied, unless it is being filled anew. Blocks."""
    for path in paths:
        fd = _lock(path)
        if fd is None:
            continue
        if os.fstat(fd).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(fd)


def id_of(path: Path) -> str:
    """The request id in a spool file's name."""
    return path.name.partition(".")[0]


def _empty(path: Path, fd: int) -> None:
    """Put an empty file in the place of one: a new one, never the same one cut short.

    A process that died between its commit and its clearing away has left a name of a file that is
    a local bucket's object by now.
    """
    path.with_suffix(".json").unlink(missing_ok=True)
    empty = path.with_name(f"{path.name}{_EMPTY}")
    empty.touch()
    empty.replace(path)
    os.close(fd)


def _remove(path: Path, fd: int) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    os.close(fd)
