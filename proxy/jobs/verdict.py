"""Verdicts: what becomes of a job after a handler has had it.

Belongs here: the one table of which error means what for a job. Must not know: how a job is run,
or how a verdict is written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxy.errors import (
    BucketError,
    CatalogUnavailable,
    ClipFailed,
    ClipGone,
    DiskExhausted,
    FalRefused,
    FirstviewError,
    ObjectConflict,
    Overloaded,
    SourceRefused,
    SourceUntrusted,
    UnknownClip,
)
from proxy.upstream.breaker import HostResting


class Outcome(StrEnum):
    """What became of one run of a job.

    `done`: what it asked for is so. `pointless`: it asked for something that cannot be or need
    not be; it is gone too. `postponed`: it is tried again. `dead`: not before somebody retries it.
    `lost-lease`: somebody else has it by now. `cancelled`: this process stops; anybody may have it.
    """

    DONE = "done"
    POINTLESS = "pointless"
    POSTPONED = "postponed"
    DEAD = "dead"
    LOST_LEASE = "lost-lease"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A handler's word on a job: an outcome, and why if it is not `done`.

    For `postponed`: for at least `wait` seconds; whether it counts towards the attempts that a job
    has; and whether the reason is `widespread`, so that the next job would meet it too.
    """

    outcome: Outcome
    error: str | None = None
    wait: float = 0.0
    counted: bool = True
    widespread: bool = False


DONE: Final = Verdict(outcome=Outcome.DONE)


@dataclass(frozen=True, slots=True)
class _Meaning:
    outcome: Outcome
    counted: bool = True
    widespread: bool = False


_POINTLESS: Final = _Meaning(Outcome.POINTLESS)
_DEAD: Final = _Meaning(Outcome.DEAD)
_AGAIN: Final = _Meaning(Outcome.POSTPONED)
_PATIENTLY: Final = _Meaning(Outcome.POSTPONED, counted=False)
_NOT_ITS_FAULT: Final = _Meaning(Outcome.POSTPONED, counted=False, widespread=True)

# The nearest class that an error is of decides.
_MEANINGS: Final[dict[type[BaseException], _Meaning]] = {
    # there is nothing to do, and never will be
    UnknownClip: _POINTLESS,
    ClipFailed: _POINTLESS,
    ClipGone: _POINTLESS,
    # only a person can do something about it
    SourceUntrusted: _DEAD,
    ObjectConflict: _DEAD,
    # everybody's trouble, not this clip's
    HostResting: _NOT_ITS_FAULT,
    FalRefused: _NOT_ITS_FAULT,
    BucketError: _NOT_ITS_FAULT,
    CatalogUnavailable: _NOT_ITS_FAULT,
    Overloaded: _NOT_ITS_FAULT,
    # the catalog counts them, and ends the job with the clip: a job that died before that would
    # leave a clip that nobody can have, and that nobody calls lost
    SourceRefused: _PATIENTLY,
    # a smaller clip may have room; one that never has any is asked for every few minutes
    DiskExhausted: _PATIENTLY,
    # its own: a source that breaks, sends something else, …
    FirstviewError: _AGAIN,
}


def of(error: FirstviewError) -> Verdict:
    """Return what an error means for the job that it ended."""
    meaning = next(_MEANINGS[kind] for kind in type(error).__mro__ if kind in _MEANINGS)
    return Verdict(
        outcome=meaning.outcome,
        error=f"{error.slug}: {error.detail}",
        wait=_wait(error),
        counted=meaning.counted,
        widespread=meaning.widespread,
    )


def of_crash(error: BaseException) -> Verdict:
    """Return what an exception means that nobody expected."""
    return Verdict(outcome=Outcome.POSTPONED, error=f"crashed: {type(error).__name__}: {error}")


def _wait(error: FirstviewError) -> float:
    """Seconds that the error itself asks for."""
    return error.wait if isinstance(error, HostResting) else float(error.retry_after or 0)
