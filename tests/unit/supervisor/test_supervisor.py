"""The supervisor's own counting."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from proxy.clock import Clock
from proxy.supervisor.sockets import Sockets
from proxy.supervisor.supervisor import Supervisor
from tests.fixtures.origin import settings_for


async def test_a_worker_that_cannot_be_started_is_counted_with_those_that_died(
    tmp_path: Path,
) -> None:
    supervisor = Supervisor(settings_for(tmp_path), Sockets(((),), ()), ["/bin/false"], Clock())
    with capture_logs() as logs:
        assert not await supervisor._filled(0)
        assert not await supervisor._filled(0)
    assert {line["event"] for line in logs} == {"no worker could be started"}
    registry = supervisor._metrics.registry
    assert registry.get_sample_value("firstview_worker_deaths_total") == 2
