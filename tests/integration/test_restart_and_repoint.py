"""An id that is pointed at another clip, and a process that ends in the middle of a fill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.errors import CatalogUnavailable, SourceChanged
from proxy.records import Generation, Registration
from proxy.storage import keys
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.looking import in_bucket, metric, not_at_hand, nothing_is_left, objects, path_of
from tests.fixtures.origin import ADMIN_TOKEN, MakeOrigin, Origin, running_origin, wait_for
from tests.fixtures.raw import raw_client
from tests.fixtures.servers import free_port, stop, wait_until

OLD, NEW = make_clip(600_000, 100), make_clip(700_000, 101)


async def repoint(origin: Origin, data: bytes, path: str, how: Behaviour | None = None) -> None:
    """Point the id at another clip, as an application does."""
    url = origin.fal.add(path, data, how)
    async with origin.client.put(
        origin.admin("/api/v1/generations/clip"),
        json={"fal_url": url},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status == 200, await response.text()
    origin.paths["clip"] = path


async def holds_new(origin: Origin, data: bytes) -> None:
    """Wait until the bucket has the new bytes, and nothing else is left."""
    row = await origin.stored("clip")
    assert row.content_length == len(data)
    await nothing_is_left(origin)
    assert await in_bucket(origin, "clip") == data
    assert await objects(origin) == [keys.clip_key("clip")]
    info = await origin.app.bucket.head(keys.clip_key("clip"))
    assert info is not None
    assert info.metadata[keys.META_ETAG] == row.etag


async def test_an_id_that_is_pointed_elsewhere_brings_the_new_clip_at_once(
    origin: Origin,
) -> None:
    """Peers 14 (tag#92): metadata and body are never those of different clips."""
    await origin.clip("clip", OLD)
    before, _ = await origin.get("clip")
    await origin.stored("clip")
    await origin.get("clip")
    await repoint(origin, NEW, "/files/b/new.mp4")
    after, body = await origin.get("clip")
    assert body == NEW
    assert after.headers["ETag"] != before.headers["ETag"]
    await holds_new(origin, NEW)
    _, again = await origin.get("clip")
    assert again == NEW
    assert origin.gets("clip") == 1


async def test_a_fill_of_what_another_process_has_pointed_elsewhere_is_soon_joined_by_nobody(
    make_origin: MakeOrigin,
) -> None:
    """However long a mirror takes whose bandwidth is bounded."""
    origin, end = await make_origin(facts_ttl="200ms"), asyncio.Event()
    former = await origin.clip("clip", OLD, Behaviour(stall_at=300_000, stall_until=end))
    mirror = asyncio.create_task(origin.app.corridor.mirrors.mirror("clip"))

    async def is_filling() -> bool:
        flight = origin.app.flights.get("clip")
        return flight is not None and flight.is_ready

    await wait_for(is_filling)
    url = origin.fal.add("/files/b/new.mp4", NEW)
    await origin.app.generations.register([Registration(request_id="clip", fal_url=url)])

    async def is_new() -> bool:
        head = await origin.client.head(origin.url("clip"))
        _, body = await origin.get("clip", {"Range": "bytes=0-999"})
        return head.headers["Content-Length"] == str(len(NEW)) and body == NEW[:1000]

    await wait_for(is_new)
    end.set()
    with pytest.raises(SourceChanged):
        await mirror
    await holds_new(origin, NEW)
    assert len(origin.fal.gets(former)) == 1


async def test_an_old_etag_brings_the_new_clip(origin: Origin) -> None:
    await origin.clip("clip", OLD)
    before, _ = await origin.get("clip")
    await origin.stored("clip")
    await repoint(origin, NEW, "/files/b/new.mp4")
    etag = before.headers["ETag"]
    response, body = await origin.get("clip", {"If-None-Match": etag})
    assert (response.status, body) == (200, NEW)
    await origin.stored("clip")
    response, body = await origin.get("clip", {"If-Range": etag, "Range": "bytes=0-9"})
    assert (response.status, body) == (200, NEW)


@pytest.mark.parametrize("behaviour", ["hit", "fill"])
async def test_a_viewer_who_is_reading_finishes_with_the_old_bytes(
    origin: Origin, behaviour: str
) -> None:
    hold = asyncio.Event()
    large = make_clip(24 * 1024 * 1024, 103)
    await origin.clip("clip", large, Behaviour(stall_at=500_000, stall_until=hold))
    if behaviour == "hit":
        hold.set()
        await origin.get("clip")
        await origin.stored("clip")
    async with raw_client(origin.app.public_port, buffer=16 * 1024) as viewer:
        await viewer.ask(path_of("clip"))
        await viewer.head()
        begun = await viewer.read(400_000)
        await repoint(origin, NEW, "/files/b/new.mp4")
        _, body = await origin.get("clip")
        assert body == NEW
        hold.set()
        assert begun + await viewer.rest() == large
    await holds_new(origin, NEW)


async def test_pointing_there_and_back_during_a_fill_brings_the_first_clip(
    origin: Origin,
) -> None:
    hold = asyncio.Event()
    path = await origin.clip("clip", OLD)
    origin.fal.script(path, [Behaviour(stall_at=300_000, stall_until=hold)])
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"))
        await viewer.head()
        await repoint(origin, NEW, "/files/b/new.mp4", Behaviour(stall_at=10, stall_until=hold))
        second = asyncio.create_task(origin.get("clip"))

        async def asked() -> bool:
            return bool(origin.fal.gets("/files/b/new.mp4"))

        await wait_for(asked)
        await repoint(origin, OLD, path)
        _, third = await origin.get("clip")
        assert third == OLD
        hold.set()
        assert await viewer.rest() == OLD
        _, body = await second
        assert body == NEW
    await holds_new(origin, OLD)


async def test_a_look_at_the_catalog_that_was_overtaken_is_not_believed(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await origin.clip("clip", OLD)
    real = origin.app.generations.get
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request_id: str) -> Generation | None:
        row = await real(request_id)
        if not looked.is_set():
            looked.set()
            await go_on.wait()
        return row

    monkeypatch.setattr(origin.app.generations, "get", slowly)
    monkeypatch.setattr(origin.app.generations, "at_hand", not_at_hand)
    early = asyncio.create_task(origin.get("clip"))
    await looked.wait()
    await repoint(origin, NEW, "/files/b/new.mp4")
    late = asyncio.create_task(origin.get("clip"))
    _, body = await late
    assert body == NEW
    go_on.set()
    _, body = await early
    assert body == NEW
    _, body = await origin.get("clip")
    assert body == NEW
    await holds_new(origin, NEW)
    assert metric(origin, "firstview_stored_total") == 1


async def test_a_look_that_was_overtaken_drives_nothing_out(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever brings yesterday's word of the catalog finds today's clip, and leaves it there."""
    await origin.clip("clip", OLD)
    real = origin.app.generations.get
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request_id: str) -> Generation | None:
        row = await real(request_id)
        if not looked.is_set():
            looked.set()
            await go_on.wait()
        return row

    async def away(*_: object, **__: object) -> bool:
        await asyncio.sleep(0)
        raise CatalogUnavailable

    monkeypatch.setattr(origin.app.generations, "get", slowly)
    monkeypatch.setattr(origin.app.generations, "at_hand", not_at_hand)
    with monkeypatch.context() as patch:
        patch.setattr(origin.app.generations, "mark_stored", away)  # so that the new clip is kept
        early = asyncio.create_task(origin.get("clip"))
        await looked.wait()
        await repoint(origin, NEW, "/files/b/new.mp4")
        _, body = await origin.get("clip")
        assert body == NEW
        go_on.set()
        _, body = await early
        assert body == NEW
    await holds_new(origin, NEW)
    assert origin.gets("clip") == 1


async def test_another_host_or_query_is_the_same_clip(origin: Origin) -> None:
    path = await origin.clip("clip", OLD)
    before, _ = await origin.get("clip")
    await origin.stored("clip")
    url = origin.fal.url(path) + "?signature=new"
    await origin.app.generations.register([Registration(request_id="clip", fal_url=url)])
    origin.app.locator.refresh("clip")
    after, body = await origin.get("clip")
    assert body == OLD
    assert after.headers["ETag"] == before.headers["ETag"]
    assert after.headers["Cache-Status"].startswith("firstview; hit")
    assert len(origin.fal.gets(path)) == 1


# -- stopping ---


async def test_a_reply_that_is_cut_off_by_a_stop_is_reset(fal: FakeFal, tmp_path: Path) -> None:
    async with running_origin(tmp_path, fal, drain_timeout="100ms") as origin:
        await origin.clip("clip", OLD, Behaviour(stall_at=300_000))
        async with raw_client(origin.app.public_port) as viewer:
            await viewer.ask(path_of("clip"))
            await viewer.head()
            begun = await viewer.read(300_000)
            await origin.app.flights.drain(0.05)
            rest = await viewer.rest()
            assert viewer.end == "rst"
            assert OLD.startswith(begun + rest)
            assert len(begun + rest) < len(OLD)


async def test_a_fill_that_a_stop_cut_off_is_done_by_the_next_process(
    fal: FakeFal, tmp_path: Path
) -> None:
    hold = asyncio.Event()
    async with running_origin(tmp_path, fal, drain_timeout="100ms") as origin:
        path = await origin.clip("clip", OLD, Behaviour(stall_at=300_000, stall_until=hold))
        async with raw_client(origin.app.public_port) as viewer:
            await viewer.ask(path_of("clip"))
            await viewer.head()
            [part] = (tmp_path / "spool").glob("*.part")
            await wait_for(lambda: _holds(part, 300_000))
    held = part.stat().st_size
    hold.set()
    async with running_origin(tmp_path, fal) as restarted:
        _, body = await restarted.get("clip")
        assert body == OLD
        await restarted.stored("clip")
        assert restarted.leftovers() == []
    _, second = fal.gets(path)
    assert second.headers["range"] == f"bytes={held}-"
    assert second.headers["if-range"]


async def test_a_process_that_is_told_to_stop_finishes_its_replies_and_fills(
    fal: FakeFal, tmp_path: Path
) -> None:
    async with running_origin(tmp_path, fal, drain_timeout="20s") as origin:
        await origin.clip("clip", OLD, Behaviour(rate=1_000_000))
        viewer = asyncio.create_task(_whole(origin.app.public_port))

        async def begun() -> bool:
            flight = origin.app.flights.get("clip")
            return flight is not None and flight.is_ready

        await wait_for(begun)
    assert await viewer == OLD
    async with running_origin(tmp_path, fal) as restarted:
        response, body = await restarted.get("clip")
        assert body == OLD
        assert response.headers["Cache-Status"] == "firstview; hit; detail=bucket"


async def _holds(part: Path, size: int) -> bool:
    return part.stat().st_size == size


async def _whole(port: int) -> bytes:
    async with raw_client(port) as viewer:
        return (await viewer.get(path_of("clip"))).body


# -- a real process, killed ---


class Served:
    """`firstview serve` as a process of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port, self.admin_port = free_port(), free_port()
        self.log = data_dir.parent / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "DATA_DIR": str(self.data_dir),
            "LISTEN": f"127.0.0.1:{self.port}",
            "ADMIN_LISTEN": f"127.0.0.1:{self.admin_port}",
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "UPSTREAM_HOSTS": "127.0.0.1",
            "UPSTREAM_ALLOW_INSECURE": "true",
            "DRAIN_TIMEOUT": "2s",
        }
        environment = {f"FIRSTVIEW_{name}": value for name, value in settings.items()}
        environment["PATH"] = os.environ.get("PATH", os.defpath)
        program = Path(sys.executable).with_name("firstview")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [program, "serve"],
                env=environment,
                cwd=self.data_dir.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(self._answers, self.process, self.log)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.admin_port}/readyz", timeout=1
            ) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        if self.process is not None:
            stop(self.process, how)

    def spool(self) -> list[str]:
        """Names of the clips' files in the spool."""
        return sorted(path.name for path in (self.data_dir / "spool").glob("*.part"))

    async def row(self) -> dict[str, Any]:
        """What the admin API says of the clip."""
        url = f"http://127.0.0.1:{self.admin_port}/api/v1/generations/clip"
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as reply:
            row: dict[str, Any] = json.loads(await reply.read())
            return row


