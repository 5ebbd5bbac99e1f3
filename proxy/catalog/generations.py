"""The generations in the catalog: read, lock, change, write.

Belongs here: what can be asked and told of generations, and the transactions that fence it. Must
not know: what an event means for a row (`changes.py`), or who reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import changes, job_rows, rows
from proxy.catalog.changes import Outcome
from proxy.catalog.engine import Catalog
from proxy.catalog.errands import Errands
from proxy.catalog.intake import Intake, Taking
from proxy.catalog.storing import Stored, Storing
from proxy.catalog.tables import generations
from proxy.clock import Clock
from proxy.errors import UnknownClip
from proxy.records import ClipFacts, Generation, MediaFacts, Registration, Status

_ONE: Final = rows.selection().where(generations.c.request_id == bindparam("request_id"))

Change = Callable[[Generation | None], Generation | None]
"""Decides what becomes of a row; None: nothing."""
Event = Callable[[Errands, Generation | None, Generation], None]
"""Decides what becomes of its jobs, given the row as it was and as it is."""


class Generations:
    """The generations table. Every method raises CatalogUnavailable when the database is away.

    `clip_url` gives a clip's canonical public address. Prompts are hashed always, and kept only
    with `keep_prompts`. `expires_after` is the age at which sources delete their clips, None: they
    do not. Whatever an event does to jobs (`errands.py`), it does in the row's own transaction.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        clip_url: Callable[[str], str],
        keep_prompts: bool = False,
        expires_after: timedelta | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Take the open catalog and what new rows need."""
        self._catalog = catalog
        self._clip_url = clip_url
        self._intake = Intake(
            clip_url=clip_url, keep_prompts=keep_prompts, expires_after=expires_after
        )
        self._clock = clock or Clock()
        self._storing = Storing(
            catalog, clip_url=clip_url, expires_after=expires_after, clock=self._clock
        )

    # --- reading --------------------------------------------------------------------------------

    async def get(self, request_id: str) -> Generation | None:
        """Return one generation, or None if the catalog does not know it."""
        try:
            return self.at_hand(request_id)
        except BlockingIOError:
            found = await self._read(_ONE, {"request_id": request_id})
            return rows.generation(found[0]) if found else None

    def at_hand(self, request_id: str) -> Generation | None:
        """As `get`, at once. Raises BlockingIOError where that would mean to wait."""
        row = self._catalog.at_hand(_ONE, (request_id,))
        return None if row is None else rows.generation(row)

    async def count_by_status(self) -> dict[Status, int]:
        """Return how many generations have each status; every status is there."""
        # Counting all of an index is far cheaper than grouping it, and most clips are stored.
        others = [status for status in Status if status is not Status.STORED]
        counts = [select(func.count()).where(generations.c.status == status) for status in others]
        everything = select(func.count()).select_from(generations)
        query = select(*(count.scalar_subquery() for count in (everything, *counts)))
        [(total, *found)] = await self._read(query)
        counted = dict(zip(others, found, strict=True))
        return {status: counted.get(status, total - sum(found)) for status in Status}

    async def _read(
        self, query: Select[*tuple[Any, ...]], given: dict[str, str] | None = None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        async def work(connection: AsyncConnection) -> Sequence[Row[*tuple[Any, ...]]]:
            return (await connection.execute(query, given)).all()

        return await self._catalog.read(work)

    # --- registering ----------------------------------------------------------------------------

    async def register(self, items: Sequence[Registration]) -> list[Outcome]:
        """Take in registrations, all or none, and say in their order what each did.

        Several of one id are taken in one after the other. A transaction per call: some hundred
        to a thousand items are a good batch.
        """
        if not items:
            return []
        prepared = [self._intake.prepared(item) for item in items]

        async def attempt(connection: AsyncConnection) -> list[Outcome]:
            before = await rows.lock(connection, {item.request_id for item in prepared})
            taking = Taking(self._intake, before, self._clock.now())
            outcomes = [taking.register(item) for item in prepared]
            await taking.write(connection)
            return outcomes

        return await rows.unraced(self._catalog, attempt)

    # --- events ---------------------------------------------------------------------------------

    async def note_source(
        self,
        request_id: str,
        fal_url: str,
        facts: ClipFacts,
        content_type: str | None,
        *,
        asked: bool = True,
    ) -> ClipFacts | None:
        """Keep what the source said of the clip, unless something is kept already.

        See to it that a worker brings the clip in if nobody else does; `asked`: a viewer waits.
        Returns the facts that hold from now on, which are the first ones seen by any replica.
        None: they must not be used, because the id is unknown or points elsewhere by now, or a
        different length was registered for it.
        """

        def change(before: Generation | None) -> Generation | None:
            return before and changes.source_seen(before, fal_url, facts, content_type)

        def event(errands: Errands, _before: Generation | None, after: Generation) -> None:
            errands.mirror(after, asked=asked)

        after = await self._change(request_id, change, event)
        if after is None or after.etag is None:
            return None
        if after.content_length is None or after.last_modified is None:
            return None
        return ClipFacts(
            request_id=request_id,
            length=after.content_length,
            etag=after.etag,
            last_modified=after.last_modified,
            model=after.model,
            gated=after.gated,
        )

    async def mark_stored(
        self,
        request_id: str,
        fal_url: str | None,
        facts: ClipFacts,
        sha256: str | None,
        at: datetime,
        *,
        media: MediaFacts | None = None,
    ) -> bool:
        """Note that the bucket holds the clip, verified; False if the id points elsewhere by now.

        An unknown id gets a row; with `fal_url` None that is a clip adopted from the bucket.
        `sha256` is in hex; `media` says what nobody has said of the clip's duration and size. Its
        jobs are done. Clips that are stored at once are noted in one transaction, and each caller
        hears after it. Also raises Overloaded, when too many wait for that.
        """
        said = Stored(
            request_id=request_id,
            fal_url=fal_url,
            facts=facts,
            sha256=sha256,
            at=at,
            media=media,
        )
        return await self._storing.note(said)

    async def note_missing(self, request_id: str) -> Status | None:
        """Note that the bucket lacks a clip that is called stored; return the status now.

        It becomes `available`, and gets a mirror job, or `lost` if it has no URL; other statuses
        stay. None: unknown.
        """

        def change(before: Generation | None) -> Generation | None:
            return before and changes.missing(before)

        after = await self._change(request_id, change, Errands.missing)
        return None if after is None else after.status

    async def want_mirrored(self, request_ids: Iterable[str]) -> None:
        """See to it that clips which can be fetched and are not stored are brought in, and soon.

        A viewer asked for them, and nobody is bringing them in any more. Unknown ids are passed
        over. Many are seen to in several transactions: repeating the call is harmless.
        """
        for some in job_rows.chunks(sorted(set(request_ids))):

            async def work(connection: AsyncConnection, some: Sequence[str] = some) -> None:
                errands = Errands(self._intake.expires_after)
                for row in (await rows.lock(connection, some)).values():
                    errands.mirror(row, asked=True)
                await errands.run(connection, self._clock.now())

            await self._catalog.write(work)

    async def note_refusal(self, request_id: str, fal_url: str, at: datetime) -> Status:
        """Count a 403, 404 or 410 of the source at `fal_url`; return the status now.

        A clip that is lost has no mirror job any more.
        Raises UnknownClip if there is no such generation.
        """

        def change(before: Generation | None) -> Generation | None:
            return before and changes.refused(before, fal_url, at)

        after = await self._change(request_id, change, Errands.refused)
        if after is None:
            raise UnknownClip
        return after.status

    async def mark_failed(self, request_id: str, reason: str) -> None:
        """Note that there will never be a clip, and why; an unknown id gets a row.

        Raises InvalidTransition when there is or was a clip: a late error undoes nothing.
        """
        cdn_url, now = self._clip_url(request_id), self._clock.now()

        def change(before: Generation | None) -> Generation:
            return changes.failed(before, request_id, reason, cdn_url=cdn_url, now=now)

        await self._change(request_id, change, Errands.failed)

    async def _change(self, request_id: str, change: Change, event: Event) -> Generation | None:
        """Lock a row, let `change` decide what becomes of it, and write that and its jobs."""

        async def attempt(connection: AsyncConnection) -> Generation | None:
            before = await rows.lock(connection, {request_id})
            after = change(before.get(request_id))
            if after is not None:
                await rows.write(connection, before, {request_id: after})
                errands = Errands(self._intake.expires_after)
                event(errands, before.get(request_id), after)
                await errands.run(connection, self._clock.now())
            return after

        return await rows.unraced(self._catalog, attempt)
