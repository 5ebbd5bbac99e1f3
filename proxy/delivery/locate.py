"""Locate: where a clip is, cheapest place first, and boarding the fill if it is nowhere.

Belongs here: the order of the places, and when a reply may begin. Must not know: HTTP, or how a
fill or a send works.

    open file ─▶ kept ─▶ disk cache ─▶ flight ─▶ bucket ─▶ upstream ─▶ an error that says why
    └────────── no database, no bucket ──────┘
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from proxy.catalog import changes
from proxy.delivery import identity
from proxy.delivery.candidates import Candidates
from proxy.delivery.fill import Fills
from proxy.delivery.flights import Flight, Flights, tells_facts
from proxy.delivery.gating import Gating
from proxy.delivery.near import Near
from proxy.delivery.remembered import Remembered
from proxy.delivery.sources import Source
from proxy.delivery.view import View, Wanted, discard
from proxy.errors import CatalogError, FirstviewError, ObjectMissing
from proxy.records import ByteStream, ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.storage.forgets import Forgets
from proxy.storage.open_files import GatedFile, OpenFile

_PATIENCE = 1.0
"""Seconds that a clip which is here waits to hear from a hanging catalog if it is still meant."""
_LOOKS = 4
"""Times that a viewer looks who is overtaken by changes of the catalog, mostly of other ids."""


class Resolves(Protocol):
    """Who can ask fal for a clip that the catalog expects; see `proxy.jobs.resolve`."""

    async def resolve(self, row: Generation) -> bool:
        """Ask for the result of a pending generation; True: the catalog knows more now.

        Answers within a bounded time and raises nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """A clip's facts and who knew them: `hit` if nobody was asked, the rest as in a `View`."""

    facts: ClipFacts
    tier: str
    hit: bool
    gated: bool = False


