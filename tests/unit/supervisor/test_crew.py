"""Who accepts connections where, and how many processes there may be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from structlog.testing import capture_logs

from proxy.supervisor.crew import Crew
from proxy.supervisor.sockets import Sockets
from proxy.supervisor.totals import SAMPLES
from proxy.supervisor.worker import STANDING
from proxy.telemetry.metrics import Metrics


class Hand:
    """A worker that does nothing but remember what it was told."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.serves = self.has_begun = True
        self.covers: set[int] = set()
        self.over: asyncio.Future[int] | None = None
        self.announced = False

    @property
    def channel(self) -> Any:
        """How it would be asked what it has counted."""
        assert self.has_begun, "one that starts has nothing to say yet, and would be waited for"

    def cover(self, place: int) -> None:
        self.covers.add(place)

    def uncover(self, place: int) -> None:
        self.covers.discard(place)

    def announce(self) -> None:
        self.announced = True


def crew_of(*hands: Hand) -> Any:
    sockets = cast("Sockets", SimpleNamespace(public=((),) * len(hands)))
    crew: Any = Crew(sockets, [], Metrics())
    crew.at[:] = hands
    crew.living.update(hands)
    return crew


def test_places_of_those_who_are_gone_are_shared_out_among_those_who_are_there() -> None:
    hands = [Hand() for _ in range(4)]
    crew = crew_of(*hands)
    hands[0].serves = hands[1].serves = False
    crew.arrange()
    crew.arrange()
    assert [len(hand.covers) for hand in hands] == [0, 0, 1, 1]
    assert hands[2].covers | hands[3].covers == {0, 1}


def test_a_place_is_given_back_to_whoever_comes_to_it() -> None:
    hands = [Hand(), Hand()]
    crew = crew_of(*hands)
    hands[0].serves = False
    crew.arrange()
    assert hands[1].covers == {0}
    crew.at[0] = Hand()
    crew.arrange()
    assert hands[1].covers == set()


def test_what_a_worker_covered_when_it_died_is_covered_by_another() -> None:
    hands = [Hand() for _ in range(3)]
    crew = crew_of(*hands)
    hands[0].serves = False
    crew.arrange()
    first = next(hand for hand in hands if hand.covers)
    first.serves = False
    crew.arrange()
    last = next(hand for hand in hands if hand.serves)
    assert last.covers == {0, hands.index(first)}


async def test_a_new_round_of_workers_waits_until_enough_of_the_old_ones_have_ended() -> None:
    crew = crew_of(Hand(0), Hand(1))
    await crew.room()
    old = [Hand(2), Hand(3)]
    for hand in (*crew.at, *old):
        hand.over = asyncio.get_running_loop().create_future()
        hand.over.add_done_callback(lambda _, hand=hand: crew.living.discard(hand))
    crew.living.update(old)
    with capture_logs() as said:
        waiting = asyncio.create_task(crew.room())
        await asyncio.sleep(0)
    assert not waiting.done()
    assert [(line["event"].partition(":")[0], line["processes"]) for line in said] == [
        ("reload waits", 4)
    ]
    assert old[0].over is not None
    old[0].over.set_result(0)
    await waiting
    assert crew._free_number() == 2


async def test_whoever_asks_hears_how_many_serve_and_whether_all_are_to_stop() -> None:
    hands = [Hand(0), Hand(1)]
    crew = crew_of(*hands)
    hands[0].serves = False
    assert await crew._asked(STANDING) == {"serving": 1, "places": 2, "draining": False}
    crew.announce()
    assert [hand.announced for hand in hands] == [True, True]
    assert (await crew._asked(STANDING))["draining"]


async def test_whoever_asks_for_the_metrics_does_not_wait_for_a_worker_that_starts() -> None:
    hands = [Hand(0), Hand(1)]
    crew = crew_of(*hands)
    hands[0].serves = hands[0].has_begun = False
    said = {family[0] for family in await crew._asked(SAMPLES)}
    assert "firstview_workers" in said
    assert crew._metrics.registry.get_sample_value("firstview_worker_silences_total") == 0
