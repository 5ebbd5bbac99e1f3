"""curl and wget download, resume, ask for ranges and ask again, whatever state the clip is in."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.clients import KIB, MIB, THROTTLED, WITHOUT_RANGES, Ended, run
from tests.fixtures.origin import MakeOrigin, Origin

SIZE = 2 * MIB + 12345
REFUSED = 22
"""curl's exit code for an error's status, with --fail."""

SOURCE = pytest.mark.parametrize(
    "source", [THROTTLED, WITHOUT_RANGES], ids=["throttled", "without-ranges"]
)
needs_curl = pytest.mark.needs("curl")
needs_wget = pytest.mark.needs("wget")


async def curl(*arguments: str | Path) -> Ended:
    return await run("curl", "--silent", "--show-error", "--max-time", "20", *arguments)


async def cut_off(target: Path, *arguments: str | Path) -> None:
    """Let curl write some of a file, and end it in the middle."""
    some = 50_000

    def has_some() -> bool:
        return target.exists() and target.stat().st_size >= some

    await run("curl", "--silent", "--no-buffer", *arguments, until=has_some)


async def status_of(*arguments: str | Path) -> int:
    ended = await curl("--output", "/dev/null", "--write-out", "%{http_code}", *arguments)
    return int(ended.fine().text)


async def fields_of(*arguments: str | Path) -> dict[str, str]:
    """Fields of a reply's head, names in lower case."""
    ended = await curl("--output", "/dev/null", "--dump-header", "-", *arguments)
    return _fields(ended.fine().text)


def _fields(head: str) -> dict[str, str]:
    lines = [line.partition(":") for line in head.splitlines()[1:] if line]
    return {name.lower(): value.strip() for name, _, value in lines}


async def clip(origin: Origin, name: str, source: Behaviour | None = None) -> bytes:
    data = make_clip(SIZE, 7)
    await origin.clip(name, data, source)
    return data


async def warm_clip(origin: Origin, name: str) -> bytes:
    data = await clip(origin, name)
    await origin.get(name)
    await origin.stored(name)
    return data


# -- resuming --------------------------------------------------------------------------------


@needs_curl
@SOURCE
async def test_curl_resumes_a_cold_download_that_was_cut(
    make_origin: MakeOrigin, tmp_path: Path, source: Behaviour
) -> None:
    origin, target = await make_origin(seek_ahead="64KiB"), tmp_path / "clip.mp4"
    rest = asyncio.Event()  # or all may be there before curl is seen to have some
    data = await clip(origin, "cut", replace(source, stall_at=MIB, stall_until=rest))
    await cut_off(target, "-o", target, origin.url("cut"))
    rest.set()
    assert 0 < target.stat().st_size < SIZE
    assert data.startswith(target.read_bytes())
    (await curl("-C", "-", "-o", target, origin.url("cut"))).fine()
    assert target.read_bytes() == data
    await origin.stored("cut")


@needs_curl
@SOURCE
@pytest.mark.parametrize("have", [1, 100_000, SIZE - 1])
async def test_curl_continues_a_file_with_a_clip_that_nobody_has_seen_here(
    make_origin: MakeOrigin, tmp_path: Path, source: Behaviour, have: int
) -> None:
    origin, target = await make_origin(seek_ahead="64KiB"), tmp_path / "clip.mp4"
    data = await clip(origin, "unseen", source)
    target.write_bytes(data[:have])
    (await curl("-C", "-", "-o", target, origin.url("unseen"))).fine()
    assert target.read_bytes() == data
    await origin.stored("unseen")


@needs_curl
async def test_curl_resumes_a_warm_download_that_was_cut(origin: Origin, tmp_path: Path) -> None:
    data, target = await warm_clip(origin, "warm"), tmp_path / "clip.mp4"
    await cut_off(target, "--limit-rate", "8k", "-o", target, origin.url("warm"))
    assert 0 < target.stat().st_size < SIZE
    (await curl("-C", "-", "-o", target, origin.url("warm"))).fine()
    assert target.read_bytes() == data


@needs_curl
async def test_curl_finds_nothing_left_to_resume(origin: Origin, tmp_path: Path) -> None:
    data, target = await warm_clip(origin, "complete"), tmp_path / "clip.mp4"
    target.write_bytes(data)
    (await curl("-C", "-", "-o", target, origin.url("complete"))).fine()
    assert target.read_bytes() == data


@needs_wget
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
async def test_wget_continues_a_partial_file(
    make_origin: MakeOrigin, tmp_path: Path, cold: bool
) -> None:
    origin, target = await make_origin(seek_ahead="64KiB"), tmp_path / "clip.mp4"
    data = await clip(origin, "wanted", THROTTLED) if cold else await warm_clip(origin, "wanted")
    target.write_bytes(data[:500_000])
    once = ["--no-config", "--no-verbose", "--tries=1", "--timeout=20"]
    (await run("wget", *once, "--continue", "-O", target, origin.url("wanted"))).fine()
    assert target.read_bytes() == data


