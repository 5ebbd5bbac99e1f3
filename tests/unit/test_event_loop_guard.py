"""The guard that keeps the event loop free really bites, and only where it should."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from blockbuster import BlockingError

import proxy


def _as_proxy_code(source: str) -> Callable[..., object]:
    """Compile a function as if it stood in the package that is guarded."""
    names: dict[str, Callable[..., object]] = {}
    file = str(Path(str(proxy.__file__)).with_name("imagined.py"))
    exec(compile(source, file, "exec"), {"os": os, "time": time}, names)
    return names["call"]


async def test_coroutine_tests_run_on_uvloop() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


@pytest.mark.parametrize("source", ["time.sleep(0)", "os.fsync(0)", "os.listdir('/')"])
async def test_code_that_blocks_the_loop_is_caught(source: str) -> None:
    call = _as_proxy_code(f"def call(): {source}")
    with pytest.raises(BlockingError):
        call()


@pytest.mark.blocking
async def test_a_marked_test_may_block() -> None:
    _as_proxy_code("def call(): time.sleep(0)")()


async def test_tests_themselves_may_read_files() -> None:
    assert Path(__file__).read_text().startswith('"""')


@pytest.mark.skipif(sys.platform != "linux", reason="os.sendfile sends to sockets on Linux")
async def test_sendfile_is_allowed_to_non_blocking_sockets_only() -> None:
    call = _as_proxy_code("def call(out, file): return os.sendfile(out, file, 0, 3)")
    near, far = socket.socketpair()
    with near, far, Path(__file__).open("rb") as file:
        with pytest.raises(BlockingError):
            call(near.fileno(), file.fileno())
        near.setblocking(False)
        assert call(near.fileno(), file.fileno()) == 3
