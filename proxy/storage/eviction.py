"""Which cached clip goes first: S3-FIFO, which a scan of the long tail cannot empty.

Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP 2023. Most
clips of a long tail are asked for once. So a new clip enters a small queue, and only if it is used
there again it moves on to the main one; otherwise it leaves, and only its hash is remembered for
a while (the ghost): if it comes back soon, it enters the main queue at once. A clip at the main
queue's head that was used meanwhile goes round once more. Nothing moves when a clip is used: the
server counts up one byte, and that is all that a hit costs.

Belongs here: the queues, as hashes and sizes. Must not know: files, processes. Compact, for a
million clips: 16 bytes each in a queue, 8 in the ghost. A clip that was purged stays in its queue
until its turn comes, when its file turns out not to be there.
"""

from __future__ import annotations

from array import array
from typing import Final, Protocol

PROMOTED: Final = 2
"""Uses in the small queue that make a clip one of the main queue (the paper's)."""
_SMALL_SHARE: Final = 0.1
"""Part of all bytes that new clips may take up (the paper's)."""
_LEAST_GHOSTS: Final = 1024


class Uses(Protocol):
    """How often each clip was used lately: one small number per slot."""

    def __len__(self) -> int:
        """How many slots there are."""
        ...

    def __getitem__(self, slot: int, /) -> int:
        """Uses that were counted at a slot."""
        ...

    def __setitem__(self, slot: int, uses: int, /) -> None:
        """Set them."""
        ...


class Queue:
    """Clips in the order in which they came."""

    __slots__ = ("_clips", "_head", "_sizes", "size")

    def __init__(self) -> None:
        """Begin empty."""
        self._clips, self._sizes = array("Q"), array("Q")
        self._head = 0
        self.size = 0
        """Bytes of all clips in it."""

    def __len__(self) -> int:
        """How many clips are in it."""
        return len(self._clips) - self._head

    def push(self, clip: int, size: int) -> None:
        """Add a clip at the end."""
        self._clips.append(clip)
        self._sizes.append(size)
        self.size += size

    def pop(self) -> tuple[int, int]:
        """Take the first clip out."""
        clip, size = self._clips[self._head], self._sizes[self._head]
        self._head += 1
        self.size -= size
        if self._head * 2 > len(self._clips):  # so that each clip is moved once on average
            del self._clips[: self._head], self._sizes[: self._head]
            self._head = 0
        return clip, size

    def take_all(self, other: Queue) -> None:
        """Add all clips of another queue, which is empty afterwards."""
        self._clips.extend(other._clips[other._head :])
        self._sizes.extend(other._sizes[other._head :])
        self.size += other.size
        other.clear()

    def clear(self) -> None:
        """Let go of all clips."""
        del self._clips[:], self._sizes[:]
        self._head = self.size = 0


class Ghost:
    """Hashes of clips that have left lately; each is forgotten when another one takes its place."""

    def __init__(self) -> None:
        """Begin empty."""
        self._slots = array("Q", bytes(8 * _LEAST_GHOSTS))

    def add(self, clip: int) -> None:
        """Remember a clip."""
        self._slots[clip % len(self._slots)] = clip

    def take(self, clip: int) -> bool:
        """Whether a clip is remembered; it no longer is afterwards."""
        slot = clip % len(self._slots)
        found = self._slots[slot] == clip
        if found:
            self._slots[slot] = 0
        return found

    def fit(self, clips: int) -> None:
        """Have about as many places as there are clips in the cache."""
        if clips > len(self._slots):
            former = self._slots
            self._slots = array("Q", bytes(16 * len(former)))
            for clip in former:
                self.add(clip)


class Eviction:
    """The clips of one cache, and in which order they leave it."""

    def __init__(self, uses: Uses) -> None:
        """Take the counters of use, which others count up meanwhile."""
        self._uses = uses
        self._slots = len(uses)
        self._small, self._main, self._ghost = Queue(), Queue(), Ghost()

    def __len__(self) -> int:
        """How many clips there are."""
        return len(self._small) + len(self._main)

    @property
    def size(self) -> int:
        """Bytes of all clips."""
        return self._small.size + self._main.size

    def add(self, clip: int, size: int) -> None:
        """A clip has come into the cache."""
        if self._ghost.take(clip):
            self._main.push(clip, size)
        else:
            self._small.push(clip, size)

    def restore(self, found: Queue) -> None:
        """Take up clips of an earlier process, in the order of their queue, which is emptied."""
        self._main.take_all(found)
        self._ghost.fit(len(self))

    def victim(self) -> tuple[int, int] | None:
        """Hash and size of the clip that has to go, which is ours no longer; None: there is none.

        Each clip goes round at most as often as its uses are told apart, so this ends; should
        viewers use clips faster than they go round, the next one in line goes all the same.
        """
        for _ in range(4 * len(self) + 1):
            from_small = self._small.size > _SMALL_SHARE * self.size or not self._main
            queue = self._small if from_small else self._main
            if not queue:
                return None
            clip, size = queue.pop()
            slot = clip % self._slots
            uses = self._uses[slot]
            if from_small and uses < PROMOTED:
                self._ghost.fit(len(self))
                self._ghost.add(clip)
            elif uses > 0:
                self._uses[slot] = 0 if from_small else uses - 1
                self._main.push(clip, size)
                continue
            self._uses[slot] = 0
            return clip, size
        return (self._main or self._small).pop()
