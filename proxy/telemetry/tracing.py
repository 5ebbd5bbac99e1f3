"""Tracing: whether there is any, and where spans go.

Belongs here: OpenTelemetry's set-up from the standard `OTEL_*` variables. Must not know: what is
traced; whoever has spans to tell of is given a tracer, or None, once, when it starts.

OpenTelemetry is an optional extra (`firstview[otel]`) and is imported only where it is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import structlog

from proxy.errors import SettingsError
from proxy.settings import Settings

if TYPE_CHECKING:  # an optional extra
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

# ruff: noqa: PLC0415 - imported only where it is wanted

_FLUSH: Final = 5.0
"""Seconds that spans get at the end to be sent."""
_MISSING: Final = (
    "FIRSTVIEW_TRACES is on, but OpenTelemetry is not installed:"
    " in a checkout, pip install --editable '.[otel]'"
)

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def open_tracer(
    settings: Settings, exporter: SpanExporter | None = None
) -> AsyncIterator[Tracer | None]:
    """Give a tracer, or None if nothing is to be traced; what is left is sent at the end.

    `exporter` instead of the one that the environment names. Raises SettingsError.
    """
    if not settings.traces:
        yield None
        return
    try:
        provider = await asyncio.to_thread(_provider, exporter)
    except ImportError as error:
        raise SettingsError(_MISSING) from error
    try:
        yield provider.get_tracer("firstview")
    finally:
        await asyncio.to_thread(_close, provider)


def _provider(exporter: SpanExporter | None) -> TracerProvider:
    """Make a provider: the SDK itself reads its sampler, limits and resource from `OTEL_*`."""
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    from proxy import __version__

    name = os.environ.get("OTEL_SERVICE_NAME", "firstview")
    resource = Resource.create({SERVICE_NAME: name, SERVICE_VERSION: __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return provider
    chosen = _exporter()
    if chosen is not None:
        provider.add_span_processor(BatchSpanProcessor(chosen))
    return provider


def _exporter() -> SpanExporter | None:
    """Make the exporter that `OTEL_TRACES_EXPORTER` names; OTLP by HTTP unless it says otherwise.

    See the OpenTelemetry specification, "Environment variable specification". Raises SettingsError
    for one that does not come with the extra.
    """
    name = os.environ.get("OTEL_TRACES_EXPORTER", "otlp") or "otlp"
    if name == "none":
        return None
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stdout)
    if name != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER: {name!r} is none of otlp, console and none")
    protocol = os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    )
    if protocol not in {"", "http/protobuf"}:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not supported, http/protobuf is"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _close(provider: TracerProvider) -> None:
    """Send what is left, in a thread that is left behind where nobody takes it.

    The SDK's own `force_flush` waits for each batch as long as its exporter does, whatever it is
    told: ten seconds for each of four. A process that stops has no such time.
    """
    closing = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
    closing.start()
    closing.join(_FLUSH)
    if closing.is_alive():
        log.warning("the last spans were not sent: nobody takes them", seconds=_FLUSH)
