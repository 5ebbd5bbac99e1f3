"""What viewers ask for: whole clips, ranges at random places, clips by a Zipf distribution.

Belongs here: making lists of requests, the same for the same seed. Must not know: who sends them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PREPARED = 4096
"""Different ranges of one turn; asked for again and again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a path, and a value for `Range` or nothing."""

    path: str
    range: str = ""
    host: str = "bench"

    @property
    def status(self) -> int:
        """What a right reply says."""
        return 206 if self.range else 200

    def request(self) -> bytes:
        """The request's own bytes."""
        wanted = f"Range: {self.range}\r\n" if self.range else ""
        return f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\n{wanted}\r\n".encode()


def whole(paths: Iterable[str]) -> list[Ask]:
    """Each clip once, whole."""
    return [Ask(path) for path in paths]


def blocks(path: str, length: int, block: int, seed: int) -> list[Ask]:
    """Aligned ranges of a clip of `length` bytes at random offsets; `block` 0: the clip whole."""
    if not block:
        return [Ask(path)]
    chance = random.Random(seed)
    starts = (chance.randrange(length // block) * block for _ in range(PREPARED))
    return [Ask(path, f"bytes={start}-{start + block - 1}") for start in starts]


def by_rank(paths: Sequence[str], count: int, seed: int, exponent: float = 1.0) -> list[Ask]:
    """Clips by a Zipf distribution: the n-th path is asked for n ** exponent times less often."""
    weights = itertools.accumulate(rank**-exponent for rank in range(1, len(paths) + 1))
    chosen = random.Random(seed).choices(paths, cum_weights=list(weights), k=count)
    return [Ask(path) for path in chosen]


def as_lines(asks: Iterable[Ask]) -> str:
    """As `load.lua` reads them: the path, a tab, the range."""
    return "".join(f"{one.path}\t{one.range}\n" for one in asks)
