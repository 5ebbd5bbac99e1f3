"""An origin that answers to its edge alone, in both lanes, but to who cannot know the secret."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from tests.fakes.fal import make_clip
from tests.fixtures.looking import path_of
from tests.fixtures.origin import MakeOrigin, Origin
from tests.integration.test_gated_clips import ask, caching
from tests.integration.test_hits import elsewhere

__all__ = ["elsewhere"]

NEW, OLD = "the-newest-secret-of-the-edge", "the-former-secret-of-the-edge"
DATA = make_clip(40_000, 5)


@pytest.fixture
async def origin(make_origin: MakeOrigin) -> Origin:
    origin = await make_origin(origin_secret=f"{NEW},{OLD}")
    await origin.clip("clip", DATA)
    return origin


async def test_only_what_comes_through_the_edge_is_answered(
    origin: Origin, elsewhere: list[str]
) -> None:
    assert caching(await ask(origin, path_of("clip"))) == (403, "no-store")
    assert origin.fal.requests() == []
    for secret in (NEW, OLD):
        assert (await ask(origin, path_of("clip"), X_Firstview_Origin=secret)).body == DATA
    await origin.stored("clip")
    await ask(origin, path_of("clip"), X_Firstview_Origin=NEW)
    elsewhere.clear()
    assert (await ask(origin, path_of("clip"), X_Firstview_Origin=OLD)).body == DATA
    assert elsewhere == []  # hits stay in their lane
    for secret in ("", NEW[:-1], f"{NEW}, {OLD}"):
        assert (await ask(origin, path_of("clip"), X_Firstview_Origin=secret)).status == 403


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/healthz", "GET", 200),
        ("/healthz", "HEAD", 200),
        ("/webhooks/fal", "POST", 401),  # fal's signature is asked for, not the edge's secret
        (path_of("clip"), "OPTIONS", 403),
        (path_of("clip"), "DELETE", 403),
        ("/nothing", "GET", 403),
        ("/videos/_.mp4", "GET", 403),
    ],
)
async def test_only_health_and_signed_webhooks_are_exempt(
    origin: Origin, path: str, method: str, status: int
) -> None:
    assert (await ask(origin, path, method)).status == status


@pytest.mark.parametrize("locked", [True, False])
async def test_the_clients_address_is_the_edges_word_behind_the_lock_alone(
    make_origin: MakeOrigin, locked: bool
) -> None:
    origin = await make_origin(origin_secret=NEW if locked else "")
    with capture_logs() as lines:
        fields = {"X_Firstview_Origin": NEW, "CF_Connecting_IP": "203.0.113.7"}
        assert (await ask(origin, "/nothing", **fields)).status == 404
    [refused] = [line for line in lines if line["event"] == "request"]
    assert refused["client"] == ("203.0.113.7" if locked else "127.0.0.1")
