"""Viewers of this process's own: at a set pace, all at once, or one clip after the other.

Belongs here: many sockets, one loop, and when their first and last bytes came. Must not know:
what is compared.

wrk asks for a time, not for a list, and reads as fast as it can. These viewers drop a body's
bytes inside the kernel (MSG_TRUNC, tcp(7)): on loopback the copy to the viewer would be this
machine's work, and it is not a server's.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bench.asks import Ask

_PIECE = 4 * 1024 * 1024
_BUFFER = bytearray(_PIECE)
"""Nothing is ever written to it: everybody may share it."""
_TICK = 0.05
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Seen:
    """What one viewer saw of one reply; times are seconds since its request.

    The first byte is the body's: a head that comes early is no use to a player.
    """

    ask: Ask
    began: float
    status: int = 0
    first_byte: float = 0.0
    last_byte: float = 0.0
    received: int = 0
    length: int = -1

    @property
    def whole(self) -> bool:
        """Whether every byte came."""
        return self.status == self.ask.status and self.received == self.length


class Viewer:
    """One connection, which asks for one thing after the other."""

    def __init__(self, port: int, rate: float | None = None) -> None:
        """Connect; with a rate, read that many bytes a second at most."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rate = rate
        self._head = b""
        self._allowed = 0.0
        self.seen = Seen(Ask(""), 0.0)

    def ask(self, what: Ask) -> None:
        """Send a request."""
        self._head = b""
        self._allowed = 0.0
        self.seen = Seen(what, time.perf_counter())
        request = what.request()
        if self.socket.send(request) != len(request):
            raise RuntimeError("a request did not fit into a new connection's buffer")

    def see(self, what: Ask) -> Seen:
        """Ask, and wait for all of the reply. Raises OSError."""
        self.ask(what)
        while not self.read():
            pass
        return self.seen

    def allow(self, seconds: float) -> None:
        """Let a slow viewer read on."""
        if self.rate is not None:
            self._allowed = min(self._allowed + self.rate * seconds, _PIECE)

    def read(self) -> bool:
        """Read what is there and allowed; True at the end of the reply, however it ended."""
        if self.seen.length < 0:
            return self._read_head()
        want = min(_PIECE, self.seen.length - self.seen.received)
        if self.rate is not None:
            want = min(want, int(self._allowed))
            if want <= 0:
                return False
        count = self.socket.recv_into(_BUFFER, want, socket.MSG_TRUNC)
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
        self.seen.status = int(head.split(b" ", 2)[1])
        match = _LENGTH.search(head + b"\r\n")
        self.seen.length = int(match[1]) if match else 0
        return self._count(len(body)) if body or not self.seen.length else False

    def _count(self, count: int) -> bool:
        seen = self.seen
        seen.received += count
        seen.last_byte = time.perf_counter() - seen.began
        seen.first_byte = seen.first_byte or seen.last_byte
        return count == 0 or seen.received >= seen.length


@contextlib.contextmanager
def viewers(port: int, count: int, rates: Iterator[float] | None = None) -> Iterator[list[Viewer]]:
    """Connect that many; `rates` gives each its pace in bytes a second. All are closed after."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            viewer = Viewer(port, None if rates is None else next(rates))
            stack.callback(viewer.socket.close)
            found.append(viewer)
        yield found


def watch(
    port: int,
    asks: Iterable[Ask],
    *,
    connections: int,
    rates: Iterator[float] | None = None,
    seconds: float,
    each_tick: Callable[[], bool] = lambda: True,
) -> list[Seen]:
    """Ask for everything once, over that many connections; stop after `seconds` at the latest.

    `each_tick` is called now and then; when it returns False, whoever is not at the end is cut
    off. Connecting is part of the time.
    """
    wanted = list(asks)
    with viewers(port, min(connections, len(wanted)), rates) as crowd:
        done, cut = drain(crowd, iter(wanted), seconds=seconds, each_tick=each_tick)
    return done + cut


def drain(
    crowd: list[Viewer],
    asks: Iterator[Ask],
    *,
    seconds: float,
    each_tick: Callable[[], bool] = lambda: True,
) -> tuple[list[Seen], list[Seen]]:
    """Have connected viewers ask until nothing is left to ask, or the time is over.

    Gives the replies that came to their end, however they ended, and those that were cut off.
    """
    done: list[Seen] = []
    paced = any(viewer.rate is not None for viewer in crowd)
    waiting = select.epoll()
    busy: dict[int, Viewer] = {}
    with contextlib.closing(waiting):
        for viewer in crowd:
            what = next(asks, None)
            if what is None:
                break
            viewer.socket.setblocking(False)
            viewer.ask(what)
            busy[viewer.socket.fileno()] = viewer
            if not paced:
                waiting.register(viewer.socket, select.EPOLLIN)
        started = last = time.perf_counter()
        while busy and time.perf_counter() - started < seconds and each_tick():
            if paced:
                time.sleep(_TICK)
                ready = list(busy)
            else:
                ready = [number for number, _ in waiting.poll(_TICK)]
            now = time.perf_counter()
            for number in ready:
                viewer = busy[number]
                viewer.allow(now - last)
                if _advance(viewer):
                    done.append(viewer.seen)
                    what = next(asks, None) if viewer.seen.whole else None
                    if what is not None:
                        viewer.ask(what)
                    else:
                        del busy[number]
                        if not paced:
                            waiting.unregister(number)
            last = now
    return done, [viewer.seen for viewer in busy.values()]


def _advance(viewer: Viewer) -> bool:
    try:
        return viewer.read()
    except BlockingIOError:
        return False
    except OSError:  # reset: its clip counts as broken
        return True
