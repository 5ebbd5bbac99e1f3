"""Where the `firstview` command begins.

Belongs here: what has to happen before the rest is imported. Must not know: any command but those
that signals speak to.
"""

from __future__ import annotations

import signal
import sys
from typing import Final

from proxy.cli import signals

# ruff: noqa: PLC0415 - the imports are what is waited for

_SERVERS: Final = ("serve", "worker")


def main() -> None:
    """Run the command line and exit."""
    serves = sys.argv[1:2] and sys.argv[1] in _SERVERS
    if serves:
        signals.begin()
    else:  # whoever types Ctrl-C now wants an end, not a report of what was being imported
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from proxy.cli import main as commands

    if not serves:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands.main()
