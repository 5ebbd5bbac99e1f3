"""Gated clips: shown to who has a signed link, from every tier, and never called public."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.delivery import identity
from proxy.errors import CatalogUnavailable
from proxy.records import BodyHead, Generation, Status
from proxy.storage import keys
from proxy.upstream.fetch import Upstream
from tests.fakes.bucket import Fault, FaultyBucket
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.links import GATED, KEYS, PRIVATE, expired, signed
from tests.fixtures.looking import not_at_hand, path_of
from tests.fixtures.origin import ADMIN_TOKEN, MakeOrigin, Origin, running_origin, wait_for
from tests.fixtures.raw import RawReply, raw_client
from tests.fixtures.truth import Truth
from tests.integration.test_hits import elsewhere

__all__ = ["elsewhere"]

DATA = make_clip(40_000, 31)
PUBLIC = "public, max-age=31536000, immutable"
EDGE = "cloudflare-cdn-cache-control"


async def ask(origin: Origin, path: str, method: str = "GET", **fields: str) -> RawReply:
    """One request as it is written here, on a connection of its own."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    async with raw_client(origin.app.public_port) as client:
        return await client.get(path, named, method)


def caching(reply: RawReply) -> tuple[int, str]:
    return reply.status, reply.head.fields["cache-control"]


async def hit(origin: Origin, path: str) -> RawReply:
    """Ask until the reply is a hit."""
    await origin.stored("clip")
    await ask(origin, path)
    reply = await ask(origin, path)
    assert "; hit" in reply.head.fields["cache-status"]
    return reply


async def register(origin: Origin, request_id: str, **said: Any) -> dict[str, Any]:
    async with origin.client.put(
        origin.admin(f"/api/v1/generations/{request_id}"),
        json=said,
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status in {200, 201}, await response.text()
        row: dict[str, Any] = await response.json()
        return row


# --- a gated deployment -------------------------------------------------------------------------


async def test_every_tier_shows_a_gated_clip_to_a_link_alone_and_as_private(
    make_origin: MakeOrigin, elsewhere: list[str]
) -> None:
    """Peers 16 (tag#116): a private fetch was cached as public."""
    origin = await make_origin(**GATED)
    data = make_clip(600_000, 7)
    arrives = asyncio.Event()
    await origin.clip("clip", data, Behaviour(stall_at=300_000, stall_until=arrives))
    link = signed("clip")
    async with raw_client(origin.app.public_port) as first:
        await first.ask(link)
        cold = await first.head()
        assert "detail=upstream" in cold.fields["cache-status"]
        joined = await ask(origin, link, Range="bytes=0-99")
        assert "detail=flight" in joined.head.fields["cache-status"]
        assert (await ask(origin, path_of("clip"), Range="bytes=0-99")).status == 403
        head = await ask(origin, link, "HEAD")
        arrives.set()
        assert await first.rest() == data
    warm = await hit(origin, link)
    assert warm.body == data
    elsewhere.clear()
    etag = warm.head.fields["etag"]
    part = await ask(origin, signed("clip", url_safe=True), Range="bytes=5-9")
    unchanged = await ask(origin, link, If_None_Match=etag)
    known = await ask(origin, link, "HEAD")
    assert elsewhere == []  # hits with a link are answered in the lane for hits
    saved = await ask(origin, signed("clip", "download=a"))
    assert (part.status, part.body) == (206, data[5:10])
    assert [joined.status, head.status, unchanged.status, known.status] == [206, 200, 304, 200]
    assert saved.head.fields["content-disposition"] == 'attachment; filename="a.mp4"'
    for fields in (cold.fields, *(r.head.fields for r in (joined, head, warm, part, unchanged))):
        assert fields["cache-control"] == PRIVATE
        assert fields["etag"] == etag
        assert EDGE not in fields
    refused = await ask(origin, link, Range="bytes=900000-")
    assert caching(refused) == (416, "no-store")
    for method in ("GET", "HEAD"):
        assert caching(await ask(origin, path_of("clip"), method)) == (403, "no-store")
    assert (await ask(origin, path_of("clip"), If_None_Match=etag)).status == 403


async def test_who_has_no_link_sets_nothing_off_and_learns_nothing(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(**GATED)
    await origin.clip("clip", DATA)
    replies = [
        await ask(origin, path, method)
        for method in ("GET", "HEAD")
        for path in (path_of("clip"), expired("clip"), path_of("nobody"), expired("nobody"))
    ]
    assert {caching(reply) for reply in replies} == {(403, "no-store")}
    bodies = {reply.body.split(b'"request_id"')[0] for reply in replies if reply.body}
    assert len(bodies) == 1
    assert b"urn:firstview:problem:link-refused" in bodies.pop()
    assert origin.fal.requests() == []
    assert caching(await ask(origin, signed("nobody"))) == (404, "no-store")


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda link: link.replace("verify=", "verify=x"),
        lambda link: link + "&a=b",
        lambda link: f"{link}&{link.partition('?')[2]}",
        lambda link: link.replace("%", "%25"),
        lambda link: f"{path_of('clip')}?{signed('other').partition('?')[2]}",
        lambda link: link.replace("clip", "%63lip"),
        lambda link: expired("clip"),
    ],
    ids=["wrong", "not last", "twice", "encoded twice", "of another", "path encoded", "expired"],
)
async def test_a_bad_link_is_refused_at_a_hit_as_well(make_origin: MakeOrigin, spoilt: Any) -> None:
    origin = await make_origin(**GATED)
    await origin.clip("clip", DATA)
    link = signed("clip", key="old")
    await ask(origin, link)
    await hit(origin, link)
    assert spoilt(link) != link
    assert caching(await ask(origin, spoilt(link))) == (403, "no-store")


