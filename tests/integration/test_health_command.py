"""`firstview health`: what a container engine, or a person, learns from it."""

from __future__ import annotations

import asyncio

import pytest

from proxy.cli import health
from proxy.errors import SettingsError
from proxy.settings import load
from tests.fixtures.origin import Origin
from tests.fixtures.servers import free_port


async def asked(address: str, *, ready: bool = False) -> int:
    return await asyncio.to_thread(lambda: health.run(load(admin_listen=address), ready=ready))


async def test_an_origin_that_serves_is_alive_and_ready(
    origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asked(f":{origin.app.admin_port}") == 0
    assert capsys.readouterr().out.startswith("alive\n")
    assert await asked(f"127.0.0.1:{origin.app.admin_port}", ready=True) == 0
    assert capsys.readouterr().out.startswith("ready\n")


async def test_an_origin_that_is_not_ready_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    body = b"not ready\ncatalog: away\n"
    paths = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
        writer.write(b"HTTP/1.1 503 Not Now\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asked(f":{port}", ready=True) == 1
    assert paths == [b"/readyz"]
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", body.decode())


async def test_nobody_there_is_not_alive(capsys: pytest.CaptureFixture[str]) -> None:
    assert await asked(f"127.0.0.1:{free_port()}") == 1
    assert capsys.readouterr().err.startswith("no answer from 127.0.0.1:")


async def test_a_port_that_nobody_can_know_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match="FIRSTVIEW_ADMIN_LISTEN"):
        await asked("127.0.0.1:0")
