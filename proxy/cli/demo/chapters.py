"""The demo's chapters: what happened to each clip so far, for the page and the terminal.

Belongs here: the record of one clip. Must not know: where it is read from, or how it is told.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proxy.cli.demo.clips import DemoClip

_KEPT_REPLIES: Final = 50

PLACES: Final = {
    "bucket": "from the owned bucket",
    "disk": "from the disk cache",
    "flight": "from the copy that is on its way in",
    "upstream": "from fal.media (fake)",
}


class Came(StrEnum):
    """How a clip came in: because of whom there was somebody to bring it."""

    VIEW = "view"
    WEBHOOK = "webhook"
    SWEEP = "sweep"


@dataclass(slots=True)
class Reply:
    """One reply about a clip, as its head told the viewer."""

    view: int
    status: int
    range: str | None
    cache_status: str
    ms: float
    at: float

    @property
    def hit(self) -> bool:
        """Whether nobody had to be asked."""
        return "; hit" in self.cache_status

    @property
    def place(self) -> str:
        """Where the bytes came from, in words."""
        return PLACES.get(self.cache_status.rpartition("detail=")[2], "")


@dataclass(slots=True)
class Chapter:
    """What happened to one clip so far.

    `started` is when somebody first wanted it here, on the monotonic clock; `seconds` is how long
    it took from then on. Both and `came` are None as long as nobody has, and stay so for a clip
    that came otherwise: in an earlier run, or because of `firstview mirror`.
    """

    clip: DemoClip
    views: int = 0
    started: float | None = None
    came: Came | None = None
    owned: bool = False
    seconds: float | None = None
    sha256: str = ""
    replies: deque[Reply] = field(default_factory=lambda: deque(maxlen=_KEPT_REPLIES))
