"""The image, by the Dockerfile's own steps: unprivileged, from a root that cannot be written to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.fal import FakeFal, make_clip
from tests.fakes.webhooks import JWKS_PATH, Signer
from tests.fixtures.image import CHECKOUT, Image, make_image
from tests.fixtures.room import Room, require_rooms
from tests.fixtures.servers import free_port
from tests.fixtures.serving import serving_by

MODEST = {
    "FIRSTVIEW_UPSTREAM_HOSTS": "127.0.0.1",
    "FIRSTVIEW_UPSTREAM_ALLOW_INSECURE": "true",
    "FIRSTVIEW_CACHE_MAX_BYTES": "10MiB",
    "FIRSTVIEW_DISK_RESERVE": "1MiB",
    "FIRSTVIEW_MAX_CONNECTIONS": "100",
    "FIRSTVIEW_OPEN_FILES": "10",
}
"""Settings with which a doctor finds enough of everything on any machine that runs the tests."""
pytestmark = pytest.mark.timeout(240)  # processes start one after the other


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    require_rooms()
    memory = Path("/dev/shm")  # thousands of small files, which a disk takes seconds over
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1_000_000_000
    place = memory if roomy else tmp_path_factory.getbasetemp()
    folder = Path(tempfile.mkdtemp(prefix="firstview-", dir=place))
    try:
        yield make_image(folder)
    finally:
        shutil.rmtree(folder)


def packages(image: Image) -> Path:
    (found,) = image.installed.glob("lib/python3.*/site-packages")
    return found


def assert_holds_what_the_lock_names(image: Image) -> None:
    """That, and firstview, and nothing else."""
    lock = (CHECKOUT / "requirements/runtime.txt").read_text()
    locked = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    there = {
        re.sub(r"[-_.]+", "-", found.name.partition("-")[0]).lower()
        for found in packages(image).glob("*.dist-info")
    }
    elsewhere = {"colorama"}  # what the lock names for Windows only
    assert there == {*locked, "firstview"} - elsewhere
    assert not {"pip", "setuptools", "wheel", "hatchling", "uv"} & there
    # The wheel's own files, not a way back to the checkout.
    assert (packages(image) / "proxy/catalog/migrations").is_dir()
    assert not [path for path in packages(image).glob("*.pth") if "firstview" in path.name]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
async def test_the_image_migrates_and_serves_and_can_write_to_its_data_directory_only(
    workers: int, image: Image, fal: FakeFal, tmp_path: Path
) -> None:
    # One test: the image is made once for it, and tests of one file run in several processes.
    assert_holds_what_the_lock_names(image)
    room = image.room(tmp_path)
    for path in ("/x", "/opt/firstview/x", "/tmp/x", "/var/lib/x"):
        assert_refuses(room, image, path)
    migrated = await asyncio.to_thread(
        subprocess.run,
        image.command(room, "catalog", "migrate", "--json"),
        env=image.environment,
        capture_output=True,
        check=True,
    )
    assert json.loads(migrated.stdout)["migrated"]
    data = make_clip(300_000, 3)
    admin = f"127.0.0.1:{free_port()}"
    async with serving_by(
        image.command(room),
        image.environment,
        Path(image.environment["FIRSTVIEW_DATA_DIR"]),
        {"admin_listen": admin, "workers": workers},
    ) as server:
        await server.register("clip", fal.add("/clip.mp4", data))
        async with server.client.get(server.url("clip")) as reply:
            assert await reply.read() == data
        await server.stored("clip")
        for pid in (server.process.pid, *server.workers):
            assert_powerless(pid, image.user, image.folder)
        # What the engine asks, as the engine asks it.
        asked = image.environment | {"FIRSTVIEW_ADMIN_LISTEN": admin}
        check = image.health_check
        well = room.run(*check, environment=asked, user=image.user, folder=image.folder)
        assert well.returncode == 0, well.stderr
        assert well.stdout.startswith("alive\n")
        fal.add(JWKS_PATH, Signer(1).jwks())
        doctors = asked | MODEST | {"FIRSTVIEW_FAL_JWKS_URL": fal.url(JWKS_PATH)}
        await asyncio.to_thread(assert_well, room, image, doctors, f"http://{server.public}")
        assert await server.end(image.stop_signal) == 0
    assert not [line for line in server.log if line.get("level") in {"error", "critical"}]
    assert room.run(*check, environment=asked, user=image.user).returncode == 1
    volume = room.writable[image.folder]
    assert (volume / "catalog.sqlite").is_file()
    assert {path.stat().st_uid for path in volume.rglob("*")} == {image.user}


def assert_well(room: Room, image: Image, environment: dict[str, str], url: str) -> None:
    """The doctor in the container tries all that serving there needs, and leaves nothing behind."""
    volume = room.writable[image.folder]
    before = {path for path in volume.rglob("*") if path.is_file()}
    said = room.run(
        *("firstview", "doctor", "--json", "--url", url),
        environment=environment,
        user=image.user,
        folder=image.folder,
    )
    assert said.stdout, said.stderr
    findings = json.loads(said.stdout)["findings"]
    assert not [each for each in findings if each["mark"] == "fails"]
    assert said.returncode == 0
    found = {(each["area"], each["check"]): each for each in findings}
    assert found["data directory", "writable"]["seen"] == image.folder
    for check in ("write and sync", "locks", "hard links", "sendfile", "allocate"):
        assert found["data directory", check]["mark"] == "ok"
    for each in (
        ("bucket", "conditional write"),
        ("database", "write"),
        ("public address", "a clip"),
    ):
        assert found[each]["mark"] == "ok", found[each]
    assert {path for path in volume.rglob("*") if path.is_file()} == before


def assert_refuses(room: Room, image: Image, path: str) -> None:
    """Nobody can write there; the same in the data directory works, so it is the root's doing."""
    (room.root / "tmp").mkdir(exist_ok=True)
    refused = room.run("touch", path, environment=image.environment, user=image.user)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr
    home = f"{image.folder}/x"
    assert room.run("touch", home, environment=image.environment, user=image.user).returncode == 0


