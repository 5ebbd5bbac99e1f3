"""Keeping out of a server's memory what a server never uses.

Belongs here: what has to be said before the imports that it is about. Must not know: what a server
does.
"""

from __future__ import annotations

import sys
from typing import Any, cast


def without_tables() -> None:
    """Let nobody import rich from here on, where nobody has yet.

    structlog imports it for tracebacks that this log never draws: 6 MiB in every process, and a
    tenth of a second of its start. structlog is made to do without.
    """
    modules = cast("dict[str, Any]", sys.modules)
    modules.setdefault("rich", None)
