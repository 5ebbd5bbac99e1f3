"""One piece of work beside its owner."""

import asyncio

import pytest

from proxy.delivery.behind import Behind


async def test_work_goes_on_while_its_owner_does_something_else() -> None:
    done = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    async with Behind() as behind:
        behind.start(work(1))
        assert done == []
        await behind.done()
        assert done == [1]
        behind.start(work(2))
    assert done == [1, 2]


async def test_its_error_is_its_owners() -> None:
    async def work() -> None:
        raise ValueError("no")

    async with Behind() as behind:
        behind.start(work())
        with pytest.raises(ValueError, match="no"):
            await behind.done()
        await behind.done()


async def test_another_error_comes_first_and_what_was_begun_ends() -> None:
    done = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)
        raise ValueError("no")

    async def own() -> None:
        async with Behind() as behind:
            behind.start(work())
            raise KeyError

    with pytest.raises(KeyError):
        await own()
    assert done == [1]


async def test_whoever_is_cancelled_cancels_it() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def own() -> None:
        async with Behind() as behind:
            behind.start(work())
            await asyncio.sleep(3600)

    owner = asyncio.create_task(own())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert ended.is_set()
