"""A worker as its supervisor sees it, over a real channel or a start that fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from proxy.supervisor.channel import Channel, nothing_to_say
from proxy.supervisor.sockets import Sockets
from proxy.supervisor.totals import Totals
from proxy.supervisor.worker import Worker
from proxy.telemetry.metrics import Metrics
from tests.fixtures.origin import wait_for


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
