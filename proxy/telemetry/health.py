"""What a probe is told: one finding for each part that was looked at, and what follows from all.

Belongs here: how bad a finding is, and how a report reads, for people and for programs. Must not
know: what is looked at, or who asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import orjson


class State(StrEnum):
    """How a part is. Only FAILING is a reason to send viewers elsewhere."""

    OK = "ok"
    DEGRADED = "degraded"
    """Something does not work, and another replica would not be better off, or not by much."""
    FAILING = "failing"
    """This process cannot do its work, and another one could."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part; `words` say what is wrong and what still works."""

    part: str
    state: State = State.OK
    words: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the processes stand that serve together: so many of so many, and whether they stop."""

    serving: int
    places: int
    draining: bool


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of one probe; `is_good` unless one of them is FAILING."""

    verdict: str
    findings: tuple[Finding, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the probe passes."""
        return all(one.state is not State.FAILING for one in self.findings)

    @property
    def title(self) -> str:
        """The verdict in a word or two, such as `ready`, `ready, degraded` or `not ready`."""
        if not self.is_good:
            return f"not {self.verdict}"
        degraded = any(one.state is State.DEGRADED for one in self.findings)
        return f"{self.verdict}, degraded" if degraded else self.verdict

    def as_text(self) -> str:
        """The verdict on a line, then a line for each part."""
        lines = [f"{one.part}: {one.state}" + f", {one.words}" * bool(one.words) for one in self]
        return "\n".join((self.title, *lines, ""))

    def as_json(self) -> bytes:
        """The same as an object: `ok`, `verdict`, and `parts` by their names."""
        parts = {one.part: {"state": one.state, "detail": one.words} for one in self}
        return orjson.dumps({"ok": self.is_good, "verdict": self.title, "parts": parts})

    def __iter__(self) -> Iterator[Finding]:
        """What is worst comes first."""
        severity = (State.FAILING, State.DEGRADED, State.OK)
        return iter(sorted(self.findings, key=lambda one: severity.index(one.state)))
