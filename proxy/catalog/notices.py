"""What fal said of its requests, written down: the row and its job in one transaction.

Belongs here: what each kind of notice does, and telling news from repetition. Must not know: how a
notice was received, signed or understood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import rows
from proxy.catalog.changes import Outcome
from proxy.catalog.engine import Catalog
from proxy.catalog.intake import Intake, Taking
from proxy.catalog.together import Together
from proxy.clock import Clock
from proxy.records import JobKind, Notice, Registration, Status


class Taken(StrEnum):
    """What a notice did to the catalog."""

    ACCEPTED = "accepted"
    """There is a clip, and something about it was news."""
    DUPLICATE = "duplicate"
    """Nothing of it was news."""
    LATE = "late"
    """An error about a generation that has its clip: nothing changed."""
    FAILED = "failed"
    """There will be no clip."""
    RESOLVING = "resolving"
    """fal will be asked for the result."""


class Notices:
    """Takes notices in; those that come at once are written in one transaction."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        clip_url: Callable[[str], str],
        keep_prompts: bool = False,
        expires_after: timedelta | None = None,
        clock: Clock | None = None,
        most: int = 64,
        queue: int = 1024,
    ) -> None:
        """Take the open catalog, what new rows need, and the bounds of a batch and its queue."""
        self._catalog = catalog
        self._intake = Intake(
            clip_url=clip_url, keep_prompts=keep_prompts, expires_after=expires_after
        )
        self._clock = clock or Clock()
        self._together: Together[Notice, Taken] = Together(self._write, most=most, queue=queue)

    async def take(self, notice: Notice) -> Taken:
        """Write a notice down and say, once that is durable, what it did.

        In any order and however often they come, the same notices leave the same rows and jobs: a
        clip undoes an error, an error never a clip. Raises CatalogUnavailable, and Overloaded when
        too many wait.
        """
        clips = tuple(self._intake.prepared(item) for item in notice.clips)
        return await self._together.put(replace(notice, clips=clips))

    async def close(self) -> None:
        """Take no more, and finish what waits."""
        await self._together.close()

    async def _write(self, notices: list[Notice]) -> list[Taken]:
        ids = {item.request_id for notice in notices for item in notice.clips}
        ids |= {notice.request_id for notice in notices if not notice.clips}

        async def attempt(connection: AsyncConnection) -> list[Taken]:
            before = await rows.lock(connection, ids)
            taking = Taking(self._intake, before, self._clock.now())
            taken = [_take(taking, notice) for notice in notices]
            # Only now it is clear what all of them together have left to be done.
            for notice in notices:
                _file(taking, notice)
            filed = await taking.write(connection)
            asked = {request_id for request_id, kind in filed if kind is JobKind.RESOLVE}
            asked |= ids - before.keys()
            return [_told(notice, what, asked) for notice, what in zip(notices, taken, strict=True)]

        return await rows.unraced(self._catalog, attempt)


def _take(taking: Taking, notice: Notice) -> Taken:
    """Let a notice change its rows."""
    if notice.clips:
        outcomes = set()
        for item in notice.clips:
            outcomes.add(taking.register(_gated(taking, notice, _completed(taking, item))))
        return Taken.DUPLICATE if outcomes == {Outcome.UNCHANGED} else Taken.ACCEPTED
    row = taking.row(notice.request_id)
    if notice.failure is not None:
        if row is not None and row.status not in {Status.PENDING, Status.FAILED}:
            return Taken.LATE
        return Taken.FAILED if taking.fail(notice.request_id, notice.failure) else Taken.DUPLICATE
    if row is None:
        taking.register(Registration(request_id=notice.request_id))
    elif row.status is not Status.PENDING:
        return Taken.DUPLICATE
    return Taken.RESOLVING


def _completed(taking: Taking, item: Registration) -> Registration:
    """A clip that fal tells of is complete; since when is what was said of it first."""
    row = taking.row(item.request_id)
    known = item.completed_at or (row.completed_at if row is not None else None)
    return item if known is not None else replace(item, completed_at=taking.now)


def _gated(taking: Taking, notice: Notice, item: Registration) -> Registration:
    """A generation's further clips are for whom its first is, until somebody says otherwise."""
    first, row = taking.row(notice.request_id), taking.row(item.request_id)
    if first is None or first.gated is None or (row is not None and row.gated is not None):
        return item
    return replace(item, gated=first.gated)


def _file(taking: Taking, notice: Notice) -> None:
    """File the jobs that a notice's rows need, as they are after all notices."""
    for item in notice.clips:
        row = taking.row(item.request_id)
        if row is not None:
            taking.errands.mirror(row)
    if notice.resolve:
        row = taking.row(notice.request_id)
        if row is not None:
            taking.errands.resolve(row)


def _told(notice: Notice, taken: Taken, asked: set[str]) -> Taken:
    """What a notice did; only the first that has fal asked for a result is no duplicate."""
    if taken is not Taken.RESOLVING:
        return taken
    if notice.request_id not in asked:
        return Taken.DUPLICATE
    asked.remove(notice.request_id)
    return taken
