"""The viewer's socket: bytes and file pieces out, at the viewer's own pace.

Belongs here: the few system calls of the hot path, and noticing a viewer who left or stopped
reading. Must not know: HTTP, clips, or where the bytes come from.

The socket is non-blocking and shares the connection of a transport whose own buffer is empty.
What does not fit into the kernel's buffer waits for the loop to say that there is room again;
the pump then runs inside that callback, so that a long file costs no task switch per buffer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

from proxy.errors import FirstviewError, ViewerLeft, ViewerStalled

_FIRST = 256 * 1024
"""Bytes of a file that go to the kernel in a reply's first call."""
_PIECE = 64 * 1024
"""Bytes in each call after that. More of them would only wait in the connection's queue, and long
queues are dear: 1 MiB ranges took 420 us of CPU with 4 MiB at once, 225 with 64 KiB."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ViewerSocket:
    """One viewer's end of a reply."""

    def __init__(self, sock: socket.socket, stall_timeout: float) -> None:
        """Take a non-blocking socket; `leave` closes it."""
        self._sock = sock
        self._fd = sock.fileno()
        self._stall_timeout = stall_timeout
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.sent = 0
        """Bytes that the kernel has taken so far, heads included."""

    # -- sending ---

    def offer(self, data: bytes | memoryview, *, more: bool = False) -> int:
        """Send what the kernel takes at once, and return how many bytes that were.

        `more` holds a short segment back for what follows (MSG_MORE, tcp(7)). Raises ViewerLeft.
        """
        try:
            count = self._sock.send(data, socket.MSG_MORE if more else 0)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ViewerLeft from error
        self.sent += count
        return count

    def offer_file(self, fd: int, start: int, stop: int, most: int = _FIRST) -> int:
        """Send of a file's bytes `start` up to `stop` what the kernel takes at once.

        Returns how many bytes that were; never more than `most`. Raises ViewerLeft, FirstviewError
        if the file does not have them.
        """
        try:
            count = os.sendfile(self._fd, fd, start, min(stop - start, most))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ViewerLeft from error
        if count == 0:
            msg = "a clip's file is shorter than its clip"
            raise FirstviewError(msg)
        self.sent += count
        return count

    async def send(self, data: bytes, *, more: bool = False) -> None:
        """Send bytes, all of them. Raises ViewerStalled, and as `offer`."""
        view = memoryview(data)

        def pump() -> bool:
            nonlocal view
            view = view[self.offer(view, more=more) :]
            return not view

        await self._drive(pump)

    async def send_file(self, fd: int, start: int, stop: int, *, begun: bool = False) -> None:
        """Send bytes `start` up to `stop` of a file that has them all. Raises as `offer_file`.

        `begun`: a first piece was offered already.
        """
        position, most = start, _PIECE if begun else _FIRST

        def pump() -> bool:
            nonlocal position, most
            position += self.offer_file(fd, position, stop, most)
            most = _PIECE
            return position >= stop

        if start < stop:
            await self._drive(pump)

    async def _drive(self, pump: Callable[[], bool]) -> None:
        """Call the pump until it is done, and between calls wait for the loop to say "room".

        Also where there still is some: what the kernel did not take at once it will mostly not
        take at the next moment either, and a viewer who reads as fast as it is sent to would
        hold the loop for as long as its clip lasts.
        """
        if not pump():
            await self._wait(pump)

    async def _wait(self, pump: Callable[[], bool]) -> None:
        done = self._done = self._loop.create_future()
        self._loop.add_writer(self._fd, self._on_room, pump, done)
        self._watch_stall(done)
        try:
            await done
        finally:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._done is not None:
            self._done = None
            self._loop.remove_writer(self._fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_room(self, pump: Callable[[], bool], done: asyncio.Future[None]) -> None:
        if done.done():
            return
        try:
            if pump():
                done.set_result(None)
        except FirstviewError as error:
            done.set_exception(error)

    def _watch_stall(self, done: asyncio.Future[None]) -> None:
        self._timer = self._loop.call_later(self._stall_timeout, self._check_stall, done, self.sent)

    def _check_stall(self, done: asyncio.Future[None], sent_before: int) -> None:
        if done.done():
            return
        if self.sent == sent_before:
            done.set_exception(ViewerStalled())
        else:
            self._watch_stall(done)

    # -- ending ---

    def leave(self) -> None:
        """The connection is gone: whoever waits hears of it, and the descriptor is not used again.

        At once, as the number may be another connection's the moment that it is closed.
        """
        done = self._done
        self._stop_waiting()
        self._fd = -1
        self._sock.close()
        if done is not None and not done.done():
            done.set_exception(ViewerLeft())

    def reset_on_close(self) -> None:
        """Make the coming close a reset (RST), which no cache takes for a reply's end."""
        if self._fd >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
