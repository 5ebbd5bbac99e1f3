"""What the manifests say, done without Kubernetes: the pods' commands, and nginx as the Ingress."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from proxy.errors import RouteNotFound
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.fleet import Member, fleet
from tests.fixtures.manifests import ALL, Pod, rendered
from tests.fixtures.nginx import nginx
from tests.fixtures.origin import ADMIN_TOKEN, MakeOrigin, Origin, wait_for

pytestmark = pytest.mark.needs("kubectl")

PROGRAM = Path(sys.executable).with_name("firstview")
SIZE = 200_000
CLIPS = 24  # all of them on one of the two replicas would be a rare chance
INGRESS = """
    upstream replicas {{
        {lb-method};
        server 127.0.0.1:{one};
        server 127.0.0.1:{other};
        keepalive {keepalive};
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size {client-max-body-size};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering {buffering};
            proxy_max_temp_file_size {proxy-max-temp-file-size};
            proxy_connect_timeout {proxy-connect-timeout};
            proxy_read_timeout {proxy-read-timeout};
            proxy_send_timeout {proxy-send-timeout};
        }}
    }}
"""
"""What F5's controller makes of the annotations, as far as they say anything."""


def edge_of(folder: Path, one: Origin, other: Origin) -> AbstractAsyncContextManager[str]:
    """Run nginx as the Ingress says, in front of two replicas; its address."""
    [manifest] = rendered("r2").of("Ingress")
    said = {
        name.removeprefix("nginx.org/"): value
        for name, value in manifest["metadata"]["annotations"].items()
    }
    values = {
        **said,
        "buffering": {"true": "on", "false": "off"}[said["proxy-buffering"]],
        "one": one.app.public_port,
        "other": other.app.public_port,
    }
    return nginx(folder, INGRESS, values)


