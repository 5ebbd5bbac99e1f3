"""The boxes at the top of an ISO media file, followed while its bytes come by.

A source that announces less than it has, or that lost the end of a file long ago, answers with a
perfectly framed body. But an mp4 says itself how long it is: each box tells its size, and the last
one ends where the file does (ISO/IEC 14496-12 §4.2). So a file that ends inside a box was cut.

Belongs here: adding up sizes. Must not know: where the bytes come from, what is inside a box.
"""

from __future__ import annotations

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


_SHORT, _LONG = struct.Struct(">I4s"), struct.Struct(">I4sQ")


class TopBoxes:
    """Says where the box that is being read has to end."""

    __slots__ = ("_header", "_position", "end")

    def __init__(self) -> None:
        """Begin at the file's first byte."""
        self.end: int | None = 0
        """Where the last box seen ends; None once that cannot be told any more."""
        self._position = 0
        self._header = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file, in order."""
        start, self._position = self._position, self._position + len(chunk)
        while self.end is not None and self.end < self._position:
            first = max(0, self.end + len(self._header) - start)
            self._header += chunk[first : first + _LONG.size - len(self._header)]
            if not self._read_header():
                return

    def _read_header(self) -> bool:
        """Go to the end of the box whose header is here; False if more of it is needed."""
        if self.end is None or len(self._header) < _SHORT.size:
            return False
        size, kind = _SHORT.unpack_from(self._header)
        smallest = _SHORT.size
        if size == 1:
            if len(self._header) < _LONG.size:
                return False
            _, _, size = _LONG.unpack(self._header)
            smallest = _LONG.size
        # A size of 0 is "to the end of the file", wherever that is.
        self.end = self.end + size if kind in _KNOWN and size >= smallest else None
        self._header = b""
        return True
