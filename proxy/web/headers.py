"""Everything that a reply's head consists of, as bytes ready for the socket.

Belongs here: names, values and spelling of fields, and the rule that a clip's own are the same
from every tier, replica and moment. Must not know: which reply is due, or where its body is.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote

from proxy.http_dates import http_date
from proxy.records import ClipFacts

Tier = Literal["disk", "flight", "bucket", "upstream"]
"""Where a reply's bytes come from."""

# RFC 9110's names; Python's own changed between versions.
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    416: "Range Not Satisfiable",
}
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _PHRASES.items()
}

_EXPOSED = (
    "Content-Length, Content-Range, Accept-Ranges, ETag, Last-Modified, "
    "Cache-Status, Server-Timing, X-Request-Id"
)
_METHODS = "GET, HEAD, OPTIONS"
_ALLOWED = (
    "Range, If-Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, "
    "Cache-Control, Pragma, X-Request-Id"
)

_GATED_CACHE_CONTROL = "private, max-age=3600"
_AT_THE_EDGE = ("Cloudflare-CDN-Cache-Control", "max-age=31536000")

# One tag of a Cache-Tag; Cloudflare takes up to 1,024 bytes, models come from outside.
_MAX_SLUG = 128
_NOT_SLUG = re.compile(r"[^a-z0-9._-]")

_UNSAFE_IN_NAMES = frozenset('/\\"<>:|?*')
_MAX_NAME_BYTES = 200  # file systems take 255
# RFC 8187's attr-char, beyond what `quote` leaves alone anyway.
_ATTR_CHARS = "!#$&+^`|"


@dataclass(frozen=True, slots=True)
class ReplyPolicy:
    """What the owner decides about clips' replies."""

    cache_control: str
    cors_origin: str
    edge_checks_links: bool = False

    def caching(self, *, gated: bool) -> list[tuple[str, str]]:
        """Who may keep a clip's replies.

        Those of a gated clip nobody but its viewer, and the edge only if that asks each request
        for its link, since what is kept there never comes here.
        developers.cloudflare.com/cache/concepts/cdn-cache-control/
        """
        if not gated:
            return [("Cache-Control", self.cache_control)]
        own = ("Cache-Control", _GATED_CACHE_CONTROL)
        return [own, _AT_THE_EDGE] if self.edge_checks_links else [own]


