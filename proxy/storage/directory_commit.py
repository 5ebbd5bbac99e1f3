"""How a file becomes an object of a directory bucket: atomic, durable, never the wrong one.

The order is everything: record and bytes are on the disk before the name is there, the name is on
the disk before anybody is told, and whoever has a name already keeps it.

Belongs here: that order. Everything here blocks. Must not know: the event loop, or firstview's
errors; it raises OSError, and Conflict where the key is taken.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from proxy.storage import keys
from proxy.storage.bucket import NewObject, ObjectInfo
from proxy.storage.directory_files import ObjectFiles
from proxy.storage.durable import NO_LINK_HERE, link_or_copy, sync_directory, write_synced
from proxy.storage.object_record import (
    Record,
    read_attribute,
    read_sidecar,
    remove_attribute,
    sidecar_bytes,
    write_attribute,
)


class Conflict(Exception):
    """The key holds other bytes than those offered."""


class Placing:
    """One file on its way to its key; `place` may be called again after it failed."""

    def __init__(self, files: ObjectFiles, new: NewObject, source: Path) -> None:
        """Take the bucket, what to write, and the local file that holds it."""
        self._files = files
        self._new = new
        self._source = source

    def place(self, sha256: str) -> ObjectInfo:
        """Make a finished local file visible under its key; see `Upload.commit`.

        The file is linked, not copied, unless it lies on another filesystem: from here on nobody
        may write to it. Its bytes and its record are on the disk before its name is, and its name
        is before this returns.
        """
        self._files.require()
        if self._new.replaces is None and (present := self._accept(sha256)) is not None:
            return present
        target = keys.object_path(self._files.root, self._new.key)
        self._make_parents(target)
        temp = self._files.new_temp()
        try:
            record = self._stage(temp, sha256)
            with self._files.locked():
                present = self._accept(sha256)
                if present is None:
                    self._make_visible(temp, target, record)
        except FileExistsError:  # someone who does not take our lock was faster
            present = self._accept(sha256)
            if present is None:
                raise
        finally:
            temp.unlink(missing_ok=True)
        sync_directory(target.parent)
        return present or self._committed()

    def _accept(self, sha256: str) -> ObjectInfo | None:
        """What already stands for the new object; None if it may be written; else Conflict."""
        with self._files.looking(self._new.key) as found:
            if (None if found is None else found.info.etag) == self._new.replaces:
                return None
            if found is None or not found.holds(self._new.size, sha256):
                raise Conflict
            # A commit that failed between the name and its sync is being called again.
            os.fsync(found.fd)
            sync_directory(keys.object_path(self._files.root, self._new.key).parent)
            return found.info

    def _stage(self, temp: Path, sha256: str) -> Record:
        """Bring the file into `.tmp` with its record, both on the disk; return the record."""
        made_for = self._source.stat()
        record = Record(
            size=made_for.st_size,
            mtime_ns=made_for.st_mtime_ns,
            sha256=sha256,
            content_type=self._new.content_type,
            metadata={**self._new.metadata, keys.META_SHA256: sha256},
        )
        if record.size != self._new.size:
            wrong = f"{record.size} bytes instead of {self._new.size}"
            raise OSError(errno.EIO, wrong, str(self._source))
        # A file that is an object already, with another record, must keep that record.
        link_or_copy(self._source, temp, may_link=not _belongs_to_another(self._source, record))
        fd = os.open(temp, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not record.describes(os.fstat(fd)):  # the clip was cleared away, and is filled anew
                raise OSError(errno.EIO, "another file by now", str(self._source))
            attached = self._files.use_xattrs and write_attribute(fd, record)
            if not attached:
                remove_attribute(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        if not attached:
            sidecar = keys.object_meta_path(self._files.root, self._new.key)
            sidecar.parent.mkdir(parents=True, exist_ok=True)
        return record

    def _make_visible(self, temp: Path, target: Path, record: Record) -> None:
        fd = os.open(temp, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if read_attribute(fd) != record:
                self._write_sidecar(fd, record)
        finally:
            os.close(fd)
        if self._new.replaces is not None:
            temp.rename(target)
            return
        try:
            os.link(temp, target)
        except OSError as error:
            if error.errno not in NO_LINK_HERE:
                raise
            temp.rename(target)  # no hard links here; the lock keeps other firstviews away

    def _write_sidecar(self, fd: int, record: Record) -> None:
        path = keys.object_meta_path(self._files.root, self._new.key)
        temp = self._files.new_temp()
        try:
            write_synced(temp, sidecar_bytes(fd, record, read_sidecar(path)))
            temp.rename(path)
        finally:
            temp.unlink(missing_ok=True)
        sync_directory(path.parent)

    def _committed(self) -> ObjectInfo:
        info = self._files.head(self._new.key)
        if info is None:
            raise OSError(
                errno.EIO, "the object went away while it was being committed", self._new.key
            )
        return info

    def _make_parents(self, target: Path) -> None:
        missing = []
        folder = target.parent
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_directory(folder.parent)


def _belongs_to_another(source: Path, record: Record) -> bool:
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        present = read_attribute(fd)
        return present is not None and present != record and os.fstat(fd).st_nlink > 1
    finally:
        os.close(fd)
