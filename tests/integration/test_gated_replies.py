"""Whatever is asked of a gated clip, and however: nothing without a link, and never in public."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from tests.fakes.fal import make_clip
from tests.fixtures.links import GATED, KEYS, PRIVATE, signed
from tests.fixtures.looking import path_of
from tests.fixtures.origin import MakeOrigin, Origin
from tests.integration.test_gated_clips import ask, caching, hit, register

DATA = make_clip(40_000, 31)
SHOWN = {200, 206, 304}


async def opened(make_origin: MakeOrigin, how: str) -> tuple[Origin, dict[str, str]]:
    """An origin whose clip is open, and the fields of a reply about it."""
    origin = await make_origin(**(GATED if how == "by default" else KEYS))
    await origin.clip("clip", DATA)
    assert (await ask(origin, signed("clip"))).status == 200
    fields = (await hit(origin, signed("clip"))).head.fields
    if how == "later":  # its file has been served as everybody's
        assert fields["cache-control"] != PRIVATE
        await hit(origin, path_of("clip"))
        await register(origin, "clip", gated=True)
        await ask(origin, signed("clip"))
    return origin, fields


@pytest.mark.parametrize("how", ["by default", "later"])
async def test_no_reply_about_a_gated_clip_is_for_everybody(
    make_origin: MakeOrigin, how: str
) -> None:
    origin, fields = await opened(make_origin, how)
    etag, modified = fields["etag"], fields["last-modified"]
    asked: list[dict[str, str]] = [
        {},
        *({"Range": span} for span in ("bytes=0-9", "bytes=0-9,20-29", "bytes=900000-", "x=1")),
        {"Range": "bytes=0-9", "If_Range": etag},
        {"If_None_Match": etag},
        {"If_None_Match": "*"},
        {"If_Match": '"x"'},
        {"If_Modified_Since": modified},
        {"Connection": "close"},
        {"Origin": "https://app.example"},
        {"X_Original_URL": signed("clip"), "X_Rewrite_URL": signed("clip")},
    ]
    seen: set[int] = set()
    for method, more in product(("GET", "HEAD"), asked):
        for link in (signed("clip", url_safe=True), signed("clip", "download=a")):
            status, said = caching(await ask(origin, link, method, **more))
            assert said == (PRIVATE if status in SHOWN else "no-store"), (method, link, more)
            seen.add(status)
        for none in ("", "?", "?verify", "?verify=", "?download=a"):
            refused = await ask(origin, path_of("clip") + none, method, **more)
            assert caching(refused) == (403, "no-store"), (method, none, more)
            assert "etag" not in refused.head.fields
    assert seen == {*SHOWN, 412, 416}


@pytest.mark.parametrize("how", ["by default", "later"])
async def test_no_way_to_write_an_address_leads_past_the_gate(
    make_origin: MakeOrigin, how: str
) -> None:
    origin, _ = await opened(make_origin, how)
    link = signed("clip")
    for target in (
        f"http://origin{path_of('clip')}",
        f"http://origin{link.replace('clip', '%63lip')}",
        f"//origin{link}",
        f"{link}#x",
        f"{path_of('clip')}#{link.partition('?')[2]}",
        f"{path_of('clip')};{link.partition('?')[2]}",
        f"/videos/../videos/{link.rpartition('/videos/')[2]}",
        f"/videos//{link.rpartition('/videos/')[2]}",
        link.replace("/videos/", "/Videos/"),
        link.replace("/", "\\"),
    ):
        for version in ("1.0", "1.1"):
            reply = await written(origin, f"GET {target} HTTP/{version}\r\nHost: origin\r\n\r\n")
            assert int(reply.split(b" ", 2)[1]) in {400, 403, 404}, (target, reply)
            assert b"no-store" in reply


async def written(origin: Origin, request: str) -> bytes:
    """What is answered to a request that is written out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", origin.app.public_port)
    try:
        writer.write(request.encode())
        return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


async def test_a_link_says_the_same_in_the_absolute_form(make_origin: MakeOrigin) -> None:
    origin, _ = await opened(make_origin, "by default")
    request = f"GET http://origin{signed('clip')} HTTP/1.1\r\nHost: origin\r\n\r\n"
    assert PRIVATE.encode() in await written(origin, request)


SECRET = "the-newest-secret-of-the-edge"
SMUGGLED = [
    f"X-Firstview-Origin: {SECRET}\r\nX-Firstview-Origin: {SECRET}",
    f"X-Firstview-Origin: x\r\nX-Firstview-Origin: {SECRET}",
    f"X-Firstview-Origin: {SECRET}\r\nx-firstview-origin: x",
    f"X-Firstview-Origin: {SECRET}, {SECRET}",
    f"X-Firstview-Origin: {SECRET}\x0b",
    f"X-Firstview-Origin:\r\n {SECRET}",
    f"X-Firstview-Origin: x\r\n\t{SECRET}",
    f"X-Firstview-Origin : {SECRET}",
    f"X_Firstview_Origin: {SECRET}",
    f"A: b\rX-Firstview-Origin: {SECRET}",
    f"A: b\nX-Firstview-Origin: {SECRET}x",
    f"A: b\0X-Firstview-Origin: {SECRET}",
]


async def test_no_second_origin_field_is_smuggled_past_the_lock(make_origin: MakeOrigin) -> None:
    origin = await make_origin(origin_secret=SECRET)
    await origin.clip("clip", DATA)
    for _ in range(2):  # the second is a hit
        assert (await ask(origin, path_of("clip"), X_Firstview_Origin=SECRET)).status == 200
        await origin.stored("clip")
    for fields in SMUGGLED:
        request = f"GET {path_of('clip')} HTTP/1.1\r\nHost: origin\r\n{fields}\r\n\r\n"
        reply = await written(origin, request)
        assert int(reply.split(b" ", 2)[1]) in {400, 403}, fields
