"""`firstview mirror`: bring clips into the bucket now, and follow them until they are there.

Belongs here: what was typed, the process that works beside others, the report. Must not know: how
clips are asked for and followed (`proxy.jobs.backfill`), or brought in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from proxy.app import App
from proxy.catalog.search import Search
from proxy.catalog.sweeping import Sweeping
from proxy.cli.exit_codes import FAILED, PARTLY, WRONG
from proxy.cli.lookups import print_json
from proxy.cli.mirror_clips import AllClips, NamedClips
from proxy.cli.mirror_progress import Display, Sample
from proxy.cli.running import Stop, log_no_less_than, until_stopped
from proxy.cli.words import printable, read_moment, size
from proxy.errors import SettingsError
from proxy.jobs.backfill import Backfill, Clips
from proxy.jobs.tally import UNKNOWN, Failure, Tally
from proxy.records import REQUEST_ID
from proxy.settings import Settings
from proxy.storage import keys
from proxy.telemetry.metrics import Metrics

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was typed."""

    ids: tuple[str, ...]
    every: bool
    model: str | None
    since: str | None
    retry: bool

    def check(self) -> None:
        """Raise SettingsError if it makes no sense."""
        if bool(self.ids) == self.every:
            raise SettingsError("firstview mirror: give either request ids or --all")
        if not self.every and (self.model is not None or self.since is not None):
            raise SettingsError("firstview mirror: --model and --since narrow --all only")
        for request_id in self.ids:
            if REQUEST_ID.fullmatch(request_id) is None:
                raise SettingsError(
                    f"firstview mirror: {printable(request_id)!r} is not a request id"
                )


@dataclass(slots=True)
class _Run:
    """One run of the command: how much there was to do, and what became of it."""

    tally: Tally
    stop: Stop
    began: float
    total: int = 0
    bytes: int = 0
    finished: bool = False

    @property
    def left(self) -> int:
        return 0 if self.finished else max(0, self.total - self.tally.settled)

    @property
    def exit_code(self) -> int:
        tally = self.tally
        if self.finished:
            if not tally.failed:
                return 0
            unknown = tally.reasons[UNKNOWN.partition(":")[0]]
            return WRONG if unknown == tally.settled else PARTLY
        return FAILED if tally.away is not None else self.stop.exit_code


def run(settings: Settings, wish: Wish, *, as_json: bool) -> int:
    """Mirror, and print the report; returns the exit code. Raises FirstviewError."""
    wish.check()
    display = Display()
    log_no_less_than("critical" if display.is_live else "error", settings)
    done = until_stopped(lambda stop: _mirror(settings, wish, display, stop))
    if as_json:
        print_json(_report(done))
    else:
        _print(done, wish)
    return done.exit_code


async def _mirror(settings: Settings, wish: Wish, display: Display, stop: Stop) -> _Run:
    def failed(failure: Failure) -> None:
        display.say(f"failed  {failure.request_id}  {failure.reason}", "red")

    def troubled(reason: str) -> None:
        display.say(f"waiting for better times  {reason}", "yellow")

    this = _Run(Tally(on_failure=failed, on_trouble=troubled), stop, time.monotonic())
    app = App(settings)
    since = read_moment("--since", wish.since, app.clock.now())
    backfill = Backfill(
        this.tally,
        clock=app.clock,
        poll=settings.jobs_poll,
        revive=bool(wish.ids) or wish.retry,
        can_resolve=settings.fal_key is not None,
    )

    def sample() -> Sample:
        done = this.tally.settled
        return Sample(time.monotonic(), done, _filled(app.metrics), this.tally.failed)

    async with app.working(sweeps=False, on_done=backfill.heard):
        sweeping = Sweeping(app.catalog, clock=app.clock, expires_after=None)
        ids = tuple(dict.fromkeys(wish.ids))
        clips: Clips = NamedClips(ids, sweeping, this.tally)
        this.total = len(ids)
        if wish.every:
            clips = AllClips(Search(app.catalog), model=wish.model, since=since)
            this.total = await sweeping.count_unstored(model=wish.model, since=since)
        if this.total:  # a bucket that is not there is better told of at once
            await app.bucket.head(keys.clip_key(ids[0] if ids else "firstview"))
        showing = asyncio.create_task(display.run(sample, lambda: this.total))
        try:
            await backfill.run(
                clips, app.labour.jobs, sweeping, stop=stop, wake=app.labour.worker.wake
            )
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
        this.finished = not stop.is_set() and this.tally.away is None
        if stop.is_set():
            flights = len(app.flights)
            display.say(f"stopping: {flights} clips are on their way in; Ctrl-C again ends at once")
    this.bytes = _filled(app.metrics)
    return this


def _filled(metrics: Metrics) -> int:
    """Bytes that this process has fetched."""
    samples = (sample for metric in metrics.filled_bytes.collect() for sample in metric.samples)
    return round(sum(sample.value for sample in samples if sample.name.endswith("_total")))


# --- the report ---------------------------------------------------------------------------------


def _report(done: _Run) -> dict[str, Any]:
    tally = done.tally
    return {
        "asked": tally.settled + done.left,
        "stored": tally.stored,
        "already_stored": tally.already_stored,
        "failed": tally.failed,
        "failed_but_tried_again": tally.unfinished,
        "reasons": dict(tally.reasons.most_common()),
        "first_failed": [asdict(failure) for failure in tally.first_failures],
        "left": done.left,
        "interrupted": done.stop.is_set(),
        "away": tally.away,
        "seconds": round(time.monotonic() - done.began, 3),
        "bytes": done.bytes,
    }


def _print(done: _Run, wish: Wish) -> None:
    tally, seconds = done.tally, time.monotonic() - done.began
    if done.finished and not tally.settled:
        print("nothing to do: every clip that fits is stored, or there is none")
        return
    counts = [f"{tally.stored:,} stored"]
    if tally.already_stored:
        counts.append(f"{tally.already_stored:,} stored already")
    if tally.failed:
        counts.append(f"{tally.failed:,} failed")
    if done.left:
        counts.append(f"{done.left:,} left")
    rate = f"{size(done.bytes / max(seconds, 1e-9))}/s"
    print(f"{', '.join(counts)} ({size(done.bytes)} in {seconds:.1f} s, {rate})")
    for line in _advice(done, wish):
        print(line)


def _advice(done: _Run, wish: Wish) -> Sequence[str]:
    tally, lines = done.tally, list[str]()
    if tally.failed > len(tally.first_failures):
        lines += [f"  {count:,} x {slug}" for slug, count in tally.reasons.most_common(_SHOWN)]
    if tally.unfinished:
        lines.append(f"any worker goes on trying {tally.unfinished:,} of those that failed")
    if tally.failed > tally.reasons[UNKNOWN.partition(":")[0]]:
        again = "" if wish.ids or wish.retry else "; --retry tries dead ones again"
        lines.append(f"`firstview jobs list --kind mirror` shows what failed and stays{again}")
    if tally.away is not None:
        lines.append(f"stopped, because nothing works just now: {tally.away}")
    if done.left:
        lines.append("run the same again for the rest; what is stored stays so")
    return lines
