"""How processes end: announced, in good order; sooner for who insists, and at once for Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.running import ECHO
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.origin import wait_for
from tests.fixtures.raw import raw_client
from tests.fixtures.serving import Serving, serving

pytestmark = pytest.mark.timeout(240)  # processes start one after the other

LONG = 20_000_000
SMALL_BUFFER = 64 * 1024
PATIENT = {"drain_delay": "100s", "drain_timeout": "100s"}
"""Longer than any of these tests: whoever had to wait for its end would be noticed."""


async def probe(server: Serving, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
    """Status and JSON of a probe, by a connection of its own, as kubelet makes it."""
    headers = {"Accept": "application/json", "Connection": "close"}
    async with server.client.get(f"http://{server.admin}{path}", headers=headers) as reply:
        return reply.status, await reply.json()


def port_of(server: Serving) -> int:
    return int(server.public.rpartition(":")[2])


async def refused(port: int) -> bool:
    try:
        async with raw_client(port):
            return False
    except ConnectionRefusedError:
        return True


async def until(server: Serving, holds: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
    """Probe until something holds of status and report."""

    async def look() -> dict[str, Any] | None:
        status, found = await probe(server)
        return found if holds(status, found) else None

    return await wait_for(look, 60)


async def test_who_insists_ends_a_stop_sooner_and_ctrl_c_at_once_and_the_next_process_goes_on(
    tmp_path: Path, fal: FakeFal
) -> None:
    data = make_clip(LONG, 3)
    async with serving(tmp_path / "data", **PATIENT) as server:
        await server.register("clip", fal.add("/clip.mp4", data, Behaviour(stall_at=LONG // 2)))
        assert (await probe(server))[0] == 200
        async with raw_client(port_of(server)) as viewer, raw_client(port_of(server)) as late:
            await viewer.ask("/videos/clip.mp4")
            await viewer.head()
            body = await viewer.read(LONG // 4)
            server.process.send_signal(signal.SIGTERM)
            await until(server, lambda status, _: status == 503)
            assert (await probe(server, "/livez"))[0] == 200
            # As long as load balancers have not noticed, whoever comes is served, once.
            assert (await late.get("/healthz")).head.fields["connection"] == "close"
            await asyncio.sleep(ECHO)  # what comes sooner is no second word
            assert await server.end(signal.SIGTERM) == 143
            body += await viewer.rest()
            assert viewer.end == "rst"  # nobody may take that for the whole clip
            assert data.startswith(body)
    assert list((tmp_path / "data" / "spool").glob("clip.*.part"))
    fal.add("/clip.mp4", data)
    async with serving(tmp_path / "data", **PATIENT) as server:
        await server.stored("clip", 30)
        async with raw_client(port_of(server), buffer=SMALL_BUFFER) as viewer:
            await viewer.ask("/videos/clip.mp4")
            await viewer.head()
            server.process.send_signal(signal.SIGINT)
            await wait_for(lambda: refused(port_of(server)), 30)  # nobody has to notice first
            body = await viewer.read(1000)
            assert await server.end(signal.SIGINT) == 130
            body += await viewer.rest()
            assert data.startswith(body)
            assert len(body) < LONG
    assert fal.gets("/clip.mp4")[-1].headers["range"].startswith("bytes=")


async def test_several_workers_live_are_ready_and_end_together(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with serving(tmp_path / "data", workers=2, **PATIENT) as server:
        found = (await probe(server))[1]
        assert found["parts"]["workers"] == {"state": "ok", "detail": "2 of 2 serve"}
        # A worker that somebody else tells to stop is replaced first.
        told, other = server.workers
        os.kill(told, signal.SIGTERM)
        await wait_for(lambda: _replaced(server, told), 90)
        assert other in server.workers
        await until(server, lambda status, _: status == 200)
        # Workers that all hang are not alive, and are again when they go on.
        for pid in server.workers:
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await probe(server, "/livez")
        for pid in server.workers:
            os.kill(pid, signal.SIGCONT)
        assert (await probe(server, "/livez"))[0] == 200
        # systemd tells all processes at once; the supervisor's word is what counts.
        for pid in (server.process.pid, *server.workers):
            os.kill(pid, signal.SIGTERM)
        found = await until(server, lambda status, _: status == 503)
        assert "told to stop" in found["parts"]["process"]["detail"]
        async with raw_client(port_of(server)) as late:
            assert (await late.get("/healthz")).head.fields["connection"] == "close"
        workers = server.workers
        await asyncio.sleep(ECHO)  # what comes sooner is no second word
        assert await server.end(signal.SIGTERM) == 143
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        assert not server.said("worker killed: it did not stop in time")


async def _replaced(server: Serving, pid: int) -> bool:
    return pid not in server.workers and len(server.workers) == 2
