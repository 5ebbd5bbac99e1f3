"""The demo's story: what the log says, told to people, and kept for the page.

Belongs here: turning log entries into lines on the terminal and a chapter for each clip. Must not
know: how anything is served. It is a structlog processor, so that the demo shows what the product
itself says, and the product needs nothing for the demo.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final

import structlog
from rich.text import Text

from proxy.cli.demo.chapters import PLACES, Came, Chapter, Reply
from proxy.cli.demo.clips import DemoClip
from proxy.records import JobKind

_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_FROM_START: Final = re.compile(r"\s*bytes\s*=\s*0\s*-\s*\d*\s*")
_PROBE_BEFORE: Final = 2.0
"""Seconds in which a request for the start, after a player's probe, belongs to the same view."""
_ERRORS: Final = 400


class Story:
    """Listens to the log. `tell` shows one line; `speed` is the source's, in words."""

    def __init__(
        self, clips: Iterable[DemoClip], *, speed: str, tell: Callable[[Text], None]
    ) -> None:
        """Take the clips it is about and who is told."""
        self.chapters = {clip.request_id: Chapter(clip) for clip in clips}
        self._speed = speed
        self._tell = tell

    def listen(self) -> None:
        """Take the place of the log from here on."""
        structlog.configure(
            processors=[structlog.processors.add_log_level, self],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )

    def __call__(self, _logger: object, _method: str, entry: MutableMapping[str, Any]) -> str:
        """Hear of one event. Whatever goes wrong with telling it must not reach a viewer."""
        with contextlib.suppress(OSError):
            self._hear(entry)
        raise structlog.DropEvent

    def _hear(self, entry: MutableMapping[str, Any]) -> None:
        of_clips = {
            "reply": self._hear_reply,
            "stored": self._hear_stored,
            "fill": self._hear_fill,
            "webhook": self._hear_webhook,
            "fal was asked": self._hear_asked,
            "a job ended": self._hear_job,
        }
        chapter = self.chapters.get(str(entry.get("request_id")))
        hear = of_clips.get(entry["event"])
        if hear is not None and chapter is not None:
            hear(chapter, entry)
        elif entry["event"] == "request":
            self._hear_request(chapter, entry)
        elif entry["event"] == "swept":
            self._hear_sweep(entry)
        elif entry["level"] != "debug":
            self._hear_other(entry)

    # -- what the demo itself does ---

    def submitted(self, clip: DemoClip) -> None:
        """The application has begun a generation."""
        self.chapters[clip.request_id] = Chapter(clip)
        self._tell(Text.assemble(("generating", "bold"), f" {clip.title} · {clip.model}"))

    def unreported(self, clip: DemoClip) -> None:
        """Fal has finished a generation and does not say so."""
        self._tell(Text(f"  fal (fake) finished {clip.title}, and no webhook says so", "dim"))

    def undelivered(self, clip: DemoClip) -> None:
        """Fal has given up posting a webhook."""
        self._tell(Text(f"  fal (fake) could not deliver the webhook of {clip.title}", "red"))

    # -- replies ---

    def _hear_reply(self, chapter: Chapter, entry: MutableMapping[str, Any]) -> None:
        now = time.monotonic()
        asked = entry["range"]
        opening = asked is None or _FROM_START.fullmatch(asked) is not None
        again = _is_same_view(chapter, now)
        if (opening and not again) or not chapter.views:
            chapter.views += 1
            opening, again = True, False
        reply = Reply(
            chapter.views, entry["status"], asked, entry["cache_status"], entry["ms"], now
        )
        chapter.replies.append(reply)
        if chapter.came is None and not chapter.owned and reply.status < _ERRORS:
            chapter.came = Came.VIEW
        if opening and not again:
            self._tell_view(chapter, reply)
        else:
            self._tell_range(chapter, reply)

    def _tell_view(self, chapter: Chapter, reply: Reply) -> None:
        line = Text.assemble(
            (f"{_ordinal(reply.view)} view", "bold"), f" of {chapter.clip.title} · "
        )
        first_byte = f"{reply.ms:.1f} ms to first byte"
        if reply.hit:
            line.append("hit", "bold green").append(f" · {reply.place} · {first_byte}")
        elif reply.place == PLACES["flight"]:
            line.append("miss", "bold yellow").append(f" · {reply.place} · {first_byte}")
        else:
            chapter.started = reply.at - reply.ms / 1000
            line.append("miss", "bold yellow")
            line.append(f" · streaming from fal.media (fake) at {self._speed} · {first_byte}")
        self._tell(line)

    def _tell_range(self, chapter: Chapter, reply: Reply) -> None:
        asked = (reply.range or "").replace("bytes=", "bytes ").strip()
        outcome = "hit" if reply.hit else "miss"
        self._tell(
            Text(
                f"  the player asks for {asked} of {chapter.clip.title}"
                f" · {outcome} · {reply.place} · {reply.ms:.1f} ms",
                "dim",
            )
        )

    def _hear_request(self, chapter: Chapter | None, entry: MutableMapping[str, Any]) -> None:
        """The log has a line of each request that was refused or cut off, as players do a lot."""
        if chapter is not None and entry.get("ended") == "viewer-left":
            text = f"  the player has enough of {chapter.clip.title} for now"
            text += f" · {size(entry.get('bytes') or 0)} sent"
        else:
            said = (entry.get("status"), entry.get("error") or entry.get("ended"))
            text = f"  {entry['method']} {entry['path']} · "
            text += " ".join(str(word) for word in said if word)
        self._tell(Text(text, "dim" if entry["level"] == "info" else "red"))

    # -- what happens without a viewer ---

    def _hear_webhook(self, chapter: Chapter, entry: MutableMapping[str, Any]) -> None:
        line = Text.assemble(("webhook", "bold magenta"), f" for {chapter.clip.title}")
        if entry["result"] == "accepted":
            chapter.came, chapter.started = Came.WEBHOOK, time.monotonic()
            line.append(" · signed by fal (fake), written down · a job brings the clip in")
        else:
            line.append(f" · {entry['result']}")
        self._tell(line)

    def _hear_sweep(self, entry: MutableMapping[str, Any]) -> None:
        if entry["pending"]:
            line = Text.assemble(("sweep", "bold blue"))
            self._tell(line.append(f" · {entry['pending']} long pending: fal (fake) is asked"))

    def _hear_asked(self, chapter: Chapter, entry: MutableMapping[str, Any]) -> None:
        chapter.started = time.monotonic()
        self._tell(Text(f"  fal (fake) on {chapter.clip.title}: {entry['outcome']}", "dim"))

    def _hear_job(self, chapter: Chapter, entry: MutableMapping[str, Any]) -> None:
        """Resolve jobs are filed by sweeps alone here; a webhook was first if there was one."""
        found = entry["kind"] == JobKind.RESOLVE and entry["outcome"] == "done"
        if found and chapter.came is not Came.WEBHOOK:
            chapter.came = Came.SWEEP

    # -- everything else ---

    def _hear_fill(self, chapter: Chapter, entry: MutableMapping[str, Any]) -> None:
        if entry.get("commit") == "stored":
            self._hear_stored(chapter, entry)
        elif entry["level"] != "debug":
            self._hear_other(entry)

    def _hear_stored(self, chapter: Chapter, entry: MutableMapping[str, Any]) -> None:
        chapter.owned = True
        chapter.sha256 = entry["sha256"]
        took = ""
        if chapter.started is not None:
            chapter.seconds = time.monotonic() - chapter.started
            took = f" in {chapter.seconds:.1f} s"
        self._tell(
            Text.assemble(
                ("  stored", "bold cyan"),
                f" {chapter.clip.title} in the owned bucket"
                f" · {size(entry['length'])}{took}"
                f" · verified, sha256 {chapter.sha256[:12]}…",
            )
        )

    def _hear_other(self, entry: MutableMapping[str, Any]) -> None:
        hidden = {"event", "level", "exc_info", "exchange"}
        more = ", ".join(f"{name} {entry[name]}" for name in entry if name not in hidden)
        style = "dim" if entry["level"] == "info" else "red"
        self._tell(Text(f"  {entry['event']}" + (f" · {more}" if more else ""), style))


def size(count: float) -> str:
    """Write a number of bytes the way that people read file sizes."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"  # noqa: PLR2004


def _is_same_view(chapter: Chapter, now: float) -> bool:
    """Safari asks for two bytes first, to see whether ranges work, then from the start again."""
    last = chapter.replies[-1] if chapter.replies else None
    return last is not None and last.range == "bytes=0-1" and now - last.at < _PROBE_BEFORE


def _ordinal(number: int) -> str:
    return _ORDINALS[number - 1] if number <= len(_ORDINALS) else f"{number}th"
