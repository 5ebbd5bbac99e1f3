"""`firstview mirror`, `worker` and `sweep` as real processes, alone and beside `serve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.jobs import Jobs
from proxy.catalog.leases import Leases
from proxy.records import Generation, Registration
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.catalog import let_asyncpg_read_its_files
from tests.fixtures.origin import wait_for
from tests.fixtures.serving import serving

pytestmark = pytest.mark.timeout(180)  # processes start one after the other

_PROGRAM = Path(sys.executable).with_name("firstview")
SIZE = 60_000


@dataclass
class Done:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.out)
        return body


class Shell:
    """Runs commands on one data directory, with clips on a fake fal.media."""

    def __init__(self, folder: Path, fal: FakeFal) -> None:
        self.folder, self.fal = folder, fal
        self.database = f"sqlite:///{folder}/data/catalog.sqlite"
        self.variables: dict[str, str] = {}

    def environment(self, **more: str) -> dict[str, str]:
        own = {
            "FIRSTVIEW_DATA_DIR": str(self.folder / "data"),
            "FIRSTVIEW_ADMIN_LISTEN": "127.0.0.1:0",
            "FIRSTVIEW_LISTEN": "127.0.0.1:0",
            "FIRSTVIEW_UPSTREAM_HOSTS": "127.0.0.1",
            "FIRSTVIEW_UPSTREAM_ALLOW_INSECURE": "true",
            "FIRSTVIEW_DISK_RESERVE": "1MiB",
            "FIRSTVIEW_JOBS_POLL": "100ms",
            "FIRSTVIEW_JOB_BACKOFF": "100ms",
            "FIRSTVIEW_DRAIN_TIMEOUT": "2s",
        }
        return {**os.environ, **own, **self.variables, **more}

    async def start(self, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            _PROGRAM,
            *arguments,
            env=self.environment(**variables),
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, **variables: str) -> Done:
        return await ended(await self.start(*arguments, **variables))

    @contextlib.asynccontextmanager
    async def catalog(self) -> AsyncIterator[tuple[Generations, Jobs]]:
        catalog = await open_catalog(self.database, migrate=True)
        try:
            yield Generations(catalog, clip_url=str), Jobs(catalog)
        finally:
            await catalog.close()

    async def put(self, *ids: str, behaviour: Behaviour | None = None, **known: Any) -> None:
        """Register clips, and let the fake have them."""
        new = []
        for number, name in enumerate(ids):
            path = f"/files/b/{name}/{name}.mp4"
            url = self.fal.add(path, make_clip(SIZE, number), behaviour)
            new.append(Registration(request_id=name, fal_url=url, **known))
        async with self.catalog() as (generations, _):
            await generations.register(new)

    async def row(self, name: str) -> Generation:
        async with self.catalog() as (generations, _):
            row = await generations.get(name)
        assert row is not None
        return row

    async def statuses(self, *ids: str) -> set[str]:
        return {(await self.row(name)).status.value for name in ids}

    async def alive(self, *ids: str) -> set[str]:
        async with self.catalog() as (_, jobs):
            return await jobs.alive(ids)

    def gets(self, name: str) -> int:
        return len(self.fal.gets(f"/files/b/{name}/{name}.mp4"))


async def ended(process: asyncio.subprocess.Process) -> Done:
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    assert process.returncode is not None
    said = (err or b"").decode()  # None: it goes to a terminal
    assert "Traceback" not in said, said
    return Done(process.returncode, out.decode(), said)


@pytest.fixture
async def shell(tmp_path: Path, fal: FakeFal) -> Shell:
    (tmp_path / "data").mkdir()
    return Shell(tmp_path, fal)


@pytest.fixture
def postgres(postgres_url: str, _event_loop_guard: BlockBuster) -> str:
    let_asyncpg_read_its_files(_event_loop_guard)
    return postgres_url


CLIPS = [f"clip-{number}" for number in range(6)]


# --- all or some, alone or beside others --------------------------------------------------------


async def test_all_clips_are_stored_without_any_other_process(shell: Shell) -> None:
    await shell.put(*CLIPS)
    done = await shell.run("mirror", "--all", "--json")
    assert done.code == 0, done.err
    report = done.report
    assert report.pop("seconds") > 0
    assert report == {
        "asked": 6,
        "stored": 6,
        "already_stored": 0,
        "failed": 0,
        "failed_but_tried_again": 0,
        "reasons": {},
        "first_failed": [],
        "left": 0,
        "interrupted": False,
        "away": None,
        "bytes": 6 * SIZE,
    }
    assert done.err == "", "no bar and no log where nobody watches and nothing is wrong"
    assert await shell.statuses(*CLIPS) == {"stored"}
    again = await shell.run("mirror", "--all")
    assert (again.code, again.out[:13]) == (0, "nothing to do")


async def test_all_can_be_narrowed_to_a_model_and_a_time(shell: Shell) -> None:
    await shell.put("veo", "other", model="fal-ai/veo3")
    await shell.put("kling", model="fal-ai/kling")
    done = await shell.run("mirror", "--all", "--model", "fal-ai/kling", "--since", "1h", "--json")
    assert (done.code, done.report["stored"]) == (0, 1)
    assert await shell.statuses("kling") == {"stored"}
    assert await shell.statuses("veo", "other") == {"available"}
    none = await shell.run("mirror", "--all", "--since", "2099-01-01", "--json")
    assert (none.code, none.report["asked"]) == (0, 0)


async def test_it_works_with_postgresql(shell: Shell, postgres: str) -> None:
    shell.database = postgres
    shell.variables = {"FIRSTVIEW_DATABASE_URL": postgres}
    refused = await shell.run("mirror", "--all")
    assert refused.code == 3
    assert "firstview catalog migrate" in refused.err
    await shell.put(*CLIPS)
    done = await shell.run("mirror", "--all", "--json")
    assert (done.code, done.report["stored"]) == (0, 6)


async def test_beside_serve_each_clip_is_fetched_once_and_counted_whoever_stored_it(
    shell: Shell,
) -> None:
    await shell.put(*CLIPS, behaviour=Behaviour(rate=400_000))
    async with serving(shell.folder / "data", jobs_poll="100ms"):
        done = await shell.run("mirror", "--all", "--json")
    assert done.code == 0, done.err
    assert (done.report["failed"], done.report["left"]) == (0, 0)
    assert await shell.statuses(*CLIPS) == {"stored"}
    assert [shell.gets(name) for name in CLIPS] == [1] * 6


async def test_a_terminal_gets_a_bar(shell: Shell) -> None:
    await shell.put(*CLIPS)
    mine, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        _PROGRAM,
        *("mirror", "--all"),
        env=shell.environment(TERM="xterm", COLUMNS="100"),
        cwd=shell.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    reading = asyncio.create_task(asyncio.to_thread(_read_all, mine))
    done = await ended(process)
    shown = await reading
    assert done.code == 0
    assert done.out.startswith("6 stored (360.0KB in ")
    assert "6/6 clips" in shown
    assert '"event"' not in shown, "log lines would break the bar"


def _read_all(fd: int) -> str:
    parts = []
    with contextlib.suppress(OSError):  # Linux says that the other end is gone by EIO
        while part := os.read(fd, 65536):
            parts.append(part)
    os.close(fd)
    return b"".join(parts).decode(errors="replace")


# --- what cannot be stored ----------------------------------------------------------------------


async def test_unknown_and_failing_clips_are_named_with_their_reasons(shell: Shell) -> None:
    await shell.put("good")
    await shell.put("html", behaviour=Behaviour(body=b"<html>", content_type="text/html"))
    done = await shell.run("mirror", "good", "html", "nobody", "good")
    assert done.code == 1
    assert done.out.startswith("1 stored, 2 failed (")
    assert "any worker goes on trying 1 of" in done.out
    assert "firstview jobs list" in done.out
    assert "failed  nobody  unknown-clip: " in done.err
    assert "failed  html  not-a-clip: " in done.err
    assert await shell.statuses("good") == {"stored"}
    assert await shell.alive("html") == {"html"}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a", "--all"),
        ("a", "--model", "m"),
        ("--all", "--since", "once"),
        ("../etc",),
        ("nobody", "nothing"),
    ],
)
async def test_nothing_to_do_for_what_makes_no_sense_is_exit_code_2(
    shell: Shell, arguments: tuple[str, ...]
) -> None:
    done = await shell.run("mirror", *arguments)
    assert done.code == 2
    assert done.err


async def test_a_bucket_that_is_away_is_exit_code_3(shell: Shell) -> None:
    await shell.put("a")
    done = await shell.run(
        "mirror",
        "--all",
        FIRSTVIEW_BUCKET_URL="s3://clips",
        FIRSTVIEW_BUCKET_ATTEMPTS="1",
        AWS_ENDPOINT_URL_S3="http://127.0.0.1:9",
        AWS_REGION="auto",
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
    )
    assert done.code == 3
    assert done.err.startswith("firstview: the bucket ")


# --- stopping and going on ----------------------------------------------------------------------


async def test_ctrl_c_says_what_is_left_and_the_same_command_goes_on(
    shell: Shell, fal: FakeFal
) -> None:
    await shell.put(*CLIPS)
    held = asyncio.Event()
    for name in CLIPS[2:]:
        path = f"/files/b/{name}/{name}.mp4"
        fal.script(path, [Behaviour(stall_at=30_000, stall_until=held)])
    process = await shell.start("mirror", "--all", "--json", FIRSTVIEW_MIRROR_CONCURRENCY="6")

    async def has_begun() -> bool:
        return all(shell.gets(name) for name in CLIPS) and await _stored(shell, CLIPS[:2])

    await wait_for(has_begun, 30)
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.code == 130
    report = done.report
    assert (report["asked"], report["stored"], report["left"]) == (6, 2, 4)
    assert report["interrupted"]
    assert "stopping: 4 clips" in done.err
    assert await shell.alive(*CLIPS) == set(CLIPS[2:])
    again = await shell.run("mirror", "--all", "--json")
    held.set()
    assert (again.code, again.report["stored"]) == (0, 4)
    assert await shell.statuses(*CLIPS) == {"stored"}


async def _stored(shell: Shell, names: list[str]) -> bool:
    return await shell.statuses(*names) == {"stored"}


async def test_a_second_ctrl_c_ends_it_at_once(shell: Shell) -> None:
    await shell.put("a", behaviour=Behaviour(stall_at=30_000))
    process = await shell.start("mirror", "a", FIRSTVIEW_DRAIN_TIMEOUT="40s")

    async def has_begun() -> bool:
        return bool(shell.gets("a"))

    await wait_for(has_begun, 30)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    async with asyncio.timeout(40):
        assert b"Ctrl-C again ends at once" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        assert await process.wait() == 130
    await process.communicate()


# --- worker and sweep ---------------------------------------------------------------------------


async def test_a_worker_alone_does_the_jobs_and_stops_when_told(shell: Shell) -> None:
    await shell.put("a")
    filed = await shell.run("sweep", "--json", FIRSTVIEW_SWEEP_AFTER="1ms")
    assert filed.code == 0, filed.err
    assert filed.report["unstored"] == 1
    process = await shell.start("worker")
    assert process.stderr is not None
    async with asyncio.timeout(40):
        said = json.loads(await process.stderr.readline())
    assert said["event"] == "working"
    assert said["admin"].startswith("127.0.0.1:")

    async def is_stored() -> bool:
        return await _stored(shell, ["a"])

    await wait_for(is_stored, 40)
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).code == 0


async def test_a_sweep_beside_another_one_says_so(shell: Shell) -> None:
    catalog = await open_catalog(shell.database)
    assert await Leases(catalog).take("sweep", "another", timedelta(minutes=1))
    await catalog.close()
    done = await shell.run("sweep")
    assert (done.code, done.out) == (3, "")
    assert done.err == "firstview: another process is sweeping just now\n"


async def test_a_sweep_says_what_it_did(shell: Shell) -> None:
    done = await shell.run("sweep")
    assert done.code == 0
    assert "0 mirror jobs filed" in done.out
    assert "FIRSTVIEW_FAL_KEY is not set" in done.out


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("serve", "FIRSTVIEW_LISTEN"),
        ("serve", "FIRSTVIEW_ADMIN_LISTEN"),
        ("worker", "FIRSTVIEW_ADMIN_LISTEN"),
    ],
)
async def test_a_port_that_is_taken_is_one_clear_sentence(
    shell: Shell, command: str, setting: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await shell.run(command, **{setting: address})
    assert done.code == 2
    assert done.err == (
        f"{setting}: cannot listen on {address}: Address already in use;"
        " every process needs one of its own\n"
    )
