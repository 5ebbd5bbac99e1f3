"""Signals to a server: held from its first moment until its event loop heeds them.

Belongs here: holding and heeding. Must not know: what a signal means, or to whom.

A server takes a second to start. Unheard in that time, SIGHUP would end it; a container's first
process would never hear of SIGTERM, because the kernel drops what PID 1 does not handle
(pid_namespaces(7)); and Ctrl-C would be told of by whatever library is just being imported.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold() -> None:
    """Let these signals wait, also beyond an exec."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def heed(by: signal.Signals, act: Callable[[], object]) -> None:
    """Call `act` on the running loop for each such signal, and for one that has waited."""
    asyncio.get_running_loop().add_signal_handler(by, act)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [by])
