"""Forgotten ids: what one process re-pointed or purged, all others of the machine hear at once.

Nobody is sent anything. Who forgets writes the id into a ring in shared memory and then counts;
whoever serves compares that count before each reply, which is one read of memory.

Belongs here: the ring, and reading it while others write. Must not know: what has to be dropped.
Who is further behind than the ring is long, or reads an entry that is not whole, is told to drop
everything.
"""

from __future__ import annotations

import struct
import zlib

RING = 1024
"""Ids that a process may be behind."""
_ENTRY = struct.Struct("<IQH128s")
"""CRC-32 of the rest; number, seat of who wrote it, the id."""
_COUNT_BYTES = 8
FORGETS_LAYOUT = (RING, _ENTRY.format)
"""What the meaning of each byte depends on."""
FORGETS_BYTES = -(-(_COUNT_BYTES + RING * _ENTRY.size) // 4096) * 4096


class Forgets:
    """The ring, as one process has read it so far."""

    def __init__(self, memory: memoryview, seat: int) -> None:
        """Take the shared memory; what was forgotten before now is no news."""
        self._count = memory[:_COUNT_BYTES].cast("Q")
        self._ring = memory[_COUNT_BYTES:]
        self._seat = seat
        self._heard = self.count

    @property
    def count(self) -> int:
        """How many ids were ever forgotten."""
        return self._count[0]

    @property
    def is_news(self) -> bool:
        """Whether `news` has anything to say."""
        return self._count[0] != self._heard

    def news(self) -> list[str] | None:
        """Ids that other processes have forgotten since this was last asked; None: maybe any."""
        since, self._heard = self._heard, self.count
        entries = self._entries(since, self._heard)
        if entries is None:
            return None
        return [request_id for seat, request_id in entries if seat != self._seat]

    def has(self, request_id: str, since: int) -> bool:
        """Whether an id may have been forgotten, by anybody, after `count` was `since`."""
        entries = self._entries(since, self.count)
        return entries is None or any(name == request_id for _, name in entries)

    def add(self, request_id: str) -> None:
        """Have all others forget an id; the caller holds the cache's lock."""
        number = self.count
        body = _ENTRY.pack(0, number, self._seat, request_id.encode())[4:]
        at = _ENTRY.size * (number % RING)
        self._ring[at : at + _ENTRY.size] = struct.pack("<I", zlib.crc32(body)) + body
        self._count[0] = (number + 1) % 2**64

    def _entries(self, start: int, stop: int) -> list[tuple[int, str]] | None:
        if not 0 <= stop - start <= RING:
            return None
        found = []
        for number in range(start, stop):
            at = _ENTRY.size * (number % RING)
            entry = bytes(self._ring[at : at + _ENTRY.size])
            crc, written, seat, name = _ENTRY.unpack(entry)
            if crc != zlib.crc32(entry[4:]) or written != number:
                return None
            found.append((seat, name.rstrip(b"\0").decode()))
        return found
