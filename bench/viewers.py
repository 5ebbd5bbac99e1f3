"""Viewers of this process's own: each clip asked for exactly once, at a set pace, or all at once.

Belongs here: many sockets, one loop, and when their first and last bytes came. Must not know:
what is compared.

wrk asks for a time, not for a list, and reads as fast as it can. These viewers drop a body's
bytes inside the kernel (MSG_TRUNC, tcp(7)): on loopback the copy to the viewer would be this
machine's work, and it is not a server's.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

_PIECE = 1024 * 1024
_TICK = 0.05
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Seen:
    """What one viewer saw of one clip; times are seconds since its request."""

    path: str
    began: float
    status: int = 0
    first_byte: float = 0.0
    last_byte: float = 0.0
    received: int = 0
    length: int = -1

    @property
    def whole(self) -> bool:
        """Whether every byte came."""
        return self.status == 200 and self.received == self.length


class _Viewer:
    """One connection, which asks for one path after the other."""

    def __init__(self, port: int, rate: float | None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.rate = rate
        self._head = b""
        self._allowed = 0.0
        self._buffer = bytearray(_PIECE)
        self.seen = Seen("", 0.0)

    def ask(self, path: str) -> None:
        self._head = b""
        self._allowed = 0.0
        self.seen = Seen(path, time.perf_counter())
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        if self.socket.send(request) != len(request):
            raise RuntimeError("a request did not fit into a new connection's buffer")

    def allow(self, seconds: float) -> None:
        """Let a slow viewer read on."""
        if self.rate is not None:
            self._allowed = min(self._allowed + self.rate * seconds, _PIECE)

    def read(self) -> bool:
        """Read what is there and allowed; True at the end of the clip, however it ended."""
        if self.seen.length < 0:
            return self._read_head()
        want = min(_PIECE, self.seen.length - self.seen.received)
        if self.rate is not None:
            want = min(want, int(self._allowed))
            if want <= 0:
                return False
        count = self.socket.recv_into(self._buffer, want, socket.MSG_TRUNC)
        self._allowed -= count
        return self._count(count)

    def _read_head(self) -> bool:
        data = self.socket.recv(4096)
        if not data:
            return self._count(0)
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return False
        self.seen.first_byte = time.perf_counter() - self.seen.began
        self.seen.status = int(head.split(b" ", 2)[1])
        match = _LENGTH.search(head + b"\r\n")
        self.seen.length = int(match[1]) if match else 0
        return self._count(len(body)) if body else False

    def _count(self, count: int) -> bool:
        seen = self.seen
        seen.received += count
        seen.last_byte = time.perf_counter() - seen.began
        return count == 0 or seen.received >= seen.length


def watch(
    port: int,
    paths: Iterable[str],
    *,
    connections: int,
    rates: Iterator[float] | None = None,
    seconds: float,
    each_tick: Callable[[], bool] = lambda: True,
) -> list[Seen]:
    """Ask for every path once, over that many connections; stop after `seconds` at the latest.

    `rates` gives each viewer its pace in bytes a second. `each_tick` is called now and then;
    when it returns False, whoever is not at the end is cut off.
    """
    waiting = iter(paths)
    done: list[Seen] = []
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        busy: set[_Viewer] = set()
        for _ in range(connections):
            path = next(waiting, None)
            if path is None:
                break
            viewer = _Viewer(port, None if rates is None else next(rates))
            stack.callback(viewer.socket.close)
            viewer.ask(path)
            busy.add(viewer)
            if rates is None:
                selector.register(viewer.socket, selectors.EVENT_READ, viewer)
        started = last = time.perf_counter()
        while busy and time.perf_counter() - started < seconds and each_tick():
            if rates is None:
                ready = [key.data for key, _ in selector.select(_TICK)]
            else:
                time.sleep(_TICK)
                ready = list(busy)
            now = time.perf_counter()
            for viewer in ready:
                viewer.allow(now - last)
                if _advance(viewer):
                    done.append(viewer.seen)
                    path = next(waiting, None) if viewer.seen.whole else None
                    if path is not None:
                        viewer.ask(path)
                    else:
                        busy.discard(viewer)
                        if rates is None:
                            selector.unregister(viewer.socket)
            last = now
        done.extend(viewer.seen for viewer in busy)
    return done


def _advance(viewer: _Viewer) -> bool:
    try:
        return viewer.read()
    except BlockingIOError:
        return False
    except OSError:  # reset: its clip counts as broken
        return True
