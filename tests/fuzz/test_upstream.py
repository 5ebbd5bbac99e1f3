"""Whatever upstream says, and whatever a URL looks like: no surprise, only ours or right."""

import ipaddress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from proxy.errors import SourceError, SourceUntrusted
from proxy.upstream.allowlist import Policy, check_redirect, check_url, is_public
from proxy.upstream.answer import Asked, read_head
from proxy.upstream.breaker import Breaker, Rules
from proxy.upstream.content_range import expected_range, parse_content_range, range_field

POLICY = Policy.of(("fal.media", "*.fal.media", "store.example/fal"))
NOW = datetime(2026, 11, 20, tzinfo=UTC)

HOSTS = [
    "fal.media",
    "v3.FAL.media",
    "evil.example",
    "127.0.0.1",
    "[::1]",
    "0x7f.1",
    "store.example",
]
PIECES = [
    *HOSTS, "https", "HTTPS:", "http:", "://", "//", "/", "\\", "@", ":", ":443", ":80", ".", "..",
    "/../", "%2e%2e", "%2f", "%00", "?", "#", "&", " ", "\t", "\n", "\r", "\x00", "\u3002",
    "\u2024", "\uff0f", "\ufe56", "\ud800", "\u00ad", "\u200b", "é", "xn--", "fal", "x.mp4", "a",
    "1", "[", "]",
]  # fmt: skip
URLS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map(lambda p: "https://fal.media" + "".join(p)),
    st.lists(st.sampled_from(PIECES), max_size=8).map(lambda p: "https://" + "".join(p)),
    st.text(max_size=40).map(lambda text: "https://" + text),
    st.text(max_size=40),
)


def assert_harmless(url: str) -> None:
    """Both parsers that matter, and the one that connects, see an allowed https host."""
    assert url.isascii()
    assert url.isprintable()
    for host, path, parts in (
        (URL(url, encoded=True).raw_host, URL(url, encoded=True).raw_path, URL(url, encoded=True)),
        (urlsplit(url).hostname, urlsplit(url).path, urlsplit(url)),
    ):
        assert host is not None
        assert parts.scheme == "https"
        assert parts.port in {443, None}
        listed = host == "fal.media" or host.endswith(".fal.media")
        assert listed or (host == "store.example" and path.startswith("/fal/"))
        assert "/../" not in path + "/"
    assert "@" not in urlsplit(url).netloc
    assert check_url(url, POLICY) == url


@given(url=URLS)
def test_a_url_is_refused_or_harmless_to_every_parser(url: str) -> None:
    try:
        checked = check_url(url, POLICY)
    except SourceUntrusted:
        return
    assert_harmless(checked)


@given(location=URLS)
def test_a_redirect_is_refused_or_harmless_to_every_parser(location: str) -> None:
    try:
        checked = check_redirect("https://v3.fal.media/files/a.mp4", location, POLICY)
    except SourceUntrusted:
        return
    assert_harmless(checked)


@given(number=st.integers(0, 2**32 - 1))
def test_no_ipv6_spelling_makes_an_ipv4_address_public(number: int) -> None:
    v4 = ipaddress.IPv4Address(number)
    for wrapped in (f"::ffff:{v4}", f"::{v4}", f"64:ff9b::{v4}"):
        assert not is_public(wrapped)
    assert not is_public(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))
    if v4.is_private or v4.is_multicast or v4.is_reserved or v4.is_loopback or v4.is_link_local:
        assert not is_public(v4)


@given(number=st.integers(0, 2**128 - 1))
def test_no_address_outside_global_unicast_is_public(number: int) -> None:
    v6 = ipaddress.IPv6Address(number)
    assert not is_public(v6) or number >> 125 == 1


@given(address=st.text(max_size=20))
def test_what_is_no_address_is_not_public(address: str) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        assert not is_public(address)


SIZES = st.integers(1, 10**15)


@given(data=st.data(), total=SIZES)
def test_a_content_range_reads_back_as_it_was_written(data: st.DataObject, total: int) -> None:
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    place = parse_content_range(f"bytes {start}-{stop - 1}/{total}")
    assert place is not None
    assert (place.start, place.stop, place.total) == (start, stop, total)


