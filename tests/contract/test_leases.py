"""What one replica does at a time is done by one at a time, in SQLite and in PostgreSQL."""

import asyncio
from datetime import timedelta

import pytest

from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.leases import Lease, Leases
from tests.fixtures.clock import NOON, StandingClock

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def leases(catalog: Catalog, clock: StandingClock) -> Leases:
    return Leases(catalog, clock=clock)


async def take(leases: Leases, *, due_only: bool = True) -> Lease:
    lease = await leases.take("sweep", "w", MINUTE, due_only=due_only)
    assert lease is not None
    return lease


async def test_a_name_that_nobody_took_is_due(leases: Leases) -> None:
    lease = await take(leases)
    assert (lease.name, lease.until, lease.due_at, lease.position) == (
        "sweep",
        NOON + MINUTE,
        None,
        None,
    )
    assert lease.owner.startswith("w/")


async def test_a_held_lease_is_nobody_elses(leases: Leases) -> None:
    await take(leases)
    assert await leases.take("sweep", "other", MINUTE) is None
    assert await leases.take("sweep", "other", MINUTE, due_only=False) is None
    assert await leases.take("check", "other", MINUTE) is not None


async def test_of_many_takers_at_once_one_gets_it(
    leases: Leases, clock: StandingClock, database_url: str
) -> None:
    second = await open_catalog(database_url)
    try:
        both = [leases, Leases(second, clock=clock)] * 10
        taken = await asyncio.gather(*(some.take("sweep", "w", MINUTE) for some in both))
    finally:
        await second.close()
    assert len([lease for lease in taken if lease is not None]) == 1


async def test_what_is_done_is_due_again_later(leases: Leases, clock: StandingClock) -> None:
    assert await leases.finish(await take(leases), due_in=HOUR, position="p")
    assert await leases.take("sweep", "w", MINUTE) is None
    clock.go(minutes=60)
    lease = await take(leases)
    assert (lease.due_at, lease.position) == (NOON + HOUR, "p")
    assert await leases.finish(lease, due_in=HOUR, position=None)
    assert (await take(leases, due_only=False)).position is None


async def test_who_asks_for_it_need_not_wait_until_it_is_due(leases: Leases) -> None:
    await leases.finish(await take(leases), due_in=HOUR, position=None)
    assert (await take(leases, due_only=False)).until == NOON + MINUTE


async def test_a_lease_that_ran_out_goes_on_where_it_was_left(
    leases: Leases, clock: StandingClock
) -> None:
    first = await take(leases)
    clock.go(seconds=30)
    assert await leases.extend(first, MINUTE, "halfway")
    assert await leases.extend(first, MINUTE)
    clock.go(seconds=60)
    second = await take(leases)
    assert second.position == "halfway"
    assert not await leases.extend(first, HOUR, "stale")
    assert not await leases.finish(first, due_in=HOUR, position="stale")
    assert await leases.finish(second, due_in=HOUR, position="end")


async def test_the_same_owner_fences_off_itself(leases: Leases, clock: StandingClock) -> None:
    first = await take(leases)
    clock.go(minutes=1)
    second = await take(leases)
    assert not await leases.extend(first, MINUTE)
    assert await leases.extend(second, MINUTE)


async def test_a_late_holder_keeps_what_nobody_else_took(
    leases: Leases, clock: StandingClock
) -> None:
    lease = await take(leases)
    clock.go(minutes=5)
    assert await leases.extend(lease, MINUTE)
    assert await leases.take("sweep", "other", MINUTE) is None
