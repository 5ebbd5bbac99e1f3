"""A tally: what became of clips that somebody asked for, and why some are not stored.

Belongs here: counting, the first reasons, and what a row says of why its clip is not stored. Must
not know: jobs, or who asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from proxy.records import Generation, Status

FIRST_FAILURES: Final = 20
"""Failures that are kept with their reasons; the others are only counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that is not stored, and why: `slug: sentence`."""

    request_id: str
    reason: str


@dataclass(slots=True)
class Tally:
    """What became of clips so far; `unfinished` failures are tried again by workers.

    `reasons` counts failures by their slugs; `on_failure` hears of those that are kept, and
    `on_trouble` of what keeps all clips from being stored for a while. `away` is what was away for
    so long that nothing more was tried.
    """

    on_failure: Callable[[Failure], None] | None = None
    on_trouble: Callable[[str], None] | None = None
    stored: int = 0
    already_stored: int = 0
    failed: int = 0
    unfinished: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first_failures: list[Failure] = field(default_factory=list)
    away: str | None = None

    def trouble(self, reason: str) -> None:
        """Tell of trouble that is not one clip's, when it begins."""
        if self.on_trouble is not None:
            self.on_trouble(reason)

    @property
    def settled(self) -> int:
        """Clips of which there is nothing left to be waited for."""
        return self.stored + self.already_stored + self.failed

    def fail(self, request_id: str, reason: str, *, unfinished: bool = False) -> None:
        """Count a clip that is not going to be stored now."""
        self.failed += 1
        self.unfinished += unfinished
        self.reasons[reason.partition(":")[0]] += 1
        if len(self.first_failures) < FIRST_FAILURES:
            failure = Failure(request_id, reason)
            self.first_failures.append(failure)
            if self.on_failure is not None:
                self.on_failure(failure)


UNKNOWN: Final = "unknown-clip: the catalog does not know it"


def why_not_stored(row: Generation | None) -> str:
    """Say why a clip without a job is not stored, as far as its row tells."""
    if row is None:
        return UNKNOWN
    if row.status is Status.FAILED:
        return f"clip-failed: {row.error or 'its generation failed'}"
    if row.status is Status.LOST:
        return "clip-gone: lost, neither the bucket nor its source has it"
    if row.status is Status.AVAILABLE:
        return "clip-unavailable: its job ended, and it is not stored"
    if row.model is None:
        return "clip-not-ready: pending, and no model is known to ask fal by"
    return "clip-not-ready: pending, and FIRSTVIEW_FAL_KEY is not set to ask fal with"
