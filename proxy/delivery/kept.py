"""Kept clips: whole, verified spool files that are not stored yet, pinned until they are.

Belongs here: what is known of one, and finding them again after a restart. Must not know: when
they are tried again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from proxy.records import ClipFacts
from proxy.storage.bucket import Upload
from proxy.storage.disk_cache import Reservation
from proxy.storage.facts_file import read_facts
from proxy.storage.open_files import OpenFile


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundClip:
    """A whole clip in the spool of an earlier process."""

    path: Path
    facts: ClipFacts
    sha256: str
    fal_url: str
    prompt_hash: str | None


@dataclass(slots=True, kw_only=True)
class Kept:
    """One clip between verified and stored. `due` is on the monotonic clock, in seconds."""

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

    @classmethod
    def from_disk(cls, found: FoundClip, reservation: Reservation) -> Kept:
        """Take up what `find_kept` found. Opens the file, which has just been read."""
        fd = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
        return cls(
            facts=found.facts,
            sha256=found.sha256,
            fal_url=found.fal_url,
            prompt_hash=found.prompt_hash,
            path=found.path,
            reservation=reservation,
            file=OpenFile(fd, found.facts, "disk"),
        )


def find_kept(spool_dir: Path) -> list[FoundClip]:
    """Whole clips whose bytes still have their digest; every other file here is removed.

    A file that another process is filling is left alone: its lock says so. Blocks.
    """
    spool_dir.mkdir(parents=True, exist_ok=True)
    found: list[FoundClip] = []
    for path in sorted(spool_dir.glob("*.part")):
        clip = _whole(path)
        if clip is None:
            _remove_unless_locked(path)
        else:
            found.append(clip)
    for path in spool_dir.glob("*.json*"):
        name = path.name.partition(".json")[0]
        if path.name.endswith(".tmp") or not (spool_dir / f"{name}.part").exists():
            path.unlink(missing_ok=True)
    return found


def _whole(path: Path) -> FoundClip | None:
    stored = read_facts(path.with_suffix(".json"))
    if stored is None or stored.sha256 is None or stored.fal_url is None:
        return None
    if _digest(path) != stored.sha256:
        return None
    return FoundClip(
        path=path,
        facts=stored.facts,
        sha256=stored.sha256,
        fal_url=stored.fal_url,
        prompt_hash=stored.prompt_hash,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_unless_locked(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        os.close(fd)
