"""A bucket behind TLS whose certificate is vouched for by the owner's own authority."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.fal import FakeFal, make_clip
from tests.fakes.tls import self_signed
from tests.fixtures.looking import metric
from tests.fixtures.origin import Origin, running_origin, wait_for
from tests.fixtures.s3 import S3Server

LARGE = make_clip(6 * 1024 * 1024, 1)
SMALL = make_clip(100_000, 2)


@pytest.fixture
async def tls(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, aws_environment: None
) -> AsyncIterator[Path]:
    """The S3 server behind TLS, which the environment names; the certificate's file."""
    port = urlsplit(s3_server.endpoint_url).port

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=self_signed(tmp_path))
    own = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"https://127.0.0.1:{own}")
    yield tmp_path / "both.pem"
    server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(256 * 1024):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_clips_go_there_and_come_back_if_aws_ca_bundle_names_the_authority(
    tmp_path: Path,
    fal: FakeFal,
    tls: Path,
    s3_bucket_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls))
    settings = {"bucket_url": f"s3://{s3_bucket_name}", "single_put_max": "1MiB"}
    clips = {"large": LARGE, "small": SMALL}
    async with running_origin(tmp_path / "one", fal, **settings) as origin:
        for name, data in clips.items():
            await origin.clip(name, data)
            _, body = await origin.get(name)
            assert body == data
            await origin.stored(name)
    async with running_origin(tmp_path / "two", fal, **settings) as other:
        for name, data in clips.items():
            response, body = await other.get(name)
            assert body == data
            assert "detail=bucket" in response.headers["Cache-Status"]


async def test_nothing_is_sent_to_a_bucket_that_nobody_vouches_for(
    tmp_path: Path, fal: FakeFal, tls: Path, s3_bucket_name: str
) -> None:
    async with running_origin(
        tmp_path / "one", fal, bucket_url=f"s3://{s3_bucket_name}", drain_timeout="300ms"
    ) as origin:
        await origin.clip("small", SMALL)
        _, body = await origin.get("small")
        assert body == SMALL

        async def refused() -> bool:
            return _failures(origin) > 0

        await wait_for(refused)
        assert origin.leftovers() != []


def _failures(origin: Origin) -> float:
    return metric(origin, "firstview_store_failures_total", error="bucket-refused")
