"""The facts of a cached clip, in the clip's own file: one inode, one rename, whole or absent.

Behind the clip's last byte lies one more box, as ISO/IEC 14496-12 §4.2 lets anybody add (`uuid`),
so that the file is still an mp4 to every program. It is always as long, so that a reader finds it
by the file's length alone:

    clip … │ size │ "uuid" │ 16 bytes that are ours │ JSON │ size │
           └──────────────────── SIZE bytes ─────────────────────┘

Belongs here: writing and reading that box, believing nothing of it. Must not know: where the file
lies, or who asks. Its first and last word say the same, and the clip's length has to fit: a file
that was cut short, or is none of ours, has no facts.

The digest is for bytes that were never synced, since a loss of power may have lost some of them: a
clip that was written before this machine last started is compared with it once; see `boot_id`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import orjson

from proxy.records import ClipFacts
from proxy.storage.durable import digest_of
from proxy.storage.facts_file import facts_of, facts_to
from proxy.storage.spool_file import boot_id

SIZE = 1024
"""Bytes of the box, always, so that a clip's length follows from its file's."""
_OURS = bytes.fromhex("6b0f5e0b6d3a4c5e9a44f1a57c11b2e7")
_HEAD = struct.Struct(">I4s16s")
_TAIL = struct.Struct(">I")
_ROOM = SIZE - _HEAD.size - _TAIL.size


class FactsTooLong(OSError):
    """A clip's facts do not fit behind it; it cannot be cached."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """What is said behind a clip; `boot` is when it was written or last compared with it."""

    facts: ClipFacts
    sha256: str
    boot: str

    def holds(self, fd: int) -> bool:
        """Whether the clip's bytes are what they were. Blocks."""
        return self.boot == boot_id() or digest_of(fd, self.facts.length) == self.sha256


def write_trailer(fd: int, facts: ClipFacts, sha256: str) -> None:
    """Put a clip's facts behind its last byte. Blocks. Raises OSError."""
    said = orjson.dumps({**facts_to(facts), "sha256": sha256, "boot": boot_id()})
    if len(said) > _ROOM:
        raise FactsTooLong(f"the facts of {facts.request_id} take {len(said)} bytes")
    box = _HEAD.pack(SIZE, b"uuid", _OURS) + said.ljust(_ROOM) + _TAIL.pack(SIZE)
    written = os.pwrite(fd, box, facts.length)
    if written != SIZE:
        raise OSError(f"only {written} of {SIZE} bytes were written")


def read_trailer(fd: int) -> Trailer | None:
    """What is said in an open file; None if nothing is, or not of one of this size. Blocks."""
    size = os.fstat(fd).st_size
    if size <= SIZE:
        return None
    box = os.pread(fd, SIZE, size - SIZE)
    if len(box) != SIZE or box[: _HEAD.size] != _HEAD.pack(SIZE, b"uuid", _OURS):
        return None
    if box[-_TAIL.size :] != _TAIL.pack(SIZE):
        return None
    try:
        said = orjson.loads(box[_HEAD.size : -_TAIL.size])
        found = Trailer(facts_of(said), str(said["sha256"]), str(said["boot"]))
    except (ValueError, KeyError, TypeError):
        return None
    return found if found.facts.length == size - SIZE else None
