"""What was measured, and what it comes to: samples, ratios, spreads, marks.

Belongs here: arithmetic without I/O, so that it can be tested. Must not know: how anything is
measured, or how it is printed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One server under one load for one stretch of time. Latencies are seconds."""

    requests: int
    seconds: float
    received: int
    p50: float
    p99: float
    errors: int = 0
    cpu_seconds: float = 0.0
    more: dict[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def megabytes_per_second(self) -> float:
        """Bytes received, in 10^6 a second."""
        return self.received / self.seconds / 1e6 if self.seconds else 0.0

    @property
    def cpu_share(self) -> float:
        """How much of one core the server used."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0

    @property
    def cpu_micros(self) -> float:
        """Microseconds of CPU that the server spent on one request."""
        return self.cpu_seconds / self.requests * 1e6 if self.requests else 0.0

    def as_json(self) -> dict[str, Any]:
        """Every figure under a name with its unit."""
        return {
            "requests": self.requests,
            "seconds": round(self.seconds, 4),
            "requests_per_second": round(self.per_second, 2),
            "megabytes_per_second": round(self.megabytes_per_second, 2),
            "p50_ms": round(self.p50 * 1e3, 3),
            "p99_ms": round(self.p99 * 1e3, 3),
            "errors": self.errors,
            "cpu_share": round(self.cpu_share, 3),
            "cpu_micros_per_request": round(self.cpu_micros, 1),
            **{name: round(value, 4) for name, value in self.more.items()},
        }


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, middle and largest of several values."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Take at least one value."""
        found = list(values)
        return cls(min(found), statistics.median(found), max(found))

    def as_json(self) -> dict[str, float]:
        """The three values by name."""
        return {
            "min": round(self.low, 4),
            "median": round(self.median, 4),
            "max": round(self.high, 4),
        }


@dataclass(frozen=True, slots=True)
class Mark:
    """What a scenario has to reach; these are given, not chosen here."""

    value: float
    at_least: bool

    def passed(self, measured: float) -> bool:
        """Whether a measured value reaches it."""
        return measured >= self.value if self.at_least else measured <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of both servers, one right after the other."""

    nginx: Sample
    firstview: Sample

    @property
    def ratio(self) -> float:
        """How often firstview's speed is that of nginx."""
        return ratio(self.firstview.per_second, self.nginx.per_second)


def ratio(ours: float, theirs: float) -> float:
    """Return ours / theirs; 0 where there is nothing to compare with."""
    return ours / theirs if theirs else 0.0


@dataclass(slots=True)
class Outcome:
    """One scenario: rounds of both servers, or values of firstview alone."""

    name: str
    title: str
    mark: Mark | None = None
    rounds: Sequence[Round] = ()
    values: dict[str, float] = field(default_factory=dict)
    judged: str | None = None
    notes: list[str] = field(default_factory=list)
    failed: int = 0

    @property
    def errors(self) -> int:
        """Replies of firstview that were not right; with any, no speed counts."""
        return self.failed + sum(each.firstview.errors for each in self.rounds)

    @property
    def ratios(self) -> Spread | None:
        """Spread of the rounds' ratios."""
        return Spread.of(each.ratio for each in self.rounds) if self.rounds else None

    @property
    def verdict(self) -> str:
        """`pass` or `MISS` of the median ratio, or of the judged value; empty without a mark."""
        if self.mark is None:
            return ""
        found = self.ratios
        measured = self.values[self.judged] if self.judged else found.median if found else None
        if measured is None:
            return "not measured"
        if self.errors:
            return f"MISS ({self.errors} wrong replies)"
        return "pass" if self.mark.passed(measured) else "MISS"

    def as_json(self) -> dict[str, Any]:
        """The scenario with every round."""
        found = self.ratios
        return {
            "name": self.name,
            "title": self.title,
            "mark": None if self.mark is None else str(self.mark),
            "verdict": self.verdict,
            "errors": self.errors,
            "ratio": None if found is None else found.as_json(),
            "rounds": [
                {
                    "ratio": round(each.ratio, 4),
                    "nginx": each.nginx.as_json(),
                    "firstview": each.firstview.as_json(),
                }
                for each in self.rounds
            ],
            "values": {name: round(value, 4) for name, value in self.values.items()},
            "notes": self.notes,
        }
