"""Signals to a process that still starts, and SIGHUP to one that only works on jobs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.origin import wait_for

pytestmark = pytest.mark.timeout(240)  # processes start one after the other

PROGRAM = Path(sys.executable).with_name("firstview")


@contextlib.asynccontextmanager
async def started(folder: Path, command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    settings = {
        "FIRSTVIEW_DATA_DIR": str(folder / "data"),
        "FIRSTVIEW_LISTEN": "127.0.0.1:0",
        "FIRSTVIEW_ADMIN_LISTEN": "127.0.0.1:0",
    }
    process = await asyncio.create_subprocess_exec(
        PROGRAM, command, env=os.environ | settings, cwd=folder, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stance(pid: int, by: signal.Signals) -> str | None:
    """What a process does about a signal: `SigBlk`, it lets it wait; `SigCgt`, it heeds it.

    See proc_pid_status(5). None if it does neither yet.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = dict(line.split(":\t", 1) for line in lines if line.startswith("Sig"))
    found = (each for each in ("SigBlk", "SigCgt") if int(masks[each], 16) >> (by - 1) & 1)
    return next(found, None)


@pytest.mark.parametrize(("command", "by"), [("serve", signal.SIGTERM), ("worker", signal.SIGINT)])
async def test_a_process_that_starts_outlives_sighup_and_ends_quietly_when_told_to(
    command: str, by: signal.Signals, tmp_path: Path
) -> None:
    for _ in range(5):  # on a busy machine the start may be over before it is looked at
        async with started(tmp_path, command) as process:
            if await wait_for(partial(stance, process.pid, signal.SIGHUP), 60) != "SigBlk":
                continue
            process.send_signal(signal.SIGHUP)
            process.send_signal(by)
            _, said = await process.communicate()
            assert process.returncode == 0, said
            assert b"Traceback" not in said
            return
    pytest.fail("it was never seen to start")


async def test_a_worker_that_gets_sighup_begins_afresh_if_it_can_and_else_goes_on(
    tmp_path: Path,
) -> None:
    async with started(tmp_path, "worker") as process:
        assert process.stderr is not None
        settings = tmp_path / ".env"

        async def until(event: str) -> dict[str, Any]:
            assert process.stderr is not None
            async for line in process.stderr:
                said: dict[str, Any] = json.loads(line)
                if said["event"] == event:
                    return said
            raise AssertionError(f"ended without {event!r}")

        assert (await until("working"))["mirrors"] == 4
        for wrong in ("FIRSTVIEW_MIRRORS=7", "FIRSTVIEW_DATABASE_URL=sqlite:////proc/none/x"):
            settings.write_text(wrong)
            process.send_signal(signal.SIGHUP)
            why = (await until("not reloaded: this process goes on"))["why"]
            assert "FIRSTVIEW_MIRRORS" in why or "/proc/none" in why
        settings.write_text("FIRSTVIEW_MIRROR_CONCURRENCY=7")
        process.send_signal(signal.SIGHUP)
        assert (await until("working"))["mirrors"] == 7
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
