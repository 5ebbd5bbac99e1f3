"""The database goes away under load: hits go on, fal is told to send again, nothing is lost.

PostgreSQL is killed as in a crash, or falls silent; SQLite's file is locked by another process, or
its disk is full. In each case clips are being viewed and webhooks sent all the while, and firstview
is a process of its own that nobody starts again. `make soak` keeps PostgreSQL away for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.jobs import Jobs
from proxy.records import JobKind, Status
from tests.fakes.fal import FakeFal, make_clip
from tests.fakes.webhooks import Signer, publish, succeeded, video
from tests.fixtures.catalog import let_asyncpg_read_its_files
from tests.fixtures.origin import wait_for
from tests.fixtures.private_postgres import Private, private_postgres
from tests.fixtures.serving import Serving, serving

SIGNER = Signer(1, fast=True)
SEEN = [f"seen-{number}" for number in range(4)]
CLIPS = 8
"""Different bodies of the clips that webhooks tell of."""
SENDERS = 8
PAUSE = 0.1
QUICK = 4.0
"""Seconds: no wait for a database, whose limits begin at five, but a busy machine."""
IN_TIME = 9.0
"""Seconds: fal gives up after 15."""
LINES_A_SECOND = 3.0

Outage = AbstractAsyncContextManager[None]


@dataclass
class Load:
    """Viewers of clips that are stored, and fal, which sends each webhook until it is taken."""

    origin: Serving
    fal: FakeFal
    slowest_view: float = 0.0
    views: int = 0
    slowest_answer: float = 0.0
    refused: int = 0
    sent: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    is_away: bool = False
    _done: bool = False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Load the origin; at the end, wait until every webhook that was begun is taken."""
        async with asyncio.TaskGroup() as group:
            for request_id in SEEN:
                group.create_task(self._view(request_id))
            for number in range(SENDERS):
                group.create_task(self._send(number))
            try:
                yield
            finally:
                self._done = True

    async def _view(self, request_id: str) -> None:
        body = make_clip(20_000, SEEN.index(request_id))
        while not self._done:
            began = time.monotonic()
            async with self.origin.client.get(self.origin.url(request_id)) as reply:
                assert (reply.status, await reply.read()) == (200, body)
            self.slowest_view = max(self.slowest_view, time.monotonic() - began)
            self.views += 1
            await asyncio.sleep(PAUSE)

    async def _send(self, number: int) -> None:
        count = 0
        while not self._done:
            count += 1
            request_id = f"new-{number}-{count}"
            self.sent.append(request_id)
            url = self.fal.url(f"/files/b/{count % CLIPS}.mp4")
            body = succeeded(request_id, video(url))
            while True:
                taken = await self._answered(request_id, body)
                await asyncio.sleep(PAUSE)
                if taken:
                    break
            self.taken.append(request_id)

    async def _answered(self, request_id: str, body: bytes) -> bool:
        began, was_away = time.monotonic(), self.is_away
        async with self.origin.client.post(
            f"http://{self.origin.public}/webhooks/fal",
            data=body,
            headers=SIGNER.headers(body, request_id=request_id),
        ) as reply:
            said = await reply.read()
        self.slowest_answer = max(self.slowest_answer, time.monotonic() - began)
        if reply.status == 200:
            assert not (was_away and self.is_away), "taken, and nowhere written down"
            return True
        assert reply.status == 503, said
        assert int(reply.headers["Retry-After"]) > 0
        self.refused += 1
        return False


async def ride_out(
    origin: Serving, fal: FakeFal, database: str, outage: Outage, seconds: float
) -> None:
    """Have the database away for so long under load, and see that it costs nothing."""
    for number, request_id in enumerate(SEEN):
        data = make_clip(20_000, number)
        await origin.register(request_id, fal.add(f"/files/b/{request_id}.mp4", data))
        async with origin.client.get(origin.url(request_id)) as reply:
            assert await reply.read() == data
        await origin.stored(request_id)
    for number in range(CLIPS):
        fal.add(f"/files/b/{number}.mp4", make_clip(10_000, 100 + number))
    load = Load(origin, fal)
    async with load.going_on():
        await until(lambda: len(load.taken) > SENDERS)
        async with outage:
            # What was on its way at that moment may have been written, and be answered now.
            await asyncio.sleep(0.5)
            load.is_away = True
            views, cpu, lines = load.views, cpu_of(origin), len(other_lines(origin))
            await asyncio.sleep(seconds)
            load.is_away = False
            cpu, lines = cpu_of(origin) - cpu, len(other_lines(origin)) - lines
            assert load.views - views > seconds, "hits did not go on"
            assert load.refused > 0
        taken = len(load.taken)
        await until(lambda: len(load.taken) >= taken + 2 * SENDERS)

    assert sorted(load.taken) == sorted(load.sent)
    assert load.slowest_view < QUICK
    assert load.slowest_answer < IN_TIME
    assert cpu < 0.7 * seconds, "it spins"
    assert lines < 20 + LINES_A_SECOND * seconds, other_lines(origin)[-30:]
    await all_stored(origin, database, load.taken)


