"""The fake fal.media itself: what other tests believe of it."""

import asyncio
import json
import shutil
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.fakes.clips import RealClips
from tests.fakes.fal import Behaviour, Clip, FakeFal, make_clip
from tests.fixtures.origin import wait_for


def boxes(data: bytes) -> list[tuple[str, int]]:
    found, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found.append((kind.decode(), size))
        at += size
    assert at == len(data)
    return found


@pytest.mark.parametrize("size", [32, 47, 48, 100, 5000, 3_000_000])
@pytest.mark.parametrize("at_end", [False, True])
def test_made_up_clips_are_media_files_of_the_exact_size(size: int, at_end: bool) -> None:
    data = make_clip(size, seed=7, moov_at_end=at_end)
    assert len(data) == size
    kinds = [kind for kind, _ in boxes(data)]
    order = ["ftyp", "mdat", "moov"] if at_end else ["ftyp", "moov", "mdat"]
    assert kinds == [kind for kind in order if kind in kinds]
    assert make_clip(size, seed=7, moov_at_end=at_end) == data
    if size > 100:
        assert make_clip(size, seed=8, moov_at_end=at_end) != data


def test_made_up_clips_read_the_same_in_pieces_and_repeat_nowhere() -> None:
    clip = Clip(5_000_000, seed=7, moov_at_end=True)
    data = clip.read(0, 5_000_000)
    cuts = [0, 10, 24, 31, 33, 1 << 20, (1 << 20) + 3, 3_000_000, 4_998_970, 4_999_999, 5_000_000]
    assert b"".join(clip.read(a, b) for a, b in pairwise(cuts)) == data
    assert len({data[at : at + (1 << 20)] for at in range(0, 4 << 20, 1 << 20)}) == 4


async def talk(fal: FakeFal, path: str) -> tuple[bytes, bool]:
    """Ask for a path by hand; return all that came and whether the end was a reset."""
    with socket.socket() as client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", fal.port))
        await loop.sock_sendall(
            client, f"GET /{path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()
        )
        received = b""
        try:
            while data := await loop.sock_recv(client, 65536):
                received += data
        except ConnectionResetError:
            return received, True
        return received, False


async def test_a_cut_is_a_clean_end_and_a_reset_is_a_reset(fal: FakeFal) -> None:
    data = make_clip(100_000)
    fal.add("x", data)
    fal.script("x", [Behaviour(cut_at=5000), Behaviour(reset_at=5000), Behaviour(hang_up="rst")])
    for ending, bytes_of_body in ((False, 5000), (True, 5000)):
        received, reset = await talk(fal, "x")
        assert reset is ending
        assert received.partition(b"\r\n\r\n")[2] == data[:bytes_of_body]
    assert await talk(fal, "x") == (b"", True)
    received, reset = await talk(fal, "x")
    assert received.endswith(data)
    assert [request.sent for request in fal.gets("x")] == [5000, 5000, 0, 100_000]


async def test_the_rate_is_kept_and_a_client_that_leaves_is_noticed(fal: FakeFal) -> None:
    fal.add("slow", make_clip(50_000), Behaviour(rate=250_000))
    await talk(fal, "slow")
    (request,) = fal.requests("slow")
    assert request.first_byte_at is not None
    assert request.last_byte_at is not None
    assert 0.15 < request.last_byte_at - request.first_byte_at < 2.0
    assert (request.finished, request.aborted) == (True, False)
    fal.add("never", b"", Behaviour(delay=float("inf")))
    talking = asyncio.create_task(talk(fal, "never"))

    async def is_asked() -> bool:
        return bool(fal.requests("never"))

    async def is_noticed() -> bool:
        return (fal.requests("never")[0].aborted, fal.connections) == (True, 0)

    await wait_for(is_asked)
    assert not fal.requests("never")[0].aborted
    talking.cancel()
    await wait_for(is_noticed)


@pytest.fixture
def process() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fakes.fal", "--clip", "a.mp4=100000:3:end"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as fake:
        assert fake.stdout is not None
        yield json.loads(fake.stdout.readline())["url"]
        fake.terminate()
        assert fake.wait(10) == 0


def test_the_fake_runs_as_a_process_and_tells_what_was_asked_of_it(process: str) -> None:
    with urllib.request.urlopen(process + "a.mp4") as reply:
        assert reply.read() == make_clip(100_000, 3, moov_at_end=True)
    with urllib.request.urlopen(process + "_/requests") as reply:
        (record,) = json.load(reply)
    assert (record["method"], record["path"], record["sent"]) == ("GET", "/a.mp4", 100_000)


@pytest.mark.needs("ffmpeg", "ffprobe")
@pytest.mark.parametrize("at_end", [False, True])
def test_real_clips_play_and_have_their_index_where_they_say(
    real_clips: RealClips, at_end: bool
) -> None:
    path = real_clips.get(2, moov_at_end=at_end)
    assert real_clips.get(2, moov_at_end=at_end) == path
    kinds = [kind for kind, _ in boxes(path.read_bytes())]
    assert (kinds.index("moov") > kinds.index("mdat")) is at_end
    ffprobe = shutil.which("ffprobe") or "ffprobe"
    shown = subprocess.run(
        [ffprobe, "-v", "error", "-show_entries", "format=duration:stream=codec_name",
         "-of", "json", path],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    report = json.loads(shown.stdout)
    assert [stream["codec_name"] for stream in report["streams"]] == ["h264", "aac"]
    assert 1.8 < float(report["format"]["duration"]) < 2.3