@needs_wget
async def test_wget_tries_again_by_itself_where_a_source_broke_for_good(
    make_origin: MakeOrigin, tmp_path: Path
) -> None:
    origin, target = await make_origin(fill_stall_timeout="300ms"), tmp_path / "clip.mp4"
    data = await clip(origin, "broken", Behaviour(rate=4 * MIB, reset_at=MIB))
    path = origin.paths["broken"]
    origin.fal.script(path, [Behaviour(rate=4 * MIB, reset_at=MIB), *[_DOWN] * 4])
    again = ["--no-config", "--no-verbose", "--tries=15", "--waitretry=1", "--retry-on-http-error"]
    await run("wget", *again, "502,503,504", "--timeout=20", "-O", target, origin.url("broken"))
    assert target.read_bytes() == data


_DOWN = Behaviour(status=503)


# -- ranges ----------------------------------------------------------------------------------

_RANGES = {
    "0-0": slice(0, 1),
    "0-999": slice(0, 1000),
    "1000-1999": slice(1000, 2000),
    "1048575-1048576": slice(1048575, 1048577),
    "2000000-": slice(2000000, None),
    "-1": slice(-1, None),
    "-5000": slice(-5000, None),
    "0-": slice(None),
    f"-{10 * SIZE}": slice(None),
    f"{SIZE - 1}-{10 * SIZE}": slice(SIZE - 1, None),
}


@needs_curl
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
async def test_curl_gets_just_the_range_that_it_asks_for(
    make_origin: MakeOrigin, cold: bool
) -> None:
    origin = await make_origin(seek_ahead="64KiB")
    if not cold:
        await warm_clip(origin, "ranged")
    for number, (asked, place) in enumerate(_RANGES.items()):
        name = f"ranged-{number}" if cold else "ranged"
        data = await clip(origin, name) if cold else make_clip(SIZE, 7)
        ended = await curl("--fail", "--range", asked, origin.url(name))
        assert ended.fine().out == data[place], asked


@needs_curl
async def test_curl_is_told_which_range_it_got(origin: Origin) -> None:
    data = await clip(origin, "told")
    fields = await fields_of("--range", "-100", origin.url("told"))
    assert fields["content-range"] == f"bytes {SIZE - 100}-{SIZE - 1}/{len(data)}"
    assert fields["content-length"] == "100"


@needs_curl
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
async def test_curl_gets_several_ranges_as_multipart(origin: Origin, cold: bool) -> None:
    data = await (clip if cold else warm_clip)(origin, "several")
    ended = await curl("--include", "--range", "0-9,1000000-1000019,-5", origin.url("several"))
    head, _, body = ended.fine().out.partition(b"\r\n\r\n")
    fields = _fields(head.decode())
    boundary = fields["content-type"].removeprefix("multipart/byteranges; boundary=").encode()
    assert int(fields["content-length"]) == len(body)
    parts = [part.partition(b"\r\n\r\n")[2] for part in body.split(b"--" + boundary)[1:-1]]
    wanted = [data[:10], data[1000000:1000020], data[-5:]]
    assert [part.removesuffix(b"\r\n") for part in parts] == wanted


@needs_curl
@pytest.mark.parametrize("asked", [f"{SIZE}-", "-0"])
async def test_curl_is_refused_a_range_without_a_byte(origin: Origin, asked: str) -> None:
    await clip(origin, "beyond")
    refused = await curl("--fail", "--include", "--range", asked, origin.url("beyond"))
    assert refused.code == REFUSED
    assert await status_of("--range", asked, origin.url("beyond")) == 416
    fields = await fields_of("--range", asked, origin.url("beyond"))
    assert fields["content-range"] == f"bytes */{SIZE}"


# -- heads and conditions --------------------------------------------------------------------

_STABLE = ("etag", "last-modified", "content-length", "content-type", "accept-ranges")


@needs_curl
async def test_curl_sees_the_same_head_before_during_and_after_the_first_view(
    origin: Origin,
) -> None:
    await clip(origin, "head")
    before = _fields((await curl("--head", origin.url("head"))).fine().text)
    assert origin.gets("head") == 0
    during = await fields_of(origin.url("head"))
    await origin.stored("head")
    after = _fields((await curl("--head", origin.url("head"))).fine().text)
    for name in (*_STABLE, "cache-control", "cache-tag"):
        assert before[name] == during[name] == after[name], name
    assert before["content-length"] == str(SIZE)


@needs_curl
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
async def test_curl_has_the_newest_clip_already_by_its_etag(
    origin: Origin, tmp_path: Path, cold: bool
) -> None:
    saved, target = tmp_path / "etag", tmp_path / "clip.mp4"
    await clip(origin, "tagged", THROTTLED if cold else None)
    # A HEAD knows the ETag of a clip that nobody has seen yet.
    first: list[str | Path] = ["--head"] if cold else ["--output", target]
    await curl("--etag-save", saved, *first, origin.url("tagged"))
    if not cold:
        await origin.stored("tagged")
    assert saved.read_text().strip().strip('"')
    again: list[str | Path] = ["--etag-compare", saved, origin.url("tagged")]
    assert await status_of(*again) == 304
    assert await status_of("--head", *again) == 304
    saved.write_text('"another"\n')
    assert await status_of(*again) == 200