async def until(look: Callable[[], bool], timeout: float = 40.0) -> None:
    async def looking() -> bool:
        return look()

    await wait_for(looking, timeout)


def cpu_of(origin: Serving) -> float:
    """Seconds of CPU that the process has used so far."""
    fields = Path(f"/proc/{origin.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def other_lines(origin: Serving) -> list[object]:
    """What was logged, but for the lines of each request, and of each try to store a kept clip.

    The latter are as many as `FIRSTVIEW_BUCKET_RETRY_MAX_WAIT`, short in tests, allows each clip.
    """
    own = {"request", "hits without a line", "webhook", "kept on disk, will try again"}
    return [line for line in origin.log if line.get("event") not in own]


async def all_stored(origin: Serving, database: str, request_ids: list[str]) -> None:
    """Every clip is in the bucket, the catalog says so, and no job is left."""
    catalog = await open_catalog(database)
    rows, jobs = Generations(catalog, clip_url=str), Jobs(catalog)

    async def settled() -> bool:
        assert origin.process.returncode is None
        counts = await jobs.count()
        return not any(counts.by_state.values())

    try:
        await wait_for(settled, 60)
        for request_id in request_ids:
            row = await rows.get(request_id)
            assert row is not None
            assert row.status is Status.STORED, request_id
            assert await jobs.get(request_id, JobKind.MIRROR) is None
    finally:
        await catalog.close()
    for request_id in request_ids[:: max(1, len(request_ids) // 20)]:
        count = int(request_id.rpartition("-")[2])
        async with origin.client.get(origin.url(request_id)) as reply:
            assert await reply.read() == make_clip(10_000, 100 + count % CLIPS)


# --- PostgreSQL -----------------------------------------------------------------------------------

Cut = Callable[[], Awaitable[None]]


@asynccontextmanager
async def between(cut: Cut, mend: Cut) -> AsyncIterator[None]:
    await cut()
    try:
        yield
    finally:
        await mend()


@pytest.fixture
def server(_event_loop_guard: BlockBuster) -> Iterator[Private]:
    let_asyncpg_read_its_files(_event_loop_guard)
    with private_postgres() as private:
        yield private


@pytest.mark.parametrize("how", ["killed", "silent"])
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(7, marks=pytest.mark.timeout(180)),
        pytest.param(60, marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
    ],
)
async def test_nothing_is_lost_while_postgresql_is(
    how: str, seconds: float, tmp_path: Path, fal: FakeFal, server: Private
) -> None:
    server.keep_what_it_confirms()
    await (await open_catalog(server.url, migrate=True)).close()

    async def cut() -> None:
        if how == "killed":
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
        else:
            server.freeze(signal.SIGSTOP)

    async def mend() -> None:
        if how == "killed":
            await asyncio.to_thread(server.start)
        else:
            server.freeze(signal.SIGCONT)

    settings = {"database_url": server.url, "fal_jwks_url": publish(fal, SIGNER)}
    async with serving(tmp_path / "data", **settings) as origin:
        await ride_out(origin, fal, server.url, between(cut, mend), seconds)


# --- SQLite ---------------------------------------------------------------------------------------

_LOCKS = """
import json, sqlite3, sys
held = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print(json.dumps("locked"), flush=True)
sys.stdin.read()
held.execute("ROLLBACK")
"""


@pytest.mark.timeout(180)
async def test_nothing_is_lost_while_another_process_has_locked_sqlite(
    tmp_path: Path, fal: FakeFal
) -> None:
    file = tmp_path / "catalog.sqlite"

    @asynccontextmanager
    async def locked() -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _LOCKS,
            str(file),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline()) == "locked"
        try:
            yield
        finally:
            await process.communicate(b"")  # the end of its input

    settings = {"database_url": f"sqlite:///{file}", "fal_jwks_url": publish(fal, SIGNER)}
    async with serving(tmp_path / "data", **settings) as origin:
        await ride_out(origin, fal, f"sqlite:///{file}", locked(), 7)


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[Path]:
    """A file system of 8 MiB; needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(ballast: Path) -> None:
    """Leave no byte free."""
    for size in (64 * 1024, 1):
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(size))


@pytest.mark.timeout(180)
async def test_nothing_is_lost_while_the_disk_of_sqlite_is_full(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with small_disk(tmp_path / "disk") as disk:
        database = f"sqlite:///{disk}/catalog.sqlite"

        @asynccontextmanager
        async def full() -> AsyncIterator[None]:
            # The log has room of its own that it uses again; only what is new needs the disk.
            topping_up = asyncio.create_task(keep_full(disk / "ballast"))
            try:
                yield
            finally:
                topping_up.cancel()
                await asyncio.wait({topping_up})
                (disk / "ballast").unlink()

        settings = {"database_url": database, "fal_jwks_url": publish(fal, SIGNER)}
        async with serving(tmp_path / "data", **settings) as origin:
            await ride_out(origin, fal, database, full(), 5)


async def keep_full(ballast: Path) -> None:
    while True:
        await asyncio.to_thread(fill_up, ballast)
        await asyncio.sleep(0.05)
