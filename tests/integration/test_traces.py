"""Spans of a view, in the trace that its request belongs to; none where nobody wants any."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs
from structlog.typing import EventDict
from yarl import URL

from proxy.app import App
from proxy.errors import SettingsError
from proxy.telemetry.tracing import open_tracer
from tests.fakes.fal import Behaviour, FakeFal
from tests.fakes.fal.media import make_clip
from tests.fixtures.origin import Origin, settings_for, wait_for
from tests.fixtures.raw import raw_client

DATA = make_clip(300_000, 13)
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
FIELDS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@dataclass
class Traced:
    origin: Origin
    exporter: InMemorySpanExporter

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    async def named(self, *names: str) -> list[ReadableSpan]:
        """Wait until spans of these names have ended; the first of each."""

        async def ended() -> bool:
            return set(names) <= {span.name for span in self.spans}

        await wait_for(ended)
        return [next(span for span in self.spans if span.name == name) for name in names]


@pytest.fixture
async def traced(
    tmp_path: Path, fal: FakeFal, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Traced]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    exporter = InMemorySpanExporter()
    settings = settings_for(tmp_path / "data", traces=True)
    async with (
        App(settings, exporter=exporter).running() as app,
        aiohttp.ClientSession(auto_decompress=False) as client,
    ):
        yield Traced(Origin(app, fal, client), exporter)


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


def id_of(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


async def test_a_cold_view_is_a_tree_in_the_trace_of_its_request(
    traced: Traced, logs: list[EventDict]
) -> None:
    await traced.origin.clip("clip", DATA)
    await traced.origin.get("clip", FIELDS)
    await traced.origin.stored("clip")
    view, locate, fill, commit = await traced.named("view", "locate", "fill", "commit")
    assert {id_of(span)[0] for span in (view, locate, fill, commit)} == {TRACE}
    assert [parent_of(span) for span in (view, locate, fill, commit)] == [
        PARENT,
        id_of(view)[1],
        id_of(locate)[1],
        id_of(fill)[1],
    ]
    said = dict(view.attributes or {})
    assert said["url.path"] == "/videos/clip.mp4"
    assert (said["http.response.status_code"], said["firstview.bytes"]) == (200, len(DATA))
    assert (said["firstview.tier"], said["firstview.cache"]) == ("upstream", "miss")
    assert dict(fill.attributes or {})["firstview.bytes"] == len(DATA)
    # Lines of the log lead to the trace.

    async def told() -> bool:
        return {"request", "fill"} <= {entry["event"] for entry in logs}

    await wait_for(told)
    lines = {entry["event"]: entry for entry in logs}
    assert lines["request"]["trace"] == lines["fill"]["trace"] == TRACE


async def test_who_joins_a_fill_has_a_link_to_it(traced: Traced) -> None:
    hold = asyncio.Event()
    await traced.origin.clip("clip", DATA, Behaviour(stall_at=50_000, stall_until=hold))
    views = [asyncio.create_task(traced.origin.get("clip")) for _ in range(2)]

    async def joined() -> bool:
        flight = traced.origin.app.flights.get("clip")
        return flight is not None and flight.account.joins == 1

    await wait_for(joined)
    hold.set()
    await asyncio.gather(*views)
    [fill] = await traced.named("fill")
    links = [
        f"{link.context.span_id:016x}"
        for span in traced.spans
        if span.name == "locate"
        for link in span.links
    ]
    assert links == [id_of(fill)[1]]


async def test_hits_have_a_span_only_within_a_trace(traced: Traced) -> None:
    await traced.origin.clip("clip", DATA)
    await traced.origin.get("clip")
    await traced.origin.stored("clip")
    await traced.origin.get("clip")
    await traced.named("view", "commit")
    traced.exporter.clear()
    assert (await traced.origin.get("clip"))[1] == DATA
    assert (await traced.origin.get("clip", FIELDS))[1] == DATA
    [view] = await traced.named("view")
    assert [span.name for span in traced.spans] == ["view"]
    assert id_of(view)[0] == TRACE
    assert dict(view.attributes or {})["firstview.cache"] == "hit"


async def test_what_failed_is_marked_and_no_secret_is_told(traced: Traced) -> None:
    await traced.origin.clip("clip", DATA, Behaviour(status=500))
    async with traced.origin.client.get(f"{traced.origin.url('clip')}?verify=1-abc") as reply:
        assert reply.status == 502
    for span in await traced.named("view", "locate", "fill"):
        assert not span.status.is_ok, span.name
        assert "verify" not in span.to_json()


async def test_a_token_that_has_come_into_the_path_is_not_told(traced: Traced) -> None:
    url = URL(f"{traced.origin.url('clip')}%3Fverify%3D1795300000-abc", encoded=True)
    async with traced.origin.client.get(url) as reply:
        assert reply.status == 404
        assert "1795300000" not in await reply.text()
    [span] = await traced.named("request")
    assert (span.attributes or {})["url.path"] == "/videos/clip.mp4%3Fverify%3D[hidden]"


async def test_texts_of_errors_stay_out_of_spans(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise ValueError("https://fal.media/files/x.mp4?token=s3cr3t broke")

    monkeypatch.setattr("proxy.delivery.locate.Locator.find", crash)
    response, _ = await traced.origin.get("clip")
    assert response.status == 500
    for span in await traced.named("view", "locate"):
        assert not span.status.is_ok
        assert "s3cr3t" not in span.to_json()


async def test_a_clip_that_is_none_and_a_viewer_who_leaves_are_no_errors(traced: Traced) -> None:
    await traced.origin.get("nobody-knows")
    view, locate = await traced.named("view", "locate")
    assert [span.status.is_unset for span in (view, locate)] == [True, True]
    traced.exporter.clear()
    await traced.origin.clip("clip", DATA, Behaviour(stall_at=50_000))
    async with raw_client(traced.origin.app.public_port) as viewer:
        await viewer.ask("/videos/clip.mp4")
        await viewer.head()
    [view] = await traced.named("view")
    assert dict(view.attributes or {})["firstview.ended"] == "viewer-left"
    assert view.status.is_unset


async def test_only_views_are_called_views_and_health_is_not_traced(traced: Traced) -> None:
    public = traced.origin.url("x").replace("/videos/x.mp4", "")
    for path in ("/healthz", "/nothing"):
        async with traced.origin.client.get(public + path) as reply:
            await reply.read()
    await traced.named("request")
    assert [span.name for span in traced.spans] == ["request"]


async def test_what_a_client_sends_is_told_without_secrets_and_not_at_any_length(
    traced: Traced,
) -> None:
    async with raw_client(traced.origin.app.public_port) as viewer:
        path = "http://me:s3cr3t@host/nothing%3Fverify=s3cr3t/"
        await viewer.get(path, {"Range": "bytes=" + "1-2," * 1000})
    [span] = await traced.named("request")
    assert "s3cr3t" not in span.to_json()
    assert len(span.to_json()) < 3000


async def test_a_collector_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[EventDict]
) -> None:
    monkeypatch.setattr("proxy.telemetry.tracing._FLUSH", 0.1)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # which accepts, and never reads
        port = hangs.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        async with open_tracer(settings_for(tmp_path, traces=True)) as tracer:
            assert tracer is not None
            with tracer.start_as_current_span("view"):
                pass
    assert [line["event"] for line in logs] == ["the last spans were not sent: nobody takes them"]


async def test_without_the_setting_nothing_is_traced(origin: Origin) -> None:
    kinds = {type(each).__name__ for each in (origin.app.locator, origin.app.locator._fills)}
    assert kinds == {"Locator", "Fills"}


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
    ],
)
async def test_an_exporter_that_is_not_here_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=words):
        async with open_tracer(settings_for(tmp_path, traces=True)):
            pass


async def test_without_the_extra_the_start_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingsError, match=r"\[otel\]"):
        async with open_tracer(settings_for(tmp_path, traces=True)):
            pass


@pytest.mark.parametrize("name", ["none", "console", "otlp"])
async def test_the_environment_says_where_spans_go(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", name)
    collected = asyncio.Event()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"POST /v1/traces" in await reader.readline():
            collected.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    async with server:
        async with open_tracer(settings_for(tmp_path, traces=True)) as tracer:
            assert tracer is not None
            with tracer.start_as_current_span("view"):
                pass
        if name == "otlp":
            async with asyncio.timeout(10):
                await collected.wait()
        assert collected.is_set() == (name == "otlp")
    assert ('"name": "view"' in capsys.readouterr().out) == (name == "console")
