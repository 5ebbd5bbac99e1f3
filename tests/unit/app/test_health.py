"""What a worker says of those beside it, and of who keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.app.health import Health, Stage, Supervised
from proxy.clock import Clock
from proxy.telemetry.health import Report, Standing
from tests.fixtures.origin import settings_for


def health_of(standing: Standing | Exception, silent_for: float = 0.0) -> Health:
    """A worker that serves, whose supervisor says that, or nothing."""

    async def say() -> Standing:
        if isinstance(standing, Exception):
            raise standing
        return standing

    settings = settings_for(Path("/tmp"), worker_timeout="60s")
    health = Health(settings, Clock(), Supervised(say, lambda: silent_for))
    health.stage = Stage.SERVING
    health._add("workers", health._ask_supervisor, slow=2.0)
    return health


def workers(report: Report) -> str:
    found = next(one for one in report.findings if one.part == "workers")
    return f"{found.state}: {found.words}"


@pytest.mark.parametrize(
    ("standing", "said", "good"),
    [
        (Standing(2, 2, draining=False), "ok: 2 of 2 serve", True),
        (Standing(1, 2, draining=False), "degraded: 1 of 2 serve", True),
        (Standing(0, 2, draining=False), "failing: 0 of 2 serve", False),
        (Standing(2, 2, draining=True), "failing: draining: it was told to stop", False),
        (TimeoutError(), "degraded: the supervisor does not answer", True),
        (ConnectionResetError(), "degraded: the supervisor does not answer", True),
    ],
)
async def test_a_replica_is_unready_when_nobody_serves_or_all_are_to_stop(
    standing: Standing | Exception, said: str, *, good: bool
) -> None:
    report = await health_of(standing).ready()
    assert workers(report) == said
    assert report.is_good is good


async def test_a_process_that_is_starting_is_alive_and_not_ready() -> None:
    health = health_of(Standing(1, 2, draining=False))
    health.stage = Stage.STARTING
    assert health.alive().is_good
    assert not (await health.ready()).is_good


@pytest.mark.parametrize(("silent_for", "alive"), [(0.0, True), (59.0, True), (61.0, False)])
def test_a_supervisor_that_is_not_heard_for_too_long_is_not_alive(
    silent_for: float, *, alive: bool
) -> None:
    report = health_of(Standing(2, 2, draining=False), silent_for).alive()
    assert report.is_good is alive
    assert ("nobody would replace" in report.as_text()) is not alive
