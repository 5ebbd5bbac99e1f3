"""The event loop's lag: how late a timer goes off, because something held the loop.

Belongs here: measuring it. Must not know: who is to blame.
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.telemetry.timings import Timings

_EVERY: Final = 0.25
"""Seconds between two looks: what holds the loop for long is seen, and looking costs nothing."""


async def watch(lag: Timings) -> None:
    """Observe it for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _EVERY
        await asyncio.sleep(_EVERY)
        lag.observe(max(0.0, loop.time() - due))