@pytest.mark.needs("nginx")
async def test_a_clip_lives_on_one_replica_and_streams_through_the_ingress(
    make_origin: MakeOrigin, tmp_path: Path, fal: FakeFal
) -> None:
    replicas = [
        await make_origin(tmp_path / name, drain_timeout="200ms") for name in ("one", "other")
    ]
    names = [f"clip{number}" for number in range(CLIPS)]
    for name in [*names, "slow"]:
        for replica in replicas:
            last = name == "slow"
            behaviour = Behaviour(stall_at=SIZE // 2, stall_for=3600) if last else None
            await replica.clip(name, make_clip(SIZE, 5), behaviour)
    client = replicas[0].client
    async with edge_of(tmp_path, *replicas) as edge:
        for name in names:
            for query in ("", "?verify=1-a", "?verify=2-b"):
                async with client.get(f"{edge}/videos/{name}.mp4{query}") as reply:
                    assert reply.status == 200
                    assert len(await reply.read()) == SIZE
        # Fetched once each, though both replicas have been asked for some.
        assert [len(fal.gets(replicas[0].paths[name])) for name in names] == [1] * CLIPS
        asked = [await stored(replica, names) for replica in replicas]
        assert min(asked) > 0
        async with asyncio.timeout(20), client.get(f"{edge}/videos/slow.mp4") as reply:
            assert len(await reply.content.readexactly(SIZE // 4)) == SIZE // 4


async def test_every_address_that_a_manifest_names_is_one_of_firstviews(origin: Origin) -> None:
    admin, public = set(), set()
    for overlay in ALL:
        objects = rendered(overlay)
        for pod in objects.pods():
            for name, value in pod.container.items():
                admin |= {value["httpGet"]["path"]} if name.endswith("Probe") else set()
        for monitor in objects.of("ServiceMonitor"):
            admin |= {endpoint["path"] for endpoint in monitor["spec"]["endpoints"]}
        for ingress in objects.of("Ingress"):
            [rule] = ingress["spec"]["rules"]
            public |= {path["path"] for path in rule["http"]["paths"]}
    assert admin == {"/livez", "/readyz", "/metrics"}
    for path in admin:
        async with origin.client.get(origin.admin(path)) as reply:
            assert reply.status == 200, path
    assert public == {"/videos/", "/webhooks/fal", "/healthz"}
    base = f"http://127.0.0.1:{origin.app.public_port}"
    for path in public:
        url = base + path + ("x.mp4" if path.endswith("/") else "")
        async with origin.client.get(url) as reply:
            assert f"problem:{RouteNotFound.slug}" not in await reply.text(), path
    async with origin.client.get(f"{base}/elsewhere") as reply:
        assert f"problem:{RouteNotFound.slug}" in await reply.text()


async def stored(replica: Origin, names: list[str]) -> int:
    """How many of the clips a replica has brought in, or is about to."""
    rows = [await replica.row(name) for name in names]
    return sum(row is not None and row.etag is not None for row in rows)


def given(overlay: str, pod: Pod) -> dict[str, object]:
    """The pod's own settings but for the places, which are elsewhere here, and long waits."""
    said = {
        name.removeprefix("FIRSTVIEW_").lower(): value
        for name, value in rendered(overlay).environment(pod).items()
        if name.startswith("FIRSTVIEW_") and value is not None
    }
    kept = said.keys() - {"data_dir", "listen", "admin_listen", "bucket_url"}
    return {
        **{name: said[name] for name in kept},
        "cache_max_bytes": "1GiB",
        "drain_timeout": "1s",
        "drain_delay": "0s",
    }


async def probed(client: aiohttp.ClientSession, admin: str, pod: Pod) -> None:
    """Ask what the kubelet asks, and see that the API is nobody's without its token."""
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = pod.container[probe]["httpGet"]["path"]
        async with client.get(f"http://{admin}{path}") as reply:
            assert reply.status == 200, await reply.text()
    async with client.get(f"http://{admin}/api/v1/generations") as reply:
        assert reply.status == 401


async def viewed(client: aiohttp.ClientSession, origin: Member, fal: FakeFal) -> None:
    """A clip that is told of over the admin address, and viewed at the public one, is stored."""
    [serving], data = origin.said("serving"), make_clip(SIZE, 6)
    row = f"http://{serving['admin']}/api/v1/generations/clip"
    owner = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    known = {"fal_url": fal.add("/clip.mp4", data)}
    async with client.put(row, json=known, headers=owner) as reply:
        assert reply.status == 201
    async with client.get(f"http://{serving['public']}/videos/clip.mp4") as reply:
        assert await reply.read() == data

    async def is_stored() -> bool:
        async with client.get(row, headers=owner) as reply:
            return bool((await reply.json())["status"] == "stored")

    await wait_for(is_stored, 30)


@pytest.mark.timeout(240)
async def test_the_pod_of_a_single_node_is_an_origin(tmp_path: Path, fal: FakeFal) -> None:
    pod = rendered("single-node").pod("origin")
    [command] = pod.container["args"]
    settings = given("single-node", pod)
    origin = Member(name="pod", command=command, data_dir=tmp_path / "data", settings=settings)
    async with fleet(origin), aiohttp.ClientSession() as client:
        await probed(client, origin.said("serving")[0]["admin"], pod)
        await viewed(client, origin, fal)
        await origin.stop(60)


@pytest.mark.soak
@pytest.mark.timeout(240)
async def test_the_pods_of_replicas_make_an_origin_once_the_job_is_done(
    tmp_path: Path, fal: FakeFal, postgres_url: str, s3_bucket_name: str, aws_environment: None
) -> None:
    objects = rendered("s3")
    places = {"database_url": postgres_url, "bucket_url": f"s3://{s3_bucket_name}"}
    origin, worker = (
        Member(
            name=name,
            command=objects.pod(name).container["args"][0],
            data_dir=tmp_path / name / "data",
            settings=given("s3", objects.pod(name)) | places,
        )
        for name in ("origin", "worker")
    )
    # Before the Job, a pod ends and says why; Kubernetes starts it again.
    origin.data_dir.parent.mkdir(parents=True)
    await origin.start()
    assert await asyncio.wait_for(origin.running.wait(), 60) != 0
    assert "firstview catalog migrate" in origin.log.read_text()
    migrate = await asyncio.create_subprocess_exec(
        PROGRAM,
        *objects.pod("migrate").container["args"],
        env={"PATH": os.environ["PATH"], "FIRSTVIEW_DATABASE_URL": postgres_url},
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await asyncio.wait_for(migrate.wait(), 60) == 0
    async with fleet(origin, worker), aiohttp.ClientSession() as client:
        await probed(client, origin.said("serving")[0]["admin"], objects.pod("origin"))
        await probed(client, worker.said("working")[0]["admin"], objects.pod("worker"))
        await viewed(client, origin, fal)
        await worker.stop(60)
        await origin.stop(60)