@given(value=st.one_of(st.text(), st.from_regex(r"bytes [0-9*-]{1,9}/[0-9*]{1,5}", fullmatch=True)))
def test_a_content_range_that_is_read_is_consistent(value: str) -> None:
    """Names peers 34."""
    place = parse_content_range(value)
    assert place is None or 0 <= place.start < place.stop <= place.total


@given(start=st.integers(-50, 50), stop=st.none() | st.integers(-5, 60), total=st.integers(1, 40))
def test_a_range_that_is_asked_is_the_one_that_is_expected(
    start: int, stop: int | None, total: int
) -> None:
    if start < 0 and stop is not None:
        with pytest.raises(ValueError, match="no range"):
            range_field(start, stop)
        return
    if stop is not None and stop <= start:
        return
    field = range_field(start, stop)
    clip = list(range(total))
    first, last = expected_range(start, stop, total)
    if field is None:
        assert clip[first:last] == clip
        return
    low, _, high = field.removeprefix("bytes=").partition("-")
    if low:
        assert clip[first:last] == clip[int(low) : int(high) + 1 if high else None]
    else:
        assert clip[first:last] == clip[-int(high) :]


NAMES = ["Content-Length", "Content-Range", "Content-Type", "Content-Encoding", "ETag",
         "Digest", "Last-Modified", "Transfer-Encoding", "Retry-After", "x-goog-hash",
         "Content-MD5"]  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["0", "5", "100", "bytes 10-19/100", "bytes 0-99/100", "bytes */100", "gzip",
                     "video/mp4", "text/html", "chunked", '"tag"', 'W/"tag"', "md5=AAAA", "x" * 300,
                     "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 99999 07:28:00 GMT"]),
)  # fmt: skip


@given(
    status=st.sampled_from([200, 206]) | st.integers(100, 999),
    fields=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=8),
    asked=st.sampled_from([Asked(), Asked(10), Asked(10, 20), Asked(-90), Asked(10, 20, '"tag"')]),
)
def test_any_head_is_an_error_of_ours_or_consistent(
    status: int, fields: list[tuple[str, str]], asked: Asked
) -> None:
    try:
        head = read_head(status, CIMultiDict(fields), asked, max_bytes=1000, now=NOW)
    except SourceError:
        return
    assert status in {200, 206}
    assert head.total is None or 0 < head.total <= 1000
    assert head.md5 is None or len(head.md5) == 16
    if status == 200:
        assert (head.start, head.stop) == (0, head.total)
        return
    assert head.total is not None
    assert head.stop is not None
    assert (head.start, head.stop) == expected_range(asked.start, asked.stop, head.total)
    assert head.start < head.stop


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ok", "fail", "drop"]),
        st.floats(0, 20, allow_nan=False),
        st.integers(0, 5),
    ),
    max_size=80,
)


@given(steps=STEPS, failures=st.integers(1, 5))
def test_a_breaker_opens_only_for_failures_and_never_for_good(
    steps: list[tuple[str, float, int]], failures: int
) -> None:
    rules = Rules(failures=failures, pause=5.0, window=30.0)
    breaker, now, waiting, probes = Breaker(rules), 0.0, list[int](), 0
    failed_at = -1.0
    for what, passed, which in steps:
        now += passed
        if what == "ask":
            before = breaker.state.name
            epoch = breaker.admit(now)
            assert (epoch is not None) == (before == "CLOSED" or breaker.state.name != before)
            if epoch is not None:
                waiting.append(epoch)
            else:
                # Refused: only ever because something failed, with a wait that ends.
                assert failed_at >= 0
                assert 0 <= breaker.wait(now) <= rules.pause
        elif waiting:
            ok = {"ok": True, "fail": False, "drop": None}[what]
            epoch = waiting.pop(which % len(waiting))
            before = breaker.state.name
            breaker.settle(epoch, now, ok=ok)
            failed_at = now if ok is False else failed_at
            if ok is not False and before == "CLOSED":
                assert breaker.state.name == "CLOSED"
        probes = sum(epoch == breaker._epoch for epoch in waiting)
        assert breaker.state.name != "HALF_OPEN" or probes == 1
    # However it went: settle what is out, wait, and one attempt that succeeds closes it.
    for epoch in waiting:
        breaker.settle(epoch, now, ok=None)
    probe = breaker.admit(now + rules.pause)
    assert probe is not None
    breaker.settle(probe, now + rules.pause, ok=True)
    assert breaker.state.name == "CLOSED"
