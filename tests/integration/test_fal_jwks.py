"""Fetching fal's key set: one bounded request, whatever the other side does."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import FirstviewError, SourceTimeout, SourceUnavailable, SourceUntrusted
from proxy.settings import Settings
from proxy.upstream.fal_jwks import LARGEST, FalJwks
from tests.fakes.fal import Behaviour, FakeFal
from tests.fakes.webhooks import JWKS_PATH, Signer, publish
from tests.fixtures.origin import settings_for

SIGNER = Signer(1)


def settings(fal: FakeFal, **changes: object) -> Settings:
    return settings_for(Path("data"), fal_jwks_url=fal.url(JWKS_PATH), **changes)


async def test_the_document_is_fetched_as_it_is(fal: FakeFal) -> None:
    publish(fal, SIGNER)
    async with FalJwks(settings(fal, fal_key="secret-key", upstream_token="secret")) as source:
        assert await source.fetch() == SIGNER.jwks()
        assert await source.fetch() == SIGNER.jwks()
    assert len(fal.requests(JWKS_PATH)) == 2
    for request in fal.requests():
        assert "authorization" not in request.headers
        assert "secret" not in str(request.headers)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (Behaviour(status=404), SourceUnavailable),
        (Behaviour(status=500), SourceUnavailable),
        (Behaviour(status=206), SourceUnavailable),
        (Behaviour(hang_up="rst"), SourceUnavailable),
        (Behaviour(hang_up="fin"), SourceUnavailable),
        (Behaviour(cut_at=10), SourceUnavailable),
        (Behaviour(raw_head=b"SSH-2.0-x\r\n\r\n"), SourceUnavailable),
        (Behaviour(body=b" " * (LARGEST + 1)), SourceUnavailable),
        (Behaviour(body=b" " * (LARGEST + 1), framing="chunked"), SourceUnavailable),
        (Behaviour(delay=float("inf")), SourceTimeout),
        (Behaviour(stall_at=10), SourceTimeout),
        (Behaviour(rate=100.0), SourceTimeout),
    ],
)
async def test_whatever_goes_wrong_is_one_of_our_errors(
    fal: FakeFal, how: Behaviour, error: type[FirstviewError]
) -> None:
    fal.add(JWKS_PATH, SIGNER.jwks(*(Signer(number) for number in range(2, 6))), how)
    patience = "200ms" if error is SourceTimeout else "10s"
    async with FalJwks(settings(fal, fal_api_timeout=patience)) as source:
        with pytest.raises(error):
            await source.fetch()
    # aiohttp itself asks once more where a connection ends without an answer.
    assert len(fal.requests()) == (1 if how.hang_up is None else 2)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(fal: FakeFal, status: int) -> None:
    elsewhere = fal.add("/elsewhere.json", SIGNER.jwks())
    fal.add(JWKS_PATH, b"", Behaviour(status=status, location=elsewhere))
    async with FalJwks(settings(fal)) as source:
        with pytest.raises(SourceUnavailable, match=str(status)):
            await source.fetch()
    assert fal.requests("/elsewhere.json") == []


async def test_the_largest_document_is_taken(fal: FakeFal) -> None:
    fal.add(JWKS_PATH, b" " * LARGEST)
    async with FalJwks(settings(fal)) as source:
        assert len(await source.fetch()) == LARGEST


async def test_nobody_listens(fal: FakeFal) -> None:
    configured = settings(fal)
    await fal.stop()
    async with FalJwks(configured) as source:
        with pytest.raises(SourceUnavailable):
            await source.fetch()


async def test_keys_are_not_believed_from_a_private_address() -> None:
    strict = Settings(_env_file=None, fal_jwks_url="https://127.0.0.1:1/jwks.json")  # type: ignore[call-arg]
    async with FalJwks(strict) as source:
        with pytest.raises(SourceUntrusted):
            await source.fetch()
