"""Whatever fal.media does wrong, a viewer gets the right bytes or an error that looks like one.

Each fault is played to a viewer on a bare socket, who can tell a reset from a clean end. Afterwards
the bucket holds the right object or none, the spool is empty, and no descriptor is left open.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from proxy.storage import keys
from tests.fakes.fal import Behaviour, make_clip
from tests.fakes.fal.behaviour import FOREVER
from tests.fixtures.looking import nothing_is_left, viewers
from tests.fixtures.origin import MakeOrigin, Origin, wait_for
from tests.fixtures.raw import RawReply, raw_client

DATA = make_clip(400_000, 70)
END = len(DATA)
GOOD = Behaviour()
DOWN = Behaviour(status=503)
NO_TAG = Behaviour(etag="none")
WEAK = Behaviour(etag="weak")
NO_RANGES = Behaviour(ranges="ignore")
HTML = b"<!doctype html><title>Sign in</title>" * 20

# Waits short enough for a test, long enough for a busy machine: a needless resume harms nothing.
QUICK = {
    "upstream_stall_timeout": "400ms",
    "upstream_first_byte_timeout": "1s",
    "fill_stall_timeout": "1s",
    "upstream_breaker_failures": 1000,
}


@dataclass(frozen=True)
class Fault:
    """What the source does, first and then always, and what the viewer has to see.

    `sees` is "right"; "reset", which is a reply that began and was reset before its end; or the
    status of a proper error.
    """

    name: str
    first: tuple[Behaviour, ...]
    sees: Literal["right", "reset"] | int
    then: Behaviour = GOOD
    known: dict[str, Any] = field(default_factory=dict)


def always(name: str, how: Behaviour, sees: Literal["right", "reset"] | int) -> Fault:
    return Fault(name, (), sees, then=how)


def then_resume(name: str, broken: Behaviour, how: Behaviour, sees: Any) -> Fault:
    return Fault(name, (broken,), sees, then=how)


def resets(how: Behaviour) -> tuple[Behaviour, ...]:
    """Three resets, each further on, whether the body is continued or begins again."""
    if how.etag == "strong" and how.ranges == "honour":
        return (replace(how, reset_at=100_000),) * 3
    return tuple(replace(how, reset_at=at) for at in (100_000, 200_000, 300_000))


_CUTS = {"at once": 100, "early": 5_000, "late": END - 1}

FAULTS = [
    always("slow", Behaviour(rate=800_000), "right"),
    always("slow to begin", Behaviour(delay=0.3, first_byte_delay=0.2), "right"),
    *(Fault(f"cut {when}", (Behaviour(cut_at=at),), "right") for when, at in _CUTS.items()),
    *(Fault(f"reset {when}", (Behaviour(reset_at=at),), "right") for when, at in _CUTS.items()),
    *(
        Fault(f"cut {when}, then down", (Behaviour(cut_at=at),), "reset", then=DOWN)
        for when, at in _CUTS.items()
    ),
    Fault("cut before the first byte", (Behaviour(cut_at=0),), 502),
    Fault("reset before the first byte", (Behaviour(reset_at=0),), 502),
    Fault("stalls, then goes on", (Behaviour(stall_at=200_000),), "right"),
    Fault("stalls, then is down", (Behaviour(stall_at=200_000),), "reset", then=DOWN),
    always("stalls before the first byte", Behaviour(stall_at=0), 504),
    always("blocks", Behaviour(delay=FOREVER), 504),
    always("blocks after the head", Behaviour(first_byte_delay=FOREVER), 504),
    always("closes", Behaviour(hang_up="fin"), 502),
    always("resets", Behaviour(hang_up="rst"), 502),
    always("announces more than it has", Behaviour(length_lie=1000), "reset"),
    always("announces less than it has", Behaviour(length_lie=-1000), "reset"),
    always("chunked", Behaviour(framing="chunked"), "right"),
    always("chunked without its end", Behaviour(framing="chunked-open"), 502),
    always("chunked, cut", Behaviour(framing="chunked", cut_at=200_000), 502),
    always("no length", Behaviour(framing="close"), 502),
    Fault(
        "no length, but one is registered",
        (),
        "right",
        then=Behaviour(framing="close"),
        known={"content_length": END},
    ),
    Fault(
        "no length, cut before the registered one",
        (Behaviour(framing="close", cut_at=200_000),),
        "right",
        known={"content_length": END},
    ),
    Fault("another length than registered", (), 502, known={"content_length": END + 1}),
    always("empty", Behaviour(body=b""), 502),
    always("HTML", Behaviour(body=HTML, content_type="text/html"), 502),
    always("JSON", Behaviour(body=b'{"detail": "gone"}', content_type="application/json"), 502),
    always("HTML that is called a video", Behaviour(body=HTML), 502),
    always("shorter than an mp4's first box", Behaviour(body=b"12345"), 502),
    always("gzip", Behaviour(gzip=True), 502),
    always("not HTTP", Behaviour(raw_head=b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), 502),
    always("a part nobody asked for", Behaviour(status=206), 502),
    *(always(str(status), Behaviour(status=status), 410) for status in (403, 404, 410)),
    always("429", Behaviour(status=429), 503),
    *(always(str(status), Behaviour(status=status), 502) for status in (500, 502, 503)),
    Fault("down once", (DOWN,), 502),
    then_resume("ignores the range", Behaviour(reset_at=200_000), NO_RANGES, "right"),
    then_resume(
        "a part from elsewhere",
        Behaviour(reset_at=200_000),
        Behaviour(ranges="wrong-start"),
        "reset",
    ),
    then_resume(
        "a part of another total",
        Behaviour(reset_at=200_000),
        Behaviour(ranges="wrong-total"),
        "reset",
    ),
    then_resume(
        "a part at a place in no language",
        Behaviour(reset_at=200_000),
        Behaviour(ranges="garbage"),
        "reset",
    ),
    then_resume(
        "a part without a place", Behaviour(reset_at=200_000), Behaviour(ranges="missing"), "reset"
    ),
    then_resume(
        "several parts", Behaviour(reset_at=200_000), Behaviour(ranges="multipart"), "reset"
    ),
    then_resume(
        "another ETag", Behaviour(reset_at=200_000, etag='"a"'), Behaviour(etag='"b"'), "reset"
    ),
    then_resume("no ETag any more", Behaviour(reset_at=200_000), NO_TAG, "reset"),
    Fault("weak ETag", (replace(WEAK, reset_at=200_000),), "right", then=WEAK),
    Fault("no ETag", (replace(NO_TAG, reset_at=200_000),), "right", then=NO_TAG),
    Fault(
        "other bytes, no ETag",
        (replace(NO_TAG, reset_at=200_000),),
        "reset",
        then=replace(NO_TAG, body=make_clip(END, 71)),
    ),
    Fault(
        "other bytes, weak ETag",
        (Behaviour(reset_at=200_000, etag='W/"a"'),),
        "reset",
        then=Behaviour(etag='W/"a"', body=make_clip(END, 71)),
    ),
    *(
        Fault(f"resets three times, {name}", resets(how), "right", then=how)
        for name, how in (
            ("ranges", GOOD),
            ("no ETag", NO_TAG),
            ("no ranges", NO_RANGES),
            ("weak ETag", WEAK),
        )
    ),
    always("MD5, right", Behaviour(md5="right"), "right"),
    always("MD5, wrong", Behaviour(md5="wrong"), "reset"),
]


@pytest.fixture
async def origin(make_origin: MakeOrigin) -> Origin:
    return await make_origin(**QUICK)


def judge(reply: RawReply, fault: Fault) -> None:
    """Hold a reply against what the fault must look like."""
    if fault.sees == "right":
        assert (reply.status, reply.is_complete, reply.end) == (200, True, "open")
        assert reply.body == DATA
    elif fault.sees == "reset":
        assert (reply.status, reply.is_complete, reply.end) == (200, False, "rst")
        assert DATA.startswith(reply.body)
    else:
        assert (reply.status, reply.is_complete) == (fault.sees, True)
        assert reply.head.fields["content-type"] == "application/problem+json"
        gone = fault.sees == 410
        assert reply.head.fields["cache-control"] == ("public, max-age=60" if gone else "no-store")
        assert ("retry-after" in reply.head.fields) == (fault.sees == 503)
        assert b"127.0.0.1" not in reply.body
        assert b"/files/" not in reply.body


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_a_fault_of_the_source_never_looks_like_a_whole_clip(
    origin: Origin, fault: Fault
) -> None:
    """Peers 1, 2, 3, 4, 5, 20, 29, 34, 35, 37, 38: whatever it is, it does not look whole.

    artifact-keeper#1912, artifact-keeper#2929, squid bug 4735, harbor#23373, harbor#23601,
    pulpcore#5012, nginx-s3-gateway, varnish#4276, trafficserver#4251, athens#1957,
    dragonfly#2693.
    """
    path = await origin.clip("clip", DATA, fault.then, **fault.known)
    origin.fal.script(path, fault.first)
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get("/videos/clip.mp4")
        judge(reply, fault)
        if reply.end == "open":  # an error is no reason to leave: the connection goes on
            assert (await viewer.get("/healthz")).status == 200
    await nothing_is_left(origin)
    info = await origin.app.bucket.head(keys.clip_key("clip"))
    row = await origin.row("clip")
    assert row is not None
    if fault.sees == "right":
        row = await origin.stored("clip")
        _, body = await origin.get("clip")
        assert body == DATA
    else:
        assert info is None
        assert row.status == "available"


async def test_a_redirect_to_an_allowed_host_is_followed(origin: Origin) -> None:
    target = origin.fal.add("/elsewhere.mp4", DATA)
    path = await origin.clip("clip", DATA, Behaviour(location=target))
    _, body = await origin.get("clip")
    assert body == DATA
    await origin.stored("clip")
    assert len(origin.fal.gets(path)) == len(origin.fal.gets("/elsewhere.mp4")) == 1


async def test_a_redirect_off_the_list_is_an_error_and_not_followed(origin: Origin) -> None:
    origin.fal.add("/elsewhere.mp4", DATA)
    target = origin.fal.url("/elsewhere.mp4", host="localhost")
    await origin.clip("clip", DATA, Behaviour(location=target))
    response, body = await origin.get("clip")
    assert (response.status, response.content_type) == (502, "application/problem+json")
    assert b"localhost" not in body
    assert origin.fal.requests("/elsewhere.mp4") == []
    await nothing_is_left(origin)


async def test_every_viewer_of_a_fill_that_fails_is_reset(origin: Origin) -> None:
    """Peers 32 (varnish#2038): a status of 200 without its bytes is not left standing."""
    fail = asyncio.Event()
    path = await origin.clip("clip", DATA, DOWN)
    origin.fal.script(path, [Behaviour(stall_at=200_000, stall_until=fail, cut_at=200_000)])

    async def watch() -> RawReply:
        async with raw_client(origin.app.public_port) as viewer:
            return await viewer.get("/videos/clip.mp4")

    watching = [asyncio.create_task(watch()) for _ in range(20)]
    await viewers(origin, 20)
    fail.set()
    for reply in await asyncio.gather(*watching):
        assert (reply.status, reply.end) == (200, "rst")
        assert DATA[:200_000].startswith(reply.body)
    await nothing_is_left(origin)


async def test_a_clip_that_failed_is_filled_by_the_next_view(origin: Origin) -> None:
    path = await origin.clip("clip", DATA)
    origin.fal.script(path, [Behaviour(cut_at=200_000, etag='"a"'), Behaviour(etag='"b"')])
    async with raw_client(origin.app.public_port) as viewer:
        assert (await viewer.get("/videos/clip.mp4")).end == "rst"
    await nothing_is_left(origin)
    _, body = await origin.get("clip")
    assert body == DATA
    await origin.stored("clip")


async def test_a_range_of_a_fill_that_fails_is_reset_too(origin: Origin) -> None:
    path = await origin.clip("clip", DATA, DOWN)
    origin.fal.script(path, [Behaviour(cut_at=200_000)])
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get("/videos/clip.mp4", {"Range": "bytes=100000-299999"})
    assert (reply.status, reply.end, reply.is_complete) == (206, "rst", False)
    assert DATA[100_000:200_000].startswith(reply.body)
    await nothing_is_left(origin)


FAR_FAULTS = [
    Behaviour(ranges="wrong-start"),
    Behaviour(ranges="wrong-total"),
    Behaviour(ranges="garbage"),
    Behaviour(ranges="missing"),
    Behaviour(ranges="multipart"),
    Behaviour(ranges="ignore"),
    Behaviour(reset_at=50_000),
    Behaviour(cut_at=50_000),
    Behaviour(cut_at=0),
    Behaviour(stall_at=50_000),
    Behaviour(length_lie=1000),
    Behaviour(length_lie=-1000),
    Behaviour(status=500),
    Behaviour(status=404),
    Behaviour(hang_up="rst"),
    Behaviour(etag='"another"'),
    Behaviour(body=HTML, content_type="text/html", ranges="ignore"),
    Behaviour(framing="chunked-open"),
]


@pytest.mark.parametrize("how", FAR_FAULTS, ids=repr)
async def test_a_far_range_that_fails_is_served_by_the_fill(
    make_origin: MakeOrigin, how: Behaviour
) -> None:
    """Peers 5, 34, 36: what came beside the fill is the clip's, or it is not sent at all."""
    origin = await make_origin(seek_ahead="64KiB", **QUICK)
    begin = asyncio.Event()
    path = await origin.clip("clip", DATA)
    origin.fal.script(path, [Behaviour(stall_at=1000, stall_until=begin), how])
    async with (
        raw_client(origin.app.public_port) as first,
        raw_client(origin.app.public_port) as far,
    ):
        await first.ask("/videos/clip.mp4")
        await first.head()
        await far.ask("/videos/clip.mp4", {"Range": "bytes=300000-"})
        head = await far.head()

        async def answered() -> bool:
            beside = origin.fal.gets(path)[1:]
            return bool(beside) and (beside[0].finished or beside[0].aborted)

        if how.stall_at is None and how.hang_up is None:
            await wait_for(answered)
        begin.set()
        assert (head.status, await far.rest()) == (206, DATA[300_000:])
        assert await first.rest() == DATA
    await origin.stored("clip")
    await nothing_is_left(origin)


@pytest.mark.parametrize(
    "how", [how for how in FAR_FAULTS if how.ranges != "wrong-total"], ids=repr
)
async def test_a_cold_far_range_that_fails_is_served_by_the_fill(
    make_origin: MakeOrigin, how: Behaviour
) -> None:
    """Peers 5, 34, 36: also when the range answers before the fill has begun."""
    origin = await make_origin(seek_ahead="64KiB", **QUICK)
    path = await origin.clip("clip", DATA, Behaviour(delay=0.2))
    origin.fal.script(path, [how], of_ranges=True)
    async with raw_client(origin.app.public_port) as far:
        reply = await far.get("/videos/clip.mp4", {"Range": "bytes=300000-"})
    assert (reply.status, reply.end) == (206, "open")
    assert reply.body == DATA[300_000:]
    assert reply.head.fields["content-range"] == f"bytes 300000-{END - 1}/{END}"
    whole, _ = await origin.get("clip")
    assert whole.headers["ETag"] == reply.head.fields["etag"]
    await origin.stored("clip")
    assert {request.range for request in origin.fal.gets(path)} >= {None, "bytes=300000-"}
    await nothing_is_left(origin)


async def test_a_range_that_told_another_length_is_not_continued_from_the_fill(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(seek_ahead="64KiB", **QUICK)
    path = await origin.clip("clip", DATA, Behaviour(delay=0.2))
    lie = Behaviour(ranges="wrong-total", reset_at=50_000)
    origin.fal.script(path, [lie], of_ranges=True)
    async with raw_client(origin.app.public_port) as far:
        reply = await far.get("/videos/clip.mp4", {"Range": "bytes=300000-399999"})
    assert (reply.status, reply.is_complete, reply.end) == (206, False, "rst")
    await origin.stored("clip")
    await nothing_is_left(origin)


# -- HEAD, which starts no fill ---


@pytest.mark.parametrize(
    ("how", "status"),
    [
        (GOOD, 200),
        (NO_TAG, 200),
        (Behaviour(framing="chunked"), 200),
        (Behaviour(framing="chunked", ranges="ignore"), 502),
        (Behaviour(framing="close", ranges="ignore"), 502),
        (Behaviour(body=b""), 502),
        (Behaviour(content_type="text/html"), 502),
        (Behaviour(status=404), 410),
        (Behaviour(status=429), 503),
        (Behaviour(status=500), 502),
        (Behaviour(hang_up="rst"), 502),
        (Behaviour(delay=FOREVER), 504),
    ],
    ids=[
        "good",
        "no ETag",
        "chunked, ranges",
        "chunked",
        "no length",
        "empty",
        "HTML",
        "404",
        "429",
        "500",
        "resets",
        "blocks",
    ],
)
async def test_a_cold_head_says_what_is_known_or_that_nothing_is(
    origin: Origin, how: Behaviour, status: int
) -> None:
    await origin.clip("clip", DATA, how)
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get("/videos/clip.mp4", method="HEAD")
    assert (reply.status, reply.body) == (status, b"")
    if status == 200:
        assert reply.head.length == END
        etag = reply.head.fields["etag"]
        response, _ = await origin.get("clip")
        assert response.headers["ETag"] == etag
        await origin.stored("clip")
    else:
        assert "etag" not in reply.head.fields
        assert origin.leftovers() == []
    await nothing_is_left(origin)
