"""Locate: where a clip is, cheapest place first, and who may be asked for it.

Belongs here: the order of the places and what each answer means. Must not know: HTTP, or how a
fill or a send works.

    open file ─▶ kept ─▶ disk cache ─▶ flight ─▶ bucket ─▶ upstream ─▶ an error that says why
    └────────── no database, no bucket ──────┘
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Protocol

from cachetools import TTLCache

from proxy.clock import Clock
from proxy.delivery import identity
from proxy.delivery.fill import Fills
from proxy.delivery.flights import Flight, Flights
from proxy.delivery.own import Ownership
from proxy.delivery.sources import BucketSource, Source, UpstreamLike, UpstreamSource
from proxy.delivery.tokens import TokenBucket
from proxy.delivery.view import View, Wanted, discard
from proxy.errors import (
    CatalogError,
    CatalogUnavailable,
    ClipFailed,
    ClipGone,
    ClipNotReady,
    FirstviewError,
    ObjectMissing,
    Overloaded,
    UnknownClip,
)
from proxy.records import ByteStream, ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket
from proxy.storage.disk_cache import DiskCache
from proxy.storage.open_files import OpenFile, OpenFiles
from proxy.telemetry.metrics import Metrics

_PATIENCE = 1.0
"""Seconds that a clip which is here waits to hear from a hanging catalog if it is still meant."""
_SERVABLE = {Status.AVAILABLE, Status.STORED}
"""Rows worth remembering: the others may become servable at any moment."""
_LOOKS = 4
"""Times that a viewer looks who is overtaken by changes of the catalog, mostly of other ids."""


class Lookup(Protocol):
    """What locating asks the catalog; `proxy.catalog.generations.Generations` keeps it."""

    async def get(self, request_id: str) -> Generation | None:
        """Return the row of an id."""
        ...


class Locator:
    """Finds clips. The hot path, `hot`, awaits nothing and allocates nothing."""

    def __init__(
        self,
        settings: Settings,
        *,
        bucket: Bucket,
        upstream: UpstreamLike,
        rows: Lookup,
        disk: DiskCache,
        files: OpenFiles,
        flights: Flights,
        fills: Fills,
        ownership: Ownership,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take the places to look in."""
        self._settings = settings
        self._bucket = bucket
        self._upstream = upstream
        self._rows = rows
        self._disk = disk
        self._files = files
        self._flights = flights
        self._fills = fills
        self._ownership = ownership
        self._metrics = metrics
        self._fresh: TTLCache[str, Generation | None] = TTLCache(
            settings.facts_max, settings.facts_ttl, timer=clock.monotonic
        )
        self._changes = 0
        self._asking: dict[str, asyncio.Task[Generation | None]] = {}
        self._unknown = TokenBucket(settings.bucket_lookup_rate, settings.bucket_lookup_rate, clock)

    # -- the hot path ---

    def hot(self, request_id: str) -> OpenFile | None:
        """A whole clip that is open here and known to be current; `acquire` before any await."""
        if request_id not in self._fresh:
            return None
        self._disk.touch(request_id)  # or the clip that everyone views would be evicted first
        return self._files.get(request_id)

    # -- everything else ---

    async def find(self, request_id: str, wanted: Wanted | None = None) -> View:
        """Find a clip for a viewer, and start a fill if nothing here has it.

        Returns when a reply can begin: its facts are known and its source has proven to be a
        clip. Raises ClipError, SourceError, BucketError, CatalogError, Overloaded.
        """
        flight, joined = self._flights.get(request_id), True
        if flight is None:
            row, outage, file = await self._look(request_id)
            if file is not None:
                return View(facts=file.facts, tier=file.tier, file=file)
            arrived = self._arrived(request_id)
            if arrived is not None:
                return arrived
            flight = self._flights.get(request_id)  # whoever joins one asks nobody
            if flight is None:
                sources = self._sources(request_id, row, outage)
                by_range = wanted is not None and not wanted.is_whole
                flight, joined = self._flights.join_or_start(
                    request_id, sources, self._fills.run, by_range=by_range
                )
        else:
            row, outage = flight.sources[0].row, None
        flight.hold()
        try:
            return await self._board(flight, wanted, joined=joined)
        except ObjectMissing as error:
            flight.drop()
            raise self._missing(row, outage) from error
        except BaseException:
            flight.drop()
            raise

    def _arrived(self, request_id: str) -> View | None:
        """A clip that became whole here while the places were being looked into.

        Asked without an await before a fill is started, so that a clip is never fetched again by
        a viewer who looked for it just before its fill ended.
        """
        file = self._files.get(request_id) or self._ownership.kept(request_id)
        if file is None:
            return None
        return View(facts=file.facts, tier=file.tier, file=file.acquire())

    async def facts(self, request_id: str) -> ClipFacts:
        """What a HEAD says: from whatever is nearest, and without a fill. Raises like `find`."""
        known = await self.known(request_id)
        if known is not None:
            return known
        row, outage = await self._row(request_id)
        errors: list[FirstviewError] = []
        for source in self._sources(request_id, row, outage):
            try:
                return await self._ask(source)
            except FirstviewError as error:
                errors.append(error)
        telling = [error for error in errors if not isinstance(error, ObjectMissing)]
        if not telling:
            raise self._missing(row, outage)
        raise next((error for error in telling if error.retryable), telling[0])

    async def known(self, request_id: str) -> ClipFacts | None:
        """Facts that can be had without asking a source; None if there are none."""
        flight = self._flights.get(request_id)
        if flight is not None and flight.facts is not None:
            return flight.facts
        row, _, file = await self._look(request_id)
        if file is not None:
            file.release()
            return file.facts
        if row is not None and row.status is Status.STORED:
            return identity.facts_from_row(row)
        return None

    def refresh(self, request_id: str) -> None:
        """The catalog was told something of this id: ask it again at the next request."""
        self._changes += 1
        self._fresh.pop(request_id, None)
        self._asking.pop(request_id, None)

    def stored(self, facts: ClipFacts) -> None:
        """A clip was stored: know it without asking, so that it is looked for in the bucket."""
        row = self._fresh.get(facts.request_id)
        if row is not None:
            self._fresh[facts.request_id] = replace(
                row,
                status=Status.STORED,
                etag=facts.etag,
                content_length=facts.length,
                last_modified=facts.last_modified,
            )

    def doubt(self, request_id: str) -> None:
        """A clip's open file was not what it should be: look at what is there at the next view."""
        self._files.drop(request_id)

    async def forget(self, request_id: str) -> None:
        """The id was re-pointed or purged: nothing of its former clip is served from here on."""
        self.refresh(request_id)
        await self._forget(request_id)

    async def _forget(self, request_id: str) -> None:
        self._fresh.pop(request_id, None)
        await self._flights.supersede(request_id)
        self._files.drop(request_id)
        await self._ownership.disown(request_id)
        await self._disk.remove(request_id)

    # -- the places ---

    async def _look(
        self, request_id: str
    ) -> tuple[Generation | None, CatalogError | None, OpenFile | None]:
        """Ask the catalog, and look for the whole clip here; its file is acquired for the caller.

        A row that was read before its id was re-pointed must not bring the former clip back, so
        whoever was overtaken looks again.
        """
        row, outage, file = None, None, None
        for _ in range(_LOOKS):
            changes = self._changes
            row, outage = await self._row(request_id)
            file = await self._local(request_id, row)
            if changes == self._changes and file is not None:
                self._fresh.setdefault(request_id, row)
                break
            if changes == self._changes and (row is not None or request_id not in self._fresh):
                break
            self._fresh.pop(request_id, None)  # overtaken, or of a file that is gone by now
            if file is not None:
                file.release()
                file = None
        return row, outage, file

    async def _row(self, request_id: str) -> tuple[Generation | None, CatalogError | None]:
        """The catalog's row, by memory if it is fresh; concurrent questions are one question."""
        if request_id in self._fresh:
            return self._fresh.get(request_id), None
        task = self._asking.get(request_id)
        if task is None:
            task = asyncio.create_task(self._rows.get(request_id))
            self._asking[request_id] = task
            task.add_done_callback(lambda done: self._answered(request_id, done))
        changes = self._changes
        try:
            async with asyncio.timeout(_PATIENCE if self._is_here(request_id) else None):
                row = await asyncio.shield(task)
        except CatalogError as error:
            self._metrics.catalog_errors.inc()
            return None, error
        except TimeoutError:
            self._metrics.catalog_errors.inc()
            return None, CatalogUnavailable()
        if row is not None and row.status in _SERVABLE and changes == self._changes:
            self._fresh[request_id] = row
        return row, None

    def _answered(self, request_id: str, task: asyncio.Task[Generation | None]) -> None:
        if self._asking.get(request_id) is task:
            del self._asking[request_id]

    def _is_here(self, request_id: str) -> bool:
        """Whether a whole clip seems to be on this machine."""
        near = self._files.get(request_id) or self._ownership.kept(request_id)
        return near is not None or request_id in self._disk

    async def _local(self, request_id: str, row: Generation | None) -> OpenFile | None:
        """A whole clip on this machine that the catalog still means; acquired for the caller."""
        file = self._files.get(request_id) or self._ownership.kept(request_id)
        if file is not None:
            file.acquire()
            self._disk.touch(request_id)
        else:
            file = await self._open(request_id, row)
        if file is None:
            return None
        if row is not None and not identity.same_clip(row, file.facts):
            file.release()
            await self._forget(request_id)
            return None
        return file

    async def _open(self, request_id: str, row: Generation | None) -> OpenFile | None:
        file = await self._disk.open(request_id)
        if file is None and self._bucket.is_local:
            file = await self._open_object(request_id, row)
        if file is None:
            return None
        present = self._files.get(request_id)
        if present is not None:  # another request opened it meanwhile
            file.release()
            return present.acquire()
        self._files.put(request_id, file)
        return file.acquire()

    async def _open_object(self, request_id: str, row: Generation | None) -> OpenFile | None:
        found = await self._bucket.open_local(keys.clip_key(request_id))
        if found is None:
            return None
        facts = identity.facts_from_object(
            request_id,
            row,
            size=found.info.size,
            object_etag=found.info.etag,
            last_modified=found.info.last_modified,
            metadata=found.info.metadata,
        )
        file = OpenFile(found.fd, facts, "bucket")
        if facts.length == 0 or (row is not None and not identity.same_clip(row, facts)):
            file.release()
            return None
        self._ownership.adopted(row, facts)
        return file

    def _sources(
        self, request_id: str, row: Generation | None, outage: CatalogError | None
    ) -> tuple[Source, ...]:
        """Who may be asked, in order; raises what is known to be in the way.

        A local bucket has been looked into already: what it has is sent from where it lies.
        """
        bucket: tuple[Source, ...] = ()
        if not self._bucket.is_local:
            same = partial(_is_same, row)
            bucket = (BucketSource(self._bucket, request_id, row, same),)
        if row is None:
            return self._sources_of_unknown(bucket, outage)
        if row.status is Status.FAILED:
            raise ClipFailed
        if row.status is Status.LOST:  # unless the owner has put it back
            return self._or_missing(bucket, row, outage)
        upstream: tuple[Source, ...] = ()
        if row.fal_url is not None:
            upstream = (UpstreamSource(self._upstream, row, row.fal_url),)
        elif row.status is not Status.STORED:
            raise ClipNotReady
        return self._or_missing(
            bucket + upstream if row.status is Status.STORED else upstream + bucket, row, outage
        )

    def _sources_of_unknown(
        self, bucket: tuple[Source, ...], outage: CatalogError | None
    ) -> tuple[Source, ...]:
        if outage is not None or not bucket:
            return self._or_missing(bucket, None, outage)
        if not self._settings.bucket_lookup_unknown:
            raise UnknownClip
        if not self._unknown.take():
            self._metrics.shed.labels("bucket_lookup_rate").inc()
            msg = "too many unknown clips are being asked for; try again shortly"
            raise Overloaded(msg)
        return bucket

    def _or_missing(
        self, sources: tuple[Source, ...], row: Generation | None, outage: CatalogError | None
    ) -> tuple[Source, ...]:
        if not sources:
            raise self._missing(row, outage)
        return sources

    def _missing(self, row: Generation | None, outage: CatalogError | None) -> FirstviewError:
        """What a clip that is in no place is called: unknown, gone, or not to be said now."""
        if outage is not None:
            return CatalogUnavailable()
        return UnknownClip() if row is None else ClipGone()

    async def _ask(self, source: Source) -> ClipFacts:
        if isinstance(source, UpstreamSource):
            head = await self._upstream.head_info(source.url)
            return source.facts(head, head.total or source.expected_length or 0)
        if isinstance(source, BucketSource):
            return await source.head()
        raise ObjectMissing

    # -- boarding a flight ---

    async def _board(self, flight: Flight, wanted: Wanted | None, *, joined: bool) -> View:
        """Wait until a reply can begin; ask for a far range meanwhile, not afterwards."""
        early: asyncio.Task[ByteStream] | None = None
        source = flight.sources[0]
        if (
            not flight.is_ready
            and wanted is not None
            and wanted.is_far(self._settings.seek_ahead)
            and source.seekable()
        ):
            early = asyncio.create_task(source.open(wanted.start, wanted.stop))
        try:
            facts = await self._first_facts(flight, source, early)
        except BaseException:
            if early is not None:
                discard(early)
            raise
        tier = "flight" if joined else (flight.source or source).tier
        return View(facts=facts, tier=tier, flight=flight, early=early, collapsed=joined)

    async def _first_facts(
        self, flight: Flight, source: Source, early: asyncio.Task[ByteStream] | None
    ) -> ClipFacts:
        """Facts from the fill, or from the range beside it if that answers first."""
        if early is None:
            return await flight.ready()
        ready = asyncio.create_task(flight.ready())
        try:
            await asyncio.wait({ready, early}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done() and early.exception() is None:
                head = early.result().head
                if head.start > 0 and head.total:
                    return source.facts(head, head.total)
            return await ready
        finally:
            ready.cancel()


def _is_same(row: Generation | None, facts: ClipFacts) -> bool:
    """Whether an object is the clip that the catalog means; it cannot object to one unknown."""
    return row is None or identity.same_clip(row, facts)