class Locator:
    """Finds clips. The hot path, `hot`, awaits nothing.

    A viewer who is not `admitted` has no signed link for the clip that is valid now. Whether it
    takes one is known with its row, before any source is asked and any fill begun.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        near: Near,
        rows: Remembered,
        candidates: Candidates,
        flights: Flights,
        fills: Fills,
        forgets: Forgets,
    ) -> None:
        """Take the places to look in, and what tells of ids that other processes forgot."""
        self._settings = settings
        self._near = near
        self._rows = rows
        self._candidates = candidates
        self._flights = flights
        self._fills = fills
        self._forgets = forgets
        self._gating = Gating(by_default=settings.gated)
        self._letting_go: set[asyncio.Task[None]] = set()
        self.resolves: Resolves | None = None

    def hot(self, request_id: str) -> OpenFile | None:
        """A whole clip that is open here, current and for everybody; `acquire` before any await."""
        if self._forgets.is_news:
            self.heed()
        return self._near.hot(request_id) if self._rows.shows(request_id) else None

    def hot_gated(self, request_id: str) -> GatedFile | None:
        """As `hot`, a clip that is gated: for viewers who are admitted."""
        if self._forgets.is_news:
            self.heed()
        file = self._near.hot(request_id) if self._rows.gates(request_id) else None
        return None if file is None else file.gated()

    async def find(
        self, request_id: str, wanted: Wanted | None = None, *, admitted: bool = False
    ) -> View:
        """Find a clip for a viewer, and start a fill if nothing here has it.

        Returns when a reply can begin: its facts are known and its source has proven to be a
        clip. Raises LinkRefused, ClipError, SourceError, BucketError, CatalogError, Overloaded.
        """
        self.heed()
        (flight, row), joined = await self._flight(request_id), True
        outage: CatalogError | None = None
        if flight is None:
            row, outage, file = await self._look_and_resolve(request_id, admitted=admitted)
            file = file or self._arrived(request_id)
            if file is not None:
                return self._view(file, row, admitted=admitted)
            flight = self._flights.get(request_id)
            if flight is None:
                sources = self._candidates.of(request_id, row, outage)
                by_range = wanted is not None and not wanted.is_whole
                flight, joined = self._flights.join_or_start(
                    request_id, sources, self._fills.run, by_range=by_range
                )
        else:
            self._gating.check(row, flight.facts, admitted=admitted)
        flight.hold()
        flight.account.joins += joined
        try:
            facts, early = await self._board(flight, wanted, joined=joined)
            try:
                gated = self._gating.check(row, facts, admitted=admitted)
            except BaseException:
                if early is not None:
                    discard(early)
                raise
            joined = joined or flight.followed
            return View(
                facts=facts,
                tier="flight" if joined else (flight.source or flight.sources[0]).tier,
                flight=flight,
                early=early,
                collapsed=joined,
                gated=gated,
            )
        except ObjectMissing as error:
            flight.drop()
            raise self._candidates.missing(row, outage) from error
        except BaseException:
            flight.drop()
            raise

    async def _flight(self, request_id: str) -> tuple[Flight | None, Generation | None]:
        """The clip's flight, unless the catalog means another clip by now, and the clip's row.

        A fill may take longer than a row is believed, and the id may have been re-pointed by a
        process that knows nothing of this flight.
        """
        flight = self._flights.get(request_id)
        began = None if flight is None else flight.sources[0].row
        if began is None:
            return flight, None
        row, _ = await self._rows.ask(request_id, _PATIENCE)
        if row is not None and not changes.same_source(began, row):
            await self._forget(request_id)
        return self._flights.get(request_id), row or began

    def _view(self, file: OpenFile, row: Generation | None, *, admitted: bool) -> View:
        """One viewer's view of a file that is acquired for it. Raises LinkRefused."""
        try:
            gated = self._gating.check(row, file.facts, admitted=admitted)
        except BaseException:
            file.release()
            raise
        served = file.gated() if gated else file
        return View(facts=file.facts, tier=file.tier, file=served, gated=gated)

    def _arrived(self, request_id: str) -> OpenFile | None:
        """A clip that became whole here while the places were being looked into.

        Asked without an await before a fill is started, so that a clip is never fetched again by
        a viewer who looked for it just before its fill ended.
        """
        file = self._near.present(request_id)
        return None if file is None else file.acquire()

    async def facts(self, request_id: str, *, admitted: bool = False) -> Known:
        """What a HEAD says: from whatever is nearest, and without a fill. Raises like `find`."""
        known = await self.known(request_id, admitted=admitted)
        if known is not None:
            return known
        row, outage = await self._row(request_id)
        self._gating.check(row, admitted=admitted)
        if row is not None and await self._resolved(row):
            row, outage = await self._row(request_id)
        errors: list[FirstviewError] = []
        for source in self._candidates.of(request_id, row, outage):
            try:
                facts = await source.ask()
            except FirstviewError as error:
                errors.append(error)
                continue
            gated = self._gating.check(row, facts, admitted=admitted)
            return Known(facts, source.tier, hit=False, gated=gated)
        telling = [error for error in errors if not isinstance(error, ObjectMissing)]
        if not telling:
            raise self._candidates.missing(row, outage)
        raise next((error for error in telling if error.retryable), telling[0])

    async def known(self, request_id: str, *, admitted: bool = False) -> Known | None:
        """Facts that can be had without asking a source; None if there are none.

        Raises LinkRefused.
        """
        self.heed()
        flight, row = await self._flight(request_id)
        if flight is not None and flight.facts is not None:
            gated = self._gating.check(row, flight.facts, admitted=admitted)
            return Known(flight.facts, "flight", hit=False, gated=gated)
        row, _, file = await self._look(request_id)
        if file is not None:
            file.release()
            gated = self._gating.check(row, file.facts, admitted=admitted)
            return Known(file.facts, file.tier, hit=True, gated=gated)
        gated = self._gating.check(row, admitted=admitted)
        facts = identity.facts_from_row(row) if row and row.status is Status.STORED else None
        return None if facts is None else Known(facts, "bucket", hit=True, gated=gated)

    async def is_stored(self, request_id: str, *, admitted: bool = False) -> bool:
        """Whether the bucket has the clip, as the catalog says. Raises LinkRefused."""
        self.heed()
        row, _ = await self._row(request_id)
        self._gating.check(row, admitted=admitted)
        return row is not None and row.status is Status.STORED

    def refresh(self, request_id: str) -> None:
        """The catalog was told something of this id: ask it again at the next request."""
        self._rows.changed(request_id)

    def doubt(self, request_id: str) -> None:
        """A clip's open file was not what it should be: look at what is there at the next view."""
        self._near.doubt(request_id)

    async def forget(self, request_id: str) -> None:
        """The id was re-pointed or purged: nothing of its former clip is served from here on."""
        self._rows.changed(request_id)
        await self._forget(request_id)

    async def _forget(self, request_id: str) -> None:
        self._rows.drop(request_id)
        await self._flights.supersede(request_id)
        await self._near.forget(request_id)

    def heed(self) -> None:
        """Drop what another process of this machine has re-pointed or purged, before a reply."""
        if not self._forgets.is_news:
            return
        forgotten = self._forgets.news()
        if forgotten is None:  # too many to know
            self._rows.drop_all()
            self._near.let_go_of_all()
            return
        for request_id in forgotten:
            self._rows.changed(request_id)
            letting_go = asyncio.create_task(
                self._let_go(request_id, self._flights.cut(request_id))
            )
            self._letting_go.add(letting_go)
            letting_go.add_done_callback(self._letting_go.discard)

    async def _let_go(self, request_id: str, flight: Flight | None) -> None:
        await self._near.let_go(request_id)
        if flight is not None and flight.spool is not None:
            await flight.spool.remove()

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
            changes = self._rows.changes
            row, outage, seen = await self._row_and_glance(request_id)
            file = await self._local(request_id, row, changes) if seen else None
            self.heed()
            if changes == self._rows.changes and file is not None:
                self._rows.believe(request_id, row, file.facts)
                break
            if changes == self._rows.changes and (row is not None or request_id not in self._rows):
                break
            self._rows.drop(request_id)  # overtaken, or of a file that is gone by now
            if file is not None:
                file.release()
                file = None
        return row, outage, file

    async def _row_and_glance(
        self, request_id: str
    ) -> tuple[Generation | None, CatalogError | None, bool]:
        """Glance at the places here and ask the catalog; whether to open those places.

        A clip that is nowhere costs no further wait: its first byte needs every millisecond.
        """
        seen = request_id in self._rows or await self._near.glance(request_id)
        row, outage = await self._row(request_id)
        seen = seen or not self._near.is_surely_fetched(row)
        return row, outage, seen or self._near.present(request_id) is not None

    async def _look_and_resolve(
        self, request_id: str, *, admitted: bool
    ) -> tuple[Generation | None, CatalogError | None, OpenFile | None]:
        """Look, and if the clip is expected but nobody has said where it is, ask fal, once.

        Raises LinkRefused, but not of a file: whoever gets that decides by it.
        """
        row, outage, file = await self._look(request_id)
        if file is not None:
            return row, outage, file
        self._gating.check(row, admitted=admitted)
        if row is not None and await self._resolved(row):
            return await self._look(request_id)
        return row, outage, file

    async def _resolved(self, row: Generation) -> bool:
        """Whether fal was asked for a pending clip and the catalog knows more since."""
        if row.status is not Status.PENDING or self.resolves is None:
            return False
        return await self.resolves.resolve(row)

    async def _row(self, request_id: str) -> tuple[Generation | None, CatalogError | None]:
        return await self._rows.ask(
            request_id, _PATIENCE, unless=lambda: self._is_nowhere(request_id)
        )

    async def _is_nowhere(self, request_id: str) -> bool:
        return not await self._near.has(request_id)

    async def _local(
        self, request_id: str, row: Generation | None, changes: int
    ) -> OpenFile | None:
        """A whole clip on this machine that the catalog still means; acquired for the caller.

        Another clip than the row's is forgotten, unless it is the row that is of yesterday.
        """
        file = await self._near.open(request_id, row)
        if file is not None and row is not None and not identity.same_clip(row, file.facts):
            file.release()
            if changes == self._rows.changes:
                await self._forget(request_id)
            return None
        return file

    # -- boarding a flight ---

    async def _board(
        self, flight: Flight, wanted: Wanted | None, *, joined: bool
    ) -> tuple[ClipFacts, asyncio.Task[ByteStream] | None]:
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
            if not joined:
                flight.give_way(early)
        try:
            return await self._first_facts(flight, source, early), early
        except BaseException:
            if early is not None:
                discard(early)
            raise

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
                if tells_facts(early.result()) and head.total:
                    return source.facts(head, head.total)
            return await ready
        finally:
            ready.cancel()
