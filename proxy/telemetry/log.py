"""The log: one line an event, as JSON for machines or in colour for people.

Belongs here: how entries are written, and where to. Must not know: what they say.

    structlog's entries, the libraries' own ─▶ always, level, time ─▶ guard ─▶ JSON or text ─▶ out
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

import orjson
import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor

from proxy.settings import Settings
from proxy.telemetry.guard import Guard
from proxy.telemetry.lines import Lines

_SECRET_VARIABLES: Final = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD")
_SECRET_FIELDS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
"""Variables of `name=value,…`, which collectors are sent: the values prove who sends."""

Put = Callable[[bytes], None]


def configure(
    settings: Settings,
    *,
    level: str | None = None,
    put: Put | None = None,
    always: Mapping[str, object] | None = None,
) -> None:
    """Set the process's logging up; `level` instead of the settings' own.

    `put` takes rendered lines, by default onto stderr at once. `always` is in every entry: which
    of several processes wrote it, for instance.
    """
    threshold = logging.getLevelNamesMapping()[(level or settings.log_level).upper()]
    written = put or _to_stderr
    structlog.configure(
        processors=processors(form_of(settings), secrets_of(settings), always),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: Output(written),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[OfLibraries()])


@contextlib.contextmanager
def written_aside(settings: Settings, **always: object) -> Iterator[None]:
    """Set logging up as `configure` does, for a server: no line is waited for.

    At the end what is left is written, if somebody reads it within a second.
    """
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, io.UnsupportedOperation):  # somebody has put something else in its place
        configure(settings, always=always)
        yield
        return
    lines = Lines(descriptor)
    configure(settings, put=lines.put, always=always)
    log = structlog.get_logger()
    lines.on_loss = lambda count: log.warning("log lines were lost: nobody read them", count=count)
    try:
        yield
    finally:
        lines.close()


def form_of(settings: Settings) -> str:
    """`json` or `console`: for people where it is a terminal that is written to."""
    if settings.log_format != "auto":
        return settings.log_format
    return "console" if sys.stderr.isatty() else "json"


def processors(
    form: str, secrets: set[str], always: Mapping[str, object] | None = None
) -> list[Processor]:
    """What an entry goes through, from what was said to bytes."""

    def add_always(_logger: object, _method: str, entry: EventDict) -> EventDict:
        entry.update(always or {})
        return entry

    shared: list[Processor] = [
        *([add_always] if always else []),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.MaybeTimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # before the guard: traces quote what was at hand
        Guard(secrets),
    ]
    if form == "json":
        return [*shared, structlog.processors.JSONRenderer(serializer=orjson.dumps)]
    render = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),  # no-color.org
        # The pretty ones read the source's files, and the event loop would wait for the disk.
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [*shared, render, _encode]


def secrets_of(settings: Settings) -> set[str]:
    """All that the owner has told this process in confidence, whole and in its parts."""
    found = {os.environ.get(name, "") for name in _SECRET_VARIABLES}
    for pair in ",".join(os.environ.get(name, "") for name in _SECRET_FIELDS).split(","):
        value = (pair.partition("=")[2] or pair).strip()
        found.update((value, unquote(value)))
    for name in type(settings).model_fields:
        for secret in _secrets_in(getattr(settings, name)):
            if "://" in secret:  # a database's address, of which the password is secret
                password = secret.partition("://")[2].rpartition("@")[0].partition(":")[2]
                found.update((password, unquote(password)))
            else:
                found.add(secret)
                for part in secret.split(","):  # several keys, each maybe with a name in front
                    found.update((part.strip(), part.partition(":")[2], part.partition("=")[2]))
    return found


def _secrets_in(value: Any) -> Iterator[str]:  # noqa: ANN401 - any setting's own type
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, dict):
        for one in value.values():
            yield from _secrets_in(one)
    elif isinstance(value, tuple | list | set | frozenset):
        for one in value:
            yield from _secrets_in(one)


def _encode(_logger: object, _method: str, line: Any) -> bytes:  # noqa: ANN401 - a renderer's str
    return str(line).encode("utf-8", "backslashreplace")


def _to_stderr(line: bytes) -> None:
    sys.stderr.write(line.decode("utf-8", "backslashreplace") + "\n")
    sys.stderr.flush()


class Output:
    """Where structlog leaves rendered lines."""

    def __init__(self, put: Put) -> None:
        """Take who writes them."""
        self._put = put

    def msg(self, line: bytes) -> None:
        """Write a line."""
        self._put(line)

    debug = info = warning = error = critical = exception = fatal = log = msg


class OfLibraries(logging.Handler):
    """What libraries log by Python's own means becomes entries like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass an entry on; as everywhere in `logging`, what goes wrong here harms nobody."""
        try:
            structlog.get_logger().log(
                record.levelno,
                record.getMessage(),
                logger=record.name,
                **({"exc_info": record.exc_info} if record.exc_info else {}),
            )
        except Exception:  # noqa: BLE001 - see above
            self.handleError(record)
