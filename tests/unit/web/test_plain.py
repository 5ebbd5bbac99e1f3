"""What is a plain request and what is not; `tests/fuzz/test_two_lanes.py` tries many more."""

from __future__ import annotations

import pytest

from proxy.web.plain import parse, path_of, signed

LINE = b"GET /videos/abc_1-2.mp4 HTTP/1.1\r\n"
EDGE = [
    "Host: video.example.com",
    "Connection: Keep-Alive",
    "Accept-Encoding: gzip, br",
    "X-Forwarded-For: 203.0.113.7",
    "CF-RAY: 8f0a1b2c3d4e5f60-FRA",
    "X-Forwarded-Proto: https",
    'CF-Visitor: {"scheme":"https"}',
    "range: bytes=1048576-2097151",
    'if-range: "0123456789abcdef0123456789abcdef"',
    "user-agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36",
    "accept: */*",
    "referer: https://app.example.com/watch/abc?x=1",
    "sec-fetch-mode: no-cors",
    'sec-ch-ua: "Chromium";v="126"',
    "upgrade-insecure-requests: 1",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "CF-Connecting-IP: 203.0.113.7",
    "CDN-Loop: cloudflare; loops=1",
]


def request(*fields: str, line: bytes = LINE) -> bytes:
    return line + b"".join(f"{field}\r\n".encode("latin-1") for field in fields) + b"\r\n"


def test_what_an_edge_sends_for_a_browser_is_plain() -> None:
    assert parse(request(*EDGE)) == (
        "GET",
        "abc_1-2",
        {"Range": "bytes=1048576-2097151", "If-Range": '"0123456789abcdef0123456789abcdef"'},
    )


@pytest.mark.parametrize("line", [LINE, LINE.replace(b"GET", b"HEAD")])
def test_a_request_of_two_lines_is_plain(line: bytes) -> None:
    found = parse(request("Host: a", "X-Request-Id: r-1", line=line))
    assert found == (line.split()[0].decode(), "abc_1-2", {"X-Request-Id": "r-1"})


def test_a_query_that_says_nothing_is_plain_and_no_part_of_the_path() -> None:
    data = request("Host: a", line=LINE.replace(b".mp4", b".mp4?v=1&t=2"))
    assert parse(data) == ("GET", "abc_1-2", {})
    assert path_of(data) == "/videos/abc_1-2.mp4"


@pytest.mark.parametrize(
    "field",
    [
        "Connection: close",
        "Connection: keep-alive, Upgrade",
        "CONNECTION: close",
        "Proxy-Connection: close",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Trailer: x",
        "HTTP2-Settings: x",
        "host: b",
        "RANGE: bytes=0-",
        "X_Y: a",
        "X: ",
        "X:a",
        "X:  a",
        "X: a\tb",
        "X: \xe4",
        " folded",
    ],
)
def test_one_unusual_field_is_enough(field: str) -> None:
    assert parse(request("Host: a", "Range: bytes=0-", field)) is None


@pytest.mark.parametrize(
    "data",
    [
        request("Host: a")[:-1],
        request("Host: a") * 2,
        b"\r\n" + request("Host: a"),
        request(),
        request("X: a"),
        request("Host: a", line=LINE.replace(b"1.1", b"1.0")),
        request("Host: a", line=LINE.replace(b"GET", b"POST")),
        request("Host: a", line=LINE.replace(b"/videos", b"http://a/videos")),
        request("Host: a", line=LINE.replace(b".mp4", b".mp4?download=x")),
        request("Host: a", line=LINE.replace(b".mp4", b".mp4?verify=x")),
        request("Host: a", line=LINE.replace(b".mp4", b".mp4?a=%20")),
        request("Host: a", line=LINE.replace(b"abc", b"_bc")),
        request("Host: a", line=LINE.replace(b"abc", b"a" * 125)),
        request("Host: a").replace(b"\r\n", b"\n"),
    ],
)
def test_anything_but_one_whole_request_is_not_plain(data: bytes) -> None:
    assert parse(data) is None


LINK = b"verify=1795300000-" + b"A" * 43


@pytest.mark.parametrize("token", [LINK, LINK + b"%3D", LINK.replace(b"A", b"%2F", 1)])
def test_a_link_is_taken_off_a_request_that_is_plain_without_it(token: bytes) -> None:
    asked = request(*EDGE, line=LINE.replace(b".mp4", b".mp4?" + token))
    assert signed(asked) == (token.decode(), request(*EDGE))
    assert parse(asked) is None


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        LINE.replace(b".mp4", b".mp4?a=b&" + LINK),
        LINE.replace(b".mp4", b".mp4?" + LINK + b"&a=b"),
        LINE.replace(b".mp4", b".mp4?" + LINK[:-1]),
        LINE.replace(b".mp4", b".mp4?" + LINK + b"A" * 20),
        LINE.replace(b"abc", b"a/c").replace(b".mp4", b".mp4?" + LINK),
        LINE.replace(b"GET", b"POST").replace(b".mp4", b".mp4?" + LINK),
    ],
)
def test_any_other_query_is_left_where_it_is(line: bytes) -> None:
    assert signed(request("Host: a", line=line)) is None
