"""What the supervisor starts, and nobody else: `python -m proxy.cli.spawned ORDERS`.

Belongs here: what has to happen before the rest is imported. Must not know: what a worker does.
"""

from __future__ import annotations

import signal
import sys

from proxy.cli import lean

# ruff: noqa: PLC0415 - the imports are what is waited for


def main() -> int:
    """Do what the orders on the command line say; returns the exit code."""
    # The supervisor's terminal may go away without the supervisor doing so.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    lean.without_tables()
    from proxy.cli import seated
    from proxy.supervisor.orders import Orders

    return seated.run(Orders.read(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
