"""The channel between the supervisor and one worker: messages over a socket pair, both ways.

Belongs here: framing, and which answer belongs to which question. Must not know: what is said.

A message is four bytes of length and a JSON list `[kind, number, what, body]`. Nothing of it is on
disk or has a name; when either process ends, however it ends, the other one sees the channel's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import structlog

_LENGTH: Final = 4
_LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a message; what a worker has counted is some hundred thousand."""
_TELL, _ASK, _ANSWER, _SORRY = range(4)

Asked = Callable[[str], Awaitable[Any]]
Told = Callable[[str, Any], None]

log = structlog.get_logger()


async def nothing_to_say(what: str) -> Any:  # noqa: ANN401 - any JSON
    """Answer no question."""
    raise LookupError(what)


class Channel:
    """One end of it. `asked` answers the other's questions, `told` hears what it says."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        told: Told,
        asked: Asked,
    ) -> None:
        """Use `opened`, then `run`."""
        self._reader = reader
        self._writer = writer
        self.told = told
        self.asked = asked
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    async def opened(
        cls, sock: socket.socket, *, told: Told, asked: Asked = nothing_to_say
    ) -> Channel:
        """Take over one of a pair of sockets."""
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer, told=told, asked=asked)

    async def run(self) -> None:
        """Hear the other end out; returns when it is gone."""
        try:
            while True:
                length = int.from_bytes(await self._reader.readexactly(_LENGTH))
                if length > _LONGEST:
                    break
                self._hear(*orjson.loads(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError("the other process has ended"))
            for task in self._answering:
                task.cancel()

    def tell(self, what: str, body: object = None) -> None:
        """Say something that wants no answer; to nobody, if the other end is gone."""
        self._send(_TELL, 0, what, body)

    async def ask(self, what: str, timeout: float) -> Any:  # noqa: ANN401 - any JSON
        """Ask, and wait for so many seconds.

        Raises TimeoutError, LookupError if the other end has no answer, or ConnectionError if it is
        gone.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the other process has ended")
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(_ASK, number, what, None)
            async with asyncio.timeout(timeout):
                return await answer
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """End it, for both."""
        self._writer.close()

    async def flush(self) -> None:
        """Wait until the other end has been sent everything, or is gone."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def _send(self, kind: int, number: int, what: str, body: object) -> None:
        if not self._writer.is_closing():
            message = orjson.dumps([kind, number, what, body])
            self._writer.write(len(message).to_bytes(_LENGTH) + message)

    def _hear(self, kind: int, number: int, what: str, body: Any) -> None:  # noqa: ANN401 - any JSON
        if kind == _TELL:
            self.told(what, body)
        elif kind == _ASK:
            task = asyncio.create_task(self._reply(number, what))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (waiting := self._waiting.get(number)) is not None and not waiting.done():
            if kind == _ANSWER:
                waiting.set_result(body)
            else:
                waiting.set_exception(LookupError(what))

    async def _reply(self, number: int, what: str) -> None:
        try:
            self._send(_ANSWER, number, what, await self.asked(what))
        except Exception as error:  # noqa: BLE001 - whoever asked has to be told, whatever it was
            log.warning("a question from the other process failed", what=what, detail=repr(error))
            self._send(_SORRY, number, what, None)
