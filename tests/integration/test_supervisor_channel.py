"""The channel between supervisor and worker, over a real socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.supervisor.channel import Channel, nothing_to_say


@contextlib.asynccontextmanager
async def pair(asked: Any = nothing_to_say) -> AsyncIterator[tuple[Channel, Channel, list[Any]]]:
    """Both ends, and what the second was told; it answers with `asked`."""
    heard: list[Any] = []
    ours, theirs = socket.socketpair()
    one = await Channel.opened(ours, told=lambda *_: None)
    other = await Channel.opened(
        theirs, told=lambda what, body: heard.append((what, body)), asked=asked
    )
    running = [asyncio.create_task(end.run()) for end in (one, other)]
    try:
        yield one, other, heard
    finally:
        one.close()
        await asyncio.gather(*running)


async def test_each_question_gets_its_own_answer_whatever_their_order() -> None:
    gate = asyncio.Event()

    async def asked(what: str) -> str:
        if what == "slow":
            await gate.wait()
        return what.upper()

    async with pair(asked) as (one, _, heard):
        slow = asyncio.create_task(one.ask("slow", 10))
        assert await one.ask("fast", 10) == "FAST"
        one.tell("hello", {"to": "you"})
        gate.set()
        assert await slow == "SLOW"
        assert heard == [("hello", {"to": "you"})]


async def test_messages_of_megabytes_arrive_whole() -> None:
    async def asked(_what: str) -> str:
        return "x" * 5_000_000

    async with pair(asked) as (one, _, _):
        assert len(await one.ask("much", 10)) == 5_000_000


async def test_a_question_that_fails_over_there_says_so_here() -> None:
    async with pair() as (one, _, _):
        with pytest.raises(LookupError):
            await one.ask("anything", 10)


async def test_nobody_waits_for_an_answer_longer_than_he_said() -> None:
    async def asked(_what: str) -> None:
        await asyncio.Event().wait()

    async with pair(asked) as (one, _, _):
        with pytest.raises(TimeoutError):
            await one.ask("anything", 0.01)


async def test_who_waits_for_an_answer_hears_of_the_other_ends_end() -> None:
    asked_for = asyncio.Event()

    async def asked(_what: str) -> None:
        asked_for.set()
        await asyncio.Event().wait()

    async with pair(asked) as (one, other, _):
        waiting = asyncio.create_task(one.ask("anything", 10))
        await asked_for.wait()
        other.close()
        with pytest.raises(ConnectionError):
            await waiting
        with pytest.raises(ConnectionError):
            await one.ask("anything", 10)
