"""A real browser plays clips on first view, from a page of another origin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Page, async_playwright

from tests.fakes.clips import RealClips
from tests.fakes.fal import Behaviour
from tests.fixtures.clients import KIB, MIB
from tests.fixtures.origin import MakeOrigin, Origin
from tests.fixtures.programs import require_program

pytestmark = pytest.mark.needs("chromium", "ffmpeg")

PATIENCE = 30_000
"""Milliseconds that a browser on a busy machine is given for anything."""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
]
PAGE = """<!doctype html><title>player</title>
<video id=v muted playsinline crossorigin=anonymous preload=auto width=320 height=180></video>
"""

_PLAY_UNTIL = """async ([url, until]) => {
  const v = document.getElementById('v');
  if (url) { v.src = url; }
  await v.play();
  await new Promise((done, broken) => {
    const look = () => { if (v.currentTime >= until || v.ended) { done(); } };
    v.ontimeupdate = look;
    v.onended = done;
    v.onerror = () => broken(new Error('media error ' + v.error.code + ': ' + v.error.message));
    if (v.error) { v.onerror(); }
    look();
  });
  return v.currentTime;
}"""
_SEEK = """async (part) => {
  const v = document.getElementById('v');
  const to = v.duration * part;
  await new Promise((done, broken) => {
    v.onseeked = done;
    v.onerror = () => broken(new Error('media error ' + v.error.code + ': ' + v.error.message));
    v.currentTime = to;
  });
  return to;
}"""
# The colours of the frame that is shown: only CORS lets a page of another origin see them.
_PIXELS = """() => {
  const v = document.getElementById('v');
  const canvas = document.createElement('canvas');
  canvas.width = v.videoWidth; canvas.height = v.videoHeight;
  const context = canvas.getContext('2d');
  context.drawImage(v, 0, 0);
  return new Set(context.getImageData(0, 0, canvas.width, canvas.height).data).size;
}"""
_FETCH = """async ([url, headers, method]) => {
  const reply = await fetch(url, {headers, method});
  const body = new Uint8Array(await reply.arrayBuffer());
  const seen = {};
  for (const [name, value] of reply.headers) { seen[name] = value; }
  return {status: reply.status, type: reply.type, headers: seen, body: Array.from(body)};
}"""


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """A page in a fresh Chromium, served by a loopback server of its own: another origin."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=require_program("chromium"), args=ARGUMENTS, timeout=PATIENCE
            )
            try:
                page = await browser.new_page()
                page.set_default_timeout(PATIENCE)
                await page.goto(f"http://127.0.0.1:{port}/")
                yield page
            finally:
                await browser.close()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("at_end", [False, True], ids=["index-first", "index-last"])
async def test_a_browser_plays_a_cold_clip_seeks_far_ahead_and_plays_on(
    make_origin: MakeOrigin, real_clips: RealClips, tmp_path: Path, at_end: bool
) -> None:
    origin = await make_origin(seek_ahead="128KiB")
    clip = real_clips.get(10, moov_at_end=at_end, kbps=2000)
    data = clip.read_bytes()
    rest = asyncio.Event()
    # Twice as fast as the clip plays, and half of it not before it is seen to play.
    how = Behaviour(rate=512 * KIB, stall_at=len(data) // 2, stall_until=rest)
    path = await origin.clip("played", data, how)
    async with browsing() as page:
        assert await page.evaluate(_PLAY_UNTIL, [origin.url("played"), 0.4]) >= 0.4
        [filling] = [get for get in origin.fal.gets(path) if get.range is None]
        assert filling.sent < len(data), "it plays before the source has sent everything"
        rest.set()
        assert await page.evaluate(_PIXELS) > 16
        to = await page.evaluate(_SEEK, 0.9)
        assert await page.evaluate(_PLAY_UNTIL, [None, to + 0.4]) >= to + 0.4
        await page.screenshot(path=tmp_path / "playing.png")
        assert await page.evaluate("document.getElementById('v').error") is None
        await origin.stored("played")
        asked = origin.gets("played")
        # The same page again: now it comes from the owned copy.
        await page.reload()
        warm = f"{origin.url('played')}?again"
        assert await page.evaluate(_PLAY_UNTIL, [warm, 0.2]) >= 0.2
        to = await page.evaluate(_SEEK, 0.5)
        assert await page.evaluate(_PLAY_UNTIL, [None, to + 0.2]) >= to + 0.2
    assert origin.gets("played") == asked
    assert (await origin.get("played"))[1] == data


async def test_a_browser_plays_a_cold_clip_whose_source_ignores_ranges(
    make_origin: MakeOrigin, real_clips: RealClips
) -> None:
    origin = await make_origin(seek_ahead="128KiB")
    clip = real_clips.get(10, moov_at_end=True, kbps=2000)
    await origin.clip("whole", clip.read_bytes(), Behaviour(rate=MIB, ranges="ignore"))
    async with browsing() as page:
        assert await page.evaluate(_PLAY_UNTIL, [origin.url("whole"), 0.4]) >= 0.4
        to = await page.evaluate(_SEEK, 0.9)
        assert await page.evaluate(_PLAY_UNTIL, [None, to + 0.4]) >= to + 0.4
    await origin.stored("whole")


async def _fetch(page: Page, url: str, method: str = "GET", **fields: str) -> dict[str, Any]:
    found: dict[str, Any] = await page.evaluate(_FETCH, [url, fields, method])
    return found


async def test_a_page_of_another_origin_may_ask_for_ranges_and_read_the_reply(
    origin: Origin, real_clips: RealClips
) -> None:
    data = real_clips.get(kbps=4000).read_bytes()
    await origin.clip("fetched", data, Behaviour(rate=MIB))
    url = origin.url("fetched")
    async with browsing() as page:
        # A suffix is not CORS-safelisted (Fetch §2.2.2): the browser asks OPTIONS first.
        part = await _fetch(page, url, Range="bytes=-100")
        assert (part["status"], bytes(part["body"])) == (206, data[-100:])
        assert part["type"] == "cors"
        seen = part["headers"]
        assert seen["content-range"] == f"bytes {len(data) - 100}-{len(data) - 1}/{len(data)}"
        assert seen["cache-status"].startswith("firstview; fwd=uri-miss")
        for name in ("content-length", "accept-ranges", "last-modified", "server-timing"):
            assert name in seen
        tag = seen["etag"]

        conditional = await _fetch(
            page, url, **{"Range": "bytes=0-9", "If-Range": tag, "X-Request-Id": "from-the-page"}
        )
        assert (conditional["status"], bytes(conditional["body"])) == (206, data[:10])
        assert conditional["headers"]["x-request-id"] == "from-the-page"

        head = await _fetch(page, url, "HEAD")
        assert head["headers"]["etag"] == tag
        assert head["headers"]["content-length"] == str(len(data))

        await origin.stored("fetched")
        warm = await _fetch(page, url, Range="bytes=5-9")
        assert bytes(warm["body"]) == data[5:10]
        assert warm["headers"]["cache-status"].startswith("firstview; hit")
        assert warm["headers"]["etag"] == tag


async def test_a_page_of_another_origin_can_read_why_it_gets_no_clip(origin: Origin) -> None:
    async with browsing() as page:
        refused = await _fetch(page, origin.url("nobody-knows-it"), Range="bytes=-1")
        assert refused["status"] == 404
        assert refused["headers"]["content-type"] == "application/problem+json"
        assert b'"type"' in bytes(refused["body"])
