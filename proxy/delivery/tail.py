"""A tail: the readers' side of a local clip that may still be growing.

Belongs here: waiting for bytes, and proving what they are. Must not know: who writes the file, this
process or another.

Nobody is woken by a timer: whoever has read everything waits on `past`, and every change wakes all
of them at once.
"""

from __future__ import annotations

import hashlib
import os

from proxy.delivery.bell import Bell
from proxy.delivery.watermark import Watermark
from proxy.errors import CorruptClip, FirstviewError
from proxy.storage.descriptor import Descriptor
from proxy.storage.durable import hash_of


class Tail(Descriptor):
    """One clip's file, read up to its watermark with `os.sendfile`, at offsets of one's own."""

    def __init__(self, fd: int) -> None:
        """Own the descriptor from here on; the maker is its first user."""
        super().__init__(fd)
        self.mark = Watermark()
        self._bell = Bell()
        self._lead = b""

    @classmethod
    def whole(cls, fd: int, length: int) -> Tail:
        """A clip that is whole and verified already, as one that grows no more."""
        tail = cls(fd)
        tail.mark.announce(length)
        tail.mark.follow(length)
        tail.mark.verify()
        return tail

    async def past(self, position: int) -> int:
        """Wait until more than `position` bytes are readable, and return how many are.

        Raises the fill's failure when no more will come.
        """
        while (readable := self.mark.readable) <= position:
            if self.mark.failure is not None:
                raise self.mark.failure
            if self.mark.verified:
                break
            await self._bell.rung()
        return readable

    def lead(self, first: bytes) -> None:
        """Let viewers have the clip's first bytes from memory while they are being written.

        `announce` first: of a clip that has come whole, the last byte is kept back.
        """
        if self.mark.length is not None:
            self._lead = first[: self.mark.length - 1]

    def ahead(self, position: int) -> bytes:
        """What viewers may have from there on that is not in the file yet; mostly nothing."""
        return self._lead[position:] if self.mark.failure is None else b""

    async def ended(self) -> None:
        """Wait until the clip is whole or failed; raises nothing."""
        while not self.mark.ended:
            await self._bell.rung()

    def announce(self, length: int) -> None:
        """Say how long the clip is; viewers can be answered from here on."""
        self.mark.announce(length)
        self._bell.ring()

    def fail(self, error: FirstviewError) -> None:
        """End the waiting of every viewer who has read all there is."""
        self.mark.fail(error)
        self._bell.ring()

    async def proof(self, position: int) -> hashlib._Hash:
        """The SHA-256 of the first `position` bytes, read again, whoever wrote them.

        Raises CorruptClip if they cannot be read.
        """
        if position <= len(self._lead):
            return hashlib.sha256(self._lead[:position])
        try:
            return await self.read(None, _hash, position)
        except OSError as error:
            raise CorruptClip(f"the local file cannot be read: {error}") from error

    async def is_watched_elsewhere(self) -> bool:
        """Whether viewers of another process are waiting for what is written here."""
        return False

    async def remove(self) -> None:
        """Take the file's name away, if it is this process's own; there is nothing to do here."""


def _hash(fd: int, size: int) -> hashlib._Hash:
    seen = hash_of(fd, size)
    if os.fstat(fd).st_size < size:
        raise CorruptClip("the local file was cut short")
    return seen
