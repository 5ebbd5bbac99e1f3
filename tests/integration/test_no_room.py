"""No disk left, or no budget: the clip is streamed through, counted and right, and not stored."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.looking import metric, nothing_is_left, objects, path_of
from tests.fixtures.origin import MakeOrigin, Origin, wait_for
from tests.fixtures.raw import raw_client

MIB = 1024 * 1024
DATA = make_clip(3 * MIB, 80)
GOOD = Behaviour()
NO_TAG = Behaviour(etag="none")
NO_RANGES = Behaviour(ranges="ignore")
OTHER = make_clip(3 * MIB, 81)


def streamed_through(origin: Origin, reason: str = "disk") -> float:
    return metric(origin, "firstview_streamed_through_total", reason=reason)


@pytest.fixture
async def cramped(make_origin: MakeOrigin) -> Origin:
    """An origin whose spool may not hold the clip."""
    return await make_origin(
        cache_max_bytes="1MiB", upstream_stall_timeout="400ms", fill_stall_timeout="1s"
    )


async def test_a_clip_larger_than_the_budget_is_streamed_through(cramped: Origin) -> None:
    await cramped.clip("big", DATA)
    for count in (1, 2):
        response, body = await cramped.get("big")
        assert (response.status, body) == (200, DATA)
        assert "stored" not in response.headers["Cache-Status"]
        assert streamed_through(cramped) == count
    await nothing_is_left(cramped)
    assert await objects(cramped) == []
    row = await cramped.row("big")
    assert row is not None
    assert row.status == "available"


async def test_many_viewers_are_streamed_through_at_once(cramped: Origin) -> None:
    await cramped.clip("big", DATA)
    replies = await asyncio.gather(*(cramped.get("big") for _ in range(10)))
    assert all(body == DATA for _, body in replies)
    await nothing_is_left(cramped)


@pytest.mark.parametrize("how", [GOOD, NO_RANGES], ids=["ranges", "no ranges"])
@pytest.mark.parametrize(
    "field", ["bytes=2000000-2999999", "bytes=-1000", "bytes=100-", "bytes=0-0"]
)
async def test_ranges_are_streamed_through(cramped: Origin, how: Behaviour, field: str) -> None:
    await cramped.clip("big", DATA, how)
    response, body = await cramped.get("big", {"Range": field})
    first, _, last = response.headers["Content-Range"][6:].partition("/")[0].partition("-")
    assert (response.status, body) == (206, DATA[int(first) : int(last) + 1])
    await nothing_is_left(cramped)


async def test_several_ranges_are_streamed_through(cramped: Origin) -> None:
    await cramped.clip("big", DATA)
    response, body = await cramped.get("big", {"Range": "bytes=0-99,2000000-2000099"})
    assert response.status == 206
    assert DATA[:100] in body
    assert DATA[2000000:2000100] in body
    assert len(body) == int(response.headers["Content-Length"])


@pytest.mark.parametrize(
    "how", [GOOD, NO_TAG, NO_RANGES, Behaviour(etag="weak")], ids=["good", "tag", "range", "weak"]
)
@pytest.mark.parametrize(
    "breaks",
    [
        lambda how, at: replace(how, reset_at=at),
        lambda how, at: replace(how, cut_at=at),
        lambda how, at: replace(how, stall_at=at),
    ],
    ids=["reset", "cut", "stall"],
)
async def test_a_source_that_breaks_is_resumed_without_a_spool(
    cramped: Origin, how: Behaviour, breaks: Callable[[Behaviour, int], Behaviour]
) -> None:
    path = await cramped.clip("big", DATA, how)
    cramped.fal.script(path, [how, breaks(how, MIB), breaks(how, 2 * MIB)])
    async with raw_client(cramped.app.public_port) as viewer:
        reply = await viewer.get(path_of("big"))
    assert (reply.status, reply.end) == (200, "open")
    assert reply.body == DATA
    await nothing_is_left(cramped)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Behaviour(reset_at=MIB), Behaviour(status=503)),
        (Behaviour(reset_at=MIB), Behaviour(status=404)),
        (Behaviour(reset_at=MIB, etag='"a"'), Behaviour(etag='"b"', body=OTHER)),
        (Behaviour(reset_at=MIB, etag="none"), Behaviour(etag="none", body=OTHER)),
        (
            Behaviour(reset_at=MIB, etag="none"),
            Behaviour(etag="none", body=OTHER, ranges="ignore"),
        ),
        (Behaviour(reset_at=MIB), Behaviour(ranges="wrong-start")),
        (Behaviour(md5="wrong"), GOOD),
        (Behaviour(length_lie=-1000), GOOD),
    ],
    ids=["503", "404", "ETag", "no ETag", "no ETag, no ranges", "elsewhere", "MD5", "length"],
)
async def test_what_cannot_be_streamed_through_whole_is_reset(
    cramped: Origin, first: Behaviour, then: Behaviour
) -> None:
    path = await cramped.clip("big", DATA, then)
    cramped.fal.script(path, [replace(first, reset_at=None), first])
    async with raw_client(cramped.app.public_port) as viewer:
        reply = await viewer.get(path_of("big"))
    assert (reply.status, reply.is_complete, reply.end) == (200, False, "rst")
    assert DATA.startswith(reply.body)
    await nothing_is_left(cramped)


async def test_a_clip_of_unknown_length_waits_for_room(cramped: Origin) -> None:
    """Its reply cannot begin before its end is known, and until then there is no place for it."""
    await cramped.clip("big", DATA, Behaviour(framing="chunked"))
    async with raw_client(cramped.app.public_port) as viewer:
        reply = await viewer.get(path_of("big"))
    assert (reply.status, reply.head.fields["retry-after"]) == (503, "2")
    await nothing_is_left(cramped)


async def test_ranges_alone_do_not_set_off_more_fills_than_their_budget(
    make_origin: MakeOrigin,
) -> None:
    """Peers 11 (tag#98): range misses fetched whole objects, bounded by count: 21.6 GB."""
    origin = await make_origin(range_fill_bytes="4MiB", seek_ahead="64KiB")
    hold = asyncio.Event()
    for name in ("a", "b", "c"):
        await origin.clip(name, DATA, Behaviour(stall_at=2 * MIB, stall_until=hold))
    for name in ("a", "b", "c"):
        response, body = await origin.get(name, {"Range": "bytes=2500000-2500099"})
        assert (response.status, body) == (206, DATA[2500000:2500100])

    async def two_were_refused() -> bool:
        return streamed_through(origin, "range_budget") == 2

    await wait_for(two_were_refused)  # the ranges are answered before their fills are
    hold.set()
    await origin.stored("a")
    _, body = await origin.get("b")  # the whole clip was asked for: that is no range's doing
    assert body == DATA
    await origin.stored("b")
    await nothing_is_left(origin)


# -- a disk that is really full ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB and few inodes; needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = "size=8m,nr_inodes=64"
    mounting = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def origin_on(disk: Path, make_origin: MakeOrigin, tmp_path: Path, **changes: str) -> Origin:
    """Start firstview with its spool on a disk of its own, everything else elsewhere."""
    return await make_origin(
        disk / "data",
        bucket_url=f"file://{tmp_path / 'bucket'}",
        database_url=f"sqlite:///{tmp_path / 'catalog.sqlite'}",
        disk_reserve="1KiB",
        **changes,
    )


def fill_up(disk: Path) -> Path:
    """Leave no byte free."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    return ballast


async def stored_at_last(origin: Origin) -> None:
    """The same clip is kept once there is room."""
    _, body = await origin.get("clip")
    assert body == DATA
    await origin.stored("clip")
    await nothing_is_left(origin)


async def test_a_disk_that_is_full_costs_the_viewer_nothing(
    small_disk: Path, make_origin: MakeOrigin, tmp_path: Path
) -> None:
    origin = await origin_on(small_disk, make_origin, tmp_path)
    await origin.clip("clip", DATA)
    ballast = fill_up(small_disk)
    _, body = await origin.get("clip")
    assert body == DATA
    assert streamed_through(origin) == 1
    await nothing_is_left(origin)
    ballast.unlink()
    await stored_at_last(origin)


async def test_a_disk_without_inodes_costs_the_viewer_nothing(
    small_disk: Path, make_origin: MakeOrigin, tmp_path: Path
) -> None:
    origin = await origin_on(small_disk, make_origin, tmp_path)
    await origin.clip("clip", DATA)
    many = small_disk / "many"
    many.mkdir()
    with contextlib.suppress(OSError):
        for number in range(1000):
            (many / str(number)).touch()
    _, body = await origin.get("clip")
    assert body == DATA
    assert streamed_through(origin) == 1
    await nothing_is_left(origin)
    for path in many.iterdir():
        path.unlink()
    await stored_at_last(origin)


@pytest.mark.parametrize("how", [GOOD, NO_TAG, NO_RANGES], ids=["ranges", "no ETag", "no ranges"])
async def test_a_disk_that_fills_up_during_a_fill_costs_the_viewer_nothing(
    small_disk: Path, make_origin: MakeOrigin, tmp_path: Path, how: Behaviour
) -> None:
    origin = await origin_on(small_disk, make_origin, tmp_path)
    full = asyncio.Event()
    path = await origin.clip("clip", DATA, how)
    origin.fal.script(path, [replace(how, stall_at=MIB, stall_until=full)])
    async with (
        raw_client(origin.app.public_port) as viewer,
        raw_client(origin.app.public_port) as other,
    ):
        for each in (viewer, other):
            await each.ask(path_of("clip"))
            assert (await each.head()).status == 200
        begun = await viewer.read(MIB // 2)
        ballast = fill_up(small_disk)
        full.set()
        assert begun + await viewer.rest() == DATA
        assert await other.rest() == DATA
    assert streamed_through(origin) >= 1
    await nothing_is_left(origin)
    assert await objects(origin) == []
    ballast.unlink()
    await stored_at_last(origin)


async def test_a_disk_that_fills_up_under_a_clip_of_unknown_length_is_an_error(
    small_disk: Path, make_origin: MakeOrigin, tmp_path: Path
) -> None:
    origin = await origin_on(small_disk, make_origin, tmp_path)
    await origin.clip("clip", make_clip(12 * MIB, 82), Behaviour(framing="chunked"))
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get(path_of("clip"))
    assert (reply.status, reply.head.fields["retry-after"]) == (503, "2")
    await nothing_is_left(origin)
