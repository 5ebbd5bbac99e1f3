"""The sweep: by one at a time, over again from where it was cut off, whatever is away."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog.sweeping import Filed, Sweeping
from proxy.catalog.tables import leases as leases_table
from proxy.errors import BucketUnavailable, CatalogUnavailable, LeaseLost
from proxy.jobs.sweep import ORPHANED_AFTER
from proxy.jobs.turns import SOON
from proxy.records import JobKind
from tests.fixtures.origin import wait_for
from tests.fixtures.swept import Stage


async def test_a_sweep_files_what_nobody_told_us_of_and_says_so(stage: Stage) -> None:
    await stage.put("a", "b")
    await stage.put("p", url=False)
    report = await stage.sweeper().sweep()
    assert report is not None
    assert (report.unstored, report.pending, report.aborted_uploads) == (2, 1, 3)
    assert report.seconds > 0
    assert stage.counted("swept", "unstored") == 2
    assert stage.counted("swept", "pending") == 1
    assert await stage.has_job("a")
    assert await stage.has_job("p", JobKind.RESOLVE)
    assert stage.uploads.asked == [("videos/", ORPHANED_AFTER)]


async def test_nothing_is_filed_before_its_time(stage: Stage) -> None:
    await stage.put("a")
    await stage.put("p", url=False)
    report = await stage.sweeper(sweep_after="100000d", pending_after="100000d").sweep()
    assert report is not None
    assert (report.unstored, report.pending) == (0, 0)


async def test_without_a_key_nobody_is_sent_to_fal(stage: Stage) -> None:
    await stage.put("p", url=False)
    report = await stage.sweeper(fal_key=None).sweep()
    assert report is not None
    assert report.pending == 0
    assert not await stage.has_job("p", JobKind.RESOLVE)


async def test_a_sweep_is_due_again_in_its_time_or_when_it_is_asked_for(stage: Stage) -> None:
    sweeper = stage.sweeper(sweep_every="1h")
    assert await sweeper.sweep() is not None
    assert await sweeper.sweep() is None
    assert await sweeper.sweep(force=True) is not None
    stage.clock.ahead = timedelta(minutes=61)
    assert await sweeper.sweep() is not None


async def test_while_somebody_else_sweeps_nobody_does(stage: Stage) -> None:
    async with stage.turns().take("sweep") as turn:
        assert turn is not None
        assert await stage.sweeper().sweep(force=True) is None
    assert await stage.sweeper().sweep() is not None


class SmallPages(Sweeping):
    """Pages of one, which fail as told; remembers where each began."""

    def __init__(self, stage: Stage, failing: int | None = None) -> None:
        super().__init__(stage.catalog, clock=stage.clock, expires_after=None)
        self.failing = failing
        self.places: list[str | None] = []

    async def file_unstored(self, before: datetime, after: str | None = None, _: int = 1) -> Filed:
        self.places.append(after)
        if len(self.places) == self.failing:
            raise CatalogUnavailable
        return await super().file_unstored(before, after, 1)


async def test_a_sweep_that_was_cut_off_goes_on_where_it_was(stage: Stage) -> None:
    await stage.put("a", "b", "c", "d")
    first = SmallPages(stage, failing=3)
    with pytest.raises(CatalogUnavailable):
        await stage.sweeper(first).sweep()
    assert await stage.sweeper().sweep() is None
    stage.clock.ahead = timedelta(seconds=SOON + 1)
    second = SmallPages(stage)
    report = await stage.sweeper(second).sweep()
    assert second.places[0] == first.places[-1]
    assert report is not None
    assert report.unstored == 2
    assert all([await stage.has_job(name) for name in "abcd"])


async def test_a_sweep_whose_process_died_is_taken_up_by_the_next(stage: Stage) -> None:
    await stage.put("a", "b", "c")
    first = SmallPages(stage)
    lease = await stage.leases.take("sweep", "dead", timedelta(seconds=60))
    assert lease is not None
    place = (await first.file_unstored(stage.clock.now())).next
    assert await stage.leases.extend(lease, timedelta(seconds=60), f"unstored {place}")
    assert await stage.sweeper().sweep(force=True) is None
    stage.clock.ahead = timedelta(seconds=61)
    second = SmallPages(stage)
    report = await stage.sweeper(second).sweep()
    assert report is not None
    assert (second.places[0], report.unstored) == (place, 2)


async def test_a_bucket_that_is_away_puts_off_its_own_part_only(stage: Stage) -> None:
    await stage.put("a")
    stage.uploads.failures = [BucketUnavailable()]
    sweeper = stage.sweeper()
    report = await sweeper.sweep()
    assert report is not None
    assert (report.unstored, report.aborted_uploads) == (1, None)
    await stage.put("b")
    stage.clock.ahead = timedelta(seconds=SOON + 1)
    report = await sweeper.sweep()
    assert report is not None
    assert (report.unstored, report.aborted_uploads) == (0, 3)
    assert await sweeper.sweep() is None


@pytest.mark.blocking  # writing a traceback reads the source files
async def test_sweeping_goes_on_after_whatever_happened(stage: Stage) -> None:
    stage.uploads.failures = [ZeroDivisionError(), BucketUnavailable()]
    running = asyncio.create_task(stage.sweeper(SmallPages(stage, 1), sweep_every="20ms").run())

    async def swept() -> bool:
        return len(stage.uploads.asked) > 4

    await wait_for(swept)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_who_lost_a_turn_learns_it_at_the_next_step(stage: Stage) -> None:
    async with stage.turns(length=0.06).take("sweep") as turn:
        assert turn is not None
        turn.reached("here")

        async def steal(connection: AsyncConnection) -> None:
            await connection.execute(update(leases_table).values(owner="somebody else"))

        await stage.catalog.write(steal)

        async def lost() -> bool:
            return turn.lost

        await wait_for(lost)
        with pytest.raises(LeaseLost):
            turn.reached("there")


async def test_a_turn_lasts_as_long_as_its_work_and_notes_its_place(stage: Stage) -> None:
    async with stage.turns(length=0.3).take("sweep") as turn:
        assert turn is not None
        turn.reached("here")
        began = stage.clock.now()

        async def noted() -> str | None:
            async def read(connection: AsyncConnection) -> Any:
                return (await connection.execute(leases_table.select())).one()

            row = await stage.catalog.read(read)
            outlived = stage.clock.now() - began > timedelta(seconds=0.4)
            assert row.until > stage.clock.now()
            return row.position if outlived else None

        assert await wait_for(noted) == "here"
        assert not turn.lost
