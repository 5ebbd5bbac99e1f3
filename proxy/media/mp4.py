"""How long an mp4 plays and how large its picture is, read from its index.

Everything is in one box, `moov`, at the front of a file or at its end (ISO/IEC 14496-12 §8.2.1):
the film's duration in `mvhd` (§8.2.2), or in `mehd` (§8.8.2) where the film comes in fragments;
for each track what it is in `hdlr` (§8.4.3), its size and rotation in `tkhd` (§8.3.2), and the size
of its coded pictures in `stsd` (§12.1.3).

Belongs here: following boxes, within bounds, and believing none of them. Must not know: where the
bytes come from, whether a file is whole (`boxes.py`), or who wants to know.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from proxy.records import MediaFacts

Read = Callable[[int, int], bytes]
"""Takes an offset and a size; returns those bytes, fewer only where the file ends."""

MAX_READS: Final = 256
"""Times that a file is read for one description: headers of boxes at its top, then `moov`."""
MAX_INDEX: Final = 4 * 1024 * 1024
"""Bytes of `moov` that are read. What is asked for stands before the long tables of samples."""

_MAX_BOXES: Final = 2000
_LONGEST: Final = 7 * 24 * 3600.0
"""Seconds; a clip that says that it is longer lies."""
_RIGHT_ANGLE: Final = 1 << 16
"""The sine of 90° as a 16.16 fixed-point number."""

_SHORT, _LONG = struct.Struct(">I4s"), struct.Struct(">I4sQ")


def describe_file(fd: int, length: int) -> MediaFacts | None:
    """Describe an open file of `length` bytes; blocks, so on a thread. Raises OSError."""
    return describe(lambda offset, size: os.pread(fd, size, offset), length)


def describe(read: Read, length: int) -> MediaFacts | None:
    """Say what an mp4 of `length` bytes says of itself; None if it says nothing that is sure.

    Width and height are those of the first video track as it is to be shown, turned by 90° where
    the file says so. Whatever the bytes are, this ends after at most `MAX_READS` reads of at most
    `MAX_INDEX` bytes, and raises nothing but what `read` raises.
    """
    index = _index(read, length)
    if index is None:
        return None
    described = _Moov(index.data).describe(index.whole)
    return None if described == MediaFacts() else described


# --- boxes --------------------------------------------------------------------------------------


class _Index(NamedTuple):
    data: bytes
    """The beginning of `moov`'s content."""
    whole: int
    """How long all of its content is."""


class _Box(NamedTuple):
    kind: bytes
    start: int
    """Where its content begins."""
    stop: int
    """Where it ends, exclusive; this may lie behind what was read."""


def _box(header: bytes, at: int, end: int) -> _Box | None:
    """Read the header that stands at `at` in something that ends at `end` (§4.2).

    None for a box that is smaller than its header or larger than what holds it.
    """
    if len(header) < _SHORT.size:
        return None
    size, kind = _SHORT.unpack_from(header)
    start = at + _SHORT.size
    if size == 1:
        if len(header) < _LONG.size:
            return None
        _, _, size = _LONG.unpack_from(header)
        start = at + _LONG.size
    stop = end if size == 0 else at + size
    return _Box(kind, start, stop) if start <= stop <= end else None


def _index(read: Read, length: int) -> _Index | None:
    """Find `moov` among the boxes at the top, and read it as far as allowed."""
    at = 0
    for _ in range(MAX_READS - 1):
        if at + _SHORT.size > length:
            return None
        box = _box(read(at, min(_LONG.size, length - at)), at, length)
        if box is None:
            return None
        if box.kind == b"moov":
            whole = box.stop - box.start
            return _Index(read(box.start, min(whole, MAX_INDEX)), whole)
        at = box.stop
    return None


