"""The files of a directory bucket: looking, walking, deleting. Everything here blocks.

    videos/<request_id>.mp4     visible objects
    .tmp/<random>               written, not yet visible
    .meta/…                     records, where the filesystem has no extended attributes
    .lock                       flock'ed by whoever replaces, deletes or writes a sidecar

Belongs here: where things are and how they are read. Must not know: the event loop, or firstview's
errors; it raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat as stat_module
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.storage import keys
from proxy.storage.bucket import ObjectInfo
from proxy.storage.durable import (
    digest_of,
    sync_directory,
    write_synced,
)
from proxy.storage.object_record import (
    Record,
    describe,
    read_attribute,
    read_record,
    renewed_record,
)


@dataclass(frozen=True, slots=True)
class Found:
    """An object held open: `fd` is the caller's to close, and `info` is of exactly these bytes."""

    fd: int
    info: ObjectInfo
    record: Record | None

    def holds(self, size: int, sha256: str) -> bool:
        """Whether these are the bytes with that digest; read only where no record says so."""
        if self.info.size != size:
            return False
        if self.record is not None:
            return self.record.sha256 == sha256
        return digest_of(self.fd) == sha256


class ObjectFiles:
    """The blocking half of a directory bucket."""

    def __init__(self, root: Path, *, use_xattrs: bool = True) -> None:
        """Take the bucket's directory; `use_xattrs=False` keeps all records in sidecars."""
        self.root = root
        self._temp = keys.object_temp_dir(root)
        self.use_xattrs = use_xattrs

    def make(self) -> None:
        """Make the bucket's own directories and try whether they can be written to."""
        self._temp.mkdir(parents=True, exist_ok=True)
        keys.object_lock_path(self.root).touch()
        self.probe()
        sync_directory(self.root)

    def probe(self) -> None:
        """Write, sync and remove a small file."""
        self.require()
        path = self.new_temp()
        try:
            write_synced(path, b"firstview")
        finally:
            path.unlink(missing_ok=True)

    def require(self) -> None:
        """Refuse to take a disk that is not mounted for an empty bucket."""
        if not self._temp.is_dir():
            raise OSError(errno.EIO, "the bucket's directory has gone", str(self.root))

    def look(self, key: str, *, may_read: bool = True) -> Found | None:
        """Open an object with its own record, None if there is none.

        Raises BlockingIOError where only another file or its bytes could tell which, and nothing
        may be read.
        """
        path = keys.object_path(self.root, key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            self.require()
            return None
        try:
            stat = os.fstat(fd)
            if not stat_module.S_ISREG(stat.st_mode):
                os.close(fd)
                return None
            record = read_attribute(fd)
            if record is None or not record.describes(stat):
                if not may_read:
                    raise BlockingIOError(errno.EAGAIN, "a file would have to be read", str(path))
                record = read_record(fd, keys.object_meta_path(self.root, key))
                record = record or renewed_record(fd)
            altered = record is None and read_attribute(fd) is not None
        except BaseException:
            os.close(fd)
            raise
        return Found(fd, describe(key, stat, record, altered=altered), record)

    def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object, None if there is none."""
        with self.looking(key) as found:
            return None if found is None else found.info

    def delete(self, key: str) -> None:
        """Remove an object and its record; no error if there is none."""
        self.require()
        path = keys.object_path(self.root, key)
        with self.locked():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                sync_directory(path.parent)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                keys.object_meta_path(self.root, key).unlink()

    def walk(self, prefix: str) -> Iterator[str]:
        """Every key with the prefix, in the order of its UTF-8 bytes, as S3 lists them.

        One directory's names are held at a time, nothing else.
        """
        self.require()
        folder = prefix.rpartition("/")[0]
        yield from self._walk(f"{folder}/" if folder else "", prefix)

    def sweep(self, older_than: float) -> int:
        """Remove what a killed process left in `.tmp` more than that many seconds ago."""
        self.require()
        removed = 0
        with os.scandir(self._temp) as entries:
            for entry in entries:
                # Linking sets ctime; mtime is as old as the clip.
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - entry.stat(follow_symlinks=False).st_ctime > older_than:
                        Path(entry.path).unlink()
                        removed += 1
        return removed

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                # A folder sorts by its slash: "a.mp4" stands before "a/b.mp4".
                names = [
                    e.name + "/" if e.is_dir(follow_symlinks=False) else e.name for e in entries
                ]
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted(names, key=os.fsencode):
            key = folder + name
            if not folder and name.startswith("."):
                continue
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                yield key

    @contextlib.contextmanager
    def looking(self, key: str) -> Iterator[Found | None]:
        """Look at an object and close it again."""
        found = self.look(key)
        try:
            yield found
        finally:
            if found is not None:
                os.close(found.fd)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the bucket's other writers away, those of other processes too."""
        fd = os.open(keys.object_lock_path(self.root), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def new_temp(self) -> Path:
        """A name in `.tmp` that nobody has."""
        return self._temp / secrets.token_hex(16)
