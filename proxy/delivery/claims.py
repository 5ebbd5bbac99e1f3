"""Claims: whose fill a clip is, so that no two processes of a machine ask for the same clip.

Belongs here: trying one source after the other, and for each its file's lock before its first byte.
Must not know: how bytes are poured, viewers, HTTP.

    lock the source's file ─▶ ours, empty ─▶ near after all? ─▶ open the source, from its start
                           ─▶ ours, begun by a process that ended ─▶ go on where that stopped
                           ─▶ another's ─▶ follow it ─▶ whole
                                              └─▶ its lock fell free: ours, see above
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from proxy.clock import Clock
from proxy.delivery.body import Body
from proxy.delivery.candidates import most_telling
from proxy.delivery.flights import Flight
from proxy.delivery.follow import Followers, is_meant
from proxy.delivery.following import Step
from proxy.delivery.near import Near
from proxy.delivery.owner import Owner
from proxy.delivery.sources import Source
from proxy.delivery.spool import Spool
from proxy.delivery.tail import Tail
from proxy.errors import (
    CorruptClip,
    DiskExhausted,
    FirstviewError,
    Overloaded,
    SourceUnavailable,
)
from proxy.looks import Looks
from proxy.records import ClipFacts
from proxy.settings import Settings
from proxy.storage import keys
from proxy.telemetry.metrics import Metrics

_TRIES: Final = 8
"""Fills of other processes that may fail one after the other before a viewer hears of it."""

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Claim:
    """A fill that is this process's to do. Without a `spool` there is no room for it.

    `facts` are known already of a clip that another process had begun.
    """

    body: Body
    spool: Spool | None
    facts: ClipFacts | None = None

    async def close(self) -> None:
        """Let go of the source, and of the claim's own use of the spool."""
        await self.body.close()
        if self.spool is not None:
            self.spool.release()


