"""Any number of viewers, one fill; and who closes its spool."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.delivery.flights import Flight, Flights
from proxy.delivery.spool import Spool
from proxy.errors import Overloaded, SourceUnavailable
from proxy.records import ClipFacts

FACTS = ClipFacts(
    request_id="clip", length=10, etag="e", last_modified=datetime(2026, 1, 1, tzinfo=UTC)
)


class Filling:
    """A fill that goes on when the test says so."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.began: list[Flight] = []

    async def __call__(self, flight: Flight) -> None:
        self.began.append(flight)
        await self.go_on.wait()
        flight.land(FACTS)


async def test_of_many_who_find_a_clip_nowhere_one_fills_it() -> None:
    flights, filling = Flights(10), Filling()

    async def view() -> tuple[Flight, bool]:
        await asyncio.sleep(0)
        flight, joined = flights.join_or_start("clip", (), filling, by_range=False)
        await flight.ready()
        return flight, joined

    viewers = [asyncio.create_task(view()) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    filling.go_on.set()
    boarded = await asyncio.gather(*viewers)
    assert len(filling.began) == 1
    assert sum(not joined for _, joined in boarded) == 1
    assert {id(flight) for flight, _ in boarded} == {id(filling.began[0])}
    await flights.drain(1)
    assert len(flights) == 0


async def test_a_viewer_that_gives_up_takes_nobody_with_it() -> None:
    flights, filling = Flights(10), Filling()
    flight, _ = flights.join_or_start("clip", (), filling, by_range=False)
    leaving, staying = (asyncio.create_task(flight.ready()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    filling.go_on.set()
    assert await staying == FACTS


async def test_a_fill_that_failed_is_told_to_all_and_can_be_tried_again() -> None:
    flights = Flights(10)

    async def failing(flight: Flight) -> None:
        await asyncio.sleep(0)
        flight.fail(SourceUnavailable("down"))

    flight, _ = flights.join_or_start("clip", (), failing, by_range=False)
    for result in await asyncio.gather(flight.ready(), flight.ready(), return_exceptions=True):
        assert isinstance(result, SourceUnavailable)
    await flights.drain(1)
    again, joined = flights.join_or_start("clip", (), failing, by_range=False)
    assert (again is flight, joined) == (False, False)
    await flights.drain(1)


async def test_past_the_bound_only_joining_is_possible() -> None:
    flights, filling = Flights(2), Filling()
    for name in ("a", "b"):
        flights.join_or_start(name, (), filling, by_range=False)
    with pytest.raises(Overloaded):
        flights.join_or_start("c", (), filling, by_range=False)
    assert flights.join_or_start("a", (), filling, by_range=False)[1]
    filling.go_on.set()
    await flights.drain(1)
    assert not flights.join_or_start("c", (), filling, by_range=False)[1]
    await flights.drain(1)


async def test_one_who_asks_for_all_makes_it_no_longer_a_ranges_doing() -> None:
    flights, filling = Flights(2), Filling()
    seen = []
    for by_range in (True, True, False, True):
        flight, _ = flights.join_or_start("clip", (), filling, by_range=by_range)
        seen.append(flight.by_range)
    assert seen == [True, True, False, False]
    filling.go_on.set()
    await flights.drain(1)


async def test_nobody_joins_a_flight_whose_id_was_pointed_elsewhere() -> None:
    flights, filling = Flights(10), Filling()
    old, _ = flights.join_or_start("clip", (), filling, by_range=False)
    await flights.supersede("clip")
    new, joined = flights.join_or_start("clip", (), filling, by_range=False)
    assert (new is old, joined, old.superseded, new.superseded) == (False, False, True, False)
    filling.go_on.set()
    await flights.drain(1)
    assert flights.get("clip") is None


async def test_the_end_of_a_superseded_flight_leaves_its_successor_alone() -> None:
    flights, first, second = Flights(10), Filling(), Filling()
    old, _ = flights.join_or_start("clip", (), first, by_range=False)
    await flights.supersede("clip")
    new, _ = flights.join_or_start("clip", (), second, by_range=False)
    first.go_on.set()
    assert old.task is not None
    await old.task
    assert flights.get("clip") is new
    second.go_on.set()
    await flights.drain(1)


async def test_places_beside_a_fill_are_given_back() -> None:
    flight = Flight("clip", (), by_range=False)
    with flight.seek(1) as first:
        assert first
        with flight.seek(1) as second:
            assert not second
    with flight.seek(1) as third:
        assert third
    assert flight.seeks == 0


async def test_the_last_of_fill_and_viewers_closes_the_spool(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        flight = Flight("clip", (), by_range=False)
        flight.hold()  # a viewer, before there is a spool
        flight.spool = await Spool.claim(tmp_path / "clip.part", executor)
        fd = flight.spool.fd
        flight.drop()
        os.fstat(fd)
        flight.drop()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


async def test_draining_waits_and_then_cancels() -> None:
    flights, stuck, done = Flights(10), Filling(), Filling()
    done.go_on.set()
    slow, _ = flights.join_or_start("slow", (), stuck, by_range=False)
    fast, _ = flights.join_or_start("fast", (), done, by_range=False)
    await flights.drain(0.05)
    assert fast.facts is FACTS
    assert slow.task is not None
    assert slow.task.cancelled()
    assert len(flights) == 0
