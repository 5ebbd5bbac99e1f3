"""A worker as its supervisor sees it, over a real channel or a start that fails."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from proxy.errors import WorkerFailed
from proxy.supervisor import worker as supervised
from proxy.supervisor.channel import Channel, nothing_to_say
from proxy.supervisor.sockets import Sockets
from proxy.supervisor.totals import Totals
from proxy.supervisor.worker import Worker
from proxy.telemetry.metrics import Metrics
from tests.fixtures.origin import wait_for

SLOW = """
import asyncio, socket, sys
from proxy.supervisor.channel import Channel
from proxy.supervisor.orders import Orders
from proxy.supervisor.worker import PULSE, READY

async def start():
    asked = asyncio.Queue()
    channel = await Channel.opened(
        socket.socket(fileno=Orders.read(sys.argv[1]).channel), told=print, asked=asked.put
    )
    running = asyncio.create_task(channel.run())
    assert [await asked.get() for _ in range(2)] == [PULSE] * 2
    channel.tell(READY)
    await running

asyncio.run(start())
"""
"""A process that serves when it has been asked twice whether it lives."""


class Pulse:
    """The channel of a worker that leaves so many questions without an answer."""

    def __init__(self, silent: int) -> None:
        self.silent = silent
        self.patience = 0.0

    async def ask(self, _what: str, timeout: float) -> None:
        self.patience += timeout
        if self.silent > 0:
            self.silent -= 1
            raise TimeoutError


@pytest.mark.parametrize(("silent", "hangs"), [(0, False), (1, False), (99, True)])
async def test_a_worker_hangs_if_it_leaves_all_questions_without_an_answer_not_one(
    silent: int, *, hangs: bool
) -> None:
    """One is also unanswered if the supervisor itself was stopped, or had no turn."""
    worker, pulse = Worker(0, 0, Totals(Metrics())), Pulse(silent)
    worker.channel = cast("Channel", pulse)
    assert await worker.hangs(8.0) is hangs
    assert pulse.patience <= 8.0


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker(0, 0, Totals(Metrics()))
    yield worker
    worker.signal(signal.SIGKILL)
    if worker.over is not None:
        await worker.over


async def test_a_worker_that_takes_long_to_start_is_waited_for_while_it_lives(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "_START_TIMEOUT", 0.1)
    await worker.start([sys.executable, "-c", SLOW], Sockets((), ()), 1, nothing_to_say)
    assert worker.serves


async def test_a_worker_that_hangs_at_its_start_is_killed(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "_START_TIMEOUT", 0.1)
    monkeypatch.setattr(supervised, "_START_PATIENCE", 0.1)
    silent = [sys.executable, "-c", "import time; time.sleep(3600)"]
    with pytest.raises(WorkerFailed, match="hung"):
        await worker.start(silent, Sockets((), ()), 1, nothing_to_say)
    assert worker.over is not None
    assert await worker.over == -signal.SIGKILL


async def test_a_process_that_cannot_be_started_leaves_no_descriptor_behind(
    tmp_path: Path,
) -> None:
    async def starting() -> int:
        for _ in range(5):
            worker = Worker(0, 0, Totals(Metrics()))
            with pytest.raises(FileNotFoundError):
                await worker.start([str(tmp_path / "nothing")], Sockets((), ()), 1, nothing_to_say)
        return len(list(Path("/proc/self/fd").iterdir()))

    before = await starting()  # the loop, too, opens some once
    await wait_for(lambda: _no_more_than(before, starting))


async def _no_more_than(before: int, starting: Callable[[], Awaitable[int]]) -> bool:
    return await starting() <= before
