"""Fetching from a fal.media that misbehaves: the right bytes, or the right error.

Every test ends with the same check: no connection is left open, none is left counted.
"""

import asyncio
import gzip
import hashlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import SecretStr

from proxy import __version__
from proxy.clock import Clock
from proxy.errors import (
    FirstviewError,
    NotAClip,
    Overloaded,
    SourceBusy,
    SourceChanged,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
    SourceUntrusted,
)
from proxy.records import ByteStream, DirectStream
from proxy.settings import Settings, load
from proxy.upstream.breaker import HostResting
from proxy.upstream.fetch import Upstream
from proxy.upstream.session import PrivateAddress, make_session
from tests.fakes.fal import Behaviour, Clip, FakeFal, make_clip
from tests.fakes.fal.behaviour import FOREVER
from tests.fakes.tls import self_signed
from tests.fixtures.origin import wait_for

PATH = "files/b/clip.mp4"
DATA = make_clip(700_000, seed=1)
OTHER = make_clip(700_000, seed=2)

MakeUpstream = Callable[..., Upstream]


class HandClock(Clock):
    """A clock whose monotonic time a test moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


class Resolver(AbstractResolver):
    """Resolves every name to the same addresses; without any never, or to an error."""

    def __init__(self, *addresses: str, error: str = "") -> None:
        self.addresses, self.error = addresses, error

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self.error:
            raise OSError(None, self.error)
        if not self.addresses:
            await asyncio.sleep(3600)
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=family, proto=0, flags=0)
            for ip in self.addresses
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
def settings() -> Settings:
    """Settings for the fake; a plain fixture, because reading them blocks."""
    return load(
        upstream_hosts="127.0.0.1,localhost",
        upstream_allow_insecure=True,
        upstream_connect_timeout=2.0,
        upstream_first_byte_timeout=5.0,
        upstream_stall_timeout=5.0,
        max_clip_bytes=10_000_000,
    )


@pytest_asyncio.fixture
async def make_upstream(fal: FakeFal, settings: Settings) -> AsyncIterator[MakeUpstream]:
    """Make `Upstream`s for the fake; at the end, check that they let go of everything."""
    made: list[Upstream] = []

    def make(
        clock: Clock | None = None, resolver: AbstractResolver | None = None, **changes: Any
    ) -> Upstream:
        changed = settings.model_copy(update=changes)
        made.append(Upstream(changed, clock=clock, resolver=resolver))
        return made[-1]

    yield make
    for upstream in made:
        await upstream.close()
    for upstream in made:
        assert upstream._slots._value == upstream._settings.upstream_max_connections

    async def none_is_open() -> bool:
        return fal.connections == 0

    await wait_for(none_is_open)


@pytest_asyncio.fixture
async def upstream(make_upstream: MakeUpstream) -> Upstream:
    return make_upstream()


@dataclass
class Way:
    """How a test reads bodies: as they come, or into a buffer of its own."""

    direct: bool = False

    async def read(self, body: ByteStream) -> bytes:
        """The next bytes."""
        if not self.direct:
            return await body.read()
        assert isinstance(body, DirectStream)
        buffer = bytearray(50_000)
        await body.offer(memoryview(buffer))
        await asyncio.sleep(0)  # what comes meanwhile comes along
        count = body.take()
        await asyncio.sleep(0)  # nobody is reading
        return bytes(buffer[:count])


WAY = Way()


@pytest.fixture(autouse=True, params=["in pieces", "into a buffer"])
def way(request: pytest.FixtureRequest) -> None:
    """Every test here reads in either way."""
    WAY.direct = request.param == "into a buffer"


async def read_all(body: ByteStream) -> bytes:
    pieces = []
    try:
        while piece := await WAY.read(body):
            pieces.append(piece)
        assert await WAY.read(body) == b""
    finally:
        await body.close()
    return b"".join(pieces)


async def read_until_it_breaks(body: ByteStream, arrived: bytearray) -> None:
    while piece := await WAY.read(body):
        arrived += piece


async def fetch(upstream: Upstream, url: str, *asked: int, **more: Any) -> bytes:
    return await read_all(await upstream.open(url, *asked, **more))


# --- what goes right --------------------------------------------------------------------------


async def test_a_clip_arrives_byte_for_byte(fal: FakeFal, upstream: Upstream) -> None:
    body = await upstream.open(fal.add(PATH, DATA))
    assert (body.head.start, body.head.stop, body.head.total) == (0, len(DATA), len(DATA))
    assert body.head.framed
    assert body.head.validator is not None
    assert body.head.last_modified == datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
    assert await read_all(body) == DATA
    request = fal.requests(PATH)[0]
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"] == f"firstview/{__version__}"
    assert "cookie" not in request.headers
    assert "authorization" not in request.headers
    assert request.range is None


async def test_a_connection_whose_body_was_read_serves_the_next_request(
    fal: FakeFal, upstream: Upstream
) -> None:
    url = fal.add(PATH, DATA)
    for _ in range(3):
        assert await fetch(upstream, url) == DATA
    assert {request.connection for request in fal.requests()} == {1}


async def test_a_kept_connection_that_the_source_dropped_costs_a_retry_and_no_error(
    fal: FakeFal, upstream: Upstream
) -> None:
    url = fal.add(PATH, DATA)
    assert await fetch(upstream, url) == DATA
    fal.script(PATH, [Behaviour(hang_up="rst")])
    assert await fetch(upstream, url) == DATA
    assert [request.connection for request in fal.requests()] == [1, 1, 2]


async def test_a_large_clip_streams_without_being_held(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    """Names peers 40: ignored backpressure."""
    clip = Clip(40_000_000, seed=3)
    url = fal.add(PATH, clip)
    upstream = make_upstream(max_clip_bytes=50_000_000)
    body = await upstream.open(url)
    await asyncio.sleep(0.3)
    held_by_sockets = 8_000_000  # both kernels' buffers and ours
    assert fal.requests()[0].sent < held_by_sockets
    digest, largest = hashlib.sha256(), 0
    while piece := await body.read():
        digest.update(piece)
        largest = max(largest, len(piece))
    await body.close()
    assert digest.hexdigest() == clip.sha256()
    assert largest < 2_500_000


@pytest.mark.parametrize(
    ("asked", "field", "start", "stop"),
    [
        ((1000,), "bytes=1000-", 1000, len(DATA)),
        ((1000, 2000), "bytes=1000-1999", 1000, 2000),
        ((0, 1), "bytes=0-0", 0, 1),
        ((-500,), "bytes=-500", len(DATA) - 500, len(DATA)),
        ((-9_000_000,), "bytes=-9000000", 0, len(DATA)),
        ((1000, 9_000_000), "bytes=1000-8999999", 1000, len(DATA)),
    ],
)
async def test_a_range_brings_exactly_its_bytes(
    fal: FakeFal, upstream: Upstream, asked: tuple[int, ...], field: str, start: int, stop: int
) -> None:
    """Names peers 17 and 28: no prefix is read for a range."""
    body = await upstream.open(fal.add(PATH, DATA), *asked)
    assert (body.head.start, body.head.stop, body.head.total) == (start, stop, len(DATA))
    assert await read_all(body) == DATA[start:stop]
    assert fal.requests()[0].range == field
    assert fal.requests()[0].sent == stop - start


async def test_a_range_of_an_unchanged_clip_is_had_with_its_validator(
    fal: FakeFal, upstream: Upstream
) -> None:
    url = fal.add(PATH, DATA)
    first = await upstream.open(url)
    await first.close()
    validator = first.head.validator
    assert await fetch(upstream, url, 600_000, validator=validator) == DATA[600_000:]
    assert fal.requests()[1].headers["if-range"] == validator


async def test_a_range_of_a_changed_clip_brings_the_whole_new_one(
    fal: FakeFal, upstream: Upstream
) -> None:
    """Names peers 5 and 14: the head tells the caller that this is another clip."""
    url = fal.add(PATH, DATA)
    first = await upstream.open(url)
    await first.close()
    fal.add(PATH, OTHER)
    second = await upstream.open(url, 600_000, validator=first.head.validator)
    assert (second.head.start, second.head.total) == (0, len(OTHER))
    assert second.head.validator != first.head.validator
    assert upstream.supports_ranges(url)
    assert await read_all(second) == OTHER


async def test_chunked_and_unframed_bodies_are_told_apart_and_arrive_whole(
    fal: FakeFal, upstream: Upstream
) -> None:
    url = fal.add(PATH, DATA)
    fal.script(PATH, [Behaviour(framing="chunked"), Behaviour(framing="close")])
    for framed in (True, False):
        body = await upstream.open(url)
        assert (body.head.stop, body.head.total, body.head.framed) == (None, None, framed)
        assert await read_all(body) == DATA


async def test_a_chunked_or_unframed_part_is_counted_by_its_content_range(
    fal: FakeFal, upstream: Upstream
) -> None:
    url = fal.add(PATH, DATA)
    fal.script(PATH, [Behaviour(framing="chunked"), Behaviour(framing="close")])
    for _ in range(2):
        assert await fetch(upstream, url, 600_000) == DATA[600_000:]


async def test_octet_stream_and_untyped_clips_are_clips(fal: FakeFal, upstream: Upstream) -> None:
    url = fal.add(PATH, DATA)
    kinds = ("application/octet-stream", "binary/octet-stream", None)
    fal.script(PATH, [Behaviour(content_type=kind) for kind in kinds])
    for _ in kinds:
        assert await fetch(upstream, url) == DATA


async def test_md5_and_validator_come_as_the_source_gives_them(
    fal: FakeFal, upstream: Upstream
) -> None:
    url = fal.add(PATH, DATA)
    fal.script(
        PATH,
        [
            Behaviour(md5="right"),
            Behaviour(md5="wrong", etag="weak", last_modified=None),
            Behaviour(etag="none"),
            Behaviour(md5="right"),
        ],
    )
    heads = []
    for start in (0, 0, 0, 5):
        body = await upstream.open(url, start)
        await body.close()
        heads.append(body.head)
    right = hashlib.md5(DATA, usedforsecurity=False).digest()
    assert [head.md5 for head in heads] == [right, bytes(16), None, right]
    assert [head.validator is not None for head in heads] == [True, False, False, True]
    assert [head.last_modified is not None for head in heads] == [True, False, True, True]


async def test_a_slow_clip_is_no_stalled_one(fal: FakeFal, make_upstream: MakeUpstream) -> None:
    url = fal.add(PATH, DATA[:28_000], Behaviour(rate=40_000, delay=0.05, first_byte_delay=0.05))
    assert await fetch(make_upstream(upstream_stall_timeout=0.6), url) == DATA[:28_000]


# --- bodies that break ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error", "arrives"),
    [
        (Behaviour(cut_at=300_000), SourceUnavailable, 300_000),
        (Behaviour(reset_at=300_000), SourceUnavailable, 300_000),
        (Behaviour(cut_at=0), SourceUnavailable, 0),
        (Behaviour(reset_at=0), SourceUnavailable, 0),
        (Behaviour(stall_at=300_000), SourceTimeout, 300_000),
        (Behaviour(stall_at=0), SourceTimeout, 0),
        (Behaviour(length_lie=10), SourceUnavailable, len(DATA)),
        (Behaviour(framing="chunked-open"), SourceUnavailable, len(DATA)),
        (Behaviour(framing="chunked", cut_at=300_000), SourceUnavailable, 300_000),
        (Behaviour(framing="chunked", reset_at=300_000), SourceUnavailable, 300_000),
        (Behaviour(framing="chunked", stall_at=300_000), SourceTimeout, 300_000),
        (Behaviour(framing="close", stall_at=300_000), SourceTimeout, 300_000),
    ],
)
async def test_a_body_that_breaks_never_ends_as_if_it_were_whole(
    fal: FakeFal,
    make_upstream: MakeUpstream,
    how: Behaviour,
    error: type[FirstviewError],
    arrives: int,
) -> None:
    """Names peers 1, 3, 35 and 38."""
    upstream = make_upstream(upstream_stall_timeout=0.3 if error is SourceTimeout else 20.0)
    body = await upstream.open(fal.add(PATH, DATA, how))
    arrived = bytearray()
    try:
        with pytest.raises(error) as caught:
            await read_until_it_breaks(body, arrived)
        assert type(caught.value) is error
        with pytest.raises(FirstviewError):
            await body.read()
    finally:
        await body.close()
    assert len(arrived) <= arrives
    assert DATA.startswith(bytes(arrived))


async def test_what_arrived_before_a_reset_is_not_lost_to_a_reader_that_keeps_up(
    fal: FakeFal, upstream: Upstream
) -> None:
    url = fal.add(PATH, DATA, Behaviour(rate=20_000_000, reset_at=500_000))
    body = await upstream.open(url)
    arrived = bytearray()
    with pytest.raises(SourceUnavailable):
        await read_until_it_breaks(body, arrived)
    await body.close()
    assert arrived == DATA[:500_000]


async def test_a_part_that_ends_early_is_noticed_however_it_is_framed(
    fal: FakeFal, upstream: Upstream
) -> None:
    url = fal.add(PATH, DATA)
    for framing in ("close", "chunked"):
        head = (
            b"HTTP/1.1 206 Partial Content\r\n"
            b"Content-Range: bytes 100-699999/700000\r\n"
            + (b"Transfer-Encoding: chunked\r\n" if framing == "chunked" else b"")
            + b"Connection: close\r\n\r\n"
        )
        short = Behaviour(body=DATA[:500_000], framing=framing, raw_head=head)
        fal.script(PATH, [short])
        with pytest.raises(SourceUnavailable):
            await fetch(upstream, url, 100)


async def test_never_more_bytes_than_announced(fal: FakeFal, upstream: Upstream) -> None:
    """Names peers 27 and 33."""
    url = fal.add(PATH, DATA)
    fal.script(PATH, [Behaviour(length_lie=-1000)])
    assert await fetch(upstream, url) == DATA[:-1000]
    assert await fetch(upstream, url) == DATA  # over a new connection
    for framing in ("close", "chunked"):
        head = (
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-199/700000\r\n"
            + (b"Transfer-Encoding: chunked\r\n" if framing == "chunked" else b"")
            + b"Connection: close\r\n\r\n"
        )
        fal.script(PATH, [Behaviour(ranges="ignore", framing=framing, raw_head=head)])
        with pytest.raises(SourceChanged):
            await fetch(upstream, url, 100, 200)


async def test_a_length_beside_chunks_is_refused_or_ignored(
    fal: FakeFal, upstream: Upstream
) -> None:
    """Two framings at once are how replies are smuggled (RFC 9112 §6.3)."""
    both = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n"
    url = fal.add(PATH, DATA, Behaviour(framing="chunked", raw_head=both))
    try:
        assert await fetch(upstream, url) == DATA
    except FirstviewError as error:
        assert type(error) is SourceUnavailable  # noqa: PT017 - either outcome is right


# --- answers that are none --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (Behaviour(status=403), SourceRefused),
        (Behaviour(status=404), SourceRefused),
        (Behaviour(status=410), SourceRefused),
        (Behaviour(status=416), SourceUnavailable),
        (Behaviour(status=429, headers={"Retry-After": "3"}), SourceBusy),
        (Behaviour(status=401), SourceUnavailable),
        (Behaviour(status=500), SourceUnavailable),
        (Behaviour(status=503), SourceUnavailable),
        (Behaviour(status=204), SourceUnavailable),
        (Behaviour(status=304), SourceUnavailable),
        (Behaviour(status=206), SourceChanged),
        (Behaviour(body=b""), NotAClip),
        (Behaviour(content_type="text/html", body=b"<html>sorry</html>"), NotAClip),
        (Behaviour(content_type="application/json", body=b"{}"), NotAClip),
        (Behaviour(gzip=True), NotAClip),
        (Behaviour(status=302), SourceUnavailable),  # a redirect without a target
        (Behaviour(hang_up="fin"), SourceUnavailable),
        (Behaviour(hang_up="rst"), SourceUnavailable),
        (Behaviour(raw_head=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), SourceUnavailable),
        (Behaviour(raw_head=b"HTTP/1.1 OK fine\r\n\r\n"), SourceUnavailable),
        (Behaviour(raw_head=b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n"), SourceUnavailable),
        (Behaviour(raw_head=b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000), SourceUnavailable),
        (Behaviour(raw_head=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000), SourceUnavailable),
    ],
)
async def test_what_is_not_a_clip_is_the_right_error_before_any_byte(
    fal: FakeFal, upstream: Upstream, how: Behaviour, error: type[FirstviewError]
) -> None:
    """Names peers 20, 22, 23, 29 and 36."""
    with pytest.raises(FirstviewError) as caught:
        await upstream.open(fal.add(PATH, DATA, how))
    assert type(caught.value) is error


async def test_an_encoded_clip_is_not_decoded_behind_our_back(
    fal: FakeFal, upstream: Upstream
) -> None:
    packed = gzip.compress(DATA[:1000])
    assert await fetch(upstream, fal.add(PATH, packed)) == packed


async def test_a_clip_larger_than_allowed_is_refused_before_it_is_read(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    upstream = make_upstream(max_clip_bytes=len(DATA) - 1)
    url = fal.add(PATH, DATA)
    for start in (0, 10):
        with pytest.raises(NotAClip):
            await upstream.open(url, start)
    with pytest.raises(NotAClip):
        await upstream.head_info(url)


@pytest.mark.parametrize(
    "ranges", ["wrong-start", "wrong-total", "garbage", "missing", "multipart"]
)
async def test_a_part_that_is_not_the_one_asked_for_is_refused(
    fal: FakeFal, upstream: Upstream, ranges: Any
) -> None:
    """Names peers 5, 26 and 34."""
    url = fal.add(PATH, DATA, Behaviour(ranges=ranges))
    with pytest.raises((SourceChanged, NotAClip)):
        await upstream.open(url, 1000)


async def test_a_range_past_the_end_says_that_the_clip_changed(
    fal: FakeFal, upstream: Upstream
) -> None:
    with pytest.raises(SourceChanged):
        await upstream.open(fal.add(PATH, DATA), len(DATA))


async def test_a_source_that_ignores_ranges_is_remembered_and_forgotten_again(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    clock = HandClock()
    upstream = make_upstream(clock=clock)
    url = fal.add(PATH, DATA, Behaviour(ranges="ignore"))
    assert upstream.supports_ranges(url)
    body = await upstream.open(url, 1000)
    assert (body.head.start, body.head.stop) == (0, len(DATA))
    assert await read_all(body) == DATA
    assert not upstream.supports_ranges(url)
    assert not upstream.supports_ranges(fal.url("another.mp4"))
    assert upstream.supports_ranges("https://v3.fal.media/x.mp4")
    clock.time += 3600
    assert upstream.supports_ranges(url)


async def test_a_plain_request_says_nothing_about_ranges(fal: FakeFal, upstream: Upstream) -> None:
    url = fal.add(PATH, DATA, Behaviour(ranges="ignore"))
    await fetch(upstream, url)
    assert upstream.supports_ranges(url)


# --- waits ------------------------------------------------------------------------------------


async def test_a_source_that_never_answers_times_out(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    upstream = make_upstream(upstream_first_byte_timeout=0.2)
    url = fal.add(PATH, DATA, Behaviour(delay=FOREVER))
    with pytest.raises(SourceTimeout):
        await upstream.open(url)
    with pytest.raises(SourceTimeout):
        await upstream.head_info(url)


async def test_a_head_that_trickles_in_times_out_as_a_whole(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    drip = Behaviour(raw_head=b"HTTP/1.1 200 OK\r\n", body=b"X: y\r\n" * 1000, rate=100)
    upstream = make_upstream(upstream_first_byte_timeout=0.3)
    with pytest.raises(SourceTimeout):
        await upstream.open(fal.add(PATH, DATA, drip))


async def test_the_first_byte_may_take_longer_than_a_connection(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    upstream = make_upstream(upstream_connect_timeout=0.4, upstream_stall_timeout=0.4)
    assert await fetch(upstream, fal.add(PATH, DATA, Behaviour(delay=0.6))) == DATA


async def test_a_name_that_is_never_resolved_times_out(make_upstream: MakeUpstream) -> None:
    upstream = make_upstream(
        resolver=Resolver(), upstream_hosts=("v3.fal.media",), upstream_connect_timeout=0.2
    )
    with pytest.raises(SourceTimeout):
        await upstream.open("https://v3.fal.media/x.mp4")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """One that somebody has, who does not listen: connections are refused, whatever comes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_a_closed_port_and_an_unknown_name_are_unavailable(
    make_upstream: MakeUpstream, closed_port: int
) -> None:
    unknown = Resolver(error="Name or service not known")
    upstream = make_upstream(resolver=unknown, upstream_hosts=("127.0.0.1", "nowhere.invalid"))
    for url in (f"http://127.0.0.1:{closed_port}/x", "https://nowhere.invalid/x"):
        with pytest.raises(SourceUnavailable):
            await upstream.open(url)


