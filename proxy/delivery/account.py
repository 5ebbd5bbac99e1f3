"""The account of one fill: everything that its one line in the log says.

Belongs here: what is noted on the way, and the line at the end. Must not know: how a fill works;
whoever sees something happen notes it here.

The line is written when it is known what became of the clip: of one that is to be stored after the
first try to store it, of all others when the fill ends. One search for a request id finds it.
"""

from __future__ import annotations

import time
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from proxy.delivery.sources import Source, UpstreamSource
from proxy.errors import FirstviewError

Level = Literal["debug", "info", "warning", "error"]

log = structlog.get_logger()


class Account:
    """What is known of one fill. Times are of the monotonic clock, in seconds."""

    __slots__ = (
        "_began",
        "_landed",
        "_passed_on",
        "_request_id",
        "_resumed_for",
        "_told",
        "begun_by",
        "bytes",
        "joins",
        "resumes",
        "source",
        "span",
        "taken_over_at",
        "tier",
        "trace",
    )

    def __init__(self, request_id: str, begun_by: str) -> None:
        """Begin; `begun_by` is `view`, `range` or `job`."""
        self._request_id = request_id
        self._began = time.monotonic()
        self._landed: float | None = None
        self._passed_on: float | None = None
        self._resumed_for: list[str] = []
        self._told = False
        self.begun_by = begun_by
        self.tier = "none"
        self.source: str | None = None
        """Where the bytes came from: a host, or `bucket`; never a URL, which is a key to a clip."""
        self.bytes = 0
        """Bytes that this process has read."""
        self.resumes = 0
        self.joins = 0
        """Viewers who came while it was under way, and caused no fill of their own."""
        self.taken_over_at: int | None = None
        """Bytes that another process had written before this one went on."""
        self.trace: str | None = None
        """Trace that it belongs to, if there is one."""
        self.span: Any = None
        """Its place in that trace, for those who join it; a span context of OpenTelemetry's."""

    def reads(self, source: Source) -> None:
        """A source is being read."""
        self.tier = source.tier
        self.source = source.tier
        if isinstance(source, UpstreamSource):
            self.source = urlsplit(source.url).hostname

    def landed(self) -> None:
        """Viewers can begin."""
        self._landed = self._landed or time.monotonic()

    def resumed(self, error: FirstviewError) -> None:
        """The source broke, and is asked to continue."""
        self.resumes += 1
        if error.slug not in self._resumed_for:
            self._resumed_for.append(error.slug)

    def passed_on(self) -> None:
        """The clip is whole and verified, and is going to be stored: that is told as well."""
        self._passed_on = time.monotonic()

    @property
    def is_passed_on(self) -> bool:
        """Whether it is not the fill's to tell any more."""
        return self._passed_on is not None

    def tell(self, ended: str, level: Level = "info", **more: Any) -> None:  # noqa: ANN401 - any facts
        """Write the line, once: how the fill ended, and `more` that is known only now."""
        if self._told:
            return
        self._told = True
        now = time.monotonic()
        filled = self._passed_on or now
        fields: dict[str, Any] = {
            "request_id": self._request_id,
            "ended": ended,
            "tier": self.tier,
            "source": self.source,
            "begun_by": self.begun_by,
            "bytes": self.bytes,
            "seconds": round(filled - self._began, 3),
            "first_ms": _milliseconds(self._began, self._landed),
            "joins": self.joins,
            "resumes": self.resumes,
            "resumed_for": ", ".join(self._resumed_for) or None,
            "taken_over_at": self.taken_over_at,
            "commit_ms": _milliseconds(self._passed_on, now),
            "trace": self.trace,
            **more,
        }
        said = {name: value for name, value in fields.items() if value is not None}
        getattr(log, level)("fill", **said)


def _milliseconds(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round((end - start) * 1000, 2)
