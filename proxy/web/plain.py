"""Plain requests: the few forms of GET and HEAD for a clip that nearly all viewers send.

Belongs here: telling a plain request from any other, purely, and what it asks. Must not know:
replies, sockets.

Whatever is unusual in any way is not plain, and goes to aiohttp's parser, which knows all of HTTP:
nothing here is ever refused, and nothing is taken for plain that the other would see differently.
Plain is one whole request in one piece of ASCII, with every line as RFC 9112 has it and one blank
after each colon, and without a field that changes how the connection or the body is framed.
"""

from __future__ import annotations

import re

from proxy.records import REQUEST_ID

MOST = 4096
"""Bytes of a plain request: below every limit of a line, and never 1,024 fields."""

_NAME = rb"[A-Za-z0-9-]"
_VALUE = rb"[!-~][ -~]*"

# No part can be read in two ways, so nothing is ever read twice. Possessive quantifiers would say
# so, but do not work in early releases of Python 3.11.
_SHAPE = re.compile(
    rb"(GET|HEAD) /videos/(" + REQUEST_ID.pattern.encode() + rb")\.mp4"
    rb"(?:\?([A-Za-z0-9._~=&-]*))? HTTP/1\.1\r\n[Hh]ost: " + _VALUE + rb"\r"
    # Line feeds stand at the beginning of each field's line, so that names can be found by them.
    rb"((?:\n" + _NAME + rb"+: " + _VALUE + rb"\r)*)\n\r\n"
)

# The beginnings of every field that a reply or the framing may depend on, and of those that must
# come only once. What else begins like them is looked at too, and found harmless or unusual.
_TELLING = re.compile(
    rb"\n((?:[Rr][Aa]|[Ii][Ff]-|[Hh][Oo][Ss]|[Cc][Oo][Nn]|[Uu][Ss][Ee][Rr]-|[Uu][Pp]|[Ee][Tt]"
    rb"|[Ee][Xx]|[Xx]-[Rr][Ee][Qq]|[Ss][Ee][Rr]|[Ss][Ee][Cc]-[Ww]|[Mm][Aa][Xx]|[Pp][Rr][Oo]"
    rb"|[Tt][Rr][Aa][IiNn]|[Hh][Tt])" + _NAME + rb"*): ([^\r]*)"
)

_ASKED = {
    form.encode(): name
    for name in (
        "Range",
        "If-Range",
        "If-None-Match",
        "If-Modified-Since",
        "If-Match",
        "If-Unmodified-Since",
        "X-Request-Id",
    )
    for form in (name, name.lower())
}
"""Fields that say what is asked for, in the spelling of `proxy.web.reply.plan`."""

_HARMLESS = frozenset((b"upgrade-insecure-requests", b"x-requested-with"))
"""Fields that only begin like telling ones."""

_KEEP_ALIVE = (b"connection", b"keep-alive")

_TELLING_QUERIES = (b"download", b"verify")

_SIGNED = re.compile(
    rb"(?:GET|HEAD) /videos/[A-Za-z0-9_-]+\.mp4(\?verify=[0-9]{10}-[A-Za-z0-9_%/+=-]{43,60})"
    rb" HTTP/1\.1\r\n"
)


Plain = tuple[str, str, dict[str, str]]
"""Method, request id, and the fields that a reply depends on. A bare tuple costs a tenth."""


def parse(data: bytes) -> Plain | None:
    """Read what came over the wire; None if it is anything but one whole plain request."""
    shape = _SHAPE.fullmatch(data)
    if shape is None:
        return None
    method, request_id, query, block = shape.groups()
    if query and any(telling in query for telling in _TELLING_QUERIES):
        return None
    fields: dict[str, str] = {}
    agents = 0
    for name, value in _TELLING.findall(block):
        spelling = _ASKED.get(name)
        if spelling is not None and spelling not in fields:
            fields[spelling] = value.rstrip().decode("ascii")
            continue
        lower = name.lower()
        if lower == b"user-agent":
            agents += 1
        elif lower not in _HARMLESS and (lower, value.lower()) != _KEEP_ALIVE:
            return None
    if agents > 1:
        return None
    return "GET" if method == b"GET" else "HEAD", request_id.decode("ascii"), fields


def signed(data: bytes) -> tuple[str, bytes] | None:
    """A request's link, if that is all its query has, and the request without it; else None."""
    found = _SIGNED.match(data)
    if found is None:
        return None
    start, stop = found.span(1)
    return data[start + 1 : stop].decode("ascii"), data[:start] + data[stop:]


def path_of(data: bytes) -> str:
    """The path that a plain request asks for, without its query."""
    return data.split(b" ", 2)[1].partition(b"?")[0].decode("ascii")
