"""firstview and the rules of deploy/cloudflare/ together: an edge that obeys them before it."""

from __future__ import annotations

from typing import Any

from tests.fakes.edge import Edge
from tests.fakes.fal import make_clip
from tests.fixtures.links import GATED, KEYS, LIFE, NEW, OLD, expired, signed
from tests.fixtures.origin import MakeOrigin, Origin
from tests.fixtures.terraform import SECRET, Module

DATA = make_clip(30_000, 7)
CLIP = "/videos/clip.mp4"
YEAR = 365 * 24 * 3600
CHECKED: dict[str, Any] = {
    "check_tokens": True,
    "signing_secrets": [NEW.secret.decode(), OLD.secret.decode()],
    "link_life": LIFE,
}


async def behind(
    make_origin: MakeOrigin, given: dict[str, Any] | None = None, **settings: Any
) -> tuple[Origin, Edge]:
    """A firstview that answers to the edge alone, with a clip, and that edge."""
    origin = await make_origin(origin_secret=SECRET, **settings)
    await origin.clip("clip", DATA)
    plan = Module().plan(origin_secret=SECRET, **(given or {}))
    return origin, Edge(plan, origin.client, origin.app.public_port)


async def test_a_clip_is_fetched_once_whatever_its_query(make_origin: MakeOrigin) -> None:
    origin, edge = await behind(make_origin)
    seen = [await edge.get(CLIP + more) for more in ("", "", "?v=2", "?verify=1800000000-abc")]
    assert [one.cache for one in seen] == ["MISS", "HIT", "HIT", "HIT"]
    assert all(one.body == DATA for one in seen)
    assert edge.asked == [CLIP]
    edge.ahead += YEAR
    assert (await edge.get(CLIP)).cache == "MISS"
    assert origin.gets("clip") == 1


async def test_nobody_gets_past_the_edge_or_plays_it(make_origin: MakeOrigin) -> None:
    origin, edge = await behind(make_origin)
    response, _ = await origin.get("clip")
    assert response.status == 403
    assert (await edge.get(CLIP, X_Firstview_Origin="a visitor's own")).body == DATA


async def test_a_gated_clip_is_kept_at_the_edge_and_shown_to_who_has_a_link(
    make_origin: MakeOrigin,
) -> None:
    _, edge = await behind(make_origin, CHECKED, **GATED, edge_checks_links=True)
    first = await edge.get(signed("clip"))
    assert (first.cache, first.body) == ("MISS", DATA)
    assert first.fields["cache-control"].startswith("private")
    assert "cloudflare-cdn-cache-control" not in first.fields
    for link in (signed("clip", life=60), signed("clip", key="old")):
        again = await edge.get(link)
        assert (again.cache, again.body) == ("HIT", DATA)
    for wrong in (CLIP, expired("clip"), signed("other").replace("other", "clip")):
        assert (await edge.get(wrong)).cache == "BLOCKED"
    assert len(edge.asked) == 1


async def test_without_a_rule_at_the_edge_a_gated_clip_is_checked_at_every_view(
    make_origin: MakeOrigin,
) -> None:
    _, edge = await behind(make_origin, **GATED)
    for _ in range(2):
        seen = await edge.get(signed("clip"))
        assert (seen.cache, seen.body) == ("MISS", DATA)
        assert (await edge.get(CLIP)).status == 403
    assert len(edge.asked) == 4


async def test_an_edge_that_is_told_to_keep_gated_clips_before_it_checks_shows_them_to_all(
    make_origin: MakeOrigin,
) -> None:
    # Why docs/cloudflare.md says in which order.
    _, edge = await behind(make_origin, **GATED, edge_checks_links=True)
    await edge.get(signed("clip"))
    assert (await edge.get(CLIP)).body == DATA
    edge.purge("firstview")
    assert (await edge.get(CLIP)).status == 403


async def test_public_clips_are_kept_beside_gated_ones(make_origin: MakeOrigin) -> None:
    origin, edge = await behind(make_origin, **KEYS)
    await origin.clip("vip", DATA, gated=True)
    for _ in range(2):
        await edge.get(CLIP)
        await edge.get(signed("vip"))
    assert edge.asked.count(CLIP) == 1
    assert len(edge.asked) == 3


async def test_the_name_that_somebody_saves_a_clip_under_is_nobody_elses(
    make_origin: MakeOrigin,
) -> None:
    _, edge = await behind(make_origin)
    for more, name in (
        ("?download=mine.mp4", "mine"),
        ("", None),
        ("?download=yours.mp4", "yours"),
    ):
        for cache in ("MISS", "HIT"):
            seen = await edge.get(CLIP + more)
            assert (seen.cache, seen.body) == (cache, DATA)
            disposition = seen.fields.get("content-disposition")
            assert name is None if disposition is None else f"{name}.mp4" in disposition


async def test_a_name_in_disguise_is_neither_taken_nor_kept_for_all(
    make_origin: MakeOrigin,
) -> None:
    _, edge = await behind(make_origin)
    for more in ("?%64ownload=evil.mp4", "?DOWNLOAD=evil.mp4", "?d%6fwnload=evil.mp4&x"):
        assert "content-disposition" not in (await edge.get(CLIP + more)).fields
    assert edge.asked == [f"{CLIP}?%64ownload=evil.mp4"]


async def test_what_is_not_there_yet_is_asked_for_again(make_origin: MakeOrigin) -> None:
    origin, edge = await behind(make_origin)
    assert (await edge.get("/videos/later.mp4")).status == 404
    await origin.clip("later", DATA)
    await origin.app.locator.forget("later")
    assert (await edge.get("/videos/later.mp4")).body == DATA


async def test_a_purge_by_tag_is_felt_by_the_clips_that_have_it(make_origin: MakeOrigin) -> None:
    origin, edge = await behind(make_origin)
    await origin.clip("second", DATA, model="fal-ai/wan/v2.7")
    for tag, gone in (("CLIP", [CLIP]), ("firstview", [CLIP, "/videos/second.mp4"])):
        for uri in (CLIP, "/videos/second.mp4"):
            await edge.get(uri)
        edge.purge(tag)
        edge.asked.clear()
        for uri in (CLIP, "/videos/second.mp4"):
            await edge.get(uri)
        assert edge.asked == gone
