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
    """What happened to one clip so far. `stored_bytes` is None until this run stored it.

    `started` is when somebody first wanted it here, on the monotonic clock; `came` is None as long
    as nobody has, and of a clip of an earlier run.
    """

    clip: DemoClip
    views: int = 0
    started: float = 0.0
    came: Came | None = None
    owned: bool = False
    stored_bytes: int | None = None
    seconds: float = 0.0
    sha256: str = ""
    replies: deque[Reply] = field(default_factory=lambda: deque(maxlen=_KEPT_REPLIES))
