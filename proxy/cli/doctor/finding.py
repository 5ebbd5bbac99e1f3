"""What a check has found: how it is, what was seen, and what to do.

Belongs here: one line of the report. Must not know: any check, or how it is printed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import ByteSize


class Mark(StrEnum):
    """How something is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and something about it will surprise its owner."""
    FAILS = "fails"
    """It does not work, or clips may be lost."""
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `advice` names setting and fix, "" where all is well."""

    area: str
    check: str
    mark: Mark
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What something means, before anybody has said what it is called."""

    mark: Mark
    seen: str
    advice: str = ""


def fine(seen: str) -> Verdict:
    """All is well."""
    return Verdict(Mark.OK, seen)


def warning(seen: str, advice: str) -> Verdict:
    """It works, but."""
    return Verdict(Mark.WARNING, seen, advice)


def failure(seen: str, advice: str) -> Verdict:
    """It does not work."""
    return Verdict(Mark.FAILS, seen, advice)


def unchecked(seen: str, advice: str = "") -> Verdict:
    """It could not be looked at; `seen` says why."""
    return Verdict(Mark.UNCHECKED, seen, advice)


def size(count: int) -> str:
    """Bytes in the units that settings are written in: `20.0GiB`."""
    return ByteSize(count).human_readable()


class Notes:
    """Where one check writes down what it finds, as it goes along."""

    def __init__(self, area: str, told: Callable[[], None] = lambda: None) -> None:
        """Take the area's name, and whom to tell that there is news."""
        self.area = area
        self.findings: list[Finding] = []
        self.step = ""
        """What is being tried just now."""
        self._told = told

    def trying(self, step: str) -> None:
        """Say what comes next: it is named if it never ends."""
        self.step = step
        self._told()

    def add(self, check: str, verdict: Verdict) -> Mark:
        """Write one finding down; returns its mark."""
        self.findings.append(
            Finding(
                area=self.area,
                check=check,
                mark=verdict.mark,
                seen=verdict.seen,
                advice=verdict.advice,
            )
        )
        self._told()
        return verdict.mark
