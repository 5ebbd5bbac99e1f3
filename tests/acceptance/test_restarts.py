"""SIGHUP under load: every process is replaced, nobody is refused, and nobody is cut short.

The same for one process and for several. `make soak` asks for at least 5,000 clips over three
restarts, and prints what became of each.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.fakes.fal import FakeFal, make_clip
from tests.fixtures.crowd import Crowd, crowd
from tests.fixtures.origin import wait_for
from tests.fixtures.raw import raw_client
from tests.fixtures.serving import Serving, serving

pytestmark = pytest.mark.timeout(240)  # processes start one after the other

SIZE, LONG = 300_000, 20_000_000
FULL = [pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("workers", "restarts", "clips", "clients"),
    [
        pytest.param(1, 1, 50, 4, id="one process"),
        pytest.param(2, 1, 50, 4, id="two workers"),
        pytest.param(1, 3, 5_000, 16, marks=FULL, id="one process, in full"),
        pytest.param(2, 3, 5_000, 16, marks=FULL, id="two workers, in full"),
    ],
)
async def test_replacing_all_processes_under_load_refuses_nobody_and_cuts_nobody_short(
    workers: int, restarts: int, clips: int, clients: int, tmp_path: Path, fal: FakeFal
) -> None:
    data = make_clip(SIZE, 7)
    async with serving(tmp_path / "data", workers=workers) as server:
        await server.register("clip", fal.add("/clip.mp4", data))
        async with server.client.get(server.url("clip")) as reply:
            assert await reply.read() == data
        await server.stored("clip")
        path, half, began = "/videos/clip.mp4", clients // 2, time.monotonic()
        async with crowd(server.public, path, SIZE, half, kept=half) as crowded:
            for number in range(1, restarts + 1):
                await more(crowded, crowded.outcomes["whole"] + 20, 90)
                counted = await server.metric("firstview_requests_total")
                await restart(server, number)
                assert await server.metric("firstview_requests_total") > counted
            await more(crowded, clips, 600)
        told = ", ".join(f"{count} {outcome}" for outcome, count in crowded.outcomes.items())
        print(f"\n{workers} workers, {restarts} restarts, {time.monotonic() - began:.0f} s: {told}")
        assert set(crowded.outcomes) == {"whole"}, crowded.outcomes
        assert len(server.workers) == workers
        assert await server.metric("firstview_workers") == workers
        assert await server.metric("firstview_worker_deaths_total") == 0
        assert server.process.returncode is None
        assert await server.end(signal.SIGTERM) == 0
        assert not server.said("worker killed: it did not stop in time")


async def restart(server: Serving, number: int) -> None:
    """Replace every process but the first, and wait until the old ones have ended."""
    old = set(server.workers)

    async def ended() -> bool:
        return not old & set(server.workers)

    server.process.send_signal(signal.SIGHUP)
    await wait_for(lambda: _reloaded(server, number), 90)
    await wait_for(ended, 90)


async def _reloaded(server: Serving, times: int) -> bool:
    return len(server.said("reloaded")) >= times


async def more(crowded: Crowd, count: int, timeout: float) -> None:
    """Wait until so many clips have been seen whole."""

    async def seen() -> bool:
        return crowded.outcomes["whole"] >= count

    await wait_for(seen, timeout)


async def test_a_process_whose_successor_cannot_start_serves_on_and_its_viewers_to_the_end(
    tmp_path: Path, fal: FakeFal
) -> None:
    data, settings = make_clip(LONG, 7), tmp_path / ".env"
    async with serving(tmp_path / "data") as server:
        settings.write_text("FIRSTVIEW_OPEN_FILES=many\n")
        server.process.send_signal(signal.SIGHUP)
        wrong = "not reloaded: the old process goes on"
        said = await wait_for(lambda: _said(server, wrong), 90)
        assert "FIRSTVIEW_OPEN_FILES" in said["why"]
        await server.register("clip", fal.add("/clip.mp4", data))
        async with server.client.get(server.url("clip")) as reply:
            assert await reply.read() == data
        assert await server.metric("firstview_workers") == 1
        settings.unlink()
        port = int(server.public.rpartition(":")[2])
        async with raw_client(port, buffer=64 * 1024) as viewer:
            await viewer.ask("/videos/clip.mp4")
            await viewer.head()
            begun = await viewer.read(1000)
            # Told again while the successor starts: that one may have read the settings before.
            server.process.send_signal(signal.SIGHUP)
            await wait_for(lambda: _has_worker(server), 90)
            await restart(server, 2)
            async with server.client.get(server.url("clip")) as reply:
                assert await reply.read() == data
            assert begun + await viewer.rest() == data
        assert await server.end(signal.SIGTERM) == 0


async def _has_worker(server: Serving) -> bool:
    return bool(server.workers)


async def _said(server: Serving, event: str) -> dict[str, str] | None:
    return next(iter(server.said(event)), None)
