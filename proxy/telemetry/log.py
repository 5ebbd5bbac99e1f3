"""The log: one line an event, as JSON for machines or in colour for people.

Belongs here: how entries are written. Must not know: what they say.
"""

from __future__ import annotations

import logging
import sys

import orjson
import structlog
from structlog.typing import EventDict


def configure(level: str, form: str, **always: object) -> None:
    """Set the process's logging up; `form` is `json` or `console`. Writes to stderr.

    `always` is in every entry: which of several processes wrote it, for instance.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)

    def add_always(_logger: object, _method: str, entry: EventDict) -> EventDict:
        entry.update(always)
        return entry

    shared: list[structlog.typing.Processor] = [
        *([add_always] if always else []),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "console":
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The pretty ones read the source's files, and the event loop would wait for the disk.
            exception_formatter=structlog.dev.plain_traceback,
        )
        factory: structlog.typing.WrappedLogger = structlog.WriteLoggerFactory(file=sys.stderr)
        last = [renderer]
    else:
        factory = structlog.BytesLoggerFactory(file=sys.stderr.buffer)
        last = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=max(threshold, logging.WARNING), stream=sys.stderr, format="%(message)s"
    )
