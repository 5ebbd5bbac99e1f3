"""What to make of a spool file that another process of this machine is writing: pure rules.

Belongs here: the next step after each look, and when to look again. Must not know: how one looks,
who waits for what.

    wait ─▶ whole       the other process has verified it
      ├───▶ go on       its lock fell free: that process ended, the file is ours to go on with
      ├───▶ gone        its fill failed, and its name with it
      └───▶ no room     its disk, which is ours as well, was full
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from proxy.storage.spool_file import Look

_SOON: Final = 0.002
"""Seconds between two looks at a file that grows."""
_LATE: Final = 0.025
"""Seconds between two looks at a file that has not grown for a while."""
_LONGER: Final = 1.5
_EACH: Final = 0.0001
"""Seconds that each followed clip of this process adds, so that many cost it no more than few."""


class Step(Enum):
    """What comes next."""

    WAIT = auto()
    WHOLE = auto()
    GO_ON = auto()
    GONE = auto()
    NO_ROOM = auto()


def next_step(look: Look, *, locked: bool, named: bool) -> Step:
    """Return what a look means that was taken after its lock was tried for.

    `locked`: the lock is ours now, so whoever wrote the file is done with it; `named`: it still has
    its name then. A whole file that nobody owns any more has to be owned.
    """
    if look.whole:
        return Step.GO_ON if locked and named else Step.WHOLE
    if look.given_up:
        return Step.NO_ROOM
    if not locked:
        return Step.WAIT
    return Step.GO_ON if named else Step.GONE


def pause(last: float, *, grew: bool, followed: int) -> float:
    """Seconds until the next look, `last` seconds after the one before; `followed` clips in all."""
    calm = _SOON if grew else min(_LATE, max(_SOON, last * _LONGER))
    return max(calm, followed * _EACH)
