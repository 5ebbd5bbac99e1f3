"""The disk cache: bytes are spoken for before they are written, and only whole clips are given."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
from prometheus_client import Counter

from proxy.records import ClipFacts
from proxy.storage import keys
from proxy.storage.disk_cache import DiskCache

WHEN = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)


class Usage(NamedTuple):
    """As `shutil.disk_usage` gives it."""

    total: int
    used: int
    free: int


def facts_of(request_id: str, length: int = 10, etag: str = "e" * 32) -> ClipFacts:
    return ClipFacts(request_id=request_id, length=length, etag=etag, last_modified=WHEN)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


class Shelf:
    """A disk cache in a folder, and a way to put clips into it."""

    def __init__(self, folder: Path, threads: ThreadPoolExecutor, max_bytes: int = 100) -> None:
        self.root = folder / "cache"
        self.incoming = folder / "incoming"
        self.incoming.mkdir(exist_ok=True)
        self.gone: list[str] = []
        self.evictions = Counter("evictions", "Of this test.", registry=None)
        self.cache = DiskCache(
            self.root,
            max_bytes=max_bytes,
            keep_free=0,
            executor=threads,
            on_evict=self.gone.append,
            evictions=self.evictions,
        )

    async def put(self, request_id: str, length: int = 10, etag: str = "e" * 32) -> bool:
        reservation = await self.cache.reserve(length)
        if reservation is None:
            return False
        path = self.incoming / f"{request_id}.part"
        path.write_bytes(request_id[:1].encode() * length)
        await self.cache.adopt(path, facts_of(request_id, length, etag), reservation)
        return True

    def path(self, request_id: str, etag: str = "e" * 32) -> Path:
        return self.root / f"{keys.cached_name(request_id, etag)}.mp4"

    async def read(self, request_id: str) -> bytes | None:
        file = await self.cache.open(request_id)
        if file is None:
            return None
        try:
            return os.pread(file.fd, 1000, 0)
        finally:
            file.release()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*/*"))


@pytest.fixture
async def shelf(tmp_path: Path, threads: ThreadPoolExecutor) -> Shelf:
    shelf = Shelf(tmp_path, threads)
    await shelf.cache.load()
    return shelf


async def test_the_clip_used_least_recently_makes_room(shelf: Shelf) -> None:
    for name in ("a", "b", "c"):
        assert await shelf.put(name, 30)
    shelf.cache.touch("a")
    assert await shelf.read("b") == b"b" * 30
    assert await shelf.put("d", 30)
    assert shelf.gone == ["c"]
    assert [await shelf.read(name) for name in "abcd"] == [b"a" * 30, b"b" * 30, None, b"d" * 30]
    assert shelf.cache.used == 90
    assert shelf.evictions._value.get() == 1


async def test_an_evicted_clip_is_read_to_its_end_by_who_has_it_open(shelf: Shelf) -> None:
    await shelf.put("a", 60)
    file = await shelf.cache.open("a")
    assert file is not None
    await shelf.put("b", 60)
    assert not shelf.path("a").exists()
    assert os.pread(file.fd, 100, 0) == b"a" * 60
    file.release()


async def test_nothing_is_evicted_for_a_clip_that_would_not_fit_anyway(shelf: Shelf) -> None:
    await shelf.put("a", 30)
    pinned = await shelf.cache.reserve(60)
    assert pinned is not None
    assert await shelf.cache.reserve(41) is None
    assert await shelf.cache.reserve(1000) is None
    assert await shelf.read("a") == b"a" * 30
    pinned.release()
    assert shelf.cache.used == 30


async def test_reservations_at_once_never_overrun_the_budget(shelf: Shelf) -> None:
    for name in ("a", "b", "c"):
        await shelf.put(name, 30)
    taken = await asyncio.gather(*(shelf.cache.reserve(20) for _ in range(20)))
    held = [reservation for reservation in taken if reservation is not None]
    assert len(held) == 5
    assert shelf.cache.used == 100
    for reservation in held:
        reservation.release()
        reservation.release()  # a second call gives nothing
    assert shelf.cache.used == 0


async def test_a_reservation_grows_while_there_is_room(shelf: Shelf) -> None:
    reservation = await shelf.cache.reserve(20)
    assert reservation is not None
    assert await shelf.cache.grow(reservation, 30)
    assert reservation.size == shelf.cache.used == 40
    assert not await shelf.cache.grow(reservation, 101)
    assert reservation.size == shelf.cache.used == 40
    reservation.release()
    assert shelf.cache.used == 0


async def test_bytes_that_are_there_already_count_even_past_the_budget(shelf: Shelf) -> None:
    claim = shelf.cache.claim(150)
    assert await shelf.cache.reserve(1) is None
    claim.release()
    assert await shelf.cache.reserve(100) is not None


async def test_a_disk_that_others_fill_makes_clips_give_way(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path, threads, max_bytes=1000)
    await shelf.cache.load()
    await shelf.put("a", 30)
    await shelf.put("b", 30)

    def usage(_path: Path) -> Usage:
        return Usage(100, 0, 5 + 30 * len(shelf.gone))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert await shelf.cache.reserve(70) is None  # more than all of them would free
    assert shelf.gone == []
    assert await shelf.cache.reserve(20) is not None
    assert shelf.gone == ["a"]


async def test_a_restart_finds_the_clips_and_what_was_used_last(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    before = Shelf(tmp_path, threads)
    await before.cache.load()
    for age, name in enumerate(("b", "a", "c")):
        await before.put(name, 30)
        os.utime(before.path(name), (1000 + age, 1000 + age))
    after = Shelf(tmp_path, threads)
    await after.cache.load()
    assert after.cache.used == 90
    assert await after.put("d", 30)
    assert after.gone == ["b"]
    file = await after.cache.open("a")
    assert file is not None
    assert (file.facts, file.tier) == (facts_of("a", 30), "disk")
    file.release()


async def test_a_restart_with_a_smaller_budget_makes_room(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    before = Shelf(tmp_path, threads)
    await before.cache.load()
    for name in ("a", "b", "c"):
        await before.put(name, 30)
    after = Shelf(tmp_path, threads, max_bytes=40)
    await after.cache.load()
    assert (len(after.cache), after.cache.used) == (1, 30)
    assert len(after.files()) == 2


async def test_what_is_no_whole_clip_is_neither_served_nor_left_after_a_restart(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    """Peers 22 (distribution#2367), 37 (athens#1957): what is half there is not there."""
    before = Shelf(tmp_path, threads)
    await before.cache.load()
    for name in ("whole", "short", "mute", "renamed", "garbled"):
        await before.put(name, 10)
    os.truncate(before.path("short"), 9)
    before.path("mute").with_suffix(".json").unlink()
    moved = before.path("renamed").with_name("other.mp4")
    before.path("renamed").rename(moved)
    before.path("renamed").with_suffix(".json").rename(moved.with_suffix(".json"))
    before.path("garbled").with_suffix(".json").write_bytes(b'{"request_id": "garbled"')
    (before.path("whole").parent / "alone.json").write_bytes(b"{}")
    (before.path("whole").parent / "x.json.tmp").write_bytes(b"{}")
    (before.path("whole").parent / "foreign.mp4").write_bytes(b"?" * 10)
    after = Shelf(tmp_path, threads)
    await after.cache.load()
    assert (len(after.cache), after.cache.used) == (1, 10)
    assert await after.read("whole") == b"w" * 10
    names = {before.path("whole").name, before.path("whole").with_suffix(".json").name}
    assert set(after.files()) == names


async def test_of_two_clips_of_one_id_the_newer_one_is_found_and_the_other_removed(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    before = Shelf(tmp_path, threads)
    await before.cache.load()
    await before.put("a", 10, "1" * 32)
    kept = before.path("a", "1" * 32)
    copies = [(path, path.read_bytes()) for path in (kept, kept.with_suffix(".json"))]
    await before.put("a", 20, "2" * 32)
    for path, content in copies:  # as if the process had been killed between the two steps
        path.write_bytes(content)
    os.utime(kept, (1000, 1000))
    after = Shelf(tmp_path, threads)
    await after.cache.load()
    assert after.cache.used == 20
    assert await after.read("a") == b"a" * 20
    assert not kept.exists()


async def test_a_clip_whose_file_was_cut_short_or_removed_is_forgotten(shelf: Shelf) -> None:
    await shelf.put("cut", 10)
    await shelf.put("gone", 10)
    os.truncate(shelf.path("cut"), 5)
    shelf.path("gone").unlink()
    assert await shelf.read("cut") is None
    assert await shelf.read("gone") is None
    assert shelf.gone == ["cut", "gone"]
    assert (len(shelf.cache), shelf.cache.used, shelf.files()) == (0, 0, [])


async def test_an_error_that_says_nothing_of_the_clip_does_not_evict_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers 15 (tag#104): a failed read evicted a good entry."""
    await shelf.put("a", 10)

    def too_many_open_files(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", too_many_open_files)
        assert await shelf.cache.open("a") is None
    assert await shelf.read("a") == b"a" * 10
    assert shelf.gone == []


async def test_a_clip_that_comes_back_while_its_eviction_goes_on_keeps_its_new_file(
    shelf: Shelf,
) -> None:
    await shelf.put("a", 10)
    for _ in range(50):
        await asyncio.gather(shelf.cache.remove("a"), shelf.put("a", 10))
        assert await shelf.read("a") == b"a" * 10
    assert shelf.cache.used == 10


async def test_a_disk_that_refuses_the_move_leaves_the_budget_right(
    shelf: Shelf, tmp_path: Path
) -> None:
    reservation = await shelf.cache.reserve(10)
    assert reservation is not None
    with pytest.raises(OSError, match="No such file"):
        await shelf.cache.adopt(tmp_path / "nothing", facts_of("a"), reservation)
    assert "a" not in shelf.cache
    reservation.release()
    assert shelf.cache.used == 0


async def test_a_new_clip_of_an_id_takes_the_old_ones_place(shelf: Shelf) -> None:
    await shelf.put("a", 40, "1" * 32)
    await shelf.put("a", 50, "2" * 32)
    assert shelf.cache.used == 50
    assert shelf.gone == ["a"]
    assert await shelf.read("a") == b"a" * 50
    assert len(shelf.files()) == 2


async def test_what_lies_beside_a_clip_can_be_read_by_people(shelf: Shelf) -> None:
    await shelf.put("a", 10)
    body = orjson.loads(shelf.path("a").with_suffix(".json").read_bytes())
    assert body["request_id"] == "a"
    assert body["length"] == 10
    assert replace(facts_of("a"), length=body["length"]) == facts_of("a")
