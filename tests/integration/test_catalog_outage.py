"""PostgreSQL goes away and comes back: callers are told in time, and need not do anything."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import pytest
from blockbuster import BlockBuster

from proxy.catalog.drivers import Limits
from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.search import Search
from proxy.errors import CatalogUnavailable
from proxy.records import ClipFacts, Registration, Status
from tests.fixtures.catalog import let_asyncpg_read_its_files
from tests.fixtures.private_postgres import Private, private_postgres

LIMITS = Limits(connect=1.0, command=1.0, call=2.0, connections=2)
ROOM = 3.0
"""Seconds that a call may take beyond its limit: the driver first tries to part politely."""

URL = "https://fal.media/a.mp4"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
FACTS = ClipFacts(request_id="a", length=1, etag="e", last_modified=NOW)

CALLS: dict[str, Callable[[Generations], Awaitable[object]]] = {
    "get": lambda g: g.get("a"),
    "register": lambda g: g.register([Registration(request_id="a")]),
    "note_source": lambda g: g.note_source("a", URL, FACTS, None),
    "mark_stored": lambda g: g.mark_stored("a", URL, FACTS, None, NOW),
    "note_missing": lambda g: g.note_missing("a"),
    "note_refusal": lambda g: g.note_refusal("a", URL, NOW),
    "mark_failed": lambda g: g.mark_failed("a", "why"),
    "count_by_status": lambda g: g.count_by_status(),
    "search": lambda g: Search(g._catalog).find(),
}


@pytest.fixture
def server(_event_loop_guard: BlockBuster) -> Iterator[Private]:
    let_asyncpg_read_its_files(_event_loop_guard)
    with private_postgres() as private:
        yield private


async def assert_all_unavailable(generations: Generations) -> None:
    for name, call in CALLS.items():
        started = time.monotonic()
        with pytest.raises(CatalogUnavailable):
            await call(generations)
        assert time.monotonic() - started < LIMITS.call + ROOM, name


@pytest.mark.timeout(120)
async def test_a_stopped_server_is_unavailable_and_used_again_when_it_is_back(
    server: Private,
) -> None:
    catalog = await open_catalog(server.url, LIMITS, migrate=True)
    generations = Generations(catalog, clip_url=str)
    await generations.register([Registration(request_id="a", fal_url=URL)])
    # fills the pool with connections that the stop will kill
    await asyncio.gather(*(generations.get("a") for _ in range(10)))

    await asyncio.to_thread(server.stop)
    await assert_all_unavailable(generations)

    await asyncio.to_thread(server.start)
    found = await asyncio.gather(*(generations.get("a") for _ in range(10)))
    assert {row.status for row in found if row is not None} == {Status.AVAILABLE}
    await catalog.close()


@pytest.mark.timeout(120)
async def test_a_server_that_fell_silent_is_unavailable_in_time(server: Private) -> None:
    catalog = await open_catalog(server.url, LIMITS, migrate=True)
    generations = Generations(catalog, clip_url=str)
    await asyncio.gather(*(generations.get("a") for _ in range(10)))

    server.freeze(signal.SIGSTOP)
    started = time.monotonic()
    results = await asyncio.gather(
        *(call(generations) for call in CALLS.values()), return_exceptions=True
    )
    waited = time.monotonic() - started
    server.freeze(signal.SIGCONT)
    assert {type(result) for result in results} == {CatalogUnavailable}
    assert waited < LIMITS.call + ROOM

    assert await generations.register([Registration(request_id="b")]) == ["created"]
    await catalog.close()


@pytest.mark.timeout(120)
async def test_connections_killed_while_idle_are_replaced_unseen(server: Private) -> None:
    catalog = await open_catalog(server.url, LIMITS, migrate=True)
    generations = Generations(catalog, clip_url=str)
    await asyncio.gather(*(generations.get("a") for _ in range(10)))
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    assert await generations.get("a") is None
    assert await generations.register([Registration(request_id="a")]) == ["created"]
    await catalog.close()
