"""Requests as the internet sends them: nearly all plain, some unusual, some not HTTP at all.

Belongs here: making them from a seed. Must not know: what is answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

RANGES = [
    *("bytes=0-0", "bytes=0-", "bytes=5-9", "bytes=0-1023", "bytes=1000-20000", "bytes=007-0900"),
    *("bytes=16384-32767", "bytes=0-4095", "bytes=0-4096", "bytes=39999-", "bytes=40000-"),
    *("bytes=-1", "bytes=-0", "bytes=-500000", "bytes=9-5", "bytes=5-999999999999999999999"),
    *("bytes=0-1,5-6", "bytes=0-1, -2", "bytes=,0-4", "bytes=0-4,", "bytes=0-9,0-9,0-9"),
    *("bytes= 0-4", "bytes=0 -4", "bytes 0-4", "BYTES=0-4", "Bytes=5-", "bytes=", "bytes=-"),
    *("items=0-4", "0-4", "bytes=a-b", "bytes=0x1-5", "bytes=1-2-3", "bytes=+1-5", "bytes=1e3-"),
]
QUERIES = [
    *("?", "?a=1", "?t=12.5&x=~_-", "?download=a", "?download=%22", "?verify=x", "?download"),
    *("?a=%20b", "?a?b", "?\xe4", "?a=<b>", "#f", "?a#f"),
]
OTHER_FIELDS = [
    *("Accept: */*", "Accept-Encoding: gzip, br", "User-Agent: Mozilla/5.0 (X11; Linux)", "TE: x"),
    *("CF-RAY: 8f0a1b2c3d4e5f60-FRA", 'CF-Visitor: {"scheme":"https"}', "CDN-Loop: cloudflare"),
    *("X-Forwarded-For: 203.0.113.7", "Referer: https://a.example/watch?v=1", "Range-Unit: x"),
    *("Sec-Fetch-Mode: no-cors", 'sec-ch-ua: "Chromium";v="126"', "Priority: u=4, i", "DNT: 1"),
    *("Upgrade-Insecure-Requests: 1", "X-Requested-With: XMLHttpRequest", "Traceparent: 00-ab-1"),
    *(
        "Connection: keep-alive",
        "Connection: Keep-Alive",
        "Origin: https://a.example",
        "Via: 1.1 a",
    ),
    *("Cookie: a=b; c=d", "Cache-Control: no-cache", "Pragma: no-cache", "If: x", "Iffy: 1"),
]
UNUSUAL_FIELDS = [
    *("Connection: close", "Connection: keep-alive, close", "Connection: x", "Connection: Range"),
    *("Proxy-Connection: close", "Expect: 100-continue", "Expect: 200-ok", "Upgrade: h2c"),
    *("Content-Length: 0", "Content-Type: text/plain", "Trailer: x", "Max-Forwards: 0", "ETag: x"),
    *("Host: second", "User-Agent: second", "Server: x", "HTTP2-Settings: a", "Keep-Alive: 300"),
    *("X-Empty:", "X-Empty: ", "X-Close:a", "X-Tab:\ta", "X-Trail: a  ", "X-Two:  a", "X_Y: a"),
    *("X-Utf: \xc3\xa4", "X.Y: a", "X!#$: a", "Range:bytes=0-4", "range: bytes=1-2 ", "Date: x"),
    *("Sec-WebSocket-Key1: x", "X-Long: " + "x" * 5000, "Content-Range: bytes 0-1/2", "Host: a"),
]
_GET = b"GET /videos/clip.mp4 HTTP/1.1\r\n"
NOT_HTTP = [
    b"GET /videos/clip.mp4\r\n\r\n",
    b"GET  /videos/clip.mp4 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /videos/clip.mp4 HTTP/1.1 \r\nHost: a\r\n\r\n",
    b"get /videos/clip.mp4 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /videos/clip.mp4 HTTP/3.7\r\nHost: a\r\n\r\n",
    b"GET /videos/clip.mp4 HTTP/1.1\nHost: a\n\n",
    b"\x16\x03\x01\x02\x00\r\n\r\n",
    _GET + b"\r\n",
    _GET + b"Host : a\r\n\r\n",
    _GET + b"Host: a\r\nX: a\x00b\r\n\r\n",
    _GET + b"Host: a\r\nX: a\x07b\r\n\r\n",
    _GET + b"Host: a\r\nX: a\rb\r\n\r\n",
    _GET + b"Host: a\r\n folded\r\n\r\n",
    _GET + b"Host: a\r\nnocolon\r\n\r\n",
    _GET + b"Host: a\r\n: a\r\n\r\n",
    _GET + b"Host: a\r\nX Y: a\r\n\r\n",
    _GET + b"Host: a\nX: a\r\n\r\n",
    _GET + b"Host: a\r\nContent-Length: -1\r\n\r\n",
    _GET + b"Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
]
_ADDRESSES = [
    *("/videos/_.mp4", "/videos/clip.mp3", "//videos/clip.mp4", "/videos/%63lip.mp4", "/", "*"),
    *("/videos/clip.mp4/", "http://a/videos/clip.mp4", "/healthz"),
]


@dataclass(frozen=True, slots=True)
class Sending:
    """What a client sends in one go: its pieces, and the methods of the requests that they hold."""

    pieces: tuple[bytes, ...]
    methods: tuple[str, ...]


class Client:
    """Makes up what one client sends over one connection."""

    def __init__(
        self,
        seed: int,
        etag: str,
        modified: str,
        *,
        links: Callable[[], Sequence[str]] | None = None,
        fields: Sequence[str] = (),
    ) -> None:
        """Take the seed, and what the clip's true validators are.

        `links` gives paths of the clip with links, good ones first; `fields` are such as an edge
        adds, the first of which is right.
        """
        self._dice = random.Random(seed)
        self._links = links
        self._edge = fields
        self._tags = [
            *(f'"{etag}"', f'"{etag}"', f'W/"{etag}"', '"other"', f'"x", "{etag}"', "*", etag),
            *(f'"{etag}", ', '"', '"a,b"', f'"{etag.upper()}"'),
        ]
        self._dates = [
            *(modified, modified, "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"),
            *("Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "yesterday", "0"),
        ]

    def conversation(self, length: int) -> list[Sending]:
        """Make up to `length` sendings; what is no HTTP comes last, as nothing comes after it."""
        sendings = [self._sending() for _ in range(self._dice.randint(1, length))]
        if self._happens(0.1):
            sendings.append(Sending((self._dice.choice(NOT_HTTP),), ("GET",)))
        return sendings

    def _sending(self) -> Sending:
        count = self._dice.randint(2, 4) if self._happens(0.1) else 1
        requests = [self._request() for _ in range(count)]
        data = b"".join(request for _, request in requests)
        return Sending(self._split(data), tuple(method for method, _ in requests))

    def _split(self, data: bytes) -> tuple[bytes, ...]:
        if not self._happens(0.1):
            return (data,)
        cuts = sorted(self._dice.sample(range(1, len(data)), 2))
        return data[: cuts[0]], data[cuts[0] : cuts[1]], data[cuts[1] :]

    def _request(self) -> tuple[str, bytes]:
        method = self._pick(["GET"] * 40 + ["HEAD"] * 10 + ["OPTIONS", "DELETE", "POST"])
        path = "/videos/clip.mp4"
        if self._links is not None and self._happens(0.9):
            links = self._links()
            path = links[self._dice.randrange(2)] if self._happens(0.8) else self._pick(links)
        if self._happens(0.15):
            path += self._pick(QUERIES)
        if self._happens(0.03):
            path = self._pick(_ADDRESSES)
        version = "HTTP/1.0" if self._happens(0.03) else "HTTP/1.1"
        fields = self._fields()
        if self._edge and self._happens(0.95):
            fields.append(self._edge[0] if self._happens(0.8) else self._pick(self._edge))
        self._dice.shuffle(fields)
        if not self._happens(0.01):
            fields.insert(0 if self._happens(0.95) else len(fields), "Host: cdn.example:8080")
        body = b""
        if method == "POST" or self._happens(0.01):
            framing, body = self._pick(
                [
                    ("Content-Length: 5", b"hello"),
                    ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
                    ("Content-Length: 4", b"\r\n\r\n"),
                ]
            )
            fields.append(framing)
        lines = [f"{method} {path} {version}", *map(self._spelled, fields)]
        return method, "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _fields(self) -> list[str]:
        fields = self._dice.sample(OTHER_FIELDS, self._dice.choice((0, 0, 2, 8, 14)))
        if self._happens(0.7):
            fields.append(f"Range: {self._pick(RANGES[:10] if self._happens(0.6) else RANGES)}")
        for name, values, chance in (
            ("If-Range", self._tags + self._dates, 0.2),
            ("If-None-Match", self._tags, 0.15),
            ("If-Modified-Since", self._dates, 0.1),
            ("If-Match", self._tags, 0.05),
            ("If-Unmodified-Since", self._dates, 0.05),
            ("Range", RANGES, 0.01),
            ("If-None-Match", self._tags, 0.01),
            ("X-Request-Id", ["abc-1", "a b", "x" * 64, "x" * 65, "a.b_c", "<b>"], 0.1),
        ):
            if self._happens(chance):
                fields.append(f"{name}: {self._pick(values)}")
        if self._happens(0.06):
            fields += self._dice.sample(UNUSUAL_FIELDS, self._dice.choice((1, 1, 2)))
        return fields

    def _spelled(self, field: str) -> str:
        name, colon, value = field.partition(":")
        dice = self._dice.random()
        return (
            (name.lower() if dice < 0.2 else name.upper() if dice > 0.95 else name) + colon + value
        )

    def _happens(self, chance: float) -> bool:
        return self._dice.random() < chance

    def _pick(self, values: Sequence[T]) -> T:
        return self._dice.choice(values)