class Claims:
    """Decides for each flight who fills it."""

    def __init__(
        self,
        settings: Settings,
        *,
        spool_dir: Path,
        near: Near,
        owner: Owner,
        executor: Executor,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take the folder that all processes of the machine share."""
        self._max_bytes = settings.max_clip_bytes
        self._spool_dir = spool_dir
        self._near = near
        self._owner = owner
        self._executor = executor
        self._metrics = metrics
        self._looks = Looks()
        self.followers = Followers(clock)

    async def take(self, flight: Flight) -> Claim | None:
        """Claim the first source that has the clip; fall through to the next only from here.

        Returns None when the clip has become whole without this process. When no source has it,
        raises the most telling error.
        """
        errors: list[FirstviewError] = []
        for source in flight.sources:
            try:
                return await self._of(flight, source)
            except FirstviewError as error:
                if flight.is_ready:
                    raise
                await self._owner.refused(source, error)
                errors.append(error)
        raise most_telling(errors)

    async def _of(self, flight: Flight, source: Source) -> Claim | None:
        flight.account.reads(source)
        for _ in range(_TRIES):
            async with contextlib.AsyncExitStack() as unused:
                try:
                    spool = await self._claim(flight.request_id, source)
                except DiskExhausted:
                    return await self._without_room(flight, source)
                unused.callback(spool.release)
                if not spool.filling:
                    step = await self._follow(flight, source, spool)
                    if step is Step.WHOLE:
                        return None
                    if step is not Step.GO_ON:
                        continue
                claim = await self._ours(flight, source, spool)
                if claim is not None:
                    unused.pop_all()
                    return claim
                if flight.is_ready:
                    return None
        raise Overloaded("other processes keep failing at this clip; try again shortly")

    async def _claim(self, request_id: str, source: Source) -> Spool:
        path = keys.spool_path(self._spool_dir, request_id, source.name)
        return await Spool.claim(
            path, self._executor, lambda: self._near.seems_here(request_id), self._looks
        )

    async def _without_room(self, flight: Flight, source: Source) -> Claim:
        body = await Body.open(source, self._max_bytes)
        flight.source, flight.validator = source, body.validator
        return Claim(body=body, spool=None)

    # -- another process's ---

    async def _follow(self, flight: Flight, source: Source, spool: Spool) -> Step:
        """Follow to the end; raises what viewers hear who have been given a part of the clip."""
        step = await self.followers.follow(flight, source, spool)
        self._metrics.followed.labels(step.name.lower()).inc()
        if step is Step.WHOLE and flight.facts is not None and not flight.superseded:
            self._near.keep_open(spool.fd, flight.facts)
        elif step is Step.NO_ROOM and flight.is_ready:
            raise DiskExhausted
        elif step is Step.GONE and flight.is_ready:
            raise SourceUnavailable("the process that was fetching the clip has failed")
        spool.filling = step is Step.GO_ON
        return step

    # -- ours ---

    async def _ours(self, flight: Flight, source: Source, spool: Spool) -> Claim | None:
        """Begin or go on, with the lock in hand; None if there is nothing to do, or not this way.

        The flight is ready then if the clip has arrived; else its file was of no use, and is gone.
        """
        try:
            if not flight.is_ready and await self._has_arrived(flight, source, spool):
                await spool.remove()
                return None
            claim = await self._continue(flight, source, spool)
            if claim is not None:
                return claim
            if spool.size > 0:  # nobody writes again what somebody may be reading
                await spool.remove()
                return None
            return await self._open(flight, source, spool)
        except BaseException as error:
            if isinstance(error, FirstviewError) or spool.size == 0:
                await spool.remove()  # and what was begun is left, if only this process ends
            spool.let_go()
            raise

    async def _has_arrived(self, flight: Flight, source: Source, spool: Spool) -> bool:
        """Look once more, as another process may have let go of the lock by being done.

        Not if the local copy is what the clip is to be had from.
        """
        if source.tier == "disk" or not spool.is_needless:
            return False
        file = await self._near.open(flight.request_id, source.row)
        if file is None:
            return False
        if not is_meant(source, file.facts):  # of a process that knows nothing of the change yet
            file.release()
            self._near.doubt(flight.request_id)
            return False
        flight.source, flight.followed = source, True
        tail = Tail.whole(os.dup(file.fd), file.facts.length)
        file.release()
        flight.board(tail)
        tail.release()
        flight.land(file.facts)
        return True

    async def _open(self, flight: Flight, source: Source, spool: Spool) -> Claim:
        body = await Body.open(source, self._max_bytes)
        flight.source, flight.validator = source, body.validator
        _expect(spool, body)
        return Claim(body=body, spool=spool)

    async def _continue(self, flight: Flight, source: Source, spool: Spool) -> Claim | None:
        """What an earlier process had begun, hashed anew; None if that is of no use.

        Raises SourceUnavailable when viewers have had a part of what is of no use.
        """
        try:
            claim = await self._recall(source, spool) if spool.size else None
        except CorruptClip as error:
            log.warning(
                "an unfinished clip broke",
                request_id=flight.request_id,
                error=error.slug,
                detail=error.detail,
            )
            claim = None
        if claim is not None:
            self._metrics.takeovers.inc()
            flight.account.taken_over_at = spool.mark.written
            flight.source, flight.validator = source, claim.body.validator
        elif flight.is_ready:
            raise SourceUnavailable("what the process that ended has left cannot be continued")
        return claim

    @staticmethod
    async def _recall(source: Source, spool: Spool) -> Claim | None:
        said = await spool.held()
        if said is None or said.growth is None or not is_meant(source, said.facts):
            return None
        body = Body(source, said.growth.head)
        _expect(spool, body)
        spool.announce(said.facts.length)
        await spool.take_over(body.recall)
        if said.sha256 not in {None, (await spool.digest()).hexdigest()}:
            raise CorruptClip("a clip that was whole has other bytes by now")
        return Claim(body=body, spool=spool, facts=said.facts)


def _expect(spool: Spool, body: Body) -> None:
    """Have hashed on the way what can be compared before the last byte goes out."""
    if body.md5 is not None or body.sha256 is not None:
        spool.expect_digest(md5=body.md5 is not None)
