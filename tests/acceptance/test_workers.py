"""Several workers under a supervisor: killed, replaced, stopped, and left without it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.fal import FakeFal, make_clip
from tests.fixtures.crowd import crowd
from tests.fixtures.origin import wait_for
from tests.fixtures.serving import Serving, serving

pytestmark = pytest.mark.timeout(240)  # processes start one after the other

SIZE = 300_000
PROGRAM = Path(sys.executable).with_name("firstview")


@contextlib.asynccontextmanager
async def two_workers(
    tmp_path: Path, fal: FakeFal, **settings: object
) -> AsyncIterator[tuple[Serving, bytes]]:
    """Two workers, and a clip that is stored."""
    data = make_clip(SIZE, 7)
    async with serving(tmp_path / "data", workers=2, **settings) as server:
        await server.register("clip", fal.add("/clip.mp4", data))
        async with server.client.get(server.url("clip")) as reply:
            assert await reply.read() == data
        await server.stored("clip")
        yield server, data


async def who_answers(server: Serving, connections: int = 40) -> Counter[int]:
    """Open connections, and see in whose hands they are."""
    host, _, port = server.public.rpartition(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in range(connections)]
    for reader, writer in opened:
        writer.write(b"HEAD /videos/clip.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    ends = {writer.get_extra_info("sockname")[1] for _, writer in opened}
    found = Counter({pid: len(ends & remote_ports(pid)) for pid in server.workers})
    for _, writer in opened:
        writer.close()
    return found


def remote_ports(pid: int) -> set[int]:
    """Ports at the other end of a process's connections."""
    inodes = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(descriptor.readlink().name.removeprefix("socket:").strip("[]"))
        table = Path(f"/proc/{pid}/net/tcp").read_text()
    except (FileNotFoundError, ProcessLookupError):  # one that could not start, and has ended
        return set()
    lines = [line.split() for line in table.splitlines()[1:]]
    return {int(line[2].partition(":")[2], 16) for line in lines if line[9] in inodes}


