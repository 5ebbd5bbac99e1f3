"""Leftovers: spool files whose process has ended, as whoever looks finds them.

Belongs here: telling whole clips, which are taken, from such as can be gone on with, which are left
for whoever goes on, and from what is of no use. Must not know: what is done about any of them.

A file that another process has locked is none: somebody is filling it, or keeping it. Everything
here blocks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from proxy.records import ClipFacts
from proxy.storage import keys, spool_file
from proxy.storage.durable import digest_of
from proxy.storage.facts_file import StoredFacts, read_facts

_BEGUN_FOR: Final = 3600.0
"""Seconds after its last byte for which a clip that was begun is worth its room on the disk."""
_BESIDE_FOR: Final = 60.0
"""Seconds for which what is said beside no file may be about to be said of one."""
_EMPTY: Final = ".empty"
"""Ending of a file that is about to take the place of one of no use."""

log = structlog.get_logger()


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
class Leftovers:
    """What processes that ended have left: whole clips, and files of such as they did not finish.

    `begun` can be gone on with from where it ends. Of what is `useless` an empty file is left, so
    that a process which dies before it has seen to all leaves the next one to do it; see `forget`.
    """

    whole: list[FoundClip] = field(default_factory=list)
    begun: list[Path] = field(default_factory=list)
    useless: list[Path] = field(default_factory=list)


def find_leftovers(spool_dir: Path, *, quiet_for: float = 0.0) -> Leftovers:
    """Whole clips whose bytes still have their digest, and the names of all others.

    Files that were written to in the last `quiet_for` seconds are passed over, as somebody may be
    about to take them. Of two clips of one id, the newer one is what the id was last pointed at.
    """
    spool_dir.mkdir(parents=True, exist_ok=True)
    found, newest, now = Leftovers(), dict[str, FoundClip](), time.time()
    for path in sorted(spool_dir.glob("*.part"), key=_written_at):
        if _written_at(path) > now - quiet_for:
            continue
        try:
            fd = spool_file.lock_existing(path)
            if fd is not None:
                _sort(fd, path, now, found, newest)
        except OSError as error:  # of this file alone, or of a disk that is full: clips are served
            log.warning("what a process left cannot be looked at", path=path, detail=str(error))
    found.whole = list(newest.values())
    _clear_beside(spool_dir, now)
    return found


def _sort(fd: int, path: Path, now: float, found: Leftovers, newest: dict[str, FoundClip]) -> None:
    """Put one file where it belongs; its descriptor is a whole clip's from then on, or closed."""
    said, clip = read_facts(keys.spool_facts_path(path)), None
    try:
        clip = _whole(path, fd, said)
        if clip is None and said is not None and _is_begun(fd, said, now):
            found.begun.append(path)
        elif clip is None:
            found.useless.append(path)
            _empty(fd, path)
    finally:
        if clip is None:
            os.close(fd)
    if clip is not None:
        older = newest.pop(clip.facts.request_id, None)
        newest[clip.facts.request_id] = clip
        if older is not None:
            _close(older.fd, older.path)


def size_of(spool_dir: Path) -> int:
    """Bytes of all that may have been left, also of what others are at work with."""
    found = 0
    for path in spool_dir.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):  # another process of this machine is at work
            found += path.stat().st_size
    return found


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process of this machine is at work
        return 0.0


def _whole(path: Path, fd: int, said: StoredFacts | None) -> FoundClip | None:
    if said is None or said.sha256 is None or said.fal_url is None or not _holds(fd, said):
        return None
    return FoundClip(
        fd=fd,
        path=path,
        facts=said.facts,
        sha256=said.sha256,
        fal_url=said.fal_url,
        prompt_hash=said.prompt_hash,
    )


def _holds(fd: int, said: StoredFacts) -> bool:
    if spool_file.look(fd).size != said.facts.length:
        return False
    try:
        return digest_of(fd, said.facts.length) == said.sha256
    except OSError:  # a disk that has lost some of it
        return False


def _is_begun(fd: int, said: StoredFacts, now: float) -> bool:
    """Whether all that the file holds was written, of this clip, since this machine started."""
    growth, seen = said.growth, os.fstat(fd)
    return (
        growth is not None
        and said.sha256 is None
        and (growth.inode, growth.boot) == (seen.st_ino, spool_file.boot_id())
        and 0 < seen.st_size <= said.facts.length
        and seen.st_mtime > now - _BEGUN_FOR
    )


def _clear_beside(spool_dir: Path, now: float) -> None:
    for path in (*spool_dir.glob("*.json*"), *spool_dir.glob(f"*{_EMPTY}")):
        name = path.name.partition(".json")[0]
        alone = path.suffix in {".tmp", _EMPTY} or not (spool_dir / f"{name}.part").exists()
        if alone and _written_at(path) < now - _BESIDE_FOR:
            path.unlink(missing_ok=True)


def _empty(fd: int, path: Path) -> None:
    """Put an empty file in the place of one of no use: a new one, never the same one cut short.

    Somebody may be reading that. And a process that died between its commit and its clearing away
    has left a name of a file that is a local bucket's object by now.
    """
    spool_file.unsay(fd, path)
    empty = path.with_name(f"{path.name}{_EMPTY}")
    empty.touch(mode=0o600)
    empty.replace(path)


def _close(fd: int, path: Path) -> None:
    spool_file.remove(fd, path)
    os.close(fd)


def forget(paths: Iterable[Path]) -> None:
    """Remove what `find_leftovers` has emptied, unless it is being filled anew."""
    for path in paths:
        fd = spool_file.lock_existing(path)
        if fd is None:
            continue
        if spool_file.look(fd).size == 0:
            spool_file.remove(fd, path)
        os.close(fd)


def let_go(paths: Iterable[Path]) -> None:
    """Remove files that were begun, and are of no more use, unless somebody goes on with them."""
    for path in paths:
        fd = spool_file.lock_existing(path)
        if fd is not None:
            _close(fd, path)


def forget_clip(spool_dir: Path, request_id: str) -> None:
    """Remove all that processes which ended have left of an id, which means another clip now."""
    let_go(spool_dir.glob(f"{request_id}.*.part"))


def id_of(path: Path) -> str:
    """The request id in a spool file's name."""
    return path.name.partition(".")[0]
