"""Presigned URLs: the short way to one gives what botocore gives."""

import datetime as dt
from pathlib import Path

import botocore.auth
import pytest
from aiobotocore.credentials import AioCredentials

from proxy.settings import Settings
from proxy.storage.presign import Presigner, Scope
from proxy.storage.s3_client import open_client

SIX = (
    "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261121T000000Z&X-Amz-Expires=900"
    "&X-Amz-Credential=AKIA%2F20261121%2Fauto%2Fs3%2Faws4_request"
    "&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
)
KEYS = ("videos/clip.mp4", "videos/with space+plus/ä~'(!).mp4")
FIELDS: tuple[dict[str, str], ...] = (
    {},
    {"Range": "bytes=5-"},
    {"Range": "bytes=5-8", "If-Match": '"abc-2"'},
)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys and a clock of the test's own, and nobody's files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    now = dt.datetime(2026, 11, 21, 12, 0, 0, tzinfo=dt.UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)


async def signed_both_ways(key: str, headers: dict[str, str]) -> tuple[str, str]:
    names = {"Range": "Range", "If-Match": "IfMatch"}
    async with open_client(Settings()) as (client, credentials, _):
        signer = Presigner(client, credentials, "clips")
        return (
            await signer.read(key, headers),
            await signer.sign("get_object", {"Key": key}, names, headers),
        )


@pytest.mark.parametrize(
    "endpoint", ["https://abc.r2.cloudflarestorage.com", "https://t3.storage.dev", None]
)
async def test_a_read_is_signed_as_botocore_signs_it(
    endpoint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if endpoint is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    for key in KEYS:
        for headers in FIELDS:
            ours, theirs = await signed_both_ways(key, headers)
            assert ours == theirs


async def test_a_sessions_token_is_signed_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "for a while/+")
    ours, theirs = await signed_both_ways(KEYS[0], {})
    assert ours == theirs
    assert "X-Amz-Security-Token=for%20a%20while%2F%2B" in ours


async def test_credentials_that_were_refreshed_sign_the_next_read() -> None:
    async with open_client(Settings()) as (client, _, _):
        credentials = AioCredentials("first", "secret")
        signer = Presigner(client, credentials, "clips")
        assert "Credential=first%2F" in await signer.read("a", {})
        credentials.access_key = "second"
        assert "Credential=second%2F" in await signer.read("a", {})


async def test_where_no_credentials_are_known_botocore_signs() -> None:
    async with open_client(Settings()) as (client, _, _):
        signer = Presigner(client, None, "clips")
        names = {"Range": "Range"}
        theirs = await signer.sign("get_object", {"Key": "a"}, names, FIELDS[1])
        assert await signer.read("a", FIELDS[1]) == theirs


def test_a_scope_is_read_off_a_signed_url() -> None:
    found = Scope.of(f"https://host/clips/key{SIX}", "key")
    assert found == Scope("https://host/clips/", region="auto", service="s3")


@pytest.mark.parametrize(
    "signed",
    [
        f"https://host/clips/key{SIX}&X-Amz-S3session-Token=t",  # S3 Express
        f"https://host/clips/key{SIX}".replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        f"https://host/clips/other{SIX}",
        "https://host/clips/key?AWSAccessKeyId=A&Signature=s&Expires=1",  # version 2
        "https://host/clips/key",
    ],
)
def test_a_url_that_was_signed_in_another_way_tells_no_scope(signed: str) -> None:
    assert Scope.of(signed, "key") is None
