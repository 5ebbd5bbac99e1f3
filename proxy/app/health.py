"""Health: whether this process lives, and whether it should be sent viewers, with all reasons.

Belongs here: which parts are looked at, how often, and how bad what is found there is. Must not
know: who asks, or how it is told.

What all replicas have in common, the catalog and the bucket, never makes one of them unready: all
would be at once, and a hit needs neither. Decision 28.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from proxy.app.corridor import Corridor
from proxy.app.places import Places
from proxy.app.watch import Question, Watch
from proxy.catalog import schema
from proxy.clock import Clock
from proxy.errors import SchemaOutdated
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.free_space import free_bytes
from proxy.telemetry.health import Finding, Report, Standing, State

_PATIENCE: Final = 0.5
"""Seconds that a probe waits for all answers together; kubelet's own patience is 1 s."""
_SECOND: Final = 1.0
_CATALOG_SLOW: Final = 2.0
_BUCKET_BELIEVED: Final = 30.0
_BUCKET_AGAIN: Final = 5.0
_BUCKET_SLOW: Final = 10.0
"""Seconds: a look into an S3 bucket is a request that is paid for, and is tried again by itself."""
_DISK_SLOW: Final = 10.0
_NOBODY: Final = "firstview-readiness"
"""Id of a clip that nobody has, to ask a bucket for."""
_MIB: Final = 1024 * 1024


class Stage(Enum):
    """Where a process is in its life."""

    STARTING = "starting: it does not accept connections yet"
    SERVING = ""
    DRAINING = "draining: it was told to stop"


@dataclass(frozen=True, slots=True)
class Supervised:
    """What a process knows of the supervisor that it has.

    `standing` asks it, and raises TimeoutError or ConnectionError; `silent_for` are the seconds
    since it was last heard.
    """

    standing: Callable[[], Awaitable[Standing]]
    silent_for: Callable[[], float]


class Health:
    """Of one process."""

    def __init__(
        self, settings: Settings, clock: Clock, supervised: Supervised | None = None
    ) -> None:
        """Begin at the stage STARTING; the rest is looked at once there is something to `watch`."""
        self.stage = Stage.STARTING
        self._settings = settings
        self._clock = clock
        self._supervised = supervised
        self._standing: Standing | None = None
        self._free: int | None = None
        self._corridor: Corridor | None = None
        self._watches: dict[str, Watch] = {}

    def watch(self, places: Places, corridor: Corridor) -> None:
        """Look at these parts from now on."""
        loop = asyncio.get_running_loop()
        bucket = places.bucket

        async def catalog() -> None:
            if schema.is_behind(await schema.current(places.catalog)):
                raise SchemaOutdated

        async def ask_bucket() -> None:
            if bucket.is_local:
                await bucket.check()
            else:
                await bucket.head(keys.clip_key(_NOBODY))

        async def disk() -> str | None:
            return await loop.run_in_executor(places.executor, self._look_at_disk)

        self._corridor = corridor
        self._add("catalog", catalog, slow=_CATALOG_SLOW)
        self._add(
            "bucket",
            ask_bucket,
            believed=_BUCKET_BELIEVED,
            again=_BUCKET_AGAIN,
            slow=_BUCKET_SLOW,
        )
        self._add("disk", disk, slow=_DISK_SLOW)
        if self._supervised is not None:
            self._add("workers", self._ask_supervisor, slow=_CATALOG_SLOW)

    def _add(
        self,
        part: str,
        question: Question,
        *,
        slow: float,
        believed: float = _SECOND,
        again: float = _SECOND,
    ) -> None:
        self._watches[part] = Watch(
            question, self._clock, believed=believed, again=again, slow=slow
        )

    def close(self) -> None:
        """Ask nobody any more."""
        for watch in self._watches.values():
            watch.close()

    # -- the two probes ---

    def alive(self) -> Report:
        """Whether it makes sense to let this process go on: that it answers is most of it."""
        findings = [Finding("event loop")]
        if self._supervised is not None:
            silent, limit = self._supervised.silent_for(), self._settings.worker_timeout
            found = Finding("supervisor")
            if silent > limit:
                words = f"not heard for {silent:.0f} s: nobody would replace a worker that dies"
                found = Finding("supervisor", State.FAILING, words)
            findings.append(found)
        return Report("alive", tuple(findings))

    async def ready(self) -> Report:
        """Whether viewers should be sent here; answers within `_PATIENCE`, or a little more."""
        looks = (watch.look(_PATIENCE) for watch in self._watches.values())
        wrong = dict(zip(self._watches, await asyncio.gather(*looks), strict=True))
        return Report("ready", tuple(self._findings(wrong)))

    def _findings(self, wrong: dict[str, str | None]) -> Iterator[Finding]:
        if self.stage is not Stage.SERVING:
            yield Finding("process", State.FAILING, self.stage.value)
        else:
            yield Finding("process")
        if "workers" in wrong:
            yield self._of_workers(wrong["workers"])
        yield _degraded(
            "catalog",
            wrong.get("catalog"),
            "clips that are here or in the bucket are served; what is not known here, webhooks and"
            " jobs wait",
        )
        yield _degraded(
            "bucket",
            wrong.get("bucket"),
            "clips that are here or at their source are served, and new ones wait on this disk",
        )
        yield self._of_disk(wrong.get("disk"))
        yield self._of_kept()

    # -- the parts ---

    async def _ask_supervisor(self) -> str | None:
        assert self._supervised is not None  # noqa: S101 - for mypy; `watch` has looked
        try:
            self._standing = await self._supervised.standing()
        except (TimeoutError, ConnectionError, LookupError):
            return "the supervisor does not answer"
        return None

    def _of_workers(self, wrong: str | None) -> Finding:
        found = self._standing
        if wrong is not None or found is None:
            return Finding("workers", State.DEGRADED, wrong or "not known yet")
        if found.draining:
            return Finding("workers", State.FAILING, Stage.DRAINING.value)
        words = f"{found.serving} of {found.places} serve"
        if found.serving == 0:
            return Finding("workers", State.FAILING, words)
        state = State.OK if found.serving == found.places else State.DEGRADED
        return Finding("workers", state, words)

    def _look_at_disk(self) -> str | None:
        folder = self._settings.data_dir
        try:
            self._free = free_bytes(folder)
            read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
        except OSError as error:
            return f"{folder} cannot be used: {error.strerror}"
        return f"{folder} is read-only" if read_only else None

    def _of_disk(self, wrong: str | None) -> Finding:
        """A disk is this replica's own: another one may have a better one."""
        if wrong is not None:
            return Finding("disk", State.FAILING, wrong)
        floor = self._settings.disk_reserve
        if self._free is None or self._free >= floor:
            return Finding("disk")
        words = (
            f"{self._free // _MIB} MiB free, less than the {floor // _MIB} MiB of"
            " FIRSTVIEW_DISK_RESERVE: new clips are streamed through and not kept"
        )
        return Finding("disk", State.DEGRADED, words)

    def _of_kept(self) -> Finding:
        """A bucket can answer and still take nothing, for want of a right, say."""
        kept = [] if self._corridor is None else self._corridor.ownership.storing.clips.values()
        failures = [one.failure.detail for one in kept if one.failure is not None]
        if not failures:
            return Finding("storing")
        words = f"clips wait on this disk, {len(failures)} of them in vain: {failures[-1]}"
        return Finding("storing", State.DEGRADED, words)


def _degraded(part: str, wrong: str | None, but: str) -> Finding:
    if wrong is None:
        return Finding(part)
    return Finding(part, State.DEGRADED, f"{wrong.removesuffix('.')}; {but}")
