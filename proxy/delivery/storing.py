"""Storing: one kept clip after the other on its way from verified to stored.

Belongs here: commit to the bucket, then the catalog's row, then the local copy's last place, in
that order; what a failure means, and when it is tried again. Must not know: fills, viewers, what
an earlier process left.

    kept ─▶ committed ─▶ row says stored ─▶ cached | linked into the bucket ─▶ gone from here
      ▲         │              │
      └─ backoff┴──────────────┘   the bucket or the catalog is down
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from proxy.clock import Clock
from proxy.delivery.commit import Commits
from proxy.delivery.kept import Kept
from proxy.delivery.ledger import Ledger, Superseded
from proxy.delivery.shelf import Shelf
from proxy.errors import CatalogError, CorruptClip, FirstviewError, ObjectConflict
from proxy.records import ClipFacts, MediaFacts
from proxy.settings import Settings
from proxy.storage import keys
from proxy.telemetry.metrics import Metrics

_RETRIES_AT_ONCE = 4

log = structlog.get_logger()


class Storing:
    """The clips of this process that are verified and not stored yet, by request id."""

    def __init__(
        self,
        settings: Settings,
        *,
        commits: Commits,
        ledger: Ledger,
        shelf: Shelf,
        is_local: bool,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take the three places in their order; `is_local`: the bucket's file is the local copy."""
        self._settings = settings
        self._commits = commits
        self._ledger = ledger
        self._shelf = shelf
        self._is_local = is_local
        self._clock = clock
        self._metrics = metrics
        self.on_stored: Callable[[ClipFacts], None] = _nobody_asked
        """Told of every clip that has just been stored."""
        self.clips: dict[str, Kept] = {}
        self._wake = asyncio.Event()
        self._attempts: set[asyncio.Task[bool]] = set()

    def begin(self, kept: Kept) -> None:
        """Store a clip as soon as possible, beside whatever is going on."""
        attempt = asyncio.create_task(self._attempt(kept), name=f"store {kept.facts.request_id}")
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)

    # -- again and again ---

    async def run(self) -> None:
        """Try again what is due, for ever; one success makes all the others due at once."""
        while True:
            await self._try_what_is_due()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._until_due())

    def retry_now(self) -> None:
        """Make everything due."""
        for kept in self.clips.values():
            kept.due = 0.0
        self._wake.set()

    async def _try_what_is_due(self) -> None:
        now = self._clock.monotonic()
        due = [kept for kept in self.clips.values() if not kept.busy and kept.due <= now]
        for start in range(0, len(due), _RETRIES_AT_ONCE):
            batch = [kept for kept in due[start : start + _RETRIES_AT_ONCE] if not kept.busy]
            if any(await asyncio.gather(*(self._attempt(kept) for kept in batch))):
                self.retry_now()

    def _until_due(self) -> float | None:
        now = self._clock.monotonic()
        waits = [kept.due - now for kept in self.clips.values() if not kept.busy]
        return max(0.05, min(waits)) if waits else None

    # -- one clip ---

    async def _attempt(self, kept: Kept) -> bool:
        """Bring a clip as far as it gets; returns whether that was the end. Raises nothing."""
        kept.busy = True
        try:
            await self._store(kept)
        except ObjectConflict as error:
            _tell(kept, error.slug)
            await self._give_up(kept, error)
        except Superseded:
            _tell(kept, "superseded")
            await self._drop(kept)
        except CorruptClip as error:  # cut short on the disk: the source has to be asked again
            _tell(kept, error.slug)
            log.warning(
                "a kept clip broke",
                request_id=kept.facts.request_id,
                error=error.slug,
                detail=error.detail,
            )
            await self._drop(kept)
        except FirstviewError as error:
            _tell(kept, error.slug)
            await self._postpone(kept, error)
        except asyncio.CancelledError:
            _tell(kept, "stopped")
            raise
        except Exception as error:
            _tell(kept, "crashed")
            log.exception("storing crashed", request_id=kept.facts.request_id)
            await self._postpone(kept, FirstviewError(str(error)))
        else:
            return True
        finally:
            kept.busy = False
        return False

    async def _store(self, kept: Kept) -> None:
        """Bucket, catalog, local copy. Raises BucketError, CatalogError, Superseded."""
        facts = kept.facts
        sha256 = await self._proven(kept)
        if not kept.committed:
            if kept.tries:
                with contextlib.suppress(CatalogError):  # then the key's condition decides
                    await self._ledger.confirm(kept)
            await self._commits.commit(kept, sha256, lambda: self._ledger.confirm(kept))
            kept.committed = True
        await self._ledger.stored(kept, await self._described(kept))
        self.on_stored(facts)
        await self._shelf.settle(kept, linked=self._is_local)
        kept.failure = None
        await self._drop(kept)
        if kept.account is None:  # not at the first try, or of an earlier process
            log.info("stored", request_id=facts.request_id, length=facts.length, sha256=sha256)
        _tell(kept, "stored", sha256=sha256)

    async def _proven(self, kept: Kept) -> str:
        """The clip's digest, which is noted beside it, so that it proves the file after a crash.

        Raises Superseded if nobody wants the clip any more, CorruptClip if it cannot be read.
        """
        if kept.sha256 is None:
            if kept.discarded:
                raise Superseded
            kept.sha256 = await self._shelf.digest(kept.file)
            await self._shelf.write(kept, durable=False)
        return kept.sha256

    async def _described(self, kept: Kept) -> MediaFacts | None:
        """What the mp4 says of itself; never a reason not to store it."""
        if kept.discarded:
            return None
        try:
            return await self._shelf.describe(kept.file)
        except OSError as error:
            log.info(
                "a clip cannot be described", request_id=kept.facts.request_id, detail=str(error)
            )
            return None

    async def _postpone(self, kept: Kept, error: FirstviewError) -> None:
        if kept.superseded:
            await self._drop(kept)
            return
        kept.tries += 1
        kept.failure = error
        kept.tried.set()
        longest = self._settings.bucket_retry_max_wait
        wait = min(longest, self._settings.bucket_retry_wait * 2 ** min(kept.tries - 1, 20))
        wait = wait / 2 + self._clock.jitter(wait / 2)
        kept.due = self._clock.monotonic() + wait
        if kept.tries == 1:  # it may have to outlive more than this process from here on
            await self._shelf.write(kept, durable=True)
        self._metrics.store_failures.labels(error.slug).inc()
        log.warning(
            "kept on disk, will try again",
            request_id=kept.facts.request_id,
            error=error.slug,
            detail=error.detail,
            tries=kept.tries,
            wait=round(wait, 1),
        )
        self._wake.set()

    async def _give_up(self, kept: Kept, error: ObjectConflict) -> None:
        """The key holds bytes that we did not write: they stay, and the log says so.

        Our copy stays too, in the disk cache, or every view would fetch the clip again.
        """
        kept.failure = error
        self._metrics.store_failures.labels(error.slug).inc()
        log.error(
            "the bucket holds other bytes under this id; they were left untouched",
            request_id=kept.facts.request_id,
            key=keys.clip_key(kept.facts.request_id),
        )
        if kept.superseded:
            await self._drop(kept)
        else:
            await self._shelf.settle(kept, linked=False)
            await self._drop(kept)

    async def _drop(self, kept: Kept) -> None:
        """Forget a clip, and clear away what is left of it here and in the bucket."""
        kept.tried.set()
        upload, kept.upload = kept.upload, None
        if upload is not None:
            self._commits.abandon(upload)
        await self._shelf.discard(kept)
        if self.clips.get(kept.facts.request_id) is kept:
            del self.clips[kept.facts.request_id]

    async def close(self, timeout: float) -> None:
        """Let what is being stored be stored for `timeout` seconds; the rest stays on disk."""
        if self._attempts:
            _, late = await asyncio.wait(set(self._attempts), timeout=timeout)
            for attempt in late:
                attempt.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _tell(kept: Kept, commit: str, *, sha256: str | None = None) -> None:
    """Let the fill's line be written, now that its clip's way into the bucket is known."""
    account, kept.account = kept.account, None
    if account is not None:
        account.tell("whole", length=kept.facts.length, commit=commit, sha256=sha256)


def _nobody_asked(_facts: ClipFacts) -> None:
    """Until somebody wants to hear."""
