"""The fake's server: sockets by hand, so that it can misbehave below HTTP.

Belongs here: connections, and sending an answer's bytes as its script says. Must not know: what
an answer says.
"""

import asyncio
import contextlib
import fcntl
import itertools
import json
import socket
import struct
import termios
import time
from collections import defaultdict, deque
from collections.abc import Coroutine, Iterable
from dataclasses import asdict
from typing import Self

from tests.fakes.fal.answer import Answer, Data, make_answer
from tests.fakes.fal.behaviour import Behaviour
from tests.fakes.fal.record import Request

_CHUNK = 256 * 1024
_TICK = 0.01
_LONGEST_HEAD = 64 * 1024
_RECORDS = "/_/requests"


class ClientGone(Exception):
    """The client closed the connection."""


class FakeFal:
    """A fake fal.media on loopback; an async context manager.

    Register clips with `add`, tell single answers with `script`, then look at `requests`.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host, self._port = host, port
        self._clips: dict[str, Data] = {}
        self._defaults: dict[str, Behaviour] = {}
        self._scripts: dict[str, deque[Behaviour]] = defaultdict(deque)
        self._range_scripts: dict[str, deque[Behaviour]] = defaultdict(deque)
        self._records: list[Request] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._listener: socket.socket | None = None
        self.connections = 0
        """Connections that are open now."""

    # -- for tests -------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    def url(self, path: str, *, host: str | None = None) -> str:
        """Return the URL of a path; another `host` only changes what the URL says."""
        return f"http://{host or self._host}:{self._port}/{path.lstrip('/')}"

    def add(self, path: str, data: Data, behaviour: Behaviour | None = None) -> str:
        """Register (or replace) a clip and how it is answered; return its URL."""
        key = "/" + path.lstrip("/")
        self._clips[key] = data
        self._defaults[key] = behaviour or Behaviour()
        return self.url(path)

    def script(
        self, path: str, behaviours: Iterable[Behaviour], *, of_ranges: bool = False
    ) -> None:
        """Answer the next requests for a path (of any method) so, one each; then as before.

        With `of_ranges` only those that carry a `Range`, whatever comes between them.
        """
        scripts = self._range_scripts if of_ranges else self._scripts
        scripts["/" + path.lstrip("/")].extend(behaviours)

    def requests(self, path: str | None = None) -> list[Request]:
        """Return the requests so far, in order, for one path or for all."""
        key = None if path is None else "/" + path.lstrip("/")
        return [record for record in self._records if key in {None, record.path}]

    def gets(self, path: str | None = None) -> list[Request]:
        """Return the GET requests so far."""
        return [record for record in self.requests(path) if record.method == "GET"]

    def forget(self) -> None:
        """Drop the records of requests."""
        self._records.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        listener = socket.create_server((self._host, self._port), backlog=1024)
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._spawn(self._accept(listener))

    async def stop(self) -> None:
        """Close the listener and all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    # -- connections -----------------------------------------------------------------------

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._spawn(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        number = next(self._numbers)
        self.connections += 1
        wire = _Wire(client)
        try:
            while (record := await wire.receive()) is not None:
                record.connection = number
                if not await self._answer(wire, record):
                    break
        except (ClientGone, ConnectionError):
            pass
        finally:
            self.connections -= 1
            client.close()

    async def _answer(self, wire: "_Wire", record: Request) -> bool:
        """Answer one request; return whether the connection can take another."""
        if record.path == _RECORDS:
            return await wire.play(self._report(), Behaviour(), record)
        self._records.append(record)
        how = self._next_behaviour(record)
        try:
            await wire.wait(how.delay)
            if how.hang_up is not None:
                if how.hang_up == "rst":
                    wire.reset_on_close()
                return False
            answer = make_answer(self._clips.get(record.path), how, record.headers)
            keep = await wire.play(answer, how, record)
        except (ClientGone, ConnectionError, asyncio.CancelledError):
            record.aborted = True
            raise
        record.finished = True
        return keep

    def _next_behaviour(self, record: Request) -> Behaviour:
        scripts = [self._range_scripts] if record.range is not None else []
        for each in [*scripts, self._scripts]:
            if queue := each.get(record.path):
                return queue.popleft()
        return self._defaults.get(record.path, Behaviour())

    def _report(self) -> Answer:
        body = json.dumps([asdict(record) for record in self._records]).encode()
        how = Behaviour(content_type="application/json", etag="none", last_modified=None)
        return make_answer(body, how, {})


class _Wire:
    """One connection: requests in, answers out."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._received = b""

    async def receive(self) -> Request | None:
        """Return the next request, or None when the client closed."""
        while b"\r\n\r\n" not in self._received:
            more = await self._loop.sock_recv(self._client, _LONGEST_HEAD)
            if not more or len(self._received) > _LONGEST_HEAD:
                return None
            self._received += more
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ", 2)
        headers = {}
        for field in fields:
            name, _, value = field.partition(":")
            headers[name.strip().lower()] = value.strip()
        return Request(method, target, headers, received_at=time.monotonic())

    async def wait(self, seconds: float) -> None:
        """Wait; raise ClientGone as soon as the client has closed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _TICK))
            with contextlib.suppress(BlockingIOError):
                if not self._client.recv(1, socket.MSG_PEEK):
                    raise ClientGone

    async def play(self, answer: Answer, how: Behaviour, record: Request) -> bool:
        """Send an answer as its script says; return whether the connection can take another."""
        record.status = answer.status
        await self._loop.sock_sendall(self._client, answer.head)
        await self.wait(how.first_byte_delay)
        size = answer.stop - answer.start
        if record.method != "HEAD":
            end = min(x for x in (size, how.cut_at, how.reset_at) if x is not None)
            await self._send_body(answer, how, record, end)
            if how.reset_at is not None and how.reset_at <= end:
                await self._drain()
                self.reset_on_close()
                return False
            if end < size:
                return False
            if how.framing == "chunked":
                await self._loop.sock_sendall(self._client, b"0\r\n\r\n")
        closing = record.headers.get("connection", "").lower() == "close"
        return how.framing in {"length", "chunked"} and how.length_lie == 0 and not closing

    async def _send_body(self, answer: Answer, how: Behaviour, record: Request, end: int) -> None:
        piece = _CHUNK if how.rate is None else max(1, min(_CHUNK, int(how.rate * _TICK)))
        chunked = how.framing.startswith("chunked")
        began = time.monotonic()
        at = 0
        while at < end:
            if at == how.stall_at:
                await self._stall(how)
            stop = min(at + piece, end)
            if how.stall_at is not None and at < how.stall_at:
                stop = min(stop, how.stall_at)
            data = answer.read(at, stop)
            if chunked:
                data = b"%x\r\n%b\r\n" % (len(data), bytes(data))
            await self._loop.sock_sendall(self._client, data)
            record.sent += stop - at
            record.last_byte_at = time.monotonic()
            record.first_byte_at = record.first_byte_at or record.last_byte_at
            at = stop
            if how.rate is not None:
                await self.wait(began + at / how.rate - time.monotonic())
        if at == how.stall_at:
            await self._stall(how)

    async def _stall(self, how: Behaviour) -> None:
        if how.stall_until is None:
            await self.wait(how.stall_for)
        else:
            await how.stall_until.wait()

    async def _drain(self) -> None:
        """Wait until the client's kernel has everything, so that a reset takes nothing back."""
        waiting = struct.pack("i", 1)
        while struct.unpack("i", waiting)[0]:
            await asyncio.sleep(0.001)
            waiting = fcntl.ioctl(self._client, termios.TIOCOUTQ, waiting)

    def reset_on_close(self) -> None:
        """Make `close` send RST in place of FIN."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
