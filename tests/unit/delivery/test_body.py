"""A broken body is continued only by what is proven to be the same clip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.delivery import identity
from proxy.delivery.body import Body
from proxy.delivery.spool import Spool
from proxy.errors import CorruptClip, FirstviewError, NotAClip, SourceChanged, SourceTimeout
from proxy.records import BodyHead, ByteStream, ClipFacts, Generation, Status
from proxy.storage import keys
from tests.fakes.fal import make_clip

DATA = make_clip(5000, 1)
OTHER = make_clip(5000, 2)
ROW = Generation(
    request_id="clip",
    status=Status.AVAILABLE,
    fal_url="https://fal.media/clip.mp4",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)
TAG = '"tag"'


class Stream:
    """An open body that is read in pieces."""

    def __init__(self, data: bytes, head: BodyHead, piece: int) -> None:
        self.head = head
        self.closed = False
        self._data, self._piece, self._at = data, piece, 0

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        chunk = self._data[self._at : self._at + self._piece]
        self._at += len(chunk)
        return chunk

    async def close(self) -> None:
        self.closed = True


@dataclass
class Scripted:
    """A source that answers with the next stream of its script, and remembers what was asked."""

    answers: list[Stream | FirstviewError]
    asked: list[tuple[int, int | None, str | None]] = field(default_factory=list)
    ranges: bool = True
    expected_length: int | None = None
    tier: str = "upstream"
    name: str = "/clip.mp4"
    row: Generation | None = ROW

    async def open(
        self, start: int = 0, stop: int | None = None, *, validator: str | None = None
    ) -> ByteStream:
        await asyncio.sleep(0)
        self.asked.append((start, stop, validator))
        answer = self.answers.pop(0)
        if isinstance(answer, FirstviewError):
            raise answer
        return answer

    def facts(self, head: BodyHead, length: int) -> ClipFacts:
        return identity.facts_from_source(ROW, "https://fal.media/clip.mp4", head, length)

    def expected_sha256(self, head: BodyHead) -> str | None:
        return (head.metadata or {}).get(keys.META_SHA256)

    async def ask(self) -> ClipFacts:
        raise AssertionError("a fill asks for no head")

    def seekable(self) -> bool:
        return self.ranges


def stream(
    data: bytes = DATA,
    start: int = 0,
    *,
    total: int | None = 5000,
    tag: str | None = TAG,
    framed: bool = True,
    piece: int = 700,
    metadata: dict[str, str] | None = None,
) -> Stream:
    stop = None if total is None else total
    head = BodyHead(
        start=start, stop=stop, total=total, validator=tag, framed=framed, metadata=metadata
    )
    return Stream(data[start:], head, piece)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    """A spool that holds the first 2000 bytes."""
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.claim(tmp_path / "clip.part", executor)
        await spool.append(DATA[:2000])
        yield spool
        spool.release()


async def read(body: Body) -> bytes:
    buffer = memoryview(bytearray(300))
    await body.offer(buffer)
    return bytes(body.take(buffer))


async def broken_off(source: Scripted, first: Stream) -> Body:
    """A body of which 2000 bytes have been read."""
    source.answers.insert(0, first)
    body = await Body.open(source, 10_000)
    held = b""
    while len(held) < 2000:
        held += await read(body)
    assert held == DATA[:2000]
    await body.close()
    return body


async def rest(body: Body) -> bytes:
    found = b""
    while chunk := await read(body):
        found += chunk
    return found


async def test_with_a_strong_etag_only_the_rest_is_asked_for(spool: Spool) -> None:
    source = Scripted([stream(start=2000)])
    body = await broken_off(source, stream(piece=1000))
    await body.reopen(spool, 1)
    assert await rest(body) == DATA[2000:]
    assert source.asked[1] == (2000, None, TAG)


@pytest.mark.parametrize(
    ("tag", "ranges"), [(None, True), (TAG, False), (None, False)], ids=["tag", "range", "both"]
)
async def test_without_one_the_whole_is_read_again_and_compared(
    spool: Spool, tag: str | None, ranges: bool
) -> None:
    source = Scripted([stream(tag=tag)], ranges=ranges)
    body = await broken_off(source, stream(tag=tag, piece=1000))
    await body.reopen(spool, 1)
    assert await rest(body) == DATA[2000:]
    assert source.asked[1] == (0, None, None)


async def test_a_range_that_is_answered_with_the_whole_is_compared_and_skipped(
    spool: Spool,
) -> None:
    """Peers 5 (harbor#23601): a 200 to a resume may be used only by skipping what is held."""
    source = Scripted([stream()])
    body = await broken_off(source, stream(piece=1000))
    await body.reopen(spool, 1)
    assert await rest(body) == DATA[2000:]


@pytest.mark.parametrize(
    "again",
    [
        stream(OTHER),
        stream(start=2000, tag='"other"'),
        stream(start=2000, tag=None),
        stream(start=1999),
        stream(start=2001),
        stream(start=2000, total=5001),
        stream(total=4999),
        stream(tag='"other"'),
        stream(DATA[:1500]),
    ],
    ids=["bytes", "tag", "no tag", "before", "behind", "total", "less", "whole", "short"],
)
async def test_what_does_not_continue_the_clip_is_refused_and_closed(
    spool: Spool, again: Stream
) -> None:
    """Peers 5 (harbor#23601): a corrupt body of the right length."""
    body = await broken_off(Scripted([again]), stream(piece=1000))
    with pytest.raises(SourceChanged):
        await body.reopen(spool, 1)
    assert again.closed


async def test_a_source_that_never_answers_is_given_up(spool: Spool) -> None:
    source = Scripted([])
    body = await broken_off(source, stream(piece=1000))

    async def never(*_: object, **__: object) -> ByteStream:
        await asyncio.Event().wait()
        raise AssertionError

    source.open = never  # type: ignore[method-assign]
    with pytest.raises(SourceTimeout):
        await body.reopen(spool, 0.01)


@pytest.mark.parametrize(
    "first",
    [
        stream(start=1),
        stream(total=20_000),
        stream(total=None, framed=False),
        stream(b"<!doctype html>" * 400),
        stream(b"short", total=5),
    ],
    ids=["middle", "large", "unframed", "html", "short"],
)
async def test_what_is_no_clip_is_refused_before_anyone_is_answered(first: Stream) -> None:
    with pytest.raises((NotAClip, SourceChanged)):
        await Body.open(Scripted([first]), 10_000)
    assert first.closed


async def test_a_registered_length_stands_in_for_one_that_the_source_does_not_tell() -> None:
    source = Scripted([stream(total=None, framed=False)], expected_length=5000)
    body = await Body.open(source, 10_000)
    assert body.total == 5000
    assert await rest(body) == DATA


@pytest.mark.parametrize("total", [4000, None])
async def test_a_clip_that_was_cut_is_noticed_by_its_own_boxes(total: int | None) -> None:
    body = await Body.open(Scripted([stream(DATA[:4000], total=total)]), 10_000)
    with pytest.raises(CorruptClip):
        await rest(body)


async def test_an_object_that_we_have_written_needs_no_looking_into() -> None:
    data = b"once taken for a clip, by a firstview of before"
    ours = stream(data, total=len(data), metadata={keys.META_ETAG: "e1"})
    assert await rest(await Body.open(Scripted([ours], tier="bucket"), 10_000)) == data


async def test_an_object_that_somebody_else_has_written_has_to_be_a_whole_clip() -> None:
    page = b"<html>no clip</html>"
    with pytest.raises(NotAClip):
        await Body.open(Scripted([stream(page, total=len(page))], tier="bucket"), 10_000)
    cut = make_clip(5000, 1)[:3000]
    body = await Body.open(Scripted([stream(cut, total=len(cut))], tier="bucket"), 10_000)
    with pytest.raises(CorruptClip):
        await rest(body)