def assert_powerless(pid: int, user: int, folder: str) -> None:
    """What a container with a read-only root, no capabilities and a numeric user is."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == [str(user)] * 4
    assert status["Gid"] == [str(user)] * 4
    assert not status["Groups"]
    assert {int(status[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    writable = {mount[4] for mount in mounts if "rw" in mount[5].split(",")}
    assert {path for path in writable if not path.startswith(("/proc", "/dev"))} == {folder}


@pytest.mark.soak
def test_the_image_works_on_jobs_until_it_is_told_to_stop(image: Image, tmp_path: Path) -> None:
    room = image.room(tmp_path)
    environment = image.environment | {"FIRSTVIEW_ADMIN_LISTEN": "127.0.0.1:0"}
    worker = subprocess.Popen(
        image.command(room, "worker"), env=environment, stderr=subprocess.PIPE, text=True
    )
    assert worker.stderr is not None
    try:
        assert any(json.loads(line)["event"] == "working" for line in worker.stderr)
        worker.send_signal(image.stop_signal)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
        worker.stderr.close()


@pytest.mark.soak
@pytest.mark.needs("buildah", "mmdebstrap")
@pytest.mark.timeout(1800)
async def test_the_whole_image_is_built_by_an_engine_and_serves(
    fal: FakeFal, tmp_path: Path
) -> None:
    require_rooms()
    storage = tmp_path / "storage.conf"
    places = f'graphroot = "{tmp_path}/store"\nrunroot = "{tmp_path}/run"\n'
    storage.write_text(f'[storage]\ndriver = "vfs"\n{places}')
    base, name = "localhost/firstview-base", "localhost/firstview"
    environment = os.environ | {
        "CONTAINERS_STORAGE_CONF": str(storage),
        "BUILDAH_ISOLATION": "chroot",
        "ENGINE": "buildah",
        "PYTHON_IMAGE": base,
    }

    def run(*command: str | Path) -> str:
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, check=True, text=True
        ).stdout.strip()

    run(CHECKOUT / "tools/image-base", base)
    # The certificates of this machine, which knows who stands between it and the registry.
    run(CHECKOUT / "tools/image", name, "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro")
    said = json.loads(run("buildah", "inspect", "--type", "image", name))["Docker"]["config"]
    root = Path(run("buildah", "mount", run("buildah", "from", name)))
    (installed,) = root.glob("opt/firstview/lib/python3.*/site-packages")
    sources = set(installed.rglob("*.py"))
    compiled = set()
    for path in installed.rglob("__pycache__/*.pyc"):
        compiled.add(path.parents[1] / f"{path.name.partition('.')[0]}.py")
    assert len(sources & compiled) > 0.99 * len(sources)
    for forbidden in ("pip", "pip3", "gcc", "cc", "c++", "make", "uv"):
        assert not list(root.glob(f"*/bin/{forbidden}")) + list(root.glob(f"*/*/bin/{forbidden}"))
    assert not list(root.rglob("ensurepip")) + list(root.rglob("site-packages/pip"))
    assert said["Healthcheck"]["Test"] == ["CMD", "firstview", "health"]
    (folder,) = said["Volumes"]
    user = int(said["User"].partition(":")[0])
    assert (root / folder.lstrip("/")).stat().st_uid == user

    room = Room(root)
    room.writable[folder] = tmp_path / "volume"
    room.writable[folder].mkdir()
    os.chown(room.writable[folder], user, user)
    inside = dict(line.partition("=")[::2] for line in said["Env"])
    data = make_clip(300_000, 3)
    program = room.command(*said["Entrypoint"], user=user, folder=said["WorkingDir"])
    settings = {"admin_listen": f"127.0.0.1:{free_port()}", "workers": 2}
    async with serving_by(program, inside, Path(folder), settings) as server:
        await server.register("clip", fal.add("/clip.mp4", data))
        async with server.client.get(server.url("clip")) as reply:
            assert await reply.read() == data
        await server.stored("clip")
        for pid in (server.process.pid, *server.workers):
            assert_powerless(pid, user, folder)
        asked = inside | {"FIRSTVIEW_ADMIN_LISTEN": str(settings["admin_listen"])}
        well = room.run(*said["Healthcheck"]["Test"][1:], environment=asked, user=user)
        assert well.returncode == 0, well.stderr
        assert await server.end(signal.Signals[said["StopSignal"]]) == 0
    print(run("buildah", "images", "--format", "{{.Name}} {{.Size}}"))
    run("buildah", "rm", "--all")
    run("buildah", "rmi", "--all", "--force")
