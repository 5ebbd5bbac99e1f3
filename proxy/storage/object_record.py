"""What a directory bucket keeps beside an object's bytes: its type, metadata and digest.

The record belongs to one inode, not to a name, so that a reader who holds a file open can never
pair its bytes with the record of another version. It is an extended attribute, set before the
file gets its visible name; where the filesystem has none, or none so large, it is a sidecar file
that names the inode. A record also names the size and time of the bytes it was made for: a file
that was changed in place since then has no record.

Belongs here: the record's form and its two places. Must not know: keys, directories, commits.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from proxy.storage.bucket import ObjectInfo
from proxy.storage.durable import digest_of

XATTR = "user.firstview"
SIDECAR_VERSIONS = 2
"""The present object's record and its predecessor's, which a reader may still hold open."""

_NO_XATTR_HERE = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.E2BIG, errno.ERANGE, errno.ENOSPC}
"""ext4 says ENOSPC of an attribute larger than a block; a disk that is full will say so again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One version's record. `mtime_ns` and `size` (bytes) are those of the file it was made for."""

    size: int
    mtime_ns: int
    sha256: str
    content_type: str
    metadata: Mapping[str, str]

    @property
    def etag(self) -> str:
        """The first 16 bytes of the SHA-256, hex: equal bytes have equal ETags, as in S3."""
        return self.sha256[:32]

    def describes(self, stat: os.stat_result) -> bool:
        """Whether the bytes are still those that the record was made for."""
        return self.size == stat.st_size and self.mtime_ns == stat.st_mtime_ns


def write_attribute(fd: int, record: Record) -> bool:
    """Attach a record to an open file; False if this filesystem cannot hold it. Raises OSError."""
    try:
        os.setxattr(fd, XATTR, orjson.dumps(asdict(record)))
    except OSError as error:
        if error.errno in _NO_XATTR_HERE:
            return False
        raise
    return True


def read_attribute(fd: int) -> Record | None:
    """Read the record attached to an open file, whatever bytes it was made for."""
    try:
        return _parse(orjson.loads(os.getxattr(fd, XATTR)))
    except (OSError, orjson.JSONDecodeError):  # ENODATA, ENOTSUP: nothing of ours is there
        return None


def remove_attribute(fd: int) -> None:
    """Take a former record off an open file, if there is one: the sidecar speaks for it now."""
    with contextlib.suppress(OSError):
        os.removexattr(fd, XATTR)


def sidecar_bytes(fd: int, record: Record, present: bytes | None) -> bytes:
    """The sidecar's new contents: this open file's record, then its predecessors'."""
    inode = os.fstat(fd).st_ino
    versions = [entry for entry in _versions(present) if entry.get("inode") != inode]
    return orjson.dumps([{"inode": inode, **asdict(record)}, *versions][:SIDECAR_VERSIONS])


def read_sidecar(path: Path) -> bytes | None:
    """Read a sidecar's contents, None if there is none. Raises OSError."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_record(fd: int, sidecar: Path) -> Record | None:
    """Read the record of an open file, None if it has none (someone else put it there)."""
    stat = os.fstat(fd)
    record = read_attribute(fd)
    if record is None:
        entries = (e for e in _versions(read_sidecar(sidecar)) if e.get("inode") == stat.st_ino)
        record = next((_parse(entry) for entry in entries), None)
    return record if record is not None and record.describes(stat) else None


def renewed_record(fd: int) -> Record | None:
    """Take a file that was touched, copied or restored for what it still is: the same bytes.

    None if it never had a record, or holds other bytes than those it was made for. A sidecar does
    not count: an inode's number goes to the next file that needs one, which may be a stranger's.
    """
    record, stat = read_attribute(fd), os.fstat(fd)
    if record is None or record.size != stat.st_size or digest_of(fd) != record.sha256:
        return None
    record = replace(record, mtime_ns=stat.st_mtime_ns)
    with contextlib.suppress(OSError):  # a disk that may only be read: compared each time anew
        write_attribute(fd, record)
    return record


def describe(
    key: str, stat: os.stat_result, record: Record | None, *, altered: bool = False
) -> ObjectInfo:
    """Say of a file what S3 would say of an object; one without a record is a normal object."""
    etag = f"{stat.st_size:x}-{stat.st_mtime_ns:x}" if record is None else record.etag
    return ObjectInfo(
        key=key,
        size=stat.st_size,
        etag=etag,
        last_modified=datetime.fromtimestamp(stat.st_mtime_ns // 1_000_000_000, UTC),
        content_type=None if record is None else record.content_type,
        metadata={} if record is None else record.metadata,
        altered=altered,
    )


def _versions(contents: bytes | None) -> list[dict[str, Any]]:
    try:
        found = orjson.loads(contents or b"[]")
    except orjson.JSONDecodeError:  # no file of ours
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _parse(fields: object) -> Record | None:
    try:
        wanted = {name: fields[name] for name in Record.__slots__}  # type: ignore[index]
    except (KeyError, TypeError):
        return None
    return Record(**wanted)
