"""Locate: where a clip is, cheapest place first, and boarding the fill if it is nowhere.

Belongs here: the order of the places, and when a reply may begin. Must not know: HTTP, or how a
fill or a send works.

    open file ─▶ kept ─▶ disk cache ─▶ flight ─▶ bucket ─▶ upstream ─▶ an error that says why
    └────────── no database, no bucket ──────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from proxy.catalog import changes
from proxy.delivery import identity
from proxy.delivery.boarding import board
from proxy.delivery.candidates import Candidates, most_telling
from proxy.delivery.fill import Fills
from proxy.delivery.flights import Flight, Flights
from proxy.delivery.forgetting import Forgetting
from proxy.delivery.near import Near
from proxy.delivery.remembered import Remembered
from proxy.delivery.view import View, Wanted
from proxy.delivery.whereabouts import PATIENCE, Found, Whereabouts
from proxy.errors import FirstviewError, LinkRefused, ObjectMissing
from proxy.records import ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.storage.forgets import Forgets
from proxy.storage.open_files import GatedFile, OpenFile


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
        self._forgetting = Forgetting(rows, flights, near, forgets)
        self._whereabouts = Whereabouts(near, rows, self._forgetting)
        self.resolves: Resolves | None = None

    def hot(self, request_id: str) -> OpenFile | None:
        """A whole clip that is open here, current and for everybody; `acquire` before any await."""
        if self._forgets.is_news:
            self._forgetting.heed()
        return self._near.hot(request_id) if self._rows.shows(request_id) else None

    def hot_gated(self, request_id: str) -> GatedFile | None:
        """As `hot`, a clip that is gated: for viewers who are admitted."""
        if self._forgets.is_news:
            self._forgetting.heed()
        file = self._near.hot(request_id) if self._rows.gates(request_id) else None
        return None if file is None else file.gated()

    async def find(
        self, request_id: str, wanted: Wanted | None = None, *, admitted: bool = False
    ) -> View:
        """Find a clip for a viewer, and start a fill if nothing here has it.

        Returns when a reply can begin: its facts are known and its source has proven to be a
        clip. Raises LinkRefused, ClipError, SourceError, BucketError, CatalogError, Overloaded.
        """
        self._forgetting.heed()
        since = self._rows.changes
        (flight, row), joined = await self._flight(request_id), True
        found = Found(row, None, None)
        if flight is None:
            found = await self._look_and_resolve(request_id, admitted=admitted)
            file = found.file or self._whereabouts.arrived(request_id)
            if file is not None:
                return self._view(file, found.row, admitted=admitted)
            flight, joined = self._join_or_start(request_id, found, wanted)
        else:
            self._check(request_id, row, flight.facts, admitted=admitted)
        view = await self._ride(flight, found, wanted, joined=joined)
        try:
            row = await self._row_by_now(request_id, found.row, since)
            view.gated = self._check(request_id, row, view.facts, admitted=admitted)
        except BaseException:
            view.release()
            raise
        return view

    def _join_or_start(
        self, request_id: str, found: Found, wanted: Wanted | None
    ) -> tuple[Flight, bool]:
        """The clip's flight, and whether it was there. Raises what is known to be in the way."""
        flight = self._flights.get(request_id)
        if flight is not None:
            return flight, True
        sources = self._candidates.of(request_id, found.row, found.outage)
        by_range = wanted is not None and not wanted.is_whole
        return self._flights.join_or_start(request_id, sources, self._fills.run, by_range=by_range)

    async def _ride(
        self, flight: Flight, found: Found, wanted: Wanted | None, *, joined: bool
    ) -> View:
        """One viewer's view of a clip on its way in, as soon as a reply can begin.

        Whether it is gated is not said yet.
        """
        flight.hold()
        flight.account.joins += joined
        try:
            facts, early = await board(flight, wanted, self._settings.seek_ahead, joined=joined)
        except BaseException as error:
            flight.drop()
            if isinstance(error, ObjectMissing):
                raise self._candidates.missing(found.row, found.outage) from error
            raise
        joined = joined or flight.followed
        return View(
            facts=facts,
            tier="flight" if joined else (flight.source or flight.sources[0]).tier,
            flight=flight,
            early=early,
            collapsed=joined,
        )

    async def _row_by_now(
        self, request_id: str, row: Generation | None, since: int
    ) -> Generation | None:
        """The row that decides who may see a reply that begins now, not when it was asked for.

        Whoever has waited for a source may have been overtaken by a change; `since` counts those
        that there were before.
        """
        if since == self._rows.changes:
            return row
        present, _ = await self._rows.ask(request_id, PATIENCE)
        return present or row

    async def _flight(self, request_id: str) -> tuple[Flight | None, Generation | None]:
        """The clip's flight, unless the catalog means another clip by now, and the clip's row.

        A fill may take longer than a row is believed, and the id may have been re-pointed by a
        process that knows nothing of this flight.
        """
        flight = self._flights.get(request_id)
        if flight is None:
            return None, None
        began = flight.sources[0].row  # None: nobody knew the id then, or could be asked
        row, _ = await self._rows.ask(request_id, PATIENCE)
        if began is not None and row is not None and not changes.same_source(began, row):
            await self._forgetting.forget(request_id)
        return self._flights.get(request_id), row or began

    def _check(
        self,
        request_id: str,
        row: Generation | None,
        facts: ClipFacts | None = None,
        *,
        admitted: bool,
    ) -> bool:
        """Whether a clip is gated; raises LinkRefused if it is and the viewer not `admitted`."""
        gated = self._rows.is_gated(request_id, row, facts)
        if gated and not admitted:
            raise LinkRefused
        return gated

    def _view(self, file: OpenFile, row: Generation | None, *, admitted: bool) -> View:
        """One viewer's view of a file that is acquired for it. Raises LinkRefused."""
        try:
            gated = self._check(file.facts.request_id, row, file.facts, admitted=admitted)
        except BaseException:
            file.release()
            raise
        served = file.gated() if gated else file
        return View(facts=file.facts, tier=file.tier, file=served, gated=gated)

    async def facts(self, request_id: str, *, admitted: bool = False) -> Known:
        """What a HEAD says: from whatever is nearest, and without a fill. Raises like `find`."""
        known = await self.known(request_id, admitted=admitted)
        if known is not None:
            return known
        since = self._rows.changes
        row, outage = await self._whereabouts.row(request_id)
        self._check(request_id, row, admitted=admitted)
        if row is not None and await self._resolved(row):
            row, outage = await self._whereabouts.row(request_id)
        errors: list[FirstviewError] = []
        for source in self._candidates.of(request_id, row, outage):
            try:
                facts = await source.ask()
            except FirstviewError as error:
                errors.append(error)
                continue
            row = await self._row_by_now(request_id, row, since)
            gated = self._check(request_id, row, facts, admitted=admitted)
            return Known(facts, source.tier, hit=False, gated=gated)
        telling = most_telling(errors)
        if isinstance(telling, ObjectMissing):
            raise self._candidates.missing(row, outage)
        raise telling

    async def known(self, request_id: str, *, admitted: bool = False) -> Known | None:
        """Facts that can be had without asking a source; None if there are none.

        Raises LinkRefused.
        """
        self._forgetting.heed()
        flight, row = await self._flight(request_id)
        if flight is not None and flight.facts is not None:
            gated = self._check(request_id, row, flight.facts, admitted=admitted)
            return Known(flight.facts, "flight", hit=False, gated=gated)
        row, _, file = await self._whereabouts.look(request_id)
        if file is not None:
            file.release()
            gated = self._check(request_id, row, file.facts, admitted=admitted)
            return Known(file.facts, file.tier, hit=True, gated=gated)
        gated = self._check(request_id, row, admitted=admitted)
        facts = identity.facts_from_row(row) if row and row.status is Status.STORED else None
        return None if facts is None else Known(facts, "bucket", hit=True, gated=gated)

    async def is_stored(self, request_id: str, *, admitted: bool = False) -> bool:
        """Whether the bucket has the clip, as the catalog says. Raises LinkRefused."""
        self._forgetting.heed()
        row, _ = await self._whereabouts.row(request_id)
        self._check(request_id, row, admitted=admitted)
        return row is not None and row.status is Status.STORED

    def refresh(self, request_id: str) -> None:
        """The catalog was told something of this id: ask it again at the next request."""
        self._rows.changed(request_id)

    def doubt(self, request_id: str) -> None:
        """A clip's open file was not what it should be: look at what is there at the next view."""
        self._near.doubt(request_id)

    def heed(self) -> None:
        """Drop what another process of this machine has re-pointed or purged."""
        self._forgetting.heed()

    async def forget(self, request_id: str) -> None:
        """The id was re-pointed or purged: nothing of its former clip is served from here on."""
        self._rows.changed(request_id)
        await self._forgetting.forget(request_id)

    async def _look_and_resolve(self, request_id: str, *, admitted: bool) -> Found:
        """Look, and if the clip is expected but nobody has said where it is, ask fal, once.

        Raises LinkRefused, but not of a file: whoever gets that decides by it.
        """
        found = await self._whereabouts.look(request_id)
        if found.file is not None:
            return found
        self._check(request_id, found.row, admitted=admitted)
        if found.row is not None and await self._resolved(found.row):
            return await self._whereabouts.look(request_id)
        return found

    async def _resolved(self, row: Generation) -> bool:
        """Whether fal was asked for a pending clip and the catalog knows more since."""
        if row.status is not Status.PENDING or self.resolves is None:
            return False
        return await self.resolves.resolve(row)
