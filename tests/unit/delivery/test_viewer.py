"""The viewer's socket on the event loop: nobody else waits for one viewer's bytes."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from proxy.delivery import viewer as module
from proxy.delivery.viewer import ViewerSocket


async def test_a_viewer_who_always_has_room_does_not_hold_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece, pieces = 1000, 20  # all of it fits into the socket's buffer: the kernel never says wait
    monkeypatch.setattr(module, "_FIRST", piece)
    monkeypatch.setattr(module, "_PIECE", piece)
    path = tmp_path / "clip"
    path.write_bytes(b"x" * piece * pieces)
    near, far = socket.socketpair()
    near.setblocking(False)
    viewer = ViewerSocket(near, 5.0)
    fd = os.open(path, os.O_RDONLY)
    turns = 0

    async def someone_else() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(someone_else())
    try:
        await viewer.send_file(fd, 0, piece * pieces)
        assert viewer.sent == piece * pieces
        assert turns >= pieces - 2
    finally:
        other.cancel()
        os.close(fd)
        viewer.leave()
        far.close()


async def test_what_the_kernel_takes_at_once_needs_no_turn_of_the_loop() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    viewer = ViewerSocket(near, 5.0)
    sending = viewer.send(b"head")
    try:
        with pytest.raises(StopIteration):
            sending.send(None)
        assert far.recv(100) == b"head"
    finally:
        viewer.leave()
        far.close()
