"""An mp4's own word on its duration and its picture, wherever and however it is written."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.media.mp4 import MAX_INDEX, MAX_READS, describe, describe_file
from proxy.records import MediaFacts
from tests.fixtures.boxes import FTYP, box, mdia, moov, mvhd, tkhd, trak
from tests.fixtures.programs import require_program

MEDIA = MediaFacts(duration=5.25, width=1280, height=720)


def described(data: bytes) -> MediaFacts | None:
    return describe(lambda offset, size: data[offset : offset + size], len(data))


# --- files that ffmpeg makes, and what ffprobe says of them -------------------------------------

VIDEO = ["-f", "lavfi", "-i", "testsrc2=size=192x108:rate=24:duration=2"]
AUDIO = ["-f", "lavfi", "-i", "sine=frequency=440:duration=2"]
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "24"]
ODD = ["-vf", "format=yuv444p,scale=321:181,setsar=1", "-c:v", "libx264", "-preset", "ultrafast"]

WHOLE_FILES = {
    "index at the end": [*VIDEO, *AUDIO, *H264],
    "index at the front": [*VIDEO, *AUDIO, *H264, "-movflags", "+faststart"],
    "no sound": [*VIDEO, *H264],
    "no picture": AUDIO,
    "sound first": [*VIDEO, *AUDIO, *H264, "-map", "1:a", "-map", "0:v"],
    "two pictures": [*VIDEO, *VIDEO, *H264, "-map", "1:v", "-map", "0:v", "-s:v:1", "96x54"],
    "odd size": [*VIDEO, *ODD],
    "mpeg-4 part 2": [*VIDEO, "-c:v", "mpeg4"],
    "64-bit times": [*VIDEO, *H264, "-movie_timescale", "2147483647"],
}
FRAGMENTED = {
    "all in fragments": [*VIDEO, *AUDIO, *H264, "-movflags", "frag_keyframe+empty_moov"],
    "the first fragment in the index": [*VIDEO, *AUDIO, *H264, "-movflags", "frag_keyframe"],
    "dash": [*VIDEO, *H264, "-movflags", "+dash+frag_keyframe"],
}


def make(path: Path, options: list[str]) -> Path:
    command = [str(require_program("ffmpeg")), "-v", "error", "-y", *options, "-f", "mp4"]
    subprocess.run([*command, path], check=True, timeout=50)
    return path


def probe(path: Path) -> MediaFacts:
    """What ffprobe says of the first video track, turned as a player would turn it."""
    command = [str(require_program("ffprobe")), "-v", "error", "-show_format", "-show_streams"]
    done = subprocess.run(
        [*command, "-of", "json", path], check=True, timeout=50, capture_output=True
    )
    said: dict[str, Any] = json.loads(done.stdout)
    pictures = [stream for stream in said["streams"] if stream["codec_type"] == "video"]
    width, height, turn = None, None, 0
    if pictures:
        width, height = pictures[0]["width"], pictures[0]["height"]
        turns = [data.get("rotation", 0) for data in pictures[0].get("side_data_list", [])]
        turn = turns[0] if turns else 0
    if turn % 180:
        width, height = height, width
    return MediaFacts(duration=float(said["format"]["duration"]), width=width, height=height)


def described_file(path: Path) -> MediaFacts | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return describe_file(fd, path.stat().st_size)
    finally:
        os.close(fd)


@pytest.mark.needs("ffmpeg", "ffprobe")
@pytest.mark.parametrize("how", WHOLE_FILES)
def test_a_file_is_described_as_ffprobe_describes_it(how: str, tmp_path: Path) -> None:
    path = make(tmp_path / "clip.mp4", WHOLE_FILES[how])
    truth, found = probe(path), described_file(path)
    assert found is not None
    assert (found.width, found.height) == (truth.width, truth.height)
    assert found.duration == pytest.approx(truth.duration, abs=0.05)


@pytest.mark.needs("ffmpeg", "ffprobe")
@pytest.mark.parametrize("how", FRAGMENTED)
def test_fragments_whose_sum_is_not_told_have_a_size_and_no_duration(
    how: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "clip.mp4", FRAGMENTED[how])
    truth, found = probe(path), described_file(path)
    assert found == MediaFacts(duration=None, width=truth.width, height=truth.height)


@pytest.mark.needs("ffmpeg", "ffprobe")
@pytest.mark.parametrize("turn", [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (1, 0, 0, 1)])
def test_a_picture_that_lies_on_its_side_is_described_as_it_is_shown(
    turn: tuple[int, int, int, int], tmp_path: Path
) -> None:
    path = make(tmp_path / "clip.mp4", WHOLE_FILES["no sound"])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (number << 16 for number in turn)
    data[at : at + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(data)
    truth, found = probe(path), described_file(path)
    assert found is not None
    assert (found.width, found.height) == (truth.width, truth.height)
    assert (found.width == 108) == (turn[0] == 0)


@pytest.mark.needs("ffmpeg")
def test_pixels_that_are_not_square_are_stretched_as_they_are_when_shown(tmp_path: Path) -> None:
    path = make(tmp_path / "clip.mp4", [*VIDEO, *H264, "-vf", "setsar=4/3"])
    found = described_file(path)
    assert found is not None
    assert (found.width, found.height) == (256, 108)


# --- boxes written by hand ----------------------------------------------------------------------


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("version", [0, 1])
def test_both_versions_of_every_box_are_read(version: int, long: bool) -> None:
    index = moov(mvhd(version=version), trak(tkhd(version=version)), long=long)
    assert described(FTYP + index + box(b"mdat", bytes(100))) == MEDIA
    assert described(FTYP + box(b"mdat", bytes(100), long=long) + index) == MEDIA


def test_a_box_without_a_size_goes_to_the_end_of_the_file() -> None:
    index = moov()
    assert described(FTYP + bytes(4) + index[4:]) == MEDIA
    assert described(FTYP + struct.pack(">I4s", 0, b"mdat") + index) is None


def test_an_index_behind_gigabytes_costs_a_few_small_reads() -> None:
    index, far = moov(), 3 << 30
    reads: list[tuple[int, int]] = []

    def read(offset: int, size: int) -> bytes:
        reads.append((offset, size))
        front = FTYP + struct.pack(">I4sQ", 1, b"mdat", far - len(FTYP))
        return (front[offset:] if offset < far else index[offset - far :])[:size]

    assert describe(read, far + len(index)) == MEDIA
    assert len(reads) == 4
    assert sum(size for _, size in reads) < 100 + len(index)


def test_of_an_endless_index_only_the_beginning_is_read() -> None:
    index = moov(mvhd(), trak(), box(b"udta", bytes(MAX_INDEX)))
    asked: list[int] = []

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return (FTYP + index)[offset : offset + size]

    assert describe(read, len(FTYP) + len(index)) == MEDIA
    assert max(asked) == MAX_INDEX


@pytest.mark.parametrize("version", [0, 1])
def test_a_duration_of_all_ones_is_unknown(version: int) -> None:
    unknown = (1 << (64 if version else 32)) - 1
    found = described(moov(mvhd(duration=unknown, version=version), trak()))
    assert found == MediaFacts(duration=None, width=1280, height=720)


@pytest.mark.parametrize("head", [mvhd(duration=0), mvhd(timescale=0), mvhd(1, 0xFFFF_FFF0)])
def test_a_duration_that_cannot_be_is_none(head: bytes) -> None:
    assert described(moov(head, trak())) == MediaFacts(duration=None, width=1280, height=720)


@pytest.mark.parametrize("mehd", [struct.pack(">2I", 0, 8000), struct.pack(">IQ", 1 << 24, 8000)])
@pytest.mark.parametrize("first", [True, False])
def test_a_film_in_fragments_is_as_long_as_all_of_them(mehd: bytes, first: bool) -> None:
    mvex = box(b"mvex", box(b"mehd", mehd), box(b"trex", bytes(24)))
    index = moov(mvex, mvhd(duration=1000)) if first else moov(mvhd(duration=1000), mvex)
    assert described(index) == MediaFacts(duration=8.0)


def test_a_track_that_is_shown_at_no_size_has_that_of_its_pictures() -> None:
    index = moov(mvhd(), trak(tkhd(0, 0), mdia(coded=(640, 360))))
    assert described(index) == MediaFacts(duration=5.25, width=640, height=360)
    turned = moov(mvhd(), trak(tkhd(0, 0, turn=(0, 1, -1, 0)), mdia(coded=(640, 360))))
    assert described(turned) == MediaFacts(duration=5.25, width=360, height=640)
    headless = moov(mvhd(), trak(b"", mdia(coded=(640, 360))))
    assert described(headless) == MediaFacts(duration=5.25, width=640, height=360)


def test_parts_of_a_pixel_are_rounded() -> None:
    assert described(moov(trak(tkhd(853.4, 479.6)))) == MediaFacts(width=853, height=480)


def test_tracks_without_a_picture_are_passed_over() -> None:
    sound, text = trak(tkhd(0, 0), mdia(b"soun")), trak(tkhd(640, 60), mdia(b"text"))
    assert described(moov(mvhd(), sound, text, trak())) == MEDIA
    assert described(moov(mvhd(), sound, text)) == MediaFacts(duration=5.25)


def test_what_is_sure_is_told_although_the_rest_is_broken() -> None:
    broken = struct.pack(">I4s", 1 << 30, b"trak") + bytes(40)
    assert described(moov(mvhd(), broken)) == MediaFacts(duration=5.25)
    assert described(moov(trak(), mvhd()[:20])) == MediaFacts(width=1280, height=720)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"moov",
        FTYP,
        FTYP + box(b"mdat", bytes(50)),
        FTYP + moov()[:60],  # cut
        FTYP + struct.pack(">I4s", 7, b"free") + moov(),  # smaller than its own header
        FTYP + struct.pack(">I4sQ", 1, b"free", 15) + moov(),
        FTYP + struct.pack(">I4sQ", 1, b"free", (1 << 64) - 1) + moov(),
        moov(box(b"udta", bytes(30))),
        moov(box(b"trak", box(b"mdia"))),
        struct.pack(">I4s", 1, b"moov"),
        box(b"free") * (MAX_READS + 1) + moov(),
        b"<!doctype html><title>Not found</title>",
    ],
)
def test_what_says_nothing_is_none(data: bytes) -> None:
    assert described(data) is None


def test_a_read_that_falls_short_is_the_end_of_what_is_known() -> None:
    assert describe(lambda offset, size: b"", 1000) is None
    data = FTYP + moov()
    assert describe(lambda offset, size: data[offset : offset + size][:200], len(data)) is not None