async def test_no_more_connections_than_allowed_and_then_a_clear_error(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    """Names peers 12: unbounded ingress."""
    upstream = make_upstream(upstream_max_connections=2, upstream_connect_timeout=0.2)
    url = fal.add(PATH, DATA)
    held = [await upstream.open(url) for _ in range(2)]
    with pytest.raises(Overloaded):
        await upstream.open(url)
    with pytest.raises(Overloaded):
        await upstream.head_info(url)
    await held[0].close()
    await held[0].close()
    assert await fetch(upstream, url) == DATA
    assert await read_all(held[1]) == DATA


async def test_a_caller_that_gives_up_leaves_nothing_behind(
    fal: FakeFal, upstream: Upstream
) -> None:
    """Names peers 25 and 39; the fixture counts the connections."""
    url = fal.add(PATH, DATA, Behaviour(delay=FOREVER))
    task = asyncio.create_task(upstream.open(url))

    async def is_asked() -> bool:
        return bool(fal.requests(PATH))

    await wait_for(is_asked)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    fal.add(PATH, DATA, Behaviour(stall_at=1000))
    body = await upstream.open(url)
    assert await body.read()
    waiting = asyncio.create_task(body.read())
    await asyncio.sleep(0.05)
    await body.close()
    with pytest.raises(SourceUnavailable):
        await waiting


# --- redirects and addresses ------------------------------------------------------------------


async def test_redirects_are_followed_within_the_list(fal: FakeFal, upstream: Upstream) -> None:
    fal.add(PATH, DATA)
    fal.script("a.mp4", [Behaviour(location="/b.mp4", status=301)])
    fal.script("b.mp4", [Behaviour(location=fal.url(PATH, host="localhost"), status=308)])
    assert await fetch(upstream, fal.url("a.mp4"), 699_000) == DATA[699_000:]
    assert [request.path for request in fal.requests()] == ["/a.mp4", "/b.mp4", "/" + PATH]
    assert {request.range for request in fal.requests()} == {"bytes=699000-"}


async def test_redirects_off_the_list_are_not_followed(fal: FakeFal, upstream: Upstream) -> None:
    targets = [fal.url(PATH, host="127.0.0.2"), "ftp://localhost/x", "//[", "https://evil.example"]
    fal.script("a.mp4", [Behaviour(location=target) for target in targets])
    for _ in targets:
        with pytest.raises(SourceUntrusted):
            await upstream.open(fal.url("a.mp4"))
    assert len(fal.requests()) == len(targets)


async def test_redirects_without_end_are_given_up(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    fal.add("a.mp4", DATA, Behaviour(location="/a.mp4"))
    with pytest.raises(SourceUnavailable):
        await make_upstream(upstream_max_redirects=2).open(fal.url("a.mp4"))
    assert len(fal.requests()) == 3
    with pytest.raises(SourceUnavailable):
        await make_upstream(upstream_max_redirects=0).open(fal.url("a.mp4"))
    assert len(fal.requests()) == 4


async def test_the_token_goes_to_the_first_host_only(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    upstream = make_upstream(upstream_token=SecretStr("secret-token"))
    fal.add(PATH, DATA)
    fal.script("a.mp4", [Behaviour(location="/b.mp4")])
    fal.script("b.mp4", [Behaviour(location=fal.url(PATH, host="localhost"))])
    assert await fetch(upstream, fal.url("a.mp4")) == DATA
    sent = [request.headers.get("authorization") for request in fal.requests()]
    assert sent == ["Bearer secret-token", "Bearer secret-token", None]


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.0.0.1", "::1"], ["169.254.169.254"], ["::ffff:127.0.0.1"]]
)
async def test_an_allowed_name_that_leads_to_a_private_address_is_not_connected_to(
    make_upstream: MakeUpstream, addresses: list[str]
) -> None:
    upstream = make_upstream(
        resolver=Resolver(*addresses),
        upstream_hosts=("*.fal.media",),
        upstream_allow_insecure=False,
    )
    with pytest.raises(SourceUntrusted, match="not public"):
        await upstream.open("https://v3.fal.media/x.mp4")


async def test_the_guard_on_addresses_also_sees_literals(fal: FakeFal, settings: Settings) -> None:
    """The list refuses literals already; this is the second lock, tried without the first."""
    strict = settings.model_copy(update={"upstream_allow_insecure": False})
    async with make_session(strict) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(fal.url(PATH), trace_request_ctx=asyncio.timeout(None))
    assert isinstance(caught.value.os_error, PrivateAddress)
    assert fal.requests() == []


async def test_an_address_off_the_list_costs_no_connection(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    upstream = make_upstream(upstream_allow_insecure=False)
    for url in (fal.url(PATH), "data:video/mp4;base64,AA", "https://evil.example/x.mp4", "\ud800"):
        with pytest.raises(SourceUntrusted):
            await upstream.open(url)
        with pytest.raises(SourceUntrusted):
            await upstream.head_info(url)
        assert upstream.supports_ranges(url)
    assert fal.requests() == []


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    make_upstream: MakeUpstream, tmp_path: Path
) -> None:
    context = self_signed(tmp_path)
    served: list[object] = []
    server = await asyncio.start_server(
        lambda reader, writer: served.append(reader), "127.0.0.1", 0, ssl=context
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.wait_closed)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SourceUnavailable):
            await make_upstream().open(f"https://127.0.0.1:{port}/x.mp4")
    assert served == []


# --- HEAD -------------------------------------------------------------------------------------


async def test_a_head_costs_one_request_and_no_body(fal: FakeFal, upstream: Upstream) -> None:
    head = await upstream.head_info(fal.add(PATH, DATA, Behaviour(md5="right")))
    assert (head.start, head.stop, head.total) == (0, len(DATA), len(DATA))
    assert head.validator is not None
    assert [(request.method, request.sent) for request in fal.requests()] == [("HEAD", 0)]


@pytest.mark.parametrize(
    "how",
    [
        Behaviour(status=405),
        Behaviour(status=501),
        Behaviour(status=403),
        Behaviour(status=400),
        Behaviour(framing="chunked"),
        Behaviour(framing="close"),
        Behaviour(length_lie=-len(DATA)),
    ],
)
@pytest.mark.parametrize("ranges", ["honour", "ignore"])
async def test_where_head_is_refused_or_tells_nothing_one_byte_is_asked_for(
    fal: FakeFal, upstream: Upstream, how: Behaviour, ranges: Any
) -> None:
    url = fal.add(PATH, DATA, Behaviour(ranges=ranges))
    fal.script(PATH, [how])
    head = await upstream.head_info(url)
    assert (head.start, head.stop, head.total) == (0, len(DATA), len(DATA))
    assert [request.range for request in fal.requests()] == [None, "bytes=0-0"]


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (Behaviour(status=404), SourceRefused),
        (Behaviour(status=403), SourceRefused),
        (Behaviour(status=500), SourceUnavailable),
        (Behaviour(status=429), SourceBusy),
        (Behaviour(content_type="text/html"), NotAClip),
        (Behaviour(body=b""), NotAClip),
        (Behaviour(hang_up="fin"), SourceUnavailable),  # twice: a dropped request is sent again
    ],
)
async def test_a_head_fails_as_a_get_does(
    fal: FakeFal, upstream: Upstream, how: Behaviour, error: type[FirstviewError]
) -> None:
    with pytest.raises(error):
        await upstream.head_info(fal.add(PATH, DATA, how))


