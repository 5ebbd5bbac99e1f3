"""A circuit breaker per host: a source that is down is left alone for a while.

Belongs here: counting failures and deciding whether an attempt may be made. Must not know: what
an attempt is, or what time it is; every method is told.

    CLOSED ── enough failures ──> OPEN ── pause over, one attempt let through ──> HALF_OPEN
       ^                            ^                                              │     │
       │                            └───────────── it failed, or proved nothing ───┘     │
       └────────────────────────────────────────── it succeeded ─────────────────────────┘

Every change of state starts a new epoch; what an attempt of an earlier epoch has to report is
old news and changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from cachetools import Cache, LRUCache

from proxy.errors import SourceUnavailable

_MOST_HOSTS = 1024
_MOST_OUTCOMES = 256
_OLD_NEWS = 60.0
"""Seconds after a pause in which nobody has asked: whether the host still fails, nobody knows."""


class HostResting(SourceUnavailable):
    """The clip's source has failed repeatedly and is left alone for a moment."""

    status = 503
    slug = "source-resting"

    def __init__(self, detail: str | None = None, *, wait: float = 1.0) -> None:
        """Take the seconds until the next attempt may be made."""
        super().__init__(detail)
        self.wait = wait

    def headers(self) -> dict[str, str]:
        """RFC 9110 §10.2.3: when trying again makes sense."""
        return {"Retry-After": str(max(1, math.ceil(self.wait)))}


class State(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a breaker opens and for how long; times in seconds.

    It opens after `failures` failures in a row, or when of at least twice as many outcomes
    within `window` the share `ratio` failed.
    """

    failures: int = 10
    pause: float = 5.0
    window: float = 30.0
    ratio: float = 0.5


class Breaker:
    """The breaker of one host. `now` is any clock that never goes back, in seconds."""

    def __init__(self, rules: Rules) -> None:
        self.state = State.CLOSED
        self._rules = rules
        self._epoch = 0
        self._until = -math.inf
        self._in_a_row = 0
        self._failed = 0
        self._outcomes: deque[tuple[float, bool]] = deque()

    def admit(self, now: float) -> int | None:
        """Return the epoch to settle the attempt with, or None when it may not be made."""
        if self.state is State.OPEN and now >= self._until:
            self._enter(State.HALF_OPEN)
            return self._epoch
        return self._epoch if self.state is State.CLOSED else None

    def seen(self, now: float) -> State:
        """Return where it stands; half-open, if its pause has long been over and nobody asked."""
        if self.state is State.OPEN and now >= self._until + _OLD_NEWS:
            return State.HALF_OPEN
        return self.state

    def wait(self, now: float) -> float:
        """Return the seconds until asking again makes sense; 0 when it does now."""
        if self.state is State.CLOSED:
            return 0.0
        if self.state is State.HALF_OPEN:
            return min(1.0, self._rules.pause)
        return max(0.0, self._until - now)

    def settle(self, epoch: int, now: float, *, ok: bool | None) -> None:
        """Report how an admitted attempt ended; None when it says nothing about the host."""
        if epoch != self._epoch:
            return
        if self.state is State.HALF_OPEN:
            if ok:
                self._enter(State.CLOSED)
            else:
                # An attempt that was broken off proved nothing: the next one may try at once.
                self._open(now if ok is None else now + self._rules.pause)
        elif self.state is State.CLOSED and ok is not None:
            self._count(now, ok=ok)
            if not ok and self._too_many():
                self._open(now + self._rules.pause)

    def _count(self, now: float, *, ok: bool) -> None:
        self._outcomes.append((now, ok))
        self._failed += not ok
        self._in_a_row = 0 if ok else self._in_a_row + 1
        oldest = now - self._rules.window
        while self._outcomes[0][0] < oldest or len(self._outcomes) > _MOST_OUTCOMES:
            _, was_ok = self._outcomes.popleft()
            self._failed -= not was_ok

    def _too_many(self) -> bool:
        if self._in_a_row >= self._rules.failures:
            return True
        seen = len(self._outcomes)
        enough = seen >= min(2 * self._rules.failures, _MOST_OUTCOMES)
        return enough and self._failed >= self._rules.ratio * seen

    def _open(self, until: float) -> None:
        self._until = until
        self._enter(State.OPEN)

    def _enter(self, state: State) -> None:
        self.state = state
        self._epoch += 1
        self._in_a_row = self._failed = 0
        self._outcomes.clear()


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one attempt; must be settled, however the attempt ends."""

    breaker: Breaker
    epoch: int

    def settle(self, now: float, *, ok: bool | None) -> None:
        """Report how the attempt ended; None when it says nothing about the host."""
        self.breaker.settle(self.epoch, now, ok=ok)


class Breakers:
    """One breaker per host, for the hosts that were asked most recently."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._hosts: LRUCache[str, Breaker] = LRUCache(_MOST_HOSTS)

    def admit(self, host: str, now: float) -> Permit:
        """Return leave for one attempt. Raises HostResting when the host is left alone."""
        breaker = self._hosts.get(host)
        if breaker is None:
            breaker = self._hosts[host] = Breaker(self._rules)
        epoch = breaker.admit(now)
        if epoch is None:
            raise HostResting(wait=breaker.wait(now))
        return Permit(breaker, epoch)

    def states(self, now: float) -> dict[str, State]:
        """Where each host stands; one that nobody asks again is not open for ever."""
        seen = {host: Cache.__getitem__(self._hosts, host) for host in self._hosts}  # no use of it
        return {host: breaker.seen(now) for host, breaker in seen.items()}