def head(status: int, fields: bytes, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """Put a reply's head together: status line, Date, `fields`, `extra`, empty line.

    `fields` is a block that a function of this file made, or b"". Raises ValueError if a name or
    value in `extra` holds CR, LF, NUL or a character outside ASCII.
    """
    more = block(extra) if extra else b""
    return b"".join((_opening(status, int(time.time())), fields, more, b"\r\n"))


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Write fields down, one a line. Raises ValueError as `head` does."""
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    text = "".join(lines)
    # Every line brings one CR and one LF of its own; any more came with a name or value, and would
    # let whoever chose it write fields, or a whole reply, of their own.
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text:
        raise ValueError("a header field must not hold CR, LF or NUL")
    return text.encode("ascii")


def stable_fields(policy: ReplyPolicy, facts: ClipFacts, *, gated: bool = False) -> bytes:
    """Return the lines that are identical on every 200, 206, 304 and HEAD of one clip.

    A function of what is given only: keep it for as long as the facts are kept.
    Content-Type is not among them: a reply with several ranges has its own.
    """
    tags = ["firstview", facts.request_id]
    if facts.model:
        tags.append(model_slug(facts.model))
    return block(
        [
            ("ETag", f'"{facts.etag}"'),
            ("Last-Modified", http_date(facts.last_modified)),
            ("Accept-Ranges", "bytes"),
            *policy.caching(gated=gated),
            ("Cache-Tag", ",".join(tags)),
            *cors_fields(policy.cors_origin),
            ("Timing-Allow-Origin", policy.cors_origin),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "cross-origin"),
        ]
    )


def preflight_fields(policy: ReplyPolicy) -> bytes:
    """Return the lines of the 204 that answers OPTIONS, a CORS preflight or not."""
    return block(
        [
            ("Allow", _METHODS),
            *cors_fields(policy.cors_origin),
            ("Access-Control-Allow-Methods", _METHODS),
            ("Access-Control-Allow-Headers", _ALLOWED),
            ("Access-Control-Max-Age", "86400"),
        ]
    )


def cors_fields(origin: str) -> list[tuple[str, str]]:
    """Fields that let pages of `origin` read a reply and its head (Fetch standard)."""
    fields = [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", _EXPOSED),
    ]
    if origin != "*":
        fields.append(("Vary", "Origin"))
    return fields


def cache_status(
    tier: Tier,
    *,
    hit: bool,
    fwd_status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
) -> str:
    """Value of Cache-Status (RFC 9211 §2).

    `fwd_status` (the source's status), `stored` and `collapsed` (the reply waited for another
    request's fill) speak of forwarding, so a hit leaves them out.
    """
    value = "firstview; hit" if hit else "firstview; fwd=uri-miss"
    if not hit:
        if fwd_status is not None:
            value += f"; fwd-status={fwd_status}"
        if stored:
            value += "; stored"
        if collapsed:
            value += "; collapsed"
    return f"{value}; detail={tier}"


def body_fields(content_type: bytes, length: int) -> bytes:
    """Return the lines that say what a reply's body is; `length` is its own, in bytes."""
    return b"Content-Type: %s\r\nContent-Length: %d\r\n" % (content_type, length)


def part_fields(content_type: bytes, start: int, stop: int, length: int) -> bytes:
    """Return the lines that say that a body is bytes `start` up to `stop` of a clip's `length`.

    The last is Content-Range (RFC 9110 §14.4).
    """
    return b"Content-Type: %s\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n" % (
        content_type,
        stop - start,
        start,
        stop - 1,
        length,
    )


def exchange_fields(exchange_id: str, seconds: float) -> bytes:
    """Return the lines that are each reply's own: its id, and how long it took to get here.

    `exchange_id` has to be fit to be repeated, as `proxy.web.exchange.name` makes it.
    """
    spent = "0.0" if seconds < 0.00005 else f"{seconds * 1000:.1f}"  # noqa: PLR2004 - rounds to it
    return f"Server-Timing: origin;dur={spent}\r\nX-Request-Id: {exchange_id}\r\n".encode("ascii")


def content_disposition(name: str, request_id: str) -> str:
    """Value of Content-Disposition that saves a clip under a name of the viewer's choosing.

    The name, of any origin, becomes safe: no path, control or quoting characters, at most 204
    bytes of UTF-8, always ending in `.mp4`; with nothing left it is `<request_id>.mp4`. What is
    not ASCII goes into `filename*` (RFC 6266 §4.3, RFC 8187), beside a plain approximation.
    """
    stem = _safe_stem(name) or request_id
    decomposed = unicodedata.normalize("NFKD", stem)
    plain = "".join(
        # "%41" in a plain name is decoded by some browsers (RFC 6266, appendix D).
        char if " " <= char < "\x7f" and char not in _UNSAFE_IN_NAMES and char != "%" else "_"
        for char in decomposed
        if not unicodedata.combining(char)
    )
    if not any(char.isalnum() for char in plain):
        plain = request_id
    value = f'attachment; filename="{plain}.mp4"'
    if plain != stem:
        value += f"; filename*=UTF-8''{quote(stem, safe=_ATTR_CHARS)}.mp4"
    return value


def model_slug(model: str) -> str:
    """Name of a model as one tag of a Cache-Tag: `fal-ai/wan/v2.7` → `fal-ai-wan-v2.7`."""
    return _NOT_SLUG.sub("-", model.lower())[:_MAX_SLUG]


@lru_cache(maxsize=64)
def _opening(status: int, second: int) -> bytes:
    """Status line and Date: the same for all replies of one second that have one status."""
    return _STATUS_LINES[status] + block([("Date", http_date(datetime.fromtimestamp(second, UTC)))])


def _safe_stem(name: str) -> str:
    """Strip a file name of all that could do harm, and of its `.mp4`."""
    kept = "".join(
        char
        for char in unicodedata.normalize("NFC", name)
        # C: controls, half characters, and marks that turn the reading direction around.
        if char not in _UNSAFE_IN_NAMES and not unicodedata.category(char).startswith("C")
    )
    kept = " ".join(kept.split()).rstrip(". ")
    if kept.lower().endswith(".mp4"):
        kept = kept[: -len(".mp4")]
    kept = kept.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    return kept.strip(". ")
