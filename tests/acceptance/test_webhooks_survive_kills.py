"""What webhooks bring is owned exactly once, whichever processes are killed, and how often.

Every webhook comes three times, in random order, from 32 clients, while real processes are ended
with SIGKILL at random moments and started again. `make soak` runs the same with 10,000 webhooks
and 20 kills.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import text

from tests.fakes.fal import Clip, FakeFal
from tests.fixtures.company import Company
from tests.fixtures.fleet import fleet
from tests.fixtures.servers import free_port
from tests.fixtures.storm import Sender, clip_path, forecast, media, signed

HANDS = 4
"""Mirror jobs that one process runs at once."""
_LET_START = 0.75
"""Share of the killed processes that are at work again before the next one is killed."""
FORGOTTEN = text(
    "SELECT request_id FROM generations WHERE status = 'available' AND NOT EXISTS"
    " (SELECT 1 FROM jobs WHERE jobs.request_id = generations.request_id)"
)


# --- the storm ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Killer:
    """Ends processes at random moments and starts them again at once."""

    company: Company
    sender: Sender
    kills: int
    longest: float
    """Seconds between two kills at most."""
    chance: random.Random
    killed: list[str] = field(default_factory=list)
    """The lives that were ended, in order."""

    async def run(self) -> None:
        for _ in range(self.kills):
            await asyncio.sleep(self.chance.uniform(0.1, self.longest))
            victim = self.chance.choice(self.company.members)
            taken = set(self.sender.taken)
            self.killed.append(await victim.kill())
            await self._nothing_is_lost(taken)
            await victim.start()
            if self.chance.random() < _LET_START:
                await victim.ready()

    async def _nothing_is_lost(self, taken: set[str]) -> None:
        """Whatever was answered 200 is in the catalog, and all that is not done has its job."""
        rows = await self.company.ask(text("SELECT request_id FROM generations"))
        assert taken <= {row.request_id for row in rows}
        assert await self.company.ask(FORGOTTEN) == []


async def storm(
    company: Company, fal: FakeFal, webhooks: int, kills: int, *, workers: int, patience: float
) -> None:
    """The whole scenario, and the look at everything behind it."""
    port = free_port()
    known = forecast(webhooks, f"http://127.0.0.1:{port}")
    signer, jwks_url = signed(fal)
    # Who is not killed but has no turn for as long as its lease would lose it, and fetch in vain.
    lease = "5s" if kills else "5m"
    company.cast(workers, fal_jwks_url=jwks_url, job_lease=lease, mirror_concurrency=HANDS)
    sender = Sender(company.webhooks, signer, known.deliveries)
    killer = Killer(company, sender, kills, 1.0 if webhooks < 1000 else 6.0, random.Random(kills))
    await company.make_catalog()
    async with media(company.folder, port, known.clips) as source:
        async with fleet(*company.members):
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                group.create_task(sender.run())
                group.create_task(killer.run())
            sent = time.monotonic() - began
            await company.everything_is_done(patience)
            done = time.monotonic() - began
            await company.clear()
            await asyncio.gather(*(member.stop(60) for member in company.members))
            assert company.left() == []
        fetched = await source.gets()
    print(
        f"\n{webhooks} webhooks x 3, {kills} kills: sent after {sent:.1f} s, stored after"
        f" {done:.1f} s; {sender.again} sent again; {len(known.clips)} clips,"
        f" {len(fetched)} GETs, {sum(not get['finished'] for get in fetched)} of them cut off"
    )
    await company.check(known)
    fetched_once(fetched, known.clips, killer.killed)


# --- what is left ---------------------------------------------------------------------------------


def fetched_once(fetched: list[dict[str, Any]], clips: dict[str, Clip], killed: list[str]) -> None:
    """One GET brought each clip; any before it was in a process that was killed over it.

    Each life of a process names itself to upstream, so there is no need to compare clocks.
    """
    lives = defaultdict[str, list[str]](list)
    for get in fetched:
        lives[get["path"]].append(get["headers"]["authorization"].removeprefix("Bearer "))
    assert set(lives) == {clip_path(request_id) for request_id in clips}
    wasted: Counter[str] = Counter()
    for path, each in lives.items():
        assert len(set(each)) == len(each), (path, each)
        assert set(each[:-1]) <= set(killed), (path, each)
        wasted.update(each[:-1])
    assert all(count <= HANDS for count in wasted.values()), wasted
    assert len(fetched) <= len(clips) + HANDS * len(killed)


# --- the tests ------------------------------------------------------------------------------------

STORMS = [
    pytest.param("sqlite", 200, 4, 0, marks=pytest.mark.timeout(240)),
    pytest.param("postgresql", 120, 3, 3, marks=pytest.mark.timeout(240)),
    pytest.param("sqlite", 10_000, 20, 0, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    pytest.param("postgresql", 10_000, 20, 3, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


@pytest.mark.parametrize(("company", "webhooks", "kills", "workers"), STORMS, indirect=["company"])
async def test_every_clip_is_stored_exactly_once_whatever_is_killed(
    company: Company, fal: FakeFal, webhooks: int, kills: int, workers: int
) -> None:
    patience = 150 if webhooks < 1000 else 1800
    await storm(company, fal, webhooks, kills, workers=workers, patience=patience)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("company", "workers"), [("sqlite", 0), ("postgresql", 3)], indirect=["company"]
)
async def test_nothing_is_fetched_twice_while_nobody_is_killed(
    company: Company, fal: FakeFal, workers: int
) -> None:
    await storm(company, fal, 40, 0, workers=workers, patience=150)
