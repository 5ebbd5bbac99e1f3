"""Signals to a server before its event loop heeds them, and between two of its lives.

Belongs here: what holds until then. Must not know: what a signal means later, or to whom.

A server takes a second to start. Unheard in that time, SIGHUP would end it; a container's first
process would never hear of SIGTERM, because the kernel drops what PID 1 does not handle
(pid_namespaces(7)); and Ctrl-C would be told of by whatever library is just being imported.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)


def begin() -> None:
    """From now on SIGHUP waits until somebody heeds it, and the others end the process at once."""
    for by in _ENDS:
        signal.signal(by, _end)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)


def heed(by: signal.Signals, act: Callable[[], object]) -> None:
    """Call `act` on the running loop for each such signal, and for one that has waited."""
    asyncio.get_running_loop().add_signal_handler(by, act)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [by])


def hold() -> None:
    """Let all of them wait, also beyond an exec, until the next `begin`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [*_ENDS, signal.SIGHUP])


def _end(_by: int, _frame: FrameType | None) -> None:
    """As after a stop in good order: nothing has been begun."""
    os._exit(0)