async def test_all_workers_serve_and_the_metrics_are_those_of_all(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with two_workers(tmp_path, fal) as (server, _):
        served = await who_answers(server)
        assert len(served) == 2
        assert min(served.values()) > 0
        assert sum(served.values()) == 40
        await wait_for(lambda: _counts(server, "firstview_requests_total", 41))
        assert await server.metric("firstview_workers") == 2
        assert server.said("serving")[0]["workers"] == 2
        assert {line.get("worker") for line in server.said("worker ready")} == {0, 1}


async def test_a_worker_that_is_killed_is_replaced_and_nobody_elses_reply_suffers(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with two_workers(tmp_path, fal) as (server, data):
        victim, other = server.workers
        # One connection that the other worker has, and keeps.
        host, _, port = server.public.rpartition(":")
        while True:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HEAD /videos/clip.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            if writer.get_extra_info("sockname")[1] in remote_ports(other):
                break
            writer.close()
        before = await server.metric("firstview_requests_total")
        async with crowd(server.public, "/videos/clip.mp4", SIZE, 4) as clients:
            await wait_for(lambda: _more(clients.outcomes, 20), 90)
            os.kill(victim, signal.SIGKILL)
            await wait_for(lambda: _count(server, "worker ready", 3), 90)
            whole = clients.outcomes["whole"]
            await wait_for(lambda: _more(clients.outcomes, whole + 20), 90)
        # Those whose connection died with the worker ask again, and that is all that happened.
        assert set(clients.outcomes) <= {"whole", "reset", "short"}, clients.outcomes
        assert clients.outcomes["reset"] + clients.outcomes["short"] <= 4
        writer.write(b"GET /videos/clip.mp4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read(-1)).endswith(data)
        writer.close()
        assert victim not in server.workers
        assert len(server.workers) == 2
        assert await server.metric("firstview_worker_deaths_total") == 1
        assert await server.metric("firstview_requests_total") > before
        assert min((await who_answers(server)).values()) > 0


async def _more(outcomes: Counter[str], count: int) -> bool:
    return outcomes["whole"] >= count


async def _counts(server: Serving, name: str, count: float) -> bool:
    return await server.metric(name) == count


async def _count(server: Serving, event: str, count: int) -> bool:
    return len(server.said(event)) >= count


async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, fal: FakeFal) -> None:
    async with serving(tmp_path / "data", workers=2, worker_timeout="5s") as server:
        victim = server.workers[0]
        os.kill(victim, signal.SIGSTOP)
        await wait_for(lambda: _count(server, "worker ready", 3), 90)
        assert server.said("worker hangs: killed")[0]["pid"] == victim
        assert victim not in server.workers


async def test_a_viewer_who_is_slow_is_served_to_the_end_when_all_are_told_to_stop(
    tmp_path: Path, fal: FakeFal
) -> None:
    data = make_clip(20_000_000, 8)
    settings = {"workers": 2, "drain_timeout": "60s", "drain_delay": "300ms"}
    async with serving(tmp_path / "data", **settings) as server:
        await server.register("long", fal.add("/long.mp4", data))
        async with server.client.get(server.url("long")) as reply:
            first = await reply.content.readexactly(1000)
            ending = asyncio.create_task(server.end(signal.SIGTERM))
            await wait_for(lambda: _count(server, "stopping", 2), 90)
            assert first + await reply.read() == data
        assert await ending == 0
        assert not server.said("worker died")


async def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path, fal: FakeFal) -> None:
    async with two_workers(tmp_path, fal) as (server, _):
        workers = server.workers
        server.process.kill()

        async def ended() -> bool:
            return not any(Path(f"/proc/{pid}").exists() for pid in workers)

        await wait_for(ended, 90)


def serve(tmp_path: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a `serve` that cannot start."""
    environment = {
        "data_dir": tmp_path / "data",
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "workers": 2,
        **settings,
    }
    return subprocess.run(
        [PROGRAM, "serve"],
        env=os.environ | {f"FIRSTVIEW_{name.upper()}": str(it) for name, it in environment.items()},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_no_worker_can_start_with_is_said_once(tmp_path: Path) -> None:
    ended = serve(tmp_path, database_url="postgresql://nobody@127.0.0.1:1/nothing")
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith("firstview: ")
    wrong = serve(tmp_path, workers="many")
    assert wrong.returncode == 2
    assert wrong.stderr.count("FIRSTVIEW_WORKERS") == 1


def test_a_port_that_is_taken_is_said_once(tmp_path: Path) -> None:
    for shared in (False, True):  # the second is another supervisor's
        with socket.socket() as taken:
            if shared:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            ended = serve(tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert "FIRSTVIEW_LISTEN" in line
        assert "Address already in use" in line


async def test_a_worker_that_cannot_be_replaced_leaves_its_connections_to_the_others(
    tmp_path: Path, fal: FakeFal
) -> None:
    settings = tmp_path / ".env"
    async with two_workers(tmp_path, fal) as (server, _):
        settings.write_text("FIRSTVIEW_OPEN_FILES=many\n")
        os.kill(server.workers[0], signal.SIGKILL)
        await wait_for(lambda: _count(server, "no worker could be started", 1), 90)
        assert "FIRSTVIEW_OPEN_FILES" in server.said("no worker could be started")[0]["why"]
        served = await who_answers(server)
        assert server.workers[0] in served
        assert max(served.values()) == 40
        assert await server.metric("firstview_workers") == 1
        server.process.send_signal(signal.SIGHUP)
        await wait_for(lambda: _count(server, "not reloaded: the old workers go on", 1), 90)
        settings.unlink()
        await wait_for(lambda: _count(server, "worker ready", 3), 90)
        assert len(server.workers) == 2
        assert min((await who_answers(server)).values()) > 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_whoever_comes_while_the_last_replies_finish_is_refused_at_once(
    how: signal.Signals, tmp_path: Path, fal: FakeFal
) -> None:
    data = make_clip(20_000_000, 9)
    async with serving(tmp_path / "data", workers=2, drain_timeout="60s") as server:
        await server.register("long", fal.add("/long.mp4", data))
        async with server.client.get(server.url("long")) as reply:
            workers = server.workers
            first = await reply.content.readexactly(1000)
            server.process.send_signal(how)
            await wait_for(lambda: _refused(server.public), 30)
            assert first + await reply.read() == data
        await wait_for(lambda: _ended(workers), 90)


async def _refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionError:
        return True
    writer.close()
    return False


async def _ended(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)
