"""Which URLs and addresses clips may be fetched from."""

import pytest

from proxy.errors import SettingsError, SourceUntrusted
from proxy.upstream.allowlist import Policy, check_redirect, check_url, is_public

STRICT = Policy.of(("fal.media", "*.fal.media", "storage.googleapis.com/fal-bucket"))
LOOSE = Policy.of(("fal.media", "127.0.0.1", "::1", "localhost"), insecure=True)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("https://fal.media/files/a/b.mp4", "https://fal.media/files/a/b.mp4"),
        ("https://v3b.fal.media/files/b/x.mp4?t=1&u=%2F", "https://v3b.fal.media/files/b/x.mp4?t=1&u=%2F"),
        ("HTTPS://V3.FAL.Media/X.mp4", "https://v3.fal.media/X.mp4"),
        ("https://fal.media./x", "https://fal.media/x"),
        ("https://fal.media:443/x", "https://fal.media/x"),
        ("https://fal.media:/x", "https://fal.media/x"),
        ("https://fal.media", "https://fal.media/"),
        ("https://fal.media/x#t=10", "https://fal.media/x"),
        ("https://fal.media/é.mp4", "https://fal.media/%C3%A9.mp4"),
        ("https://\uff46al.media/x", "https://fal.media/x"),
        ("https://fal\u3002media/x", "https://fal.media/x"),
        ("https://storage.googleapis.com/fal-bucket/x.mp4", "https://storage.googleapis.com/fal-bucket/x.mp4"),
    ],
)  # fmt: skip
def test_an_allowed_url_comes_back_in_the_one_spelling_that_was_checked(
    url: str, canonical: str
) -> None:
    assert check_url(url, STRICT) == canonical
    assert check_url(canonical, STRICT) == canonical


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fal.media/x",
        "//fal.media/x",
        "http://fal.media/x",
        "ftp://fal.media/x",
        "data:video/mp4;base64,AAAA",
        "file:///etc/passwd",
        "https:///x",
        "https://",
        "https://fal.media:8443/x",
        "https://fal.media:0/x",
        "https://fal.media:99999/x",
        "https://fal.media:x/x",
        "https://user@fal.media/x",
        "https://fal.media@evil.example/x",
        "https://evil.example@fal.media/x",
        "https://@fal.media/x",
        "https://evil.example/fal.media",
        "https://notfal.media/x",
        "https://fal.media.evil.example/x",
        "https://evil.example#.fal.media/x",
        "https://evil.example?.fal.media/x",
        "https://evil.example\\.fal.media/x",
        "https://fal.media\\@evil.example/x",
        "https://fal.media%2eevil.example/x",
        "https://fal.media../x",
        "https://.fal.media/x",
        "https://v3..fal.media/x",
        "https://-a.fal.media/x",
        "https://*.fal.media/x",
        "https://fal.media\t/x",
        "https://fal.media/a b",
        "https://fal.media/a\r\nX: y",
        "https://fal.media/\x00",
        " https://fal.media/x",
        "https://fal.media/\ud800",
        "https://\ud800.fal.media/x",
        "https://" + "a" * 64 + ".fal.media/x",
        "https://" + "a." * 125 + "fal.media/x",
        "https://fal.media/" + "a" * 20_000,
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[fal.media]/x",
        "https://[::1/x",
        "https://127.0.0.1/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://0x7f.1/x",
        "https://0177.0.0.1/x",
        "https://127.1/x",
        "https://storage.googleapis.com/x.mp4",
        "https://storage.googleapis.com/fal-bucket",
        "https://storage.googleapis.com/fal-bucket-of-someone-else/x.mp4",
        "https://storage.googleapis.com/fal-bucket/../other/x.mp4",
        "https://storage.googleapis.com/fal-bucket/%2e%2E/other/x.mp4",
        "https://storage.googleapis.com/fal-bucket/..%2fother/x.mp4",
        "https://storage.googleapis.com/fal-bucket/..%5Cother/x.mp4",
    ],
)
def test_any_other_url_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(SourceUntrusted, match="clip's"):
        check_url(url, STRICT)


def test_tests_may_allow_http_ports_and_private_addresses_but_only_listed_ones() -> None:
    assert check_url("http://127.0.0.1:9/x", LOOSE) == "http://127.0.0.1:9/x"
    assert check_url("http://[::1]:9/x", LOOSE) == "http://[::1]:9/x"
    assert check_url("http://localhost:80/x", LOOSE) == "http://localhost/x"
    for url in ("http://127.0.0.2/x", "http://2130706433/x", "http://127.1/", "ftp://localhost/"):
        with pytest.raises(SourceUntrusted):
            check_url(url, LOOSE)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/other.mp4", "https://v3.fal.media/other.mp4"),
        ("other.mp4", "https://v3.fal.media/files/other.mp4"),
        ("//fal.media/x", "https://fal.media/x"),
        ("https://fal.media/x", "https://fal.media/x"),
    ],
)
def test_a_redirect_is_followed_within_the_list(location: str, target: str) -> None:
    assert check_redirect("https://v3.fal.media/files/a.mp4", location, STRICT) == target


@pytest.mark.parametrize(
    "location",
    [
        "http://v3.fal.media/x",
        "https://evil.example/x",
        "//evil.example/x",
        "/\\evil.example/x",
        "\\\\evil.example/x",
        "ht\ntps://fal.media/x",
        "https://[/",
        "https://169.254.169.254/latest/meta-data",
        "javascript:alert(1)",
    ],
)
def test_a_redirect_off_the_list_is_not_followed(location: str) -> None:
    with pytest.raises(SourceUntrusted):
        check_redirect("https://v3.fal.media/files/a.mp4", location, STRICT)


@pytest.mark.parametrize(
    "entry",
    ["*", "", "*.", "https://fal.media", "fal media", "*.127.0.0.1", "127.1", "a@b", "a:80"],
)
def test_a_wrong_entry_on_the_list_is_a_mistake_in_the_settings(entry: str) -> None:
    with pytest.raises(SettingsError, match="FIRSTVIEW_UPSTREAM_HOSTS"):
        Policy.of((entry,))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1",
        "127.255.255.254", "169.254.169.254", "172.16.0.1", "192.0.0.8", "192.0.2.1",
        "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "64:ff9b::808:808",
        "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
        "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0",
        "fec0::1", "ff02::1",
        "", "localhost", "8.8.8", "2130706433", "::g",
    ],
)  # fmt: skip
def test_these_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "2606:4700::1111", "2a00::1"]
)
def test_these_addresses_are_public(address: str) -> None:
    assert is_public(address)
