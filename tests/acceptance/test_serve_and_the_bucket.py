"""A real `firstview serve` with an S3 bucket: killed, stopped, and measured in the middle of it."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest

from proxy.storage import keys
from tests.fakes.bucket import Fault, FaultyBucket
from tests.fakes.fal import Behaviour, Clip, FakeFal, make_clip
from tests.fixtures.origin import wait_for
from tests.fixtures.serving import Serving, serving
from tests.fixtures.truth import Truth

pytestmark = pytest.mark.timeout(240)  # processes start one after the other

MIB = 1024 * 1024
LARGE = 11 * MIB
IN_PARTS: dict[str, Any] = {"single_put_max": "1MiB", "part_size": "5MiB"}


async def view(server: Serving, request_id: str) -> bytes:
    async with server.client.get(server.url(request_id)) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.read()


async def asked(bucket: FaultyBucket, operation: str) -> bool:
    return bool(bucket.seen(operation))


def spool(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "data" / "spool").iterdir()]


async def nothing_left(truth: Truth, tmp_path: Path) -> bool:
    return truth.uploads() == [] and spool(tmp_path) == []


async def test_a_clip_whose_upload_is_killed_is_stored_by_the_next_start_without_a_fetch(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 7 (quay#6885, ocis#4968): no orphan parts after a kill."""
    data = make_clip(LARGE, 1)
    fal.add("/clip.mp4", data)
    faulty_bucket.faults.append(Fault(operation="CompleteMultipartUpload", times=99, status=503))
    settings = {"bucket_url": truth.url, **IN_PARTS}
    async with serving(tmp_path / "data", **settings) as server:
        await server.register("clip", fal.url("/clip.mp4"))
        assert await view(server, "clip") == data
        await wait_for(lambda: asked(faulty_bucket, "CompleteMultipartUpload"), 30)
        await server.end(signal.SIGKILL)
    assert truth.uploads() == [keys.clip_key("clip")]
    assert truth.keys() == []
    faulty_bucket.faults.clear()
    async with serving(tmp_path / "data", **settings) as server:
        await server.stored("clip")
        assert truth.body("clip") == data
        assert await view(server, "clip") == data
        await wait_for(lambda: nothing_left(truth, tmp_path))
        assert (await server.row("clip"))["status"] == "stored"
    assert len(fal.gets()) == 1


async def test_a_fill_that_is_killed_is_gone_on_with_and_leaves_nothing_half_done(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 1 (artifact-keeper#1912), 7 (quay#6885): half a clip is no clip after a kill."""
    data = make_clip(LARGE, 2)
    fal.add("/clip.mp4", data, Behaviour(stall_at=6 * MIB))
    settings = {"bucket_url": truth.url, **IN_PARTS}
    async with serving(tmp_path / "data", **settings) as server:
        await server.register("clip", fal.url("/clip.mp4"))
        viewer = asyncio.create_task(view(server, "clip"))
        await wait_for(lambda: asked(faulty_bucket, "UploadPart"), 30)
        await server.end(signal.SIGKILL)
        [outcome] = await asyncio.gather(viewer, return_exceptions=True)
        assert isinstance(outcome, Exception)
    assert truth.uploads() == [keys.clip_key("clip")]
    fal.add("/clip.mp4", data)
    async with serving(tmp_path / "data", **settings) as server:
        await server.stored("clip")
        assert await view(server, "clip") == data
        assert truth.body("clip") == data
        await wait_for(lambda: nothing_left(truth, tmp_path))
    _, second = fal.gets()
    assert second.range is not None


async def test_a_stop_in_the_middle_of_an_upload_loses_nothing(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    data = make_clip(LARGE, 3)
    fal.add("/clip.mp4", data)
    faulty_bucket.faults.append(Fault(operation="UploadPart", times=99, rate=0.5 * MIB))
    settings = {"bucket_url": truth.url, **IN_PARTS}
    async with serving(tmp_path / "data", **settings) as server:
        await server.register("clip", fal.url("/clip.mp4"))
        assert await view(server, "clip") == data
        assert await server.end(signal.SIGTERM) == 0
    assert truth.keys() == []
    assert truth.uploads() == []  # what was begun is aborted on the way out
    assert len(spool(tmp_path)) == 2
    faulty_bucket.faults.clear()
    async with serving(tmp_path / "data", **settings) as server:
        await server.stored("clip")
        await wait_for(lambda: nothing_left(truth, tmp_path))
        assert truth.body("clip") == data
        assert await server.end(signal.SIGTERM) == 0
    assert len(fal.gets()) == 1


async def test_a_stop_lets_an_upload_that_is_nearly_done_finish(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    data = make_clip(MIB, 4)
    fal.add("/clip.mp4", data)
    faulty_bucket.faults.append(Fault(operation="PutObject", delay=0.5))
    async with serving(tmp_path / "data", bucket_url=truth.url, drain_timeout="20s") as server:
        await server.register("clip", fal.url("/clip.mp4"))
        assert await view(server, "clip") == data
        assert await server.end(signal.SIGTERM) == 0
    assert truth.body("clip") == data
    assert spool(tmp_path) == []


async def test_a_stop_does_not_wait_for_idle_connections(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", drain_timeout="30s") as server:
        async with server.client.get(server.url("nobody")) as reply:
            await reply.read()
        async with asyncio.timeout(10):  # Cloudflare keeps its connections for fifteen minutes
            assert await server.end(signal.SIGTERM) == 0


async def test_a_200_mb_clip_goes_through_in_a_few_megabytes_of_memory(
    tmp_path: Path, fal: FakeFal, aws_environment: None, truth: Truth
) -> None:
    """Peers 13 (tag#30), 40: no copy per chunk, and backpressure all the way through."""
    clip = Clip(200_000_000, 5)
    fal.add("/clip.mp4", clip)
    async with serving(tmp_path / "data", bucket_url=truth.url) as server:
        await server.register("clip", fal.url("/clip.mp4"))
        await server.register("warm-up", fal.url("/clip.mp4"))
        await server.client.head(server.url("clip"))
        before = server.memory()
        digest = hashlib.sha256()
        async with server.client.get(server.url("clip")) as reply:
            async for chunk in reply.content.iter_any():
                digest.update(chunk)
        assert digest.hexdigest() == clip.sha256()
        said = await server.stored("clip", 40)
        assert said["sha256"] == clip.sha256()
        grown = server.memory("VmHWM") - before
        print(f"{before / MIB:.0f} MiB before, {grown / MIB:.0f} MiB more at most")
        assert grown < 64 * MIB
    head = truth.head("clip")
    assert head is not None
    assert head["ContentLength"] == clip.size
    assert truth.uploads() == []
