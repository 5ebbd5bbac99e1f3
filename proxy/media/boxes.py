"""The boxes at the top of an ISO media file, followed while its bytes come by.

A source that announces less than it has, or that lost the end of a file long ago, answers with a
perfectly framed body. But an mp4 says itself how long it is: each box tells its size, and the last
one ends where the file does (ISO/IEC 14496-12 §4.2). So a file that ends inside a box was cut.

Belongs here: adding up sizes. Must not know: where the bytes come from, what is inside a box.
"""

from __future__ import annotations

import os
import struct

_KNOWN = frozenset(
    b"ftyp styp moov moof mdat mfra sidx ssix prft emsg free skip wide uuid meta meco udta pdin "
    b"pnot".split()
)
"""Boxes at the top whose size is believed; whatever else follows a clip is nobody's business."""

FTYP_BYTES = 8
"""How much of a file tells whether it is one: 4 bytes of size, then `ftyp` (§4.3)."""


def is_clip_start(first: bytes) -> bool:
    """Whether a file that begins so is an ISO media file; takes its first bytes, 8 at least."""
    return first[4:8] == b"ftyp"


_MOST_WALKED = 64
"""Boxes that are followed; a fragmented file may have many more."""

_SHORT, _LONG = struct.Struct(">I4s"), struct.Struct(">I4sQ")
HEADER_BYTES = _LONG.size
"""The longest header of a box."""


def box_size(header: bytes) -> int | None:
    """Size of the box with this header, its first 8 bytes at least, or 16; the header included.

    None if it cannot be told: the box is none that we know, is too small to be one, or goes on to
    the end of the file, wherever that is. Raises ValueError if more of the header is needed.
    """
    if len(header) < _SHORT.size:
        raise ValueError("a box's header has 8 bytes")
    size, kind = _SHORT.unpack_from(header)
    smallest = _SHORT.size
    if size == 1:
        if len(header) < _LONG.size:
            raise ValueError("the header of a large box has 16 bytes")
        _, _, size = _LONG.unpack_from(header)
        smallest = _LONG.size
    return size if kind in _KNOWN and size >= smallest else None


class BoxWalk:
    """Whether a file is a clip that is all there, told by the headers of its first boxes alone.

    For a file that nobody vouches for, and that lies where one can read anywhere: read
    `HEADER_BYTES` at `at`, or what there is, and feed them, until `is_whole` is no longer None.
    """

    __slots__ = ("_left", "_length", "at", "is_whole")

    def __init__(self, length: int) -> None:
        """Take the file's length in bytes."""
        self._length = length
        self._left = _MOST_WALKED
        self.at = 0
        self.is_whole: bool | None = None if length >= FTYP_BYTES else False

    def feed(self, header: bytes) -> None:
        """Take the bytes at `at`."""
        if self.at == 0 and not is_clip_start(header):
            self.is_whole = False
            return
        try:
            size = box_size(header)
        except ValueError:  # the file ends inside a header
            self.is_whole = False
            return
        self._left -= 1
        self.at += size or 0
        if self.at > self._length:
            self.is_whole = False
        elif size is None or self.at == self._length or not self._left:
            self.is_whole = True


def is_whole_file(fd: int, length: int) -> bool:
    """Whether an open file is a clip that is all there; see `BoxWalk`. Blocks."""
    walk = BoxWalk(length)
    while walk.is_whole is None:
        walk.feed(os.pread(fd, HEADER_BYTES, walk.at))
    return walk.is_whole


class TopBoxes:
    """Says where the box that is being read has to end."""

    __slots__ = ("_header", "_position", "end")

    def __init__(self) -> None:
        """Begin at the file's first byte."""
        self.end: int | None = 0
        """Where the last box seen ends; None once that cannot be told any more."""
        self._position = 0
        self._header = b""

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes of the file, in order."""
        start, self._position = self._position, self._position + len(chunk)
        while self.end is not None and self.end < self._position:
            first = max(0, self.end + len(self._header) - start)
            self._header += chunk[first : first + _LONG.size - len(self._header)]
            if not self._read_header():
                return

    def _read_header(self) -> bool:
        """Go to the end of the box whose header is here; False if more of it is needed."""
        try:
            size = box_size(self._header)
        except ValueError:
            return False
        self.end = None if self.end is None or size is None else self.end + size
        self._header = b""
        return True
