"""What a real process logs: nothing in confidence, and never in anybody's way."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.fakes.fal import Behaviour, FakeFal
from tests.fakes.fal.media import make_clip
from tests.fixtures.origin import wait_for
from tests.fixtures.servers import free_port
from tests.fixtures.serving import Serving, serving

DATA = make_clip(50_000, 12)
SECRETS = {
    "admin token": "adm1n-t0ken-of-ours",
    "fal key": "fal-key-id:fal-key-53cret",
    "upstream token": "upstream-t0ken-53cret",
    "aws secret": "aws/53cret+key=of/ours",
    "aws session": "aws-sess10n-t0ken",
    "link": "1763740000-l1nk/proof+of=ours",
    "signature": "s1gnature-of-a-source",
    "session cookie": "c00kie-of-a-viewer",
    "webhook": "webh00k-body-token",
    "signing key": "newest:s1gning-key-of-ours-which-is-long",
    "origin secret": "0rigin-secret-of-the-edge-and-ours",
}


@pytest.mark.timeout(120)
async def test_no_secret_is_ever_logged(tmp_path: Path, fal: FakeFal, monkeypatch: Any) -> None:
    """Everything that a process says in all kinds of trouble is searched for all that is secret."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["aws secret"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS["aws session"])
    monkeypatch.setenv("AWS_REGION", "auto")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # nobody is there
    async with serving(
        tmp_path / "data",
        bucket_url="s3://clips",
        bucket_attempts=1,
        bucket_lookup_unknown="false",
        admin_token=SECRETS["admin token"],
        fal_key=SECRETS["fal key"],
        fal_queue_url=fal.url("").rstrip("/"),
        fal_api_url=fal.url("").rstrip("/"),
        upstream_token=SECRETS["upstream token"],
        signing_keys=SECRETS["signing key"],
        origin_secret=SECRETS["origin secret"],
        upstream_stall_timeout="300ms",
        fill_stall_timeout="300ms",
        log_level="debug",
    ) as server:
        await _get_into_trouble(server, fal)

        async def is_kept() -> bool:
            return bool(server.said("kept on disk, will try again"))

        await wait_for(is_kept, 30)
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await server.process.wait()
        lines = list(server.log)
    said = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    assert "/files/" not in said  # a source's address is enough to have its clip
    events = {line["event"] for line in lines}
    assert {"request", "fill", "not http", "kept on disk, will try again"} <= events
    for name, secret in SECRETS.items():
        for form in {secret, quote(secret, safe=""), secret.partition(":")[2] or secret}:
            assert form not in said, name


async def _get_into_trouble(server: Serving, fal: FakeFal) -> None:
    proof, signed = quote(SECRETS["link"]), f"X-Amz-Signature={SECRETS['signature']}"
    troubles = {
        "good": Behaviour(),
        "down": Behaviour(status=500),
        "refused": Behaviour(status=403),
        "page": Behaviour(body=b"<html></html>"),
        "cut": Behaviour(reset_at=20_000),
        "elsewhere": Behaviour(location=f"http://192.0.2.1/?token={SECRETS['signature']}"),
    }
    edge = {"X-Firstview-Origin": SECRETS["origin secret"]}
    authorized = {"Authorization": f"Bearer {SECRETS['admin token']}"}
    for name, behaviour in troubles.items():
        url = fal.add(f"/files/{name}.mp4?{signed}", DATA, behaviour)
        await _ask(
            server.client.put(
                f"http://{server.admin}/api/v1/generations/{name}",
                json={"fal_url": url},
                headers=authorized,
            )
        )
        fields = {"Cookie": f"session={SECRETS['session cookie']}", **authorized, **edge}
        await _ask(server.client.get(f"{server.url(name)}?verify={proof}", headers=fields))
    await _ask(server.client.get(f"http://{server.public}/nothing?verify={proof}"))
    await _ask(server.client.get(f"http://{server.admin}/nothing?token={proof}"))
    await _ask(
        server.client.post(
            f"http://{server.public}/webhooks/fal",
            json={"request_id": "x", "token": SECRETS["webhook"]},
            headers={"X-Fal-Webhook-Request-Id": "x", **authorized},
        )
    )
    for junk in (
        f"GET /videos/good.mp4?verify={SECRETS['link']} HTTP/9.9\r\n\r\n",
        f"GET / HTTP/1.1\r\nX-Firstview-Origin {SECRETS['origin secret']}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization Bearer {SECRETS['admin token']}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\nCookie: {SECRETS['session cookie']}\0\r\n\r\n",
    ):
        host, _, port = server.public.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(junk.encode())
        await reader.read()
        writer.close()


async def _ask(request: Any) -> None:
    with contextlib.suppress(aiohttp.ClientError):
        async with request as reply:
            await reply.read()


@contextlib.asynccontextmanager
async def stopped_well(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """At the end of the block the process is told to stop, and ends in good order."""
    try:
        yield
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.timeout(120)
async def test_it_serves_without_standard_streams_too(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    environment = {
        "FIRSTVIEW_DATA_DIR": str(tmp_path / "data"),
        "FIRSTVIEW_LISTEN": address,
        "FIRSTVIEW_ADMIN_LISTEN": "127.0.0.1:0",
    }
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        'exec "$0" serve 0<&- 1>&- 2>&-',
        Path(sys.executable).with_name("firstview"),
        cwd=tmp_path,
        env=os.environ | environment,
    )

    async def serves() -> bool:
        assert process.returncode is None
        with contextlib.suppress(aiohttp.ClientError):
            async with client.get(f"http://{address}/healthz") as reply:
                return reply.status == 200
        return False

    async with stopped_well(process), aiohttp.ClientSession() as client:
        await wait_for(serves, 60)


@pytest.mark.timeout(120)
async def test_a_log_that_nobody_reads_holds_up_no_viewer(tmp_path: Path, fal: FakeFal) -> None:
    """Neither while it serves nor when it is told to stop."""
    environment = {
        "FIRSTVIEW_DATA_DIR": str(tmp_path / "data"),
        "FIRSTVIEW_LISTEN": "127.0.0.1:0",
        "FIRSTVIEW_ADMIN_LISTEN": "127.0.0.1:0",
        "FIRSTVIEW_DRAIN_TIMEOUT": "1s",
    }
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("firstview"),
        "serve",
        cwd=tmp_path,
        env=os.environ | environment,
        stderr=writing,
    )
    os.close(writing)
    said = bytearray()

    async def serves() -> bool:
        with contextlib.suppress(BlockingIOError):
            said.extend(os.read(reading, 4096))
        return b"\n" in said

    async with contextlib.AsyncExitStack() as stack:
        stack.callback(os.close, reading)
        await stack.enter_async_context(stopped_well(process))
        await wait_for(serves, 60)
        address = json.loads(said.partition(b"\n")[0])["public"]
        began = time.monotonic()
        async with aiohttp.ClientSession() as client, asyncio.timeout(40):
            for _ in range(60):  # some 20 KB of lines
                async with client.get(f"http://{address}/nothing") as reply:
                    assert reply.status == 404
        assert time.monotonic() - began < 30
