"""Bytes that are structurally an ISO media file, of any size, the same for the same seed.

Belongs here: boxes and filler. Must not know: HTTP. Nothing plays these; see `tests.fakes.clips`
for clips that do.
"""

import hashlib
import random
import struct
from functools import cache

_BLOCK = 1 << 20
_FTYP = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp42")
_SMALLEST = len(_FTYP) + 8
_MOOV = 1024


@cache
def _filler(seed: int) -> bytes:
    return random.Random(seed).randbytes(_BLOCK)


class Clip:
    """A clip that is computed where it is read, so that its size costs no memory.

    `ftyp` comes first, then `moov` (or at the end, with `moov_at_end`) and `mdat`. Every MiB of
    the payload differs from every other, so bytes at a wrong place are noticed.
    """

    def __init__(self, size: int, seed: int = 0, *, moov_at_end: bool = False) -> None:
        if size < _SMALLEST:
            raise ValueError(f"a clip has at least {_SMALLEST} bytes")
        self.size = size
        self.seed = seed
        moov = _moov(min(_MOOV, size - _SMALLEST), seed)
        room = size - len(_FTYP) - len(moov)
        mdat = _box(b"mdat", room)
        if moov_at_end:
            self._head, self._tail = _FTYP + mdat, moov
        else:
            self._head, self._tail = _FTYP + moov + mdat, b""

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes `start` up to `stop` (exclusive)."""
        stop = min(stop, self.size)
        tail_at = self.size - len(self._tail)
        pieces = [self._head[start : min(stop, len(self._head))]]
        at = max(start, len(self._head))
        while at < min(stop, tail_at):
            block, offset = divmod(at, _BLOCK)
            end = min(stop, tail_at, (block + 1) * _BLOCK)
            pieces.append(self._payload(block, offset, end - block * _BLOCK))
            at = end
        if stop > tail_at:
            pieces.append(self._tail[max(0, start - tail_at) : stop - tail_at])
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]

    def _payload(self, block: int, start: int, stop: int) -> bytes:
        filler = _filler(self.seed)
        if start >= 8:
            return filler[start:stop]
        return (struct.pack(">Q", block) + filler[8:stop])[start:stop]

    def sha256(self) -> str:
        """Return the digest of the whole clip, in hex."""
        digest = hashlib.sha256()
        for at in range(0, self.size, _BLOCK):
            digest.update(self.read(at, at + _BLOCK))
        return digest.hexdigest()


def make_clip(size: int, seed: int = 0, *, moov_at_end: bool = False) -> bytes:
    """Return the bytes of a `Clip`, for those that fit in memory."""
    return Clip(size, seed, moov_at_end=moov_at_end).read(0, size)


def _moov(size: int, seed: int) -> bytes:
    """Return a `moov` with filler inside, or nothing where it does not fit."""
    if size < 16:
        return b""
    return _box(b"moov", size) + _box(b"free", size - 8) + _filler(~seed)[: size - 16]


def _box(kind: bytes, size: int) -> bytes:
    if size < 1 << 32:
        return struct.pack(">I4s", size, kind)
    return struct.pack(">I4sQ", 1, kind, size)
