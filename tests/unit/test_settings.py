"""Settings: what can be written, and what is said of what cannot."""

from __future__ import annotations

import pytest

from proxy.errors import SettingsError
from proxy.settings import load, parse_address, parse_duration


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))


def test_every_mistake_is_told_at_once_in_the_owners_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTVIEW_LISTEN", "everywhere")
    monkeypatch.setenv("FIRSTVIEW_CACHE_MAX_BYTES", "20 cows")
    monkeypatch.setenv("FIRSTVIEW_FACTS_TTL", "1y")
    with pytest.raises(SettingsError) as caught:
        load()
    lines = caught.value.detail.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "FIRSTVIEW_LISTEN",
        "FIRSTVIEW_CACHE_MAX_BYTES",
        "FIRSTVIEW_FACTS_TTL",
    ]
    assert "host:port" in lines[0]
    assert "20GiB" in lines[1]
    assert "24h" in lines[2]


@pytest.mark.parametrize(
    "url", ["s3://", "s3://name/folder", "file://relative", "ftp://x", "clips"]
)
def test_a_bucket_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FIRSTVIEW_BUCKET_URL", url)
    with pytest.raises(SettingsError, match="FIRSTVIEW_BUCKET_URL must be s3://name or file:///"):
        load()


def test_a_mistake_in_the_database_url_does_not_repeat_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FIRSTVIEW_DATABASE_URL", "mysql://me:secret@db/x")
    with pytest.raises(SettingsError, match="FIRSTVIEW_DATABASE_URL must start with") as caught:
        load()
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30.0), ("1.5m", 90.0), ("24h", 86400.0), ("7", 7)],
)
def test_a_time_has_a_unit_or_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_a_time_that_no_calendar_reaches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTVIEW_UPSTREAM_EXPIRES_AFTER", "99999999d")
    with pytest.raises(SettingsError, match="FIRSTVIEW_UPSTREAM_EXPIRES_AFTER"):
        load()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8080", ("0.0.0.0", 8080)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("life", ["500ms", "3651d"])
def test_every_mistake_about_links_is_told_without_a_secret(
    monkeypatch: pytest.MonkeyPatch, life: str
) -> None:
    monkeypatch.setenv("FIRSTVIEW_SIGNING_KEYS", "a:hidden")
    monkeypatch.setenv("FIRSTVIEW_ORIGIN_SECRET", "hidden")
    monkeypatch.setenv("FIRSTVIEW_LINK_LIFE", life)
    monkeypatch.setenv("FIRSTVIEW_REDIRECT_STORED", "true")
    with pytest.raises(SettingsError) as caught:
        load()
    lines = caught.value.detail.splitlines()
    assert [line.partition(" ")[0].rstrip(":") for line in lines] == [
        "FIRSTVIEW_SIGNING_KEYS",
        "FIRSTVIEW_ORIGIN_SECRET",
        "FIRSTVIEW_LINK_LIFE",
        "FIRSTVIEW_REDIRECT_STORED",
    ]
    assert "hidden" not in caught.value.detail


@pytest.mark.parametrize("name", ["FIRSTVIEW_GATED", "FIRSTVIEW_EDGE_CHECKS_LINKS"])
def test_what_needs_links_needs_a_key(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(SettingsError, match=f"{name} needs FIRSTVIEW_SIGNING_KEYS"):
        load()
    monkeypatch.setenv("FIRSTVIEW_SIGNING_KEYS", "a:0123456789abcdef")
    assert [key.name for key in load().keys_of_links] == ["a"]
