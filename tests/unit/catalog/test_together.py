"""What comes at once is written together, and nobody pays for a neighbour."""

import asyncio

import pytest

from proxy.catalog.together import Together
from proxy.errors import CatalogUnavailable, Overloaded


class Database:
    """Doubles numbers, batch by batch, each when it is let; refuses negative ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.away = False

    async def write(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await self.open.wait()
        if self.away:
            raise CatalogUnavailable("The database is away")
        if min(items) < 0:
            raise ValueError(min(items))
        return [2 * item for item in items]


async def begun(together: Together[int, int], *items: int) -> list[asyncio.Task[int]]:
    """Put items, each in a task of its own, in this order."""
    tasks = [asyncio.create_task(together.put(item)) for item in items]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_one_is_written_is_written_by_the_next() -> None:
    database = Database()
    together = Together(database.write, most=4, queue=100)
    tasks = [*await begun(together, 0), *await begun(together, 1, 2, 3, 4, 5)]
    assert database.batches == [[0]]
    assert not any(task.done() for task in tasks)
    database.open.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert database.batches == [[0], [1, 2, 3, 4], [5]]


async def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    database = Database()
    together = Together(database.write, most=4, queue=2)
    tasks = [*await begun(together, 0), *await begun(together, 1, 2)]
    with pytest.raises(Overloaded):
        await together.put(3)
    database.open.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4]
    assert await together.put(3) == 6


async def test_a_bad_one_costs_its_neighbours_nothing() -> None:
    database = Database()
    together = Together(database.write, most=4, queue=100)
    tasks = [*await begun(together, 0), *await begun(together, 1, -2, 3)]
    database.open.set()
    assert await asyncio.gather(*tasks, return_exceptions=True) == [0, 2, tasks[2].exception(), 6]
    with pytest.raises(ValueError, match="-2"):
        await tasks[2]
    assert database.batches == [[0], [1, -2, 3], [1], [-2], [3]]


async def test_a_database_that_is_away_is_told_to_all_of_the_batch_and_not_asked_one_by_one() -> (
    None
):
    database = Database()
    database.away = True
    database.open.set()
    together = Together(database.write, most=4, queue=100)
    told = await asyncio.gather(*(together.put(n) for n in range(4)), return_exceptions=True)
    assert [type(error) for error in told] == [CatalogUnavailable] * 4
    assert len({id(error) for error in told}) == 4
    assert len(database.batches) == 1
    database.away = False
    assert await together.put(1) == 2


async def test_a_database_that_goes_away_between_single_ones_is_not_asked_for_the_rest() -> None:
    asked: list[list[int]] = []

    async def write(items: list[int]) -> list[int]:
        asked.append(items)
        if len(items) > 1:
            raise ValueError
        raise CatalogUnavailable

    together = Together(write, most=4, queue=100)
    told = await asyncio.gather(*(together.put(n) for n in range(4)), return_exceptions=True)
    assert [type(error) for error in told] == [CatalogUnavailable] * 4
    assert asked == [[0, 1, 2, 3], [0]]


async def test_whoever_leaves_before_its_turn_takes_its_item_back() -> None:
    database = Database()
    together = Together(database.write, most=4, queue=2)
    tasks = [*await begun(together, 0), *await begun(together, 1, 2)]
    tasks[1].cancel()
    await begun(together)
    tasks += await begun(together, 3)
    database.open.set()
    assert await asyncio.gather(tasks[0], *tasks[2:]) == [0, 4, 6]
    assert database.batches == [[0], [2, 3]]


async def test_whoever_leaves_in_the_middle_stops_nothing() -> None:
    database = Database()
    together = Together(database.write, most=4, queue=100)
    tasks = [*await begun(together, 0), *await begun(together, 1, 2)]
    tasks[0].cancel()
    await begun(together)
    database.open.set()
    assert await asyncio.gather(*tasks[1:]) == [2, 4]
    assert database.batches == [[0], [1, 2]]


async def test_closing_finishes_what_waits_and_takes_nothing_more() -> None:
    database = Database()
    together = Together(database.write, most=2, queue=100)
    tasks = [*await begun(together, 0), *await begun(together, 1, 2, 3)]
    closing = asyncio.create_task(together.close())
    await begun(together)
    with pytest.raises(Overloaded):
        await together.put(4)
    assert not closing.done()
    database.open.set()
    await closing
    assert [task.result() for task in tasks] == [0, 2, 4, 6]
    await together.close()


async def test_closing_what_was_never_used_is_fine() -> None:
    await Together(Database().write, most=2, queue=2).close()
