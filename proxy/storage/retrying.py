"""Trying a bucket request again.

Belongs here: how often, and how long to wait in between. Must not know: what is tried.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina
from prometheus_client import Counter

from proxy.clock import Clock
from proxy.errors import BucketError
from proxy.storage.s3_errors import BucketBusy

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
BUSY_WAIT = 1.0
"""R2 takes one write per key and second, so sooner is in vain.

developers.cloudflare.com/r2/platform/limits/
"""

T = TypeVar("T")


async def with_retries(
    work: Callable[[], Awaitable[T]],
    attempts: int,
    on: type[BucketError] = BucketError,
    clock: Clock | None = None,
    again: Counter | None = None,
) -> T:
    """Do a request up to `attempts` times while its errors are of the kind `on` and retryable.

    Waits between them with exponential backoff and full jitter, in seconds; `again` counts those
    after the first.
    """
    chance = clock or Clock()
    tried = 1

    def wait(error: Exception) -> float | bool:
        if not isinstance(error, on) or not error.retryable:
            return False
        ceiling: float = min(FIRST_WAIT * 2**tried, LONGEST_WAIT)
        # Not 0.0, which would read as "do not try again".
        floor = BUSY_WAIT if isinstance(error, BucketBusy) else 0.001
        return floor + chance.jitter(ceiling)

    async for attempt in stamina.retry_context(on=wait, attempts=attempts, timeout=None):
        tried = attempt.num
        if tried > 1 and again is not None:
            again.inc()
        with attempt:
            return await work()
    raise AssertionError("a retry ends with a result or an error")
