"""Being told to stop."""

from __future__ import annotations

import os
import signal

import pytest

from proxy.cli import running
from proxy.cli.running import Stop
from tests.fixtures.origin import wait_for


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the process would have ended with."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    monkeypatch.setattr(running, "_LAST_LINE", 0.0)
    return found


async def test_a_process_that_does_not_end_in_time_is_ended_by_force(codes: list[int]) -> None:
    stop = Stop()
    stop.end_within(0.05)
    stop.tell(signal.SIGTERM)

    async def ended() -> bool:
        return codes == [143]

    await wait_for(ended)


async def test_one_that_has_ended_is_left_alone(codes: list[int]) -> None:
    stop = Stop()
    stop.end_within(60.0)
    stop.tell(signal.SIGTERM)
    assert stop._watchdog is not None
    stop.ended()
    stop._watchdog.join(5.0)
    assert not stop._watchdog.is_alive()
    assert codes == []


async def test_a_sigterm_that_comes_twice_at_once_was_meant_once(
    codes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    for _ in range(3):
        stop.tell(signal.SIGTERM)
    assert (stop.is_set(), stop.again.is_set(), codes) == (True, False, [])
    stop.tell(signal.SIGINT)
    assert codes == [130], "Ctrl-C after that is no echo"
    monkeypatch.setattr(running, "ECHO", 0.0)
    stop.tell(signal.SIGTERM)
    assert stop.again.is_set()
