"""Which clips a cache keeps: firstview's eviction against LRU and SIEVE, over made-up requests.

Nothing is served and nothing is timed, so it comes to the same on every machine. `python -m bench
eviction` prints the figures, and `python -m bench.eviction` draws them for the documentation.

Belongs here: the requests, the policies that are compared, and counting hits. Must not know: how
servers are measured, how curves are drawn.

Two kinds of requests, both by Zipf's law over the clips that have viewers:
with a `tail`, three in ten ask for a clip that nobody ever asks for again; with a `scan`, somebody
asks twice for very many clips once each, as a crawler or a check of all links does.
"""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from bench import eviction_chart
from bench.plan import Setup
from bench.results import Finding, Mark, Outcome
from proxy.storage.eviction import Eviction
from proxy.storage.shared import MOST_USES, SKETCH

NAMES = ("eviction",)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Sizes of the cache, of all bytes that have viewers."""
_CLIPS = 10_000
_REQUESTS = 120_000
_SKEW = 0.9
_ONCE = 0.3
_SCAN = 15_000
_SEED = 4
_PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "eviction.svg"
Trace = Sequence[tuple[int, int]]
"""Which clip is asked for, and its bytes."""
Curves = dict[str, dict[str, list[float]]]
"""By trace and policy: the share of requests that hit, for each of `SHARES`."""


class Cache(Protocol):
    """A cache of so many bytes."""

    def ask(self, clip: int, size: int) -> bool:
        """Whether a clip is there; it is afterwards."""
        ...


class Lru:
    """Evicts what was used least recently, as firstview did before, and as nginx does."""

    def __init__(self, limit: int) -> None:
        """Begin empty."""
        self._room = limit
        self._clips: OrderedDict[int, int] = OrderedDict()

    def ask(self, clip: int, size: int) -> bool:
        """See `Cache`."""
        if clip in self._clips:
            self._clips.move_to_end(clip)
            return True
        self._clips[clip] = size
        self._room -= size
        while self._room < 0:
            self._room += self._clips.popitem(last=False)[1]
        return False


class Sieve:
    """One queue and a hand that walks along it (Zhang and others, NSDI 2024)."""

    def __init__(self, limit: int) -> None:
        """Begin empty."""
        self._room = limit
        self._sizes: dict[int, int] = {}
        self._used: dict[int, bool] = {}
        self._newer: dict[int, int | None] = {}
        self._older: dict[int, int | None] = {}
        self._newest: int | None = None
        self._oldest: int | None = None
        self._hand: int | None = None

    def ask(self, clip: int, size: int) -> bool:
        """See `Cache`."""
        if clip in self._sizes:
            self._used[clip] = True
            return True
        self._room -= size
        while self._room < 0 and self._sizes:
            self._evict()
        self._sizes[clip], self._used[clip] = size, False
        self._older[clip], self._newer[clip] = self._newest, None
        if self._newest is None:
            self._oldest = clip
        else:
            self._newer[self._newest] = clip
        self._newest = clip
        return False

    def _evict(self) -> None:
        hand = self._hand if self._hand is not None else self._oldest
        while hand is not None and self._used[hand]:
            self._used[hand] = False
            hand = self._newer[hand] if self._newer[hand] is not None else self._oldest
        if hand is None:
            return
        newer, older = self._newer.pop(hand), self._older.pop(hand)
        if newer is None:
            self._newest = older
        else:
            self._older[newer] = older
        if older is None:
            self._oldest = newer
        else:
            self._newer[older] = newer
        self._hand = newer
        del self._used[hand]
        self._room += self._sizes.pop(hand)


class Ours:
    """The very code that firstview's janitor runs."""

    def __init__(self, limit: int) -> None:
        """Begin empty."""
        self._room = limit
        self._uses = bytearray(SKETCH)
        self._eviction = Eviction(self._uses)
        self._clips: set[int] = set()

    def ask(self, clip: int, size: int) -> bool:
        """See `Cache`."""
        if clip in self._clips:
            slot = clip % SKETCH
            self._uses[slot] = min(MOST_USES, self._uses[slot] + 1)
            return True
        self._clips.add(clip)
        self._eviction.add(clip, size)
        self._room -= size
        while self._room < 0:
            victim = self._eviction.victim()
            if victim is None:
                break
            self._clips.remove(victim[0])
            self._room += victim[1]
        return False


_POLICIES: dict[str, Callable[[int], Cache]] = {"S3-FIFO": Ours, "SIEVE": Sieve, "LRU": Lru}


def traces() -> tuple[dict[str, Trace], int]:
    """The requests, and how many bytes the clips have that are asked for by Zipf's law."""
    chance = random.Random(_SEED)
    names = iter(lambda: chance.getrandbits(64), None)
    sizes: dict[int, int] = {}

    def clip() -> int:
        """A new one: megabytes, some much larger than most."""
        name = next(names)
        sizes[name] = min(80_000_000, max(200_000, int(chance.lognormvariate(15.3, 0.9))))
        return name

    popular = [clip() for _ in range(_CLIPS)]
    whole = sum(sizes.values())
    weights = list(itertools.accumulate((n + 1) ** -_SKEW for n in range(_CLIPS)))

    def zipf() -> int:
        return popular[min(_CLIPS - 1, bisect(weights, chance.random() * weights[-1]))]

    tail = [clip() if chance.random() < _ONCE else zipf() for _ in range(_REQUESTS)]
    third = _REQUESTS // 3
    scan = [zipf() for _ in range(third)]
    for _ in range(2):
        scan += [clip() for _ in range(_SCAN)]
        scan += [zipf() for _ in range(third)]
    return {
        "tail": [(name, sizes[name]) for name in tail],
        "scan": [(name, sizes[name]) for name in scan],
    }, whole


def curves() -> Curves:
    """Hits of every policy, for every size of the cache; the first quarter only fills it."""
    found, whole = traces()
    return {
        kind: {
            policy: [_hits(make(int(whole * share)), trace) for share in SHARES]
            for policy, make in _POLICIES.items()
        }
        for kind, trace in found.items()
    }


def _hits(cache: Cache, trace: Trace) -> float:
    warm = len(trace) // 4
    for name, size in trace[:warm]:
        cache.ask(name, size)
    return sum(cache.ask(name, size) for name, size in trace[warm:]) / (len(trace) - warm)


def run(_wanted: Sequence[str], _setup: Setup) -> Iterator[Outcome]:
    """One outcome for each kind of requests."""
    for kind, policies in curves().items():
        outcome = Outcome(f"eviction-{kind}", f"share of requests that hit, requests with a {kind}")
        for at, share in enumerate(SHARES):
            ours, lru = policies["S3-FIFO"][at], policies["LRU"][at]
            name = f"hits over LRU's, a cache of {share:.0%}"
            outcome.findings.append(Finding(name, (ours / lru,), mark=Mark(1.0, at_least=True)))
        outcome.notes += [
            f"{policy}: {', '.join(f'{hits:.1%}' for hits in each)}"
            for policy, each in policies.items()
        ]
        yield outcome


def main() -> None:
    """Draw the picture."""
    _PICTURE.write_text(eviction_chart.draw(SHARES, curves()))


if __name__ == "__main__":
    main()