class _Moov:
    """The content of `moov`, or its beginning, in memory."""

    def __init__(self, data: bytes) -> None:
        """Take its bytes."""
        self._data = data
        self._left = _MAX_BOXES

    def describe(self, whole: int) -> MediaFacts:
        """Say what is in it; `whole` is how many bytes it would have if all were here."""
        timescale, ticks, fragmented = 0, None, False
        size: tuple[int, int] | None = None
        for box in self._children(0, whole):
            if box.kind == b"mvhd" and not timescale:
                timescale, film = self._film(box)
                ticks = ticks if fragmented else film
            elif box.kind == b"mvex":
                # `mvhd` then counts only what stands in `moov` itself, often nothing.
                ticks, fragmented = self._fragments(box), True
            elif box.kind == b"trak" and size is None:
                size = self._picture(box)
        duration = ticks / timescale if timescale and ticks else None
        if duration is not None and duration > _LONGEST:
            duration = None
        width, height = size or (None, None)
        return MediaFacts(duration=duration, width=width, height=height)

    # -- time ---

    def _film(self, mvhd: _Box) -> tuple[int, int | None]:
        """Ticks a second, and ticks in all, None if unknown."""
        long = self._number(mvhd, 0, 1) == 1
        scale = self._number(mvhd, 20 if long else 12, 4) or 0
        return scale, self._ticks(mvhd, 24 if long else 16, 8 if long else 4)

    def _fragments(self, mvex: _Box) -> int | None:
        """Ticks of all fragments, if that is told."""
        mehd = self._first(mvex, b"mehd")
        if mehd is None:
            return None
        return self._ticks(mehd, 4, 8 if self._number(mehd, 0, 1) == 1 else 4)

    def _ticks(self, box: _Box, offset: int, size: int) -> int | None:
        """A duration; all ones means that whoever wrote the file did not know it."""
        ticks = self._number(box, offset, size)
        return None if ticks == (1 << 8 * size) - 1 else ticks

    # -- pictures ---

    def _picture(self, trak: _Box) -> tuple[int, int] | None:
        """Width and height of a track, if it is a video track and says so."""
        mdia = self._first(trak, b"mdia")
        hdlr = None if mdia is None else self._first(mdia, b"hdlr")
        if mdia is None or hdlr is None or self._bytes(hdlr, 8, 4) != b"vide":
            return None
        tkhd = self._first(trak, b"tkhd")
        shown, turned = (None, False) if tkhd is None else self._shown(tkhd)
        size = shown or self._coded(mdia)
        return (size[1], size[0]) if size and turned else size

    def _shown(self, tkhd: _Box) -> tuple[tuple[int, int] | None, bool]:
        """The size at which to show a track, and whether it is to be turned by 90° then.

        The matrix is a, b, u, c, d, v, …: without a and d, x becomes y and y becomes x.
        """
        matrix = 52 if self._number(tkhd, 0, 1) == 1 else 40
        a, b, c, d = (self._number(tkhd, matrix + offset, 4, signed=True) for offset in _ABCD)
        turned = a == d == 0 and {b, c} <= {_RIGHT_ANGLE, -_RIGHT_ANGLE}
        width = self._number(tkhd, matrix + 36, 4)
        height = self._number(tkhd, matrix + 40, 4)
        if width is None or height is None:
            return None, turned
        return _size((width + 0x8000) >> 16, (height + 0x8000) >> 16), turned

    def _coded(self, mdia: _Box) -> tuple[int, int] | None:
        """The size of a track's coded pictures, out of its first sample entry."""
        box: _Box | None = mdia
        for kind in (b"minf", b"stbl", b"stsd"):
            box = None if box is None else self._first(box, kind)
        if box is None:
            return None
        entry = next(self._children(box.start + 8, box.stop), None)
        if entry is None:
            return None
        return _size(self._number(entry, 24, 2), self._number(entry, 26, 2))

    # -- what is there ---

    def _first(self, box: _Box, kind: bytes) -> _Box | None:
        return next(
            (child for child in self._children(box.start, box.stop) if child.kind == kind), None
        )

    def _children(self, at: int, end: int) -> Iterator[_Box]:
        """The boxes from `at` on, up to the first that cannot be one."""
        while at + _SHORT.size <= min(end, len(self._data)) and self._left > 0:
            self._left -= 1
            box = _box(self._data[at : min(at + _LONG.size, end)], at, end)
            if box is None:
                return
            yield box
            at = box.stop

    def _bytes(self, box: _Box, offset: int, size: int) -> bytes | None:
        """Some bytes of a box's content, if all of them are in it and were read."""
        at = box.start + offset
        return self._data[at : at + size] if at + size <= min(box.stop, len(self._data)) else None

    def _number(self, box: _Box, offset: int, size: int, *, signed: bool = False) -> int | None:
        found = self._bytes(box, offset, size)
        return None if found is None else int.from_bytes(found, "big", signed=signed)


_ABCD: Final = (0, 4, 12, 16)
"""Where those four stand in a matrix, in bytes."""


def _size(width: int | None, height: int | None) -> tuple[int, int] | None:
    return (width, height) if width and height else None
