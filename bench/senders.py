"""Senders of this process's own: prepared requests over connections that are kept.

Belongs here: many sockets, one loop, and how long each answer took. Must not know: what is sent.

wrk sends one request again and again, or makes each in Lua, where nothing can be signed. With a
rate, requests are due at set times, and an answer's time counts from then: a server that stalls is
not spared the requests that it would have had meanwhile.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Answers:
    """What came back: seconds of each answer, sorted, and whatever was not as expected."""

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    wrong: list[bytes] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Seconds within which that share of the answers came."""
        return self.times[min(len(self.times) - 1, int(len(self.times) * share))]


class _Sender:
    """One connection, with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.since = 0.0
        self._got = b""

    def send(self, request: bytes, since: float) -> None:
        self.since = since
        self.socket.sendall(request)

    def answer(self) -> bytes | None:
        """The answer, head and body, or None if it has not come whole."""
        data = self.socket.recv(65536)
        if not data:
            raise RuntimeError(f"a connection was closed within an answer: {self._got!r}")
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        match = _LENGTH.search(head + b"\r\n")
        if not end or len(body) < (int(match[1]) if match else 0):
            return None
        answer, self._got = self._got, b""
        return answer


def send_all(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    expected: bytes,
    rate: float | None = None,
) -> Answers:
    """Send each request once, `rate` a second or as fast as answers come, and read every answer.

    An answer that lacks `expected` is wrong. Raises RuntimeError for a connection that is closed.
    """
    found = Answers()
    waiting = iter(enumerate(requests))
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        free = [_Sender(port) for _ in range(connections)]
        for sender in free:
            stack.callback(sender.socket.close)
            selector.register(sender.socket, selectors.EVENT_READ, sender)
        began = time.perf_counter()
        upcoming = next(waiting, None)
        while upcoming is not None or len(free) < connections:
            now = time.perf_counter()
            while free and upcoming is not None:
                number, request = upcoming
                due = now if rate is None else began + number / rate
                if due > now:
                    break
                free.pop().send(request, due)
                upcoming = next(waiting, None)
            wait = None
            if free and upcoming is not None and rate is not None:
                wait = max(0.0, began + upcoming[0] / rate - now)
            for key, _ in selector.select(wait):
                answer = key.data.answer()
                if answer is None:
                    continue
                found.times.append(time.perf_counter() - key.data.since)
                if expected not in answer:
                    found.wrong.append(answer)
                free.append(key.data)
        found.seconds = time.perf_counter() - began
    found.times.sort()
    return found
