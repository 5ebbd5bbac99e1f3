"""ffprobe and ffmpeg read clips over HTTP as they read local files, from the first view on."""

from __future__ import annotations

import json

import pytest

from tests.fakes.clips import RealClips
from tests.fakes.fal import Behaviour
from tests.fixtures.clients import KIB, THROTTLED, WITHOUT_RANGES, run
from tests.fixtures.origin import MakeOrigin

pytestmark = pytest.mark.needs("ffmpeg", "ffprobe")

SEEK_TO = "3.3"
"""Seconds into a clip of four: between two key frames, far behind what has arrived."""

INDEX = pytest.mark.parametrize("at_end", [False, True], ids=["index-first", "index-last"])
SOURCE = pytest.mark.parametrize(
    "source", [THROTTLED, WITHOUT_RANGES], ids=["throttled", "without-ranges"]
)


async def probe(where: object) -> dict[str, object]:
    """What ffprobe finds out about a clip, without the name that it was given."""
    shown = "format=duration,size,nb_streams:stream=index,codec_name,width,height,nb_frames"
    ended = await run("ffprobe", "-v", "error", "-show_entries", shown, "-of", "json", f"{where}")
    found: dict[str, object] = json.loads(ended.fine().text)
    return found


async def frame(where: object, at: str = SEEK_TO) -> str:
    """Digest of the frame that ffmpeg decodes at a time, with the frame's own time."""
    only_first = ["-frames:v", "1", "-an", "-f", "framemd5", "-"]
    ended = await run("ffmpeg", "-v", "error", "-nostdin", "-ss", at, "-i", f"{where}", *only_first)
    lines = [line for line in ended.fine().text.splitlines() if not line.startswith("#")]
    assert len(lines) == 1, ended
    assert ended.err == ""
    return lines[0]


@INDEX
@SOURCE
async def test_ffprobe_sees_the_same_clip_cold_and_warm_as_on_disk(
    make_origin: MakeOrigin, real_clips: RealClips, source: Behaviour, at_end: bool
) -> None:
    origin = await make_origin(seek_ahead="128KiB")
    path = real_clips.get(moov_at_end=at_end, kbps=4000)
    expected = await probe(path)
    assert expected["streams"], "the clip itself is of no use"
    await origin.clip("probed", path.read_bytes(), source)
    assert await probe(origin.url("probed")) == expected
    await origin.stored("probed")
    assert await probe(origin.url("probed")) == expected


@INDEX
@SOURCE
async def test_ffmpeg_seeks_to_the_same_frame_cold_and_warm_as_on_disk(
    make_origin: MakeOrigin, real_clips: RealClips, source: Behaviour, at_end: bool
) -> None:
    origin = await make_origin(seek_ahead="128KiB")
    path = real_clips.get(moov_at_end=at_end, kbps=4000)
    expected = await frame(path)
    await origin.clip("sought", path.read_bytes(), source)
    assert await frame(origin.url("sought")) == expected
    await origin.stored("sought")
    assert await frame(origin.url("sought")) == expected
    whole = [get for get in origin.fal.gets(origin.paths["sought"]) if get.range is None]
    assert len(whole) == 1


async def test_ffmpeg_finds_an_index_at_the_end_without_waiting_for_all_that_is_before_it(
    make_origin: MakeOrigin, real_clips: RealClips
) -> None:
    origin = await make_origin(seek_ahead="128KiB", drain_timeout="100ms")
    path = real_clips.get(moov_at_end=True, kbps=4000)
    data = path.read_bytes()
    source = await origin.clip("late-index", data, Behaviour(rate=256 * KIB))
    assert await frame(origin.url("late-index")) == await frame(path)
    [filling] = [get for get in origin.fal.gets(source) if get.range is None]
    assert filling.sent < len(data)


async def test_ffmpeg_reads_a_whole_cold_clip_as_it_comes(
    make_origin: MakeOrigin, real_clips: RealClips
) -> None:
    origin = await make_origin()
    path = real_clips.get(kbps=4000)
    await origin.clip("whole", path.read_bytes(), THROTTLED)
    copy = ["-c", "copy", "-f", "md5", "-"]
    expected = await run("ffmpeg", "-v", "error", "-i", path, *copy)
    cold = await run("ffmpeg", "-v", "error", "-i", origin.url("whole"), *copy)
    assert cold.fine().out == expected.fine().out