@needs_curl
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
async def test_curl_has_the_newest_clip_already_by_its_date(origin: Origin, cold: bool) -> None:
    await (clip if cold else warm_clip)(origin, "dated")
    head = _fields((await curl("--head", origin.url("dated"))).fine().text)
    assert await status_of("--time-cond", head["last-modified"], origin.url("dated")) == 304
    earlier = "Sat, 01 Jan 2000 00:00:00 GMT"
    # curl itself drops a body that is older than it wants; the reply is what counts here.
    assert await status_of("--time-cond", earlier, origin.url("dated")) == 200
    assert await status_of("--time-cond", f"-{earlier}", origin.url("dated")) == 412


@needs_curl
async def test_a_copy_that_curl_dated_by_the_reply_is_the_newest(
    origin: Origin, tmp_path: Path
) -> None:
    data, target = await warm_clip(origin, "copied"), tmp_path / "clip.mp4"
    (await curl("--remote-time", "-o", target, origin.url("copied"))).fine()
    again: list[str | Path] = ["-o", target, "--write-out", "%{http_code}", "--time-cond", target]
    assert (await curl(*again, origin.url("copied"))).fine().text == "304"
    assert target.read_bytes() == data


# -- ways of asking --------------------------------------------------------------------------


@needs_curl
@pytest.mark.parametrize(
    "way",
    [
        ["--http1.0"],
        ["--http2"],  # asks to upgrade to h2c, and has to do without
        ["--compressed"],
        ["--header", "Expect: 100-continue"],
        ["--header", "Connection: close"],
        ["--header", "TE: trailers, chunked"],
        ["--request-target", "http://clips.example/videos/asked.mp4?x=1"],
        ["--path-as-is"],
    ],
    ids=["1.0", "h2c", "compressed", "expect", "close", "te", "absolute", "plain"],
)
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
async def test_curl_gets_the_clip_whichever_way_it_asks(
    origin: Origin, way: list[str], cold: bool, tmp_path: Path
) -> None:
    data, target = await (clip if cold else warm_clip)(origin, "asked"), tmp_path / "clip.mp4"
    fields = _fields((await curl(*way, "-o", target, "-D", "-", origin.url("asked"))).fine().text)
    assert target.read_bytes() == data
    assert fields["content-length"] == str(SIZE)
    assert "content-encoding" not in fields
    assert "transfer-encoding" not in fields


@needs_curl
async def test_one_curl_takes_several_cold_clips_over_one_connection(
    origin: Origin, tmp_path: Path
) -> None:
    names = ["one", "two", "three"]
    clips = [await clip(origin, name) for name in names]
    targets: list[str | Path] = [word for name in names for word in ("-o", tmp_path / name)]
    urls = [origin.url(name) for name in names]
    ended = await curl("--write-out", "%{num_connects} ", *targets, *urls)
    assert ended.fine().text.split() == ["1", "0", "0"]
    assert [(tmp_path / name).read_bytes() for name in names] == clips


@needs_curl
async def test_curl_does_not_take_a_part_for_the_whole_when_a_source_breaks_for_good(
    make_origin: MakeOrigin, tmp_path: Path
) -> None:
    origin, target = await make_origin(fill_stall_timeout="300ms"), tmp_path / "clip.mp4"
    data = await clip(origin, "breaks", _DOWN)
    origin.fal.script(origin.paths["breaks"], [Behaviour(rate=4 * MIB, cut_at=300 * KIB)])
    ended = await curl("-o", target, origin.url("breaks"))
    assert ended.code != 0
    assert target.stat().st_size < SIZE
    assert data.startswith(target.read_bytes())


@needs_curl
async def test_what_the_page_on_cloudflare_has_people_type_shows_what_it_says(
    origin: Origin,
) -> None:
    await warm_clip(origin, "clip")
    page = (Path(__file__).resolve().parents[2] / "docs" / "cloudflare.md").read_text()
    [script] = re.findall(r"\*\*Look\.\*\*.*?```sh\n(.*?)```", page, re.DOTALL)
    typed = re.sub(r"https://cdn\.example\.com/\S+", origin.url("clip"), script)
    whole, part = re.split(
        r"(?=^HTTP)", (await run("bash", "-c", typed)).fine().text, flags=re.MULTILINE
    )[1:]
    assert whole.startswith("HTTP/1.1 200")
    assert "etag:" in whole.lower()
    assert part.startswith("HTTP/1.1 206")
    assert f"content-range: bytes 0-99/{SIZE}" in part.lower()
