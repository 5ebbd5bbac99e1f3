"""One question, asked seldom, whose last answer is at hand."""

from __future__ import annotations

import asyncio

import pytest

from proxy.app.watch import Watch
from proxy.clock import Clock
from proxy.errors import CatalogUnavailable


class Time(Clock):
    """Stands until it is told."""

    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at


class Part:
    """Something that answers once it is let to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: str | Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self) -> str | None:
        self.asked += 1
        await self.may_answer.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def watch(part: Part, clock: Clock) -> Watch:
    return Watch(part, clock, believed=30.0, again=5.0, slow=10.0)


async def test_a_good_answer_is_believed_for_longer_than_a_bad_one() -> None:
    clock, part = Time(), Part()
    looked = watch(part, clock)
    assert [await looked.look(1), await looked.look(1), part.asked] == [None, None, 1]
    clock.at += 29
    part.answer = CatalogUnavailable()
    assert [await looked.look(1), part.asked] == [None, 1]
    clock.at += 1
    assert [await looked.look(1), part.asked] == ["The catalog cannot be reached.", 2]
    clock.at += 4
    part.answer = None
    assert [await looked.look(1), part.asked] == ["The catalog cannot be reached.", 2]
    clock.at += 1
    assert [await looked.look(1), part.asked] == [None, 3]


async def test_many_who_look_at_once_are_one_question_and_wait_no_longer_than_they_like() -> None:
    clock, part = Time(), Part()
    part.may_answer.clear()
    looked = watch(part, clock)
    assert await asyncio.gather(*(looked.look(0.001) for _ in range(50))) == [None] * 50
    assert part.asked == 1
    clock.at += 10
    assert await looked.look(0) == "no answer for 10 s"
    part.answer = "is full"
    part.may_answer.set()
    assert await looked.look(1) == "is full"
    assert part.asked == 1


async def test_a_look_that_crashes_is_an_answer_too() -> None:
    part = Part()
    part.answer = ZeroDivisionError("nobody thought of this")
    assert "nobody thought of this" in (await watch(part, Time()).look(1) or "")


async def test_a_watch_that_is_closed_asks_no_more() -> None:
    part = Part()
    part.may_answer.clear()
    looked = watch(part, Time())
    await looked.look(0)
    looked.close()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await part.may_answer.wait()
    assert looked._asking is None
