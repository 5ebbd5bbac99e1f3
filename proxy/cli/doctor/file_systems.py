"""What a file system can do, and whether it is one to keep clips on.

Belongs here: trying its calls, and judging its kind by name. Must not know: the event loop, or
which directory is meant. Everything that tries blocks.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.cli.doctor.finding import Verdict, failure, fine, warning
from proxy.storage.durable import write_synced
from proxy.storage.file_lock import try_lock

_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_CONTAINER: Final = frozenset({"overlay", "aufs"})
_NETWORK: Final = re.compile(
    r"nfs4?|cifs|smb3?|smbfs|afs|9p|ceph|glusterfs|lustre|ocfs2|gfs2|beegfs|fuse\.\w*(s3|ssh|gcs|"
    r"ceph|gluster|rclone|goofys|mount-s3|blob)\w*|virtiofs"
)
_ESCAPED: Final = re.compile(r"\\(\d{3})")
_ELSEWHERE: Final = "put FIRSTVIEW_DATA_DIR on a local disk with ext4 or xfs"
_UNABLE: Final = {errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}


def kind_of(path: str, mountinfo: str) -> str:
    """Kind of the file system that an absolute, resolved path lies on; "" if nobody knows.

    Takes the text of /proc/self/mountinfo (proc(5)): the mount point is its fifth field, and the
    kind follows the lone hyphen.
    """
    best, kind = "", ""
    for line in mountinfo.splitlines():
        mount, _, rest = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5 or not rest:  # noqa: PLR2004 - see proc(5)
            continue
        point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, rest.split(" ")[0]
    return kind


def judge_kind(kind: str, *, sqlite: bool) -> Verdict:
    """Judge a file system by its kind; `sqlite`: the catalog is a file on it."""
    if kind in _MEMORY:
        seen = f"{kind}, which is memory: kept clips and the catalog are gone after a restart"
        return warning(seen, _ELSEWHERE)
    if kind in _CONTAINER:
        seen = f"{kind}: what a container writes there is gone with the container"
        return warning(seen, "mount a volume at FIRSTVIEW_DATA_DIR")
    if _NETWORK.fullmatch(kind):
        if sqlite:
            mend = f"{_ELSEWHERE}, or set FIRSTVIEW_DATABASE_URL to a PostgreSQL"
            return failure(f"{kind}, over a network: SQLite's log does not work there", mend)
        return warning(f"{kind}, over a network: slow, and locks may not hold", _ELSEWHERE)
    return fine(kind or "of a kind that cannot be told")


def try_all(folder: Path) -> dict[str, OSError | None]:
    """Try, in an empty folder, each call that serving is made of; None: it works."""
    found: dict[str, OSError | None] = {}
    for name, attempt in _ATTEMPTS.items():
        try:
            attempt(folder)
        except OSError as error:
            found[name] = error
        else:
            found[name] = None
    return found


def judge_call(name: str, error: OSError | None) -> Verdict:
    """Judge one of those calls."""
    if error is None:
        return fine("works")
    seen = f"{os.strerror(error.errno or 0)}"
    if error.errno in {errno.EDQUOT, errno.ENOSPC}:
        return failure(seen, "make room on the disk of FIRSTVIEW_DATA_DIR, or raise its quota")
    if name == XATTRS and error.errno in _UNABLE:
        return warning(
            f"{seen}: what a directory bucket knows of a clip goes to a file beside it",
            f"nothing has to be done; or {_ELSEWHERE}",
        )
    return failure(seen, _ELSEWHERE)


def _lock(folder: Path) -> None:
    path = folder / "lock"
    first = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    second = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if not try_lock(first) or try_lock(second):
            raise OSError(errno.ENOLCK, "two could have the same lock")
    finally:
        os.close(first)
        os.close(second)


def _write(folder: Path) -> None:
    write_synced(folder / "file", b"firstview" * 1000)


def _link(folder: Path) -> None:
    write_synced(folder / "linked", b"firstview")
    os.link(folder / "linked", folder / "link")
    if (folder / "link").stat().st_nlink != 2:  # noqa: PLR2004 - the file and its link
        raise OSError(errno.ENOTSUP, "a link became a copy")


def _attribute(folder: Path) -> None:
    path = folder / "attribute"
    path.touch()
    os.setxattr(path, "user.firstview", b"{}")
    if os.getxattr(path, "user.firstview") != b"{}":
        raise OSError(errno.ENOTSUP, "an attribute is not what was written")


def _send(folder: Path) -> None:
    path = folder / "send"
    write_synced(path, b"firstview")
    ours, theirs = socket.socketpair()
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.sendfile(ours.fileno(), file, 0, 9)
        if theirs.recv(16) != b"firstview":
            raise OSError(errno.EIO, "other bytes came than were sent")
    finally:
        os.close(file)
        ours.close()
        theirs.close()


def _allocate(folder: Path) -> None:
    fd = os.open(folder / "room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, 4096)
    finally:
        os.close(fd)


XATTRS: Final = "attributes"
_ATTEMPTS: Final[dict[str, Callable[[Path], None]]] = {
    "write and sync": _write,
    "locks": _lock,
    "hard links": _link,
    "sendfile": _send,
    "allocate": _allocate,
    XATTRS: _attribute,
}
