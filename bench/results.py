"""What was measured, and what it comes to: samples, findings, marks.

Belongs here: arithmetic without I/O, so that it can be tested. Must not know: how anything is
measured, printed or written.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

MIB = 1024 * 1024
OURS = "firstview"
PEER = "nginx"

Round = dict[str, "Sample"]
"""One turn of each server, one right after the other, by the server's name."""


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
    load_cpu_seconds: float = 0.0
    """CPU that whoever asked has used: where it fills its core, the server was not the limit."""
    resident: int = 0
    """Bytes of RAM of all the server's processes together, at the end."""
    more: dict[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return ratio(self.requests, self.seconds)

    @property
    def mib_per_second(self) -> float:
        """Bytes received, in MiB a second."""
        return ratio(self.received / MIB, self.seconds)

    @property
    def cpu_share(self) -> float:
        """How much of one core the server used."""
        return ratio(self.cpu_seconds, self.seconds)

    @property
    def load_share(self) -> float:
        """How much of one core the load used."""
        return ratio(self.load_cpu_seconds, self.seconds)

    @property
    def cpu_per_thousand(self) -> float:
        """CPU seconds that the server spent on 1,000 requests."""
        return ratio(self.cpu_seconds, self.requests / 1e3)

    @property
    def cpu_per_gigabyte(self) -> float:
        """CPU seconds that the server spent on 10^9 bytes."""
        return ratio(self.cpu_seconds, self.received / 1e9)


Measure = Callable[[Sample], float]


def ratio(ours: float, theirs: float) -> float:
    """Return ours / theirs; 0 where there is nothing to compare with."""
    return ours / theirs if theirs else 0.0


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which that share of the values lies; takes at least one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


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


@dataclass(frozen=True, slots=True)
class Mark:
    """What a finding has to reach; these are given, not chosen here."""

    value: float
    at_least: bool

    def passed(self, measured: float) -> bool:
        """Whether a measured value reaches it."""
        return measured >= self.value if self.at_least else measured <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:,g}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a scenario comes to: a value of each round, and what their median has to reach."""

    name: str
    values: tuple[float, ...]
    unit: str = ""
    mark: Mark | None = None

    @property
    def spread(self) -> Spread:
        """Of all rounds."""
        return Spread.of(self.values)


@dataclass(slots=True)
class Outcome:
    """One scenario: rounds of the servers, and what is found in them or beside them."""

    name: str
    title: str
    rounds: Sequence[Round] = ()
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: int = 0
    """Replies of firstview that were not right, other than those that rounds tell of."""

    @property
    def servers(self) -> list[str]:
        """Names of who took part."""
        return list(self.rounds[0]) if self.rounds else []

    @property
    def errors(self) -> int:
        """Replies of firstview that were not right; with any, no speed counts."""
        told = sum(one.errors for each in self.rounds for one in _ours(each))
        return self.failed + told

    def samples(self, server: str) -> list[Sample]:
        """All rounds of one server."""
        return [each[server] for each in self.rounds]

    def verdict(self, finding: Finding) -> str:
        """`pass` or `MISS` of the median; empty without a mark."""
        if finding.mark is None:
            return ""
        if self.errors:
            return f"MISS ({self.errors} wrong replies)"
        return "pass" if finding.mark.passed(finding.spread.median) else "MISS"

    @property
    def missed(self) -> bool:
        """Whether any mark was, or a reply was wrong."""
        return bool(self.errors) or any(
            self.verdict(one).startswith("MISS") for one in self.findings
        )


def _ours(each: Round) -> Iterable[Sample]:
    return (sample for server, sample in each.items() if server.startswith(OURS))


def ratios(
    rounds: Sequence[Round],
    measure: Measure,
    name: str,
    *,
    mark: Mark | None = None,
    ours: str = OURS,
    peer: str = PEER,
) -> Finding:
    """How often a measure of ours is that of the peer, within each round."""
    values = tuple(ratio(measure(each[ours]), measure(each[peer])) for each in rounds)
    return Finding(f"{ours} / {peer}, {name}", values, mark=mark)


def against_all(rounds: Sequence[Round], mark: Mark | None) -> list[Finding]:
    """Speed against each server that took part, and cost against the peer that is the mark."""
    others = [name for name in rounds[0] if name not in {OURS, PEER}]
    per_second = "requests a second"
    return [
        ratios(rounds, lambda one: one.per_second, per_second, mark=mark),
        ratios(rounds, lambda one: one.cpu_per_thousand, "CPU a request"),
        *(ratios(rounds, lambda one: one.per_second, per_second, peer=name) for name in others),
    ]
