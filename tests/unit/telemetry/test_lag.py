"""The event loop's lag is seen when something holds the loop."""

from __future__ import annotations

import asyncio
import time

from proxy.telemetry import lag
from proxy.telemetry.metrics import Metrics
from tests.fixtures.origin import wait_for


async def test_what_holds_the_loop_is_seen() -> None:
    metrics = Metrics()
    watching = asyncio.create_task(lag.watch(metrics.lag))
    await asyncio.sleep(0.1)
    time.sleep(0.3)  # over the moment at which the watcher wants to look

    async def is_seen() -> bool:
        return metrics.lag.labels().total > 0

    await wait_for(is_seen)
    watching.cancel()
    assert metrics.lag.labels().total >= 0.1
    assert metrics.registry.get_sample_value("firstview_event_loop_lag_seconds_count")