# --- the breaker ------------------------------------------------------------------------------


async def test_a_host_that_keeps_failing_is_left_alone_and_then_tried_once(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    clock = HandClock()
    upstream = make_upstream(clock=clock, upstream_breaker_failures=3, upstream_breaker_pause=7.0)
    url = fal.add(PATH, DATA)
    fal.script(PATH, [Behaviour(status=code) for code in (500, 502, 503)])
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            await upstream.open(url)
    with pytest.raises(HostResting) as caught:
        await upstream.open(url)
    assert caught.value.headers() == {"Retry-After": "7"}
    assert len(fal.requests()) == 3
    clock.time += 7
    fal.script(PATH, [Behaviour(delay=0.5)])
    probe = asyncio.create_task(upstream.open(url))

    async def is_tried() -> bool:
        return len(fal.requests()) == 4

    await wait_for(is_tried)
    with pytest.raises(HostResting):
        await upstream.open(url)
    assert await read_all(await probe) == DATA
    assert await fetch(upstream, url) == DATA


async def test_a_host_that_refuses_connections_is_left_alone_too(
    make_upstream: MakeUpstream, closed_port: int
) -> None:
    upstream = make_upstream(upstream_breaker_failures=2)
    url = f"http://127.0.0.1:{closed_port}/x.mp4"
    for expected in (SourceUnavailable, SourceUnavailable, HostResting):
        with pytest.raises(SourceUnavailable) as caught:
            await upstream.open(url)
        assert type(caught.value) is expected


@pytest.mark.parametrize(
    "how",
    [
        Behaviour(status=403),
        Behaviour(status=404),
        Behaviour(status=410),
        Behaviour(status=429),
        Behaviour(status=400),
        Behaviour(body=b""),
        Behaviour(content_type="text/html"),
    ],
)
async def test_facts_about_a_clip_never_count_against_its_host(
    fal: FakeFal, make_upstream: MakeUpstream, how: Behaviour
) -> None:
    upstream = make_upstream(upstream_breaker_failures=2)
    url = fal.add(PATH, DATA, how)
    for _ in range(6):
        with pytest.raises(FirstviewError) as caught:
            await upstream.open(url)
        assert type(caught.value) is not HostResting
    assert len(fal.requests()) == 6


async def test_a_resting_host_does_not_hold_up_another(
    fal: FakeFal, make_upstream: MakeUpstream
) -> None:
    upstream = make_upstream(upstream_breaker_failures=1)
    url = fal.add(PATH, DATA)
    fal.script(PATH, [Behaviour(status=500)])
    with pytest.raises(SourceUnavailable):
        await upstream.open(url)
    with pytest.raises(HostResting):
        await upstream.open(url)
    assert await fetch(upstream, fal.url(PATH, host="localhost")) == DATA