async def test_a_gated_clip_that_is_gone_is_not_called_so_in_public(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(**KEYS)
    for name, gated in (("clip", True), ("open", None)):
        await origin.clip(name, DATA, Behaviour(status=404), gated=gated)
    assert caching(await ask(origin, signed("clip"))) == (410, "no-store")
    assert caching(await ask(origin, path_of("open"))) == (410, "public, max-age=60")


async def test_the_edge_may_keep_what_it_checks(make_origin: MakeOrigin) -> None:
    origin = await make_origin(**GATED, edge_checks_links=True)
    await origin.clip("clip", DATA)
    await origin.clip("open", DATA, gated=False)
    cold = await ask(origin, signed("clip"))
    warm = await hit(origin, signed("clip"))
    for reply in (cold, warm):
        assert reply.head.fields["cache-control"] == PRIVATE
        assert reply.head.fields[EDGE] == "max-age=31536000"
    public = await ask(origin, path_of("open"))
    assert caching(public) == (200, PUBLIC)
    assert EDGE not in public.head.fields


# --- one generation -----------------------------------------------------------------------------


async def test_a_generation_is_gated_and_opened_at_once(
    make_origin: MakeOrigin, elsewhere: list[str]
) -> None:
    origin = await make_origin(**KEYS)
    await origin.clip("clip", DATA)
    assert caching(await ask(origin, path_of("clip"))) == (200, PUBLIC)
    await hit(origin, path_of("clip"))
    for gated in (True, False, True):
        row = await register(origin, "clip", gated=gated)
        assert row["gated"] is gated
        plain = await ask(origin, path_of("clip"))
        assert caching(plain) == ((403, "no-store") if gated else (200, PUBLIC))
        for _ in range(2):  # the second is a hit whatever was done for the first
            shown = await ask(origin, signed("clip", url_safe=True))
            assert caching(shown) == (200, PRIVATE if gated else PUBLIC)
            assert shown.body == DATA
    elsewhere.clear()
    await ask(origin, signed("clip"))
    assert elsewhere == []


async def test_who_waits_while_a_clip_is_gated_is_refused(make_origin: MakeOrigin) -> None:
    origin = await make_origin(**KEYS)
    arrives = asyncio.Event()
    await origin.clip("clip", DATA, Behaviour(stall_at=0, stall_until=arrives))
    viewers = [
        asyncio.create_task(ask(origin, path, Range="bytes=0-9"))
        for path in (path_of("clip"), signed("clip"))
    ]

    async def wait_for_it() -> bool:
        flight = origin.app.flights.get("clip")
        return flight is not None and flight.account.joins == 1

    await wait_for(wait_for_it)
    await register(origin, "clip", gated=True)
    arrives.set()
    assert [caching(await viewer) for viewer in viewers] == [(403, "no-store"), (206, PRIVATE)]


async def test_who_asks_what_a_clip_is_while_it_is_gated_is_refused(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = await make_origin(**KEYS)
    await origin.clip("clip", DATA)
    arrives, head_info = asyncio.Event(), Upstream.head_info
    asked: list[str] = []

    async def late(upstream: Upstream, url: str) -> BodyHead:
        asked.append(url)
        await arrives.wait()
        return await head_info(upstream, url)

    monkeypatch.setattr(Upstream, "head_info", late)
    viewer = asyncio.create_task(ask(origin, path_of("clip"), "HEAD"))

    async def is_asked() -> bool:
        return bool(asked)

    await wait_for(is_asked)
    await register(origin, "clip", gated=True)
    arrives.set()
    assert caching(await viewer) == (403, "no-store")


async def test_a_clip_that_nobody_knew_is_gated_while_it_comes_in(
    make_origin: MakeOrigin, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    data = make_clip(300_000, 31)
    truth.put("clip", data)
    faulty_bucket.faults.append(Fault(operation="GetObject", stall_reply_at=200_000))
    origin = await make_origin(bucket_url=truth.url, **KEYS)
    async with raw_client(origin.app.public_port) as first:
        await first.ask(path_of("clip"))
        assert "public" in (await first.head()).fields["cache-control"]
        await register(origin, "clip", gated=True, model="fal-ai/wan/v2.7")
        for method in ("GET", "HEAD"):
            refused = await ask(origin, path_of("clip"), method, Range="bytes=0-9")
            assert caching(refused) == (403, "no-store")
        joined = await ask(origin, signed("clip"), Range="bytes=0-9")
        assert caching(joined) == (206, PRIVATE)
        assert "collapsed" in joined.head.fields["cache-status"]


async def test_a_public_clip_is_shown_whatever_the_link(make_origin: MakeOrigin) -> None:
    origin = await make_origin(**GATED)
    await origin.clip("clip", DATA, gated=False)
    for path in (path_of("clip"), expired("clip"), signed("clip")):
        assert caching(await ask(origin, path)) == (200, PUBLIC)
    await hit(origin, path_of("clip"))
    for path in (path_of("clip"), expired("clip"), signed("clip")):
        assert caching(await ask(origin, path)) == (200, PUBLIC)


async def test_without_keys_nobody_sees_a_gated_generation(make_origin: MakeOrigin) -> None:
    origin = await make_origin()
    await origin.clip("clip", DATA, gated=True)
    for path in (path_of("clip"), signed("clip")):
        assert caching(await ask(origin, path)) == (403, "no-store")
    assert origin.fal.requests() == []


@pytest.mark.parametrize("gated", [True, False])
async def test_what_was_said_of_a_clip_holds_while_the_catalog_is_away(
    tmp_path: Path, fal: FakeFal, monkeypatch: pytest.MonkeyPatch, gated: bool
) -> None:
    settings = {**KEYS, "gated": not gated}
    async with running_origin(tmp_path / "data", fal, **settings) as origin:
        await origin.clip("clip", DATA, gated=gated)
        assert (await ask(origin, signed("clip"))).status == 200
        await origin.stored("clip")
    async with running_origin(tmp_path / "data", fal, **settings) as origin:

        async def away(_request_id: str) -> Generation | None:
            await asyncio.sleep(0)
            raise CatalogUnavailable

        monkeypatch.setattr(origin.app.generations, "at_hand", not_at_hand)
        monkeypatch.setattr(origin.app.generations, "get", away)
        for _ in range(2):
            reply = await ask(origin, path_of("clip"))
            assert caching(reply) == ((403, "no-store") if gated else (200, PUBLIC))
            assert caching(await ask(origin, signed("clip"))) == (200, PRIVATE if gated else PUBLIC)


async def test_a_clip_that_was_gated_later_stays_so_while_the_catalog_is_away(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = await make_origin(**KEYS, facts_ttl="50ms")
    await origin.clip("clip", DATA)
    assert caching(await ask(origin, path_of("clip"))) == (200, PUBLIC)
    await origin.stored("clip")
    await register(origin, "clip", gated=True)
    assert (await ask(origin, path_of("clip"))).status == 403
    asked: list[str] = []

    async def away(request_id: str) -> Generation | None:
        asked.append(request_id)
        await asyncio.sleep(0)
        raise CatalogUnavailable

    monkeypatch.setattr(origin.app.generations, "at_hand", not_at_hand)
    monkeypatch.setattr(origin.app.generations, "get", away)
    await asyncio.sleep(0.06)  # nothing is believed any more
    for _ in range(2):
        assert caching(await ask(origin, path_of("clip"))) == (403, "no-store")
        assert caching(await ask(origin, path_of("clip"), "HEAD")) == (403, "no-store")
        assert caching(await ask(origin, signed("clip"))) == (200, PRIVATE)
    assert asked


@pytest.mark.parametrize("gated", [True, False, None])
def test_a_catalog_that_is_rebuilt_from_the_bucket_knows_it_too(gated: bool | None) -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    row = Generation(request_id="clip", status=Status.AVAILABLE, created_at=noon, gated=gated)
    head = BodyHead(start=0, stop=10, total=10)
    facts = identity.facts_from_source(row, "https://fal.media/a.mp4", head, 10)
    metadata = identity.metadata_of(facts)
    assert metadata.get(keys.META_GATED) == {True: "yes", False: "no", None: None}[gated]
    found = identity.facts_from_object(
        "clip", None, size=10, object_etag="e", last_modified=noon, metadata=metadata
    )
    assert found == facts
