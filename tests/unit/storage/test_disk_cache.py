"""The disk cache: bytes are spoken for before they are written, and only whole clips are given."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter

from proxy.looks import Looks
from proxy.records import ClipFacts
from proxy.storage import cached_files, free_space, janitor, keys, trailer
from proxy.storage.disk_cache import DiskCache
from proxy.storage.durable import digest_of
from proxy.storage.shared import LAYOUT, Shared
from tests.fixtures.cache import FACTS, disk_cache, is_cached
from tests.fixtures.origin import wait_for

WHEN = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
KB = 1000
BUDGET = 100 * KB
"""Enough for three clips of 30 KB with their facts, and what is kept free ahead of need."""


def facts_of(request_id: str, length: int = 10, etag: str = "e" * 32) -> ClipFacts:
    return ClipFacts(
        request_id=request_id, length=length, etag=etag, last_modified=WHEN, model="fal-ai/veo3"
    )


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


class Shelf:
    """A disk cache in a folder, and a way to put clips into it."""

    def __init__(self, folder: Path, cache: DiskCache, gone: list[str], evicted: Counter) -> None:
        self.root = keys.cache_dir(folder)
        self.incoming = folder / "incoming"
        self.incoming.mkdir(exist_ok=True)
        self.cache, self.gone, self._evicted = cache, gone, evicted

    @property
    def evictions(self) -> float:
        return float(self._evicted._value.get())

    async def put(self, request_id: str, length: int = 30 * KB, etag: str = "e" * 32) -> bool:
        reservation = await self.cache.reserve(length)
        if reservation is None:
            return False
        path = self.incoming / f"{request_id}.{etag}.part"
        data = request_id[:1].encode() * length
        path.write_bytes(data)
        facts, sha256 = facts_of(request_id, length, etag), hashlib.sha256(data).hexdigest()
        adopted = await self.cache.adopt(path, facts, sha256, reservation)
        if not adopted:
            reservation.release()
        return adopted

    def path(self, request_id: str) -> Path:
        return self.root / keys.cached_name(keys.clip_hash(request_id))

    async def read(self, request_id: str) -> bytes | None:
        file = await self.cache.open(request_id)
        if file is None:
            return None
        try:
            return os.pread(file.fd, file.facts.length, 0)
        finally:
            file.release()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*/*"))

    def on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.root.glob("*/*"))


@asynccontextmanager
async def shelf_of(
    folder: Path, threads: ThreadPoolExecutor, max_bytes: int = BUDGET, **more: Any
) -> AsyncIterator[Shelf]:
    gone, evicted = list[str](), Counter("evictions", "Of this test.", registry=None)
    async with disk_cache(
        folder, threads, max_bytes=max_bytes, on_evict=gone.append, evictions=evicted, **more
    ) as cache:
        yield Shelf(folder, cache, gone, evicted)


@pytest.fixture
async def shelf(tmp_path: Path, threads: ThreadPoolExecutor) -> AsyncIterator[Shelf]:
    async with shelf_of(tmp_path, threads) as shelf:
        yield shelf


async def use(shelf: Shelf, request_id: str, times: int) -> None:
    for _ in range(times):
        assert await shelf.read(request_id) is not None


async def test_what_is_used_stays_and_what_was_never_used_makes_room(shelf: Shelf) -> None:
    for name in ("a", "b", "c"):
        assert await shelf.put(name)
    await use(shelf, "a", 2)
    await use(shelf, "c", 2)
    assert await shelf.put("d")
    assert shelf.evictions == 1
    assert [await shelf.read(name) is not None for name in "abcd"] == [True, False, True, True]
    assert shelf.cache.used == shelf.on_disk() == 3 * (30 * KB + FACTS)
    assert len(shelf.cache) == 3


async def test_a_clip_that_is_open_counts_its_uses(shelf: Shelf) -> None:
    for name in ("a", "b", "c"):
        await shelf.put(name)
    file = await shelf.cache.open("a")
    assert file is not None
    for _ in range(1000):
        shelf.cache.touch(file)
    file.release()
    assert await shelf.put("d")
    assert await is_cached(shelf.cache, "a")
    assert not await is_cached(shelf.cache, "b")


async def test_room_is_made_ahead_of_need(shelf: Shelf) -> None:
    assert await shelf.put("a", 49 * KB)
    assert await shelf.put("b", 48 * KB)  # fits, but leaves less than the margin

    async def evicted() -> bool:
        return shelf.evictions == 1

    await wait_for(evicted)
    assert shelf.cache.used == shelf.on_disk() == 48 * KB + FACTS


async def test_an_evicted_clip_is_read_to_its_end_by_who_has_it_open(shelf: Shelf) -> None:
    await shelf.put("a", 60 * KB)
    file = await shelf.cache.open("a")
    assert file is not None
    await shelf.put("b", 60 * KB)
    assert not shelf.path("a").exists()
    assert os.pread(file.fd, 60 * KB, 0) == b"a" * 60 * KB
    file.release()


async def test_nothing_is_evicted_for_a_clip_that_would_not_fit_anyway(shelf: Shelf) -> None:
    await shelf.put("a")
    pinned = await shelf.cache.reserve(60 * KB)
    assert pinned is not None
    assert await shelf.cache.reserve(41 * KB) is None
    assert await shelf.cache.reserve(1000 * KB) is None
    assert await shelf.read("a") == b"a" * 30 * KB
    pinned.release()
    assert shelf.cache.used == 30 * KB + FACTS


async def test_reservations_at_once_never_overrun_the_budget(shelf: Shelf) -> None:
    for name in ("a", "b", "c"):
        await shelf.put(name)
    taken = await asyncio.gather(*(shelf.cache.reserve(20 * KB) for _ in range(20)))
    held = [reservation for reservation in taken if reservation is not None]
    assert len(held) == 4
    assert shelf.cache.used <= BUDGET
    for reservation in held:
        reservation.release()
        reservation.release()  # a second call gives nothing
    assert shelf.cache.used == shelf.on_disk()


async def test_who_waits_for_room_gets_what_is_given_back_meanwhile(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelf.put("a", 60 * KB)
    monkeypatch.setattr(janitor.Janitor, "_make_room", lambda _self, _now: None)
    waiting = asyncio.create_task(shelf.cache.reserve(60 * KB))

    async def waits() -> bool:
        return shelf.cache._shared.wanted > 0

    await wait_for(waits)
    assert not waiting.done()
    await shelf.cache.forget("a")
    assert await waiting is not None


async def test_who_gives_up_waiting_for_room_leaves_nothing_spoken_for(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shelf_of(tmp_path, threads, patience=0.05) as shelf:
        await shelf.put("a", 60 * KB)
        monkeypatch.setattr(janitor.Janitor, "_make_room", lambda _self, _now: None)
        assert await shelf.cache.reserve(60 * KB) is None
        assert shelf.cache.used == 60 * KB + FACTS
        assert shelf.cache._shared.wanted == 0
        monkeypatch.undo()
        assert await shelf.cache.reserve(60 * KB) is not None


async def test_a_reservation_grows_while_there_is_room(shelf: Shelf) -> None:
    reservation = await shelf.cache.reserve(20 * KB)
    assert reservation is not None
    assert await shelf.cache.grow(reservation, 30 * KB)
    assert reservation.size == 40 * KB
    assert shelf.cache.used == 40 * KB + 2 * FACTS
    assert not await shelf.cache.grow(reservation, 101 * KB)
    assert reservation.size == 40 * KB
    reservation.release()
    assert shelf.cache.used == 0


async def test_bytes_that_are_there_already_count_even_past_the_budget(shelf: Shelf) -> None:
    claim = shelf.cache.claim(150 * KB)
    assert await shelf.cache.reserve(1) is None
    claim.release()
    assert await shelf.cache.reserve(98 * KB) is not None


async def test_a_disk_that_others_fill_makes_clips_give_way(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shelf_of(tmp_path, threads, max_bytes=1000 * KB) as shelf:
        await shelf.put("a")
        await shelf.put("b")

        def free(_root: Path) -> int:
            return int(5 * KB + (30 * KB + FACTS) * shelf.evictions)

        monkeypatch.setattr(free_space, "free_bytes", free)
        monkeypatch.setattr(janitor, "free_bytes", free)
        monkeypatch.setattr(free_space, "_BELIEVED", 0.0)
        assert await shelf.cache.reserve(70 * KB) is None  # more than all of them would free
        assert shelf.evictions == 0
        assert await shelf.cache.reserve(20 * KB) is not None
        assert shelf.evictions == 1


async def test_the_disk_is_asked_seldom_while_it_has_room(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def free(_root: Path) -> int:
        nonlocal asked
        asked += 1
        return 1000 * KB

    monkeypatch.setattr(free_space, "free_bytes", free)
    for _ in range(20):
        reservation = await shelf.cache.reserve(KB)
        assert reservation is not None
        reservation.release()
    assert asked <= 1


async def test_a_restart_finds_the_clips_and_evicts_the_oldest_first(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async with shelf_of(tmp_path, threads) as before:
        for age, name in ((100, "b"), (10_000, "a"), (1, "c")):
            await before.put(name)
            path = before.path(name)
            came = path.stat().st_mtime - age
            os.utime(path, (came, came))
    async with shelf_of(tmp_path, threads) as after:
        assert after.cache.used == 3 * (30 * KB + FACTS)
        assert await after.put("d")
        assert [await is_cached(after.cache, name) for name in "abcd"] == [False, True, True, True]
        file = await after.cache.open("c")
        assert file is not None
        assert (file.facts, file.tier) == (facts_of("c", 30 * KB), "disk")
        file.release()


async def test_a_restart_serves_before_it_has_looked_through_anything(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shelf_of(tmp_path, threads) as before:
        await before.put("a")
    monkeypatch.setattr(janitor.Janitor, "_run", lambda _self: None)
    async with shelf_of(tmp_path, threads, looked_through=False) as after:
        assert await after.read("a") == b"a" * 30 * KB
        assert (len(after.cache), after.cache.used) == (1, 30 * KB + FACTS)


async def test_a_restart_with_a_smaller_budget_makes_room(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async with shelf_of(tmp_path, threads) as before:
        for name in ("a", "b", "c"):
            await before.put(name)
    async with shelf_of(tmp_path, threads, max_bytes=40 * KB) as after:

        async def is_small() -> bool:
            return after.evictions == 2

        await wait_for(is_small)
        assert (len(after.cache), after.cache.used) == (1, 30 * KB + FACTS)
        assert len(after.files()) == 1


@pytest.mark.parametrize("is_new", [True, False])
async def test_what_is_counted_wrongly_is_put_right_by_the_next_round(
    tmp_path: Path, threads: ThreadPoolExecutor, is_new: bool
) -> None:
    async with shelf_of(tmp_path, threads) as before:
        await before.put("a")
        await before.put("b")
        before.path("a").unlink()
    if is_new:
        keys.shared_path(keys.run_dir(tmp_path), LAYOUT).unlink()
    async with shelf_of(tmp_path, threads) as after:
        assert (len(after.cache), after.cache.used) == (1, 30 * KB + FACTS)


async def test_what_is_no_whole_clip_is_neither_served_nor_left_after_a_restart(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    """Peers 22 (distribution#2367), 37 (athens#1957): what is half there is not there."""
    async with shelf_of(tmp_path, threads) as before:
        for name in ("whole", "short", "mute", "other", "longer"):
            await before.put(name, 10 * KB)
        os.truncate(before.path("short"), 10 * KB + FACTS - 1)
        os.truncate(before.path("mute"), 10 * KB)
        before.path("another").parent.mkdir()
        before.path("other").rename(before.path("another"))
        with before.path("longer").open("ab") as file:
            file.write(b"?")
        folder = before.path("whole").parent
        for name in ("clip.etag.mp4", "clip.etag.json", "x.json.tmp", "stranger.mp4"):
            (folder / name).write_bytes(b"?" * 10 * KB)  # as an earlier layout had them, too
    async with shelf_of(tmp_path, threads) as after:
        for name in ("short", "mute", "other", "another", "longer"):
            assert await after.read(name) is None
        assert await after.read("whole") == b"w" * 10 * KB
        # That of another id is only found out when its place is needed.
        assert after.files() == sorted(after.path(name).name for name in ("whole", "another"))
        assert (len(after.cache), after.cache.used) == (2, after.on_disk())
        assert await after.put("another", 20 * KB)
        assert (len(after.cache), after.cache.used) == (2, after.on_disk())


async def test_after_the_machine_has_started_anew_a_clip_is_compared_with_its_digest_once(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power may leave a file of the right length without all of its bytes."""
    for name in ("whole", "lost"):
        await shelf.put(name, 10 * KB)
    with shelf.path("lost").open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))
    came = shelf.path("whole").stat().st_mtime_ns
    assert await is_cached(shelf.cache, "lost")
    compared = list[int]()

    def digest(fd: int, length: int) -> str:
        compared.append(length)
        return digest_of(fd, length)

    monkeypatch.setattr(trailer, "digest_of", digest)
    for module in (trailer, cached_files):
        monkeypatch.setattr(module, "boot_id", lambda: "another boot")
    for _ in range(2):
        assert await shelf.read("whole") == b"w" * 10 * KB
        assert await shelf.read("lost") is None
    assert compared == [10 * KB, 10 * KB]
    assert shelf.path("whole").stat().st_mtime_ns == came
    assert not await is_cached(shelf.cache, "lost")


async def test_a_clip_whose_file_was_cut_short_or_removed_is_forgotten(shelf: Shelf) -> None:
    await shelf.put("cut", 10 * KB)
    os.truncate(shelf.path("cut"), 5 * KB)
    assert await shelf.read("cut") is None
    assert await shelf.read("gone") is None
    assert shelf.files() == []
    assert len(shelf.cache) == 0


async def test_an_error_that_says_nothing_of_the_clip_does_not_evict_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers 15 (tag#104): a failed read evicted a good entry."""
    await shelf.put("a", 10 * KB)

    def too_many_open_files(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", too_many_open_files)
        assert await shelf.cache.open("a") is None
    assert await shelf.read("a") == b"a" * 10 * KB


async def test_who_leaves_while_a_clip_is_being_opened_leaves_nothing_open(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelf.put("a", 10 * KB)
    path, real, go_on = shelf.path("a"), trailer.read_trailer, threading.Event()

    def slowly(fd: int) -> trailer.Trailer | None:
        go_on.wait(10)
        return real(fd)

    async def is_open() -> bool:
        return any(_leads_to(link, path) for link in Path("/proc/self/fd").iterdir())

    async def is_closed() -> bool:
        return not await is_open()

    monkeypatch.setattr(cached_files, "read_trailer", slowly)
    monkeypatch.setattr(Looks, "is_slow", True)  # so that a thread opens it
    opening = asyncio.create_task(shelf.cache.open("a"))
    await wait_for(is_open)
    opening.cancel()
    await asyncio.wait({opening})
    go_on.set()
    await wait_for(is_closed)


def _leads_to(link: Path, path: Path) -> bool:
    try:
        return link.readlink() == path
    except FileNotFoundError:  # the listing's own
        return False


async def test_a_clip_that_comes_back_while_it_is_forgotten_is_whole_or_not_there(
    shelf: Shelf,
) -> None:
    await shelf.put("a", 10 * KB)
    for _ in range(50):
        await asyncio.gather(shelf.cache.forget("a"), shelf.put("a", 10 * KB))
        assert await shelf.read("a") in {None, b"a" * 10 * KB}
        assert (shelf.cache.used, len(shelf.cache)) == (shelf.on_disk(), len(shelf.files()))
    await shelf.put("a", 10 * KB)
    assert await shelf.read("a") == b"a" * 10 * KB


async def test_a_clip_that_was_forgotten_while_it_came_in_is_not_cached(
    shelf: Shelf, tmp_path: Path
) -> None:
    reservation = await shelf.cache.reserve(10)
    assert reservation is not None
    await shelf.cache.forget("a")
    path = tmp_path / "a.part"
    path.write_bytes(b"a" * 10)
    assert not await shelf.cache.adopt(path, facts_of("a"), "", reservation)
    assert path.exists()
    assert not await is_cached(shelf.cache, "a")
    reservation.release()
    assert shelf.cache.used == 0
    assert shelf.gone == ["a"]


async def test_a_disk_that_refuses_the_move_leaves_the_budget_right(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reservation = await shelf.cache.reserve(10)
    assert reservation is not None
    with pytest.raises(OSError, match="No such file"):
        await shelf.cache.adopt(tmp_path / "nothing", facts_of("a"), "", reservation)
    (tmp_path / "a.part").write_bytes(b"a" * 10)

    def refuse(_self: Path, _target: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="Read-only"):
            await shelf.cache.adopt(tmp_path / "a.part", facts_of("a"), "", reservation)
    assert not await is_cached(shelf.cache, "a")
    reservation.release()
    assert shelf.cache.used == len(shelf.cache) == 0


async def test_a_new_clip_of_an_id_takes_the_old_ones_place(shelf: Shelf) -> None:
    await shelf.put("a", 40 * KB, "1" * 32)
    await shelf.put("a", 50 * KB, "2" * 32)
    assert shelf.cache.used == 50 * KB + FACTS
    assert await shelf.read("a") == b"a" * 50 * KB
    assert len(shelf.files()) == len(shelf.cache) == 1


async def test_a_clip_whose_facts_are_too_long_is_not_cached(shelf: Shelf, tmp_path: Path) -> None:
    reservation = await shelf.cache.reserve(10)
    assert reservation is not None
    (tmp_path / "a.part").write_bytes(b"a" * 10)
    with pytest.raises(OSError, match="take"):
        await shelf.cache.adopt(
            tmp_path / "a.part", facts_of("a", etag="e" * 1000), "", reservation
        )
    reservation.release()
    assert shelf.cache.used == 0


async def test_the_facts_of_all_clips_are_read_in_batches(shelf: Shelf) -> None:
    names = {f"clip-{n}" for n in range(20)}
    for name in names:
        await shelf.put(name, KB)
    (shelf.path("clip-0").parent / "0000.mp4").write_bytes(b"?" * 10 * KB)
    whole = [batch async for batch in shelf.cache.batches(2)]
    assert {facts.request_id for batch in whole for facts in batch} == names
    assert max(len(batch) for batch in whole) <= 2
    parts = [
        facts.request_id
        for part in range(3)
        async for batch in shelf.cache.batches(100, part, 3)
        for facts in batch
    ]
    assert (len(parts), set(parts)) == (20, names)


async def test_only_the_very_clip_is_disowned(shelf: Shelf) -> None:
    await shelf.put("a", 10, "1" * 32)
    assert not await shelf.cache.disown(facts_of("a", 10, "2" * 32))
    assert not await shelf.cache.disown(facts_of("b", 10, "2" * 32))
    assert await is_cached(shelf.cache, "a")
    assert await shelf.cache.disown(facts_of("a", 10, "1" * 32))
    assert not await is_cached(shelf.cache, "a")
    assert (shelf.gone, shelf.cache.used) == (["a"], 0)


async def test_room_is_found_again_after_files_were_removed_by_somebody_else(shelf: Shelf) -> None:
    """An owner may clear the cache by hand: what is counted then is not there."""
    for name in ("a", "b", "c"):
        assert await shelf.put(name)
    for name in ("a", "b", "c"):
        shelf.path(name).unlink()
    assert await shelf.put("d")

    async def all_are_counted() -> bool:  # there may be room before the round has ended
        return shelf.cache.used == 30 * KB + FACTS

    await wait_for(all_are_counted)


async def test_a_clip_that_a_killed_process_told_nobody_of_is_evicted_in_the_end(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Shared, "added", lambda *_: None)
        for name in ("a", "b", "c"):
            assert await shelf.put(name)
    assert await shelf.put("d")
    assert shelf.cache.used <= BUDGET


async def test_a_janitor_that_fails_unexpectedly_goes_on(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the lock for as long as its process lives, so nobody else would make room."""
    failed = []

    def fail(*_: object) -> int:
        failed.append(1)
        monkeypatch.undo()
        raise MemoryError

    for name in ("a", "b", "c"):
        assert await shelf.put(name)
    monkeypatch.setattr(cached_files.CachedFiles, "evict", fail)
    assert await shelf.put("d")
    assert failed
    assert shelf.cache.used <= BUDGET


async def test_cached_files_are_gone_through_by_one_process_whether_or_not_it_is_the_janitor(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async def seen(shelf: Shelf) -> int:
        return sum([len(batch) async for batch in shelf.cache.batches(10)])

    async with shelf_of(tmp_path, threads) as one:
        async with shelf_of(tmp_path, threads, looked_through=False) as two:
            await one.put("a")
            assert one.cache.janitor.is_leader
            assert (await seen(two), await seen(one), await seen(two)) == (1, 0, 1)
        assert await seen(one) == 1
