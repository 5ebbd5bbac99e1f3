"""nginx caches clips in front of firstview, whole or in slices, and never a part as the whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.clients import MIB, THROTTLED, WITHOUT_RANGES
from tests.fixtures.nginx import nginx
from tests.fixtures.origin import MakeOrigin, Origin, wait_for

pytestmark = pytest.mark.needs("nginx")

SIZE = 3 * MIB - 777
CACHING = """
    proxy_cache_path {folder}/cache keys_zone=clips:1m max_size=100m;
    upstream firstview {{ server 127.0.0.1:{origin} max_fails=0; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_cache clips;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        add_header X-Edge $upstream_cache_status always;
        location /healthz {{ proxy_pass http://firstview; proxy_cache off; }}
        location /slices/ {{
            slice 1m;
            proxy_cache_key $uri$slice_range;
            proxy_set_header Range $slice_range;
            proxy_pass http://firstview/videos/;
        }}
        location /whole/ {{
            proxy_cache_key $uri;
            proxy_cache_lock on;
            proxy_pass http://firstview/videos/;
        }}
    }}
"""


class Edge:
    """An nginx that caches in front of one firstview, and a client of it."""

    def __init__(self, address: str, client: aiohttp.ClientSession) -> None:
        self._address = address
        self._client = client

    async def get(self, path: str, **fields: str) -> tuple[int, bytes, str | None]:
        """Status, body and what nginx's cache did; raises ClientPayloadError for half a body."""
        url = f"{self._address}{path}"
        async with asyncio.timeout(20), self._client.get(url, headers=fields) as reply:
            return reply.status, await reply.read(), reply.headers.get("X-Edge")


@contextlib.asynccontextmanager
async def edge_of(origin: Origin, folder: Path) -> AsyncIterator[Edge]:
    """Run nginx with an empty cache."""
    async with (
        nginx(folder, CACHING, {"origin": origin.app.public_port}) as address,
        aiohttp.ClientSession(auto_decompress=False) as client,
    ):
        yield Edge(address, client)


@pytest.mark.parametrize("source", [THROTTLED, WITHOUT_RANGES], ids=["throttled", "without-ranges"])
@pytest.mark.parametrize("way", ["slices", "whole"])
async def test_nginx_gets_a_cold_clip_and_keeps_it(
    make_origin: MakeOrigin, tmp_path: Path, source: Behaviour, way: str
) -> None:
    origin = await make_origin(seek_ahead="128KiB")
    data = make_clip(SIZE, 21)
    await origin.clip("cold", data, source)
    async with edge_of(origin, tmp_path) as edge:
        status, body, _ = await edge.get(f"/{way}/cold.mp4")
        assert (status, body) == (200, data)
        await origin.stored("cold")
        status, body, state = await edge.get(f"/{way}/cold.mp4")
        assert (status, body, state) == (200, data, "HIT")
        # Across the border of two slices (nginx#1065), from nginx's own copies.
        status, body, _ = await edge.get(f"/{way}/cold.mp4", Range=f"bytes={MIB - 5}-{2 * MIB + 4}")
        assert (status, body) == (206, data[MIB - 5 : 2 * MIB + 5])


@pytest.mark.parametrize(
    "asked", [(2 * MIB - 100, 2 * MIB + 100), (SIZE - 10, SIZE - 1), (0, 0), (MIB, 2 * MIB - 1)]
)
async def test_nginx_gets_a_range_of_a_cold_clip_through_its_slices(
    make_origin: MakeOrigin, tmp_path: Path, asked: tuple[int, int]
) -> None:
    origin = await make_origin(seek_ahead="128KiB")
    data = make_clip(SIZE, 22)
    await origin.clip("seeking", data, THROTTLED)
    first, last = asked
    async with edge_of(origin, tmp_path) as edge:
        status, body, _ = await edge.get("/slices/seeking.mp4", Range=f"bytes={first}-{last}")
        assert (status, body) == (206, data[first : last + 1])
        assert (await edge.get("/slices/seeking.mp4"))[:2] == (200, data)


@pytest.mark.parametrize(
    "breaks",
    [
        Behaviour(rate=4 * MIB, cut_at=MIB + 4321),
        Behaviour(rate=4 * MIB, cut_at=MIB + 4321, framing="chunked-open"),
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("way", ["slices", "whole"])
async def test_nginx_never_keeps_a_part_for_the_whole_when_a_source_breaks_for_good(
    make_origin: MakeOrigin, tmp_path: Path, way: str, breaks: Behaviour
) -> None:
    origin = await make_origin(
        seek_ahead="128KiB", fill_stall_timeout="300ms", upstream_breaker_pause="100ms"
    )
    data = make_clip(SIZE, 23)
    path = await origin.clip("breaking", data, Behaviour(status=503), content_length=SIZE)
    origin.fal.script(path, [breaks])
    async with edge_of(origin, tmp_path) as edge:
        with pytest.raises(aiohttp.ClientPayloadError):
            await edge.get(f"/{way}/breaking.mp4")
        # Still broken: an error, and neither this nor the part is what nginx remembers.
        status, body, _ = await _tolerant(edge, f"/{way}/breaking.mp4")
        assert status >= 500 or len(body) < SIZE

        origin.fal.add(path, data)

        async def is_right_again() -> bool:
            status, body, _ = await _tolerant(edge, f"/{way}/breaking.mp4")
            # A complete reply is a right one, however early it comes.
            assert status != 200 or not body or body == data
            return status == 200 and body == data

        await wait_for(is_right_again)
        await origin.stored("breaking")
        assert (await edge.get(f"/{way}/breaking.mp4"))[:2] == (200, data)


async def _tolerant(edge: Edge, path: str) -> tuple[int, bytes, str | None]:
    """As `get`, but half a body is as good as none."""
    try:
        return await edge.get(path)
    except aiohttp.ClientPayloadError:
        return 200, b"", None


async def test_nginx_does_not_keep_that_a_clip_is_not_there_yet(
    origin: Origin, tmp_path: Path
) -> None:
    data = make_clip(SIZE, 24)
    async with edge_of(origin, tmp_path) as edge:
        assert (await edge.get("/whole/soon.mp4"))[0] == 404
        await origin.clip("soon", data)
        assert (await edge.get("/whole/soon.mp4"))[:2] == (200, data)
