"""A directory as a bucket: the embedded default.

Belongs here: the bucket protocol over local files, and the one border where the operating
system's errors become the bucket's. Must not know: the order of system calls (directory_files),
or what is done with objects.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Self

from proxy.errors import (
    BucketError,
    BucketRefused,
    ObjectConflict,
    ObjectMissing,
    SourceChanged,
)
from proxy.looks import Looks
from proxy.storage import keys
from proxy.storage.bucket import LocalObject, NewObject, ObjectInfo
from proxy.storage.descriptor import opened
from proxy.storage.directory_commit import Conflict, Placing
from proxy.storage.directory_files import Found, ObjectFiles
from proxy.storage.disk_threads import Disk, mapped_errors
from proxy.storage.file_stream import FileStream

LIST_BATCH = 256
Batch = list[ObjectInfo | None]
"""Named out here, where `list` is not yet the protocol's method."""


class DirectoryBucket:
    """A bucket whose objects are files below one directory; see `keys` for the tree."""

    def __init__(self, root: Path, *, use_xattrs: bool = True) -> None:
        """Take the directory, which `at` has made; see `ObjectFiles` for `use_xattrs`."""
        self._root = root.absolute()
        self._files = ObjectFiles(self._root, use_xattrs=use_xattrs)
        self._disk = Disk()
        self._looks = Looks()

    @classmethod
    async def at(cls, root: Path, *, use_xattrs: bool = True) -> Self:
        """Open the bucket in a directory, made if it is not there.

        Raises BucketRefused or BucketUnavailable if it cannot be written to.
        """
        bucket = cls(root, use_xattrs=use_xattrs)
        try:
            await bucket._disk.run(bucket._files.make)
        except BucketError as error:
            await bucket.close()
            raise type(error)(f"the bucket's folder cannot be used: {error.detail}") from error
        return bucket

    @property
    def name(self) -> str:
        """The directory as a file: URL."""
        return self._root.as_uri()

    async def head(self, key: str) -> ObjectInfo | None:
        """See `Bucket.head`."""
        _check_key(key)
        return await self._disk.run(self._files.head, key)

    async def open(
        self, key: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
    ) -> FileStream:
        """See `Bucket.open`. Raises CorruptClip if no byte lies between start and stop."""
        _check_key(key)
        found = await self._look(key)
        if found is None:
            raise ObjectMissing
        try:
            _check_version(found, etag)
            return FileStream(found, start, stop, self._disk)
        except BaseException:
            os.close(found.fd)
            raise

    def upload(self, new: NewObject, path: Path) -> DirectoryUpload:
        """See `Bucket.upload`. Once committed, nobody may write to the file again."""
        _check_key(new.key)
        return DirectoryUpload(self._files, self._disk, new, path)

    @property
    def is_local(self) -> bool:
        """See `Bucket.is_local`."""
        return True

    async def open_local(self, key: str) -> LocalObject | None:
        """See `Bucket.open_local`."""
        _check_key(key)
        found = await self._look(key)
        return None if found is None else LocalObject(fd=found.fd, info=found.info)

    def seems_here(self, key: str) -> bool:
        """See `Bucket.seems_here`."""
        return keys.object_path(self._files.root, key).exists()

    async def presigned(self, key: str) -> str | None:
        """None: only this machine reaches the files."""
        del key
        return None

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See `Bucket.list`."""
        _check_key(f"{prefix}any")
        walk = self._files.walk(prefix)
        while batch := await self._disk.run(self._next_batch, walk):
            for info in batch:
                if info is not None:  # deleted since its name was read
                    yield info

    async def delete(self, key: str) -> None:
        """See `Bucket.delete`."""
        _check_key(key)
        await self._disk.run(self._files.delete, key)

    async def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """See `Bucket.abort_uploads`; temporary files have no keys, so any prefix means all."""
        del prefix
        return await self._disk.run(self._files.sweep, older_than.total_seconds())

    async def check(self) -> None:
        """See `Bucket.check`: writes, syncs and removes a small file."""
        await self._disk.run(self._files.probe)

    async def close(self) -> None:
        """Wait for what is being written, then let go of the threads."""
        await self._disk.close()

    async def _look(self, key: str) -> Found | None:
        with mapped_errors(), contextlib.suppress(BlockingIOError):
            return self._looks.here(lambda: self._files.look(key, may_read=False))
        looking = self._disk.start(self._files.look, key)
        with mapped_errors():
            return await opened(looking, lambda found: found.fd)

    def _next_batch(self, walk: Iterator[str]) -> Batch:
        return [self._files.head(key) for key in itertools.islice(walk, LIST_BATCH)]


class DirectoryUpload:
    """One object on its way into a directory: nothing happens before its file is whole."""

    def __init__(self, files: ObjectFiles, disk: Disk, new: NewObject, path: Path) -> None:
        """Take what to write, from where, and the bucket's threads."""
        self._placing = Placing(files, new, path)
        self._disk = disk

    async def advance(self, written: int) -> None:
        """Do nothing: the file itself becomes the object."""

    async def commit(self, sha256: str) -> ObjectInfo:
        """See `Upload.commit`. With `replaces`, a key that is free by now is a conflict as well."""
        try:
            return await self._disk.run(self._placing.place, sha256)
        except Conflict as error:
            raise ObjectConflict from error

    async def abort(self) -> bool:
        """Do nothing: what commit did not finish it has removed itself."""
        return True


def _check_version(found: Found, etag: str | None) -> None:
    if etag is not None and found.info.etag != etag:
        raise SourceChanged("the object in the bucket has been replaced")


def _check_key(key: str) -> None:
    """Refuse keys that would leave the directory or reach the bucket's own files in it."""
    parts = key.split("/")
    if parts[0].startswith(".") or "\0" in key or not all(parts) or {".", ".."} & set(parts):
        raise BucketRefused(f"{key!r} cannot be a key of a directory bucket")
