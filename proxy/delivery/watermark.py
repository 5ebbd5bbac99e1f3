"""How far a growing clip may be read: pure bookkeeping, no file, no waiting.

Belongs here: the one rule that keeps a viewer from ever holding a reply that looks whole and is
not: *the last byte is not readable before the whole clip is verified*. Must not know: files,
sockets, the event loop.

    growing ──verify──▶ whole          every byte is readable
       │
       └────fail─────▶ broken          what was readable stays so, unless the bytes were wrong
"""

from __future__ import annotations

from proxy.errors import CorruptClip, FirstviewError


class Watermark:
    """What is known of a clip on its way in: its length, how much of it is here, how it ended."""

    __slots__ = ("failure", "length", "verified", "written")

    def __init__(self) -> None:
        """Begin with nothing: no length, no bytes."""
        self.length: int | None = None
        self.written = 0
        self.verified = False
        self.failure: FirstviewError | None = None

    @property
    def readable(self) -> int:
        """Bytes from the start that viewers may have; never falls, except to 0 for wrong bytes."""
        if isinstance(self.failure, CorruptClip) or self.length is None:
            return 0
        return self.length if self.verified else min(self.written, self.length - 1)

    @property
    def ended(self) -> bool:
        """Whether `readable` can still grow."""
        return self.verified or self.failure is not None

    def announce(self, length: int) -> None:
        """Set the clip's length, once; raises CorruptClip if more has already been written."""
        if self.length not in {None, length}:
            msg = f"announced as {self.length} bytes, then as {length}"
            raise CorruptClip(msg)
        if length <= 0 or self.written > length:
            msg = f"{self.written} bytes came of a clip of {length}"
            raise CorruptClip(msg)
        self.length = length

    def advance(self, count: int) -> None:
        """Count bytes that have reached the file; raises CorruptClip past the announced length."""
        if self.ended:
            msg = "bytes came after the end"
            raise CorruptClip(msg)
        if self.length is not None and self.written + count > self.length:
            msg = f"more than the announced {self.length} bytes came"
            raise CorruptClip(msg)
        self.written += count

    def follow(self, size: int) -> None:
        """Take the size of a file that another process writes.

        What is more than the clip's length is none of the clip.
        """
        if not self.ended:
            known = size if self.length is None else min(size, self.length)
            self.written = max(self.written, known)

    def take_over(self, size: int) -> None:
        """Go on from that size; raises CorruptClip where the clip is shorter."""
        if self.ended or (self.length is not None and size > self.length):
            raise CorruptClip(f"{size} bytes are held of a clip of {self.length}")
        self.written = size

    def verify(self) -> None:
        """Make the whole clip readable; raises CorruptClip unless every byte is here."""
        if self.length is None or self.written != self.length or self.failure is not None:
            msg = f"{self.written} of {self.length} bytes came"
            raise CorruptClip(msg)
        self.verified = True

    def fail(self, error: FirstviewError) -> None:
        """End without the whole clip; the first failure counts, and none after `verify`."""
        if not self.ended:
            self.failure = error
