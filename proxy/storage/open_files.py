"""Descriptors of whole clips, kept open between requests: what the hot path looks at first.

Belongs here: an open file with the facts of its clip, and the bound on how many stay open. Must
not know: whether the file is the bucket's, the disk cache's, or one kept for a bucket that is
down.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import ClassVar, Self

from cachetools import Cache, LRUCache

from proxy.records import ClipFacts
from proxy.storage import keys
from proxy.storage.descriptor import Descriptor
from proxy.storage.shared import slot_of


class OpenFile(Descriptor):
    """A whole, verified clip behind a descriptor; closed when nobody needs it any more.

    `tier` is `disk` or `bucket`, as Cache-Status shows it. `head` caches whatever the sender
    derives from the facts once for all replies; `slot` is where its uses are counted.
    """

    __slots__ = ("_gated", "facts", "head", "slot", "tier")
    is_gated: ClassVar = False

    def __init__(self, fd: int, facts: ClipFacts, tier: str) -> None:
        """Own the descriptor from here on; the maker is its first user."""
        super().__init__(fd)
        self.facts = facts
        self.tier = tier
        self.head: bytes | None = None
        self.slot = slot_of(keys.clip_hash(facts.request_id))
        self._gated: GatedFile | None = None

    def gated(self) -> GatedFile:
        """The same file for replies that only who has a signed link may see."""
        if self._gated is None:
            self._gated = GatedFile(self)
        return self._gated


class GatedFile:
    """An open clip as it is served while it is gated: the same file, with a head of its own.

    Whether a clip is gated may change while its file is open, and the other head is never sent.
    """

    __slots__ = ("_file", "facts", "fd", "head", "tier")
    is_gated: ClassVar = True

    def __init__(self, file: OpenFile) -> None:
        """Use `OpenFile.gated`."""
        self._file = file
        self.facts = file.facts
        self.fd = file.fd
        self.tier = file.tier
        self.head: bytes | None = None

    def acquire(self) -> Self:
        """See `Descriptor.acquire`."""
        self._file.acquire()
        return self

    def release(self) -> None:
        """See `Descriptor.release`."""
        self._file.release()


ServedFile = OpenFile | GatedFile
"""What a reply is sent from."""


class OpenFiles:
    """The most recently used open clips, by request id."""

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` descriptors that nobody is reading from."""
        self._files: _Closing = _Closing(maxsize=limit)
        self._round: Iterator[str] = iter(())

    def __len__(self) -> int:
        """How many are kept open."""
        return len(self._files)

    def get(self, request_id: str) -> OpenFile | None:
        """The open clip, if there is one; `acquire` it before the next await."""
        return self._files.get(request_id)

    def put(self, request_id: str, file: OpenFile) -> None:
        """Keep a clip open, in the place of what was there; its maker's use passes to here."""
        self.drop(request_id)
        self._files[request_id] = file

    def drop(self, request_id: str) -> None:
        """Forget a clip: it was evicted, re-pointed or removed."""
        file = self._files.pop(request_id, None)
        if file is not None:
            file.release()

    def drop_nameless(self, most: int) -> None:
        """Look at the next `most` clips, round and round, and drop those whose file was removed.

        Any process of this machine may have evicted them, and the disk gets their bytes back only
        when nobody has them open.
        """
        names = list(itertools.islice(self._round, most))
        if not names:
            self._round = iter(list(self._files))
        for request_id in names:
            if request_id not in self._files:
                continue
            file = Cache.__getitem__(self._files, request_id)  # a look is no use of it
            if os.fstat(file.fd).st_nlink == 0:
                self.drop(request_id)

    def close(self) -> None:
        """Let go of all."""
        for request_id in list(self._files):
            self.drop(request_id)


class _Closing(LRUCache[str, OpenFile]):
    """An LRU whose evicted descriptors are given up."""

    def popitem(self) -> tuple[str, OpenFile]:
        request_id, file = super().popitem()
        file.release()
        return request_id, file
