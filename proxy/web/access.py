"""The access log: one line per request on the public listener, in both lanes.

Belongs here: what a line says, who gets one, and that plain hits pay next to nothing for theirs.
Must not know: how lines are written, routes, where a reply came from beyond its tier.

What is no hit takes its time anyway, and its line is made when its reply is over. A plain hit is
answered in microseconds: of it a tuple is kept, and a thread makes the lines of many, a few times
a second. More hits than `FIRSTVIEW_ACCESS_LOG_HITS` a second are only counted.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections import deque
from typing import Any, Final, Literal, NamedTuple

import structlog

from proxy.security.origin_lock import client_address
from proxy.settings import Settings
from proxy.web import plain

_PATH: Final = 200
_AGENT: Final = 120
_SHORT: Final = 80
"""Characters of what a client sends; what is longer tells nothing more."""

_MOST: Final = 16_384
"""Hits without a line yet, in memory; their requests are at most 4 KiB each."""
_GATHER: Final = 0.1
"""Seconds in which hits gather before their lines are made."""
_AT_ONCE: Final = 16
"""Lines made, in a third of a millisecond, before the event loop may have its turn again."""
_TELL_EVERY: Final = 10.0
"""Seconds between two lines that say how many hits got none."""
_REFUSED: Final = 400
_FAILED: Final = 500

_TOLD: Final = re.compile(
    rb"\r\n(cf-ray|user-agent|range|cf-connecting-ip): ([^\r]*)", re.IGNORECASE
)

Kind = Literal["off", "errors", "all"]

log = structlog.get_logger()


class Reply(NamedTuple):
    """What is known of a request whose reply is over; times in seconds.

    `first` is from the request to the reply's head, None if there was none; `ended` is how the
    reply ended if it did not reach its end. `client` is who asked, as far as that is known.
    """

    exchange: str
    method: str
    path: str
    seconds: float
    status: int | None = None
    first: float | None = None
    request_id: str | None = None
    tier: str | None = None
    cache: str | None = None
    range: str | None = None
    bytes: int | None = None
    client: str | None = None
    ray: str | None = None
    agent: str | None = None
    ended: str | None = None
    error: str | None = None
    detail: str | None = None
    trace: str | None = None


class Hit(NamedTuple):
    """A plain hit, as the fast lane leaves it: `asked` is the request as it came."""

    came: float
    first: float
    over: float
    asked: bytes
    exchange: str
    status: int
    tier: str
    bytes: int
    peer: str | None
    ended: str | None = None


class Access:
    """Tells the log of requests."""

    def __init__(
        self, kind: Kind = "off", most_hits: int = 0, *, behind_edge: bool = False
    ) -> None:
        """Decide who gets a line; `start` before there are hits.

        `most_hits`: lines of plain hits a second. `behind_edge`: plain hits are answered only if
        an edge that is trusted has sent them, so that the client is whom it names
        (CF-Connecting-IP).
        """
        self._kind = kind
        self._most = most_hits
        self._behind_edge = behind_edge
        wanted = kind == "all" and log.is_enabled_for(logging.INFO)
        self.tells_all = wanted
        """Whether requests with which all is well get lines too."""
        self.tells_hits = wanted and self._most > 0
        """Whether plain hits do."""
        self.tells_breaks = self._kind != "off"
        """Whether hits do that were cut off."""
        self._left, self._renewed_at = self._most, 0.0
        self._hits: deque[Hit] = deque()
        self._skipped = 0
        self._skips_told = 0
        self._told_at = time.monotonic()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, settings: Settings, *, behind_edge: bool = False) -> Access:
        """Make the one that the owner wants."""
        return cls(settings.access_log, settings.access_log_hits, behind_edge=behind_edge)

    # -- what is no plain hit ---

    def note(self, reply: Reply, crash: BaseException | None = None) -> None:
        """Write a line if this request is to have one; a crash has its own in any case."""
        if crash is not None:
            log.error("request crashed", exc_info=crash, **_fields(reply))
        elif self._kind == "off":
            return
        elif reply.status is not None and reply.status >= _FAILED:
            log.warning("request", **_fields(reply))
        elif self.tells_all or reply.ended is not None or (reply.status or 0) >= _REFUSED:
            log.info("request", **_fields(reply))

    # -- plain hits ---

    def takes(self, now: float) -> bool:
        """Whether a hit that is over `now`, on the monotonic clock, gets a line; else count it."""
        if now >= self._renewed_at + 1.0:
            self._left, self._renewed_at = self._most, now
        if self._left <= 0:
            self._skipped += 1
            return False
        self._left -= 1
        return True

    def hit(self, hit: Hit) -> None:
        """Keep a plain hit for its line."""
        if len(self._hits) >= _MOST:  # the thread gets no turns
            self._skipped += 1
            return
        self._hits.append(hit)
        # Looked at afterwards: whatever the thread takes meanwhile, none stays behind unseen.
        if len(self._hits) == 1:
            self._wake.put(True)

    def _run(self) -> None:
        """Make lines, in a thread, until `close`."""
        goes_on = True
        while goes_on:
            goes_on = self._wake.get()
            if goes_on:
                time.sleep(_GATHER)
            self._tell()

    def _tell(self) -> None:
        offset = time.time() - time.monotonic()
        made = 0
        while self._hits:
            if made % _AT_ONCE == 0:
                time.sleep(0)  # lets go of the interpreter
            made += 1
            hit = self._hits.popleft()
            log.info("request", **_fields(self._reply(hit)), timestamp=_moment(hit.over + offset))
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY:
            self._tell_skipped(now)

    def _tell_skipped(self, now: float) -> None:
        count = self._skipped - self._skips_told
        if count:
            self._skips_told += count
            self._told_at = now
            log.info("hits without a line", count=count, most_a_second=self._most)

    def _reply(self, hit: Hit) -> Reply:
        path = plain.path_of(hit.asked)
        fields = [
            (name.lower(), value.decode("ascii").rstrip())
            for name, value in _TOLD.findall(hit.asked)
        ]
        told = dict(fields)
        claimed = [value for name, value in fields if name == b"cf-connecting-ip"]
        return Reply(
            exchange=hit.exchange,
            method="GET" if hit.asked.startswith(b"G") else "HEAD",
            path=path,
            request_id=path.removeprefix("/videos/").removesuffix(".mp4"),
            status=hit.status,
            range=told.get(b"range"),
            bytes=hit.bytes,
            tier=hit.tier,
            cache="hit",
            first=hit.first - hit.came,
            seconds=hit.over - hit.came,
            client=client_address(claimed, hit.peer or "-", locked=self._behind_edge),
            ray=told.get(b"cf-ray"),
            agent=told.get(b"user-agent"),
            ended=hit.ended,
        )

    def start(self) -> None:
        """Start the thread, if hits get lines at all. Blocks until it runs."""
        if self.tells_breaks:
            self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write the lines that are left. Blocks for as long as that takes."""
        if self._thread is not None:
            self._wake.put(False)
            self._thread.join()
            self._thread = None
        self._tell_skipped(time.monotonic())


def _moment(seconds: float) -> str:
    """Write a moment down as the log's own timestamps are."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"


def _fields(reply: Reply) -> dict[str, Any]:
    """Return what a line says; of what is not known, nothing."""
    fields: dict[str, Any] = {
        "exchange": reply.exchange,
        "method": reply.method[:_SHORT],
        "path": reply.path[:_PATH],
        "request_id": reply.request_id,
        "status": reply.status,
        "range": _short(reply.range, _SHORT),
        "bytes": reply.bytes,
        "tier": reply.tier,
        "cache": reply.cache,
        "ttfb_ms": _milliseconds(reply.first),
        "ms": _milliseconds(reply.seconds),
        "client": _short(reply.client, _SHORT),
        "ray": _short(reply.ray, _SHORT),
        "agent": _short(reply.agent, _AGENT),
        "ended": reply.ended,
        "error": reply.error,
        "detail": reply.detail,
        "trace": reply.trace,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _short(text: str | None, most: int) -> str | None:
    return text if text is None or len(text) <= most else f"{text[:most]}…"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