@pytest.fixture
def make_served(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], Served]:
    """Make a `firstview serve`; it is stopped at the end."""

    def make() -> Served:
        served = Served(tmp_path / "data")
        served.data_dir.mkdir()
        request.addfinalizer(served.stop)
        return served

    return make


async def _register(data_dir: Path, url: str) -> None:
    catalog = await open_catalog(keys.database_url("", data_dir))
    generations = Generations(catalog, clip_url=keys.clip_path)
    await generations.register([Registration(request_id="clip", fal_url=url)])
    await catalog.close()


@pytest.mark.timeout(180)
@pytest.mark.blocking  # waits for processes
async def test_a_process_that_is_killed_during_a_fill_leaves_nothing_that_looks_whole(
    fal: FakeFal, make_served: Callable[[], Served]
) -> None:
    """Peers 7 (quay#6885, ocis#4968), 37 (athens#1957): a kill leaves nothing that looks whole."""
    served = make_served()
    path = "/files/b/clip.mp4"
    fal.add(path, OLD)
    fal.script(path, [Behaviour(stall_at=300_000)])
    await _register(served.data_dir, fal.url(path))
    await asyncio.to_thread(served.start)
    async with raw_client(served.port) as viewer:
        await viewer.ask(path_of("clip"))
        await viewer.head()
        begun = await viewer.read(300_000)
        assert len(served.spool()) == 1
        await asyncio.to_thread(served.stop, signal.SIGKILL)
        rest = await viewer.rest()
        assert OLD.startswith(begun + rest)
        assert len(begun + rest) < len(OLD)
        assert viewer.end in {"fin", "rst"}
    assert len(served.spool()) == 1
    await asyncio.to_thread(served.start)
    async with raw_client(served.port) as viewer:
        assert (await viewer.get(path_of("clip"))).body == OLD

    async def stored() -> bool:
        return bool((await served.row())["status"] == "stored")

    await wait_for(stored, 30)

    async def empty() -> bool:
        return served.spool() == []

    await wait_for(empty)
    _, second = fal.gets(path)
    assert second.range == "bytes=300000-"
    async with raw_client(served.port) as viewer:
        reply = await viewer.get(path_of("clip"))
    assert reply.body == OLD
    assert reply.head.fields["cache-status"] == "firstview; hit; detail=bucket"
