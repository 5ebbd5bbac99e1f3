"""fal's keys: read with patience, asked for with restraint."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from proxy.clock import Clock
from proxy.errors import BadSignature, FirstviewError, SignersUnknown, SourceUnavailable
from proxy.security.fal_signature import Claims
from proxy.security.jwks import MOST_KEYS, BadKeySet, Signers, parse_jwks
from proxy.settings import Settings
from tests.fakes.webhooks import Signer

ONE, TWO, THREE = Signer(1), Signer(2), Signer(3)
NOW = 1_800_000_000


# -- the document ---


def raw(document: bytes) -> list[bytes]:
    return [key.public_bytes_raw() for key in parse_jwks(document)]


@pytest.mark.parametrize("padded", [True, False])
def test_keys_are_read_padded_or_not(padded: bool) -> None:
    assert raw(ONE.jwks(TWO, padded=padded)) == [ONE.public, TWO.public]


def test_other_keys_are_passed_over() -> None:
    x = base64.urlsafe_b64encode(TWO.public).decode()
    entries: list[Any] = [
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "OKP", "crv": "X25519", "x": x},
        {"kty": "OKP", "crv": "Ed448", "x": x},
        {"kty": "EC", "crv": "Ed25519", "x": x},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "OKP", "crv": "Ed25519", "x": None},
        {"kty": "OKP", "crv": "Ed25519", "x": x[:-2]},
        {"kty": "OKP", "crv": "Ed25519", "x": x + "="},
        {"kty": "OKP", "crv": "Ed25519", "x": "+" * 43},
        {"kty": ["OKP"], "crv": {"Ed25519": 1}, "x": x},
        None,
        "key",
        ONE.jwk(),
    ]
    assert raw(json.dumps({"keys": entries}).encode()) == [ONE.public]


def test_no_more_than_64_keys_are_used() -> None:
    document = json.dumps({"keys": [ONE.jwk()] * (MOST_KEYS + 10)}).encode()
    assert len(parse_jwks(document)) == MOST_KEYS == 64


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": null}',
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "RSA"}]}',
        b"[" * 5000,
    ],
)
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(BadKeySet):
        parse_jwks(document)


# -- asking for it ---


class Time(Clock):
    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


class Publisher:
    """Where the key set comes from, and how often it was asked for."""

    def __init__(self, *signers: Signer) -> None:
        self.signers = signers
        self.asked = 0
        self.error: Exception | None = None
        self.began = asyncio.Event()
        self.gate: asyncio.Event | None = None

    async def fetch(self) -> bytes:
        self.asked += 1
        self.began.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.signers[0].jwks(*self.signers[1:])


MakeSigners = Callable[[Publisher], Signers]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def make(time: Time) -> MakeSigners:
    settings = Settings(_env_file=None, jwks_max_age=86_400, jwks_refetch_wait=60)  # type: ignore[call-arg]
    return lambda publisher: Signers(settings, publisher.fetch, time)


async def check(signers: Signers, by: Signer, at: int = NOW) -> None:
    claims = Claims.read(by.headers(b"body", at=at).items())
    digest = hashlib.sha256(b"body").digest()
    await signers.verify(claims, digest, now=NOW, tolerance=300.0)


async def test_keys_are_asked_for_once_and_kept_a_day(make: MakeSigners, time: Time) -> None:
    publisher = Publisher(ONE, TWO)
    signers = make(publisher)
    for _ in range(3):
        await check(signers, ONE)
        await check(signers, TWO)
        time.at += 8 * 3600 - 1
    assert publisher.asked == 1
    time.at += 4
    await check(signers, TWO)
    assert publisher.asked == 2


async def test_an_unknown_signer_is_a_reason_to_ask_again(make: MakeSigners, time: Time) -> None:
    publisher = Publisher(ONE)
    signers = make(publisher)
    await check(signers, ONE)
    publisher.signers = (TWO,)
    time.at += 61
    await check(signers, TWO)
    assert publisher.asked == 2
    with pytest.raises(BadSignature):  # the old key is no longer published
        await check(signers, ONE)


async def test_forged_webhooks_do_not_become_requests_to_fal(make: MakeSigners, time: Time) -> None:
    publisher = Publisher(ONE)
    signers = make(publisher)
    for _ in range(50):
        with pytest.raises(BadSignature):
            await check(signers, THREE)
    assert publisher.asked == 1
    time.at += 59.9
    with pytest.raises(BadSignature):
        await check(signers, THREE)
    assert publisher.asked == 1
    time.at += 0.2
    for _ in range(50):
        with pytest.raises(BadSignature):
            await check(signers, THREE)
    assert publisher.asked == 2
    await check(signers, ONE)


async def test_an_old_webhook_is_no_reason_to_ask_again(make: MakeSigners, time: Time) -> None:
    publisher = Publisher(ONE)
    signers = make(publisher)
    await check(signers, ONE)
    time.at += 3600
    with pytest.raises(BadSignature, match="Timestamp"):
        await check(signers, THREE, at=NOW - 301)
    assert publisher.asked == 1


async def test_those_who_need_keys_at_once_share_one_request(make: MakeSigners) -> None:
    publisher = Publisher(ONE)
    publisher.gate = asyncio.Event()
    signers = make(publisher)
    waiting = [asyncio.create_task(check(signers, ONE)) for _ in range(20)]
    forged = [asyncio.create_task(check(signers, THREE)) for _ in range(20)]
    await publisher.began.wait()
    waiting.pop(0).cancel()  # whoever began may hang up
    publisher.gate.set()
    await asyncio.gather(*waiting)
    results = await asyncio.gather(*forged, return_exceptions=True)
    assert {type(result).__mro__[1] for result in results} == {BadSignature}
    assert publisher.asked == 1


@pytest.mark.parametrize(
    "error", [SourceUnavailable(), FirstviewError("odd"), BadKeySet("it is not JSON")]
)
async def test_without_any_keys_fal_is_told_to_come_back(
    make: MakeSigners, time: Time, error: Exception
) -> None:
    publisher = Publisher(ONE)
    publisher.error = error
    signers = make(publisher)
    for _ in range(10):
        with pytest.raises(SignersUnknown):
            await check(signers, ONE)
    assert publisher.asked == 1, "a fal that is down is not asked by every webhook"
    time.at += 61
    publisher.error = None
    await check(signers, ONE)
    assert publisher.asked == 2


async def test_old_keys_are_used_while_no_new_ones_can_be_had(
    make: MakeSigners, time: Time
) -> None:
    publisher = Publisher(ONE)
    signers = make(publisher)
    await check(signers, ONE)
    publisher.error = SourceUnavailable()
    time.at += 100 * 3600
    for _ in range(10):
        await check(signers, ONE)
        with pytest.raises(BadSignature):
            await check(signers, TWO)
    assert publisher.asked == 2
    publisher.error, publisher.signers = None, (TWO,)
    time.at += 61
    await check(signers, TWO)


async def test_closing_ends_a_request_that_hangs(make: MakeSigners) -> None:
    publisher = Publisher(ONE)
    publisher.gate = asyncio.Event()
    signers = make(publisher)
    waiting = asyncio.create_task(check(signers, ONE))
    await publisher.began.wait()
    await signers.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
