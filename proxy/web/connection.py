"""One connection of the public listener, whichever lane its requests take.

Belongs here: its life, the viewer's socket beneath the transport, how long it may be quiet, and
which lane gets what comes in. Must not know: routes, clips, how either lane answers.

    bytes ─▶ at rest? ─▶ hits: a plain request for an open clip, answered before this call returns
                 └─────▶ machine: aiohttp, for everything else; made when first needed

A connection has one timer, which is not moved by requests: when it goes off, it looks at how long
the connection has been quiet by then, and sleeps for the rest.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, cast

from proxy.delivery.viewer import ViewerSocket
from proxy.errors import FirstviewError, Overloaded
from proxy.web import headers
from proxy.web.problems import render

if TYPE_CHECKING:  # the listener makes connections, which are told of it
    from proxy.web.listener import Listener
    from proxy.web.machine import Machine


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_asked",
        "_listener",
        "_machine",
        "_quiet_since",
        "_timer",
        "_transport",
        "_viewer",
        "peer",
        "sending",
    )

    def __init__(self, listener: Listener) -> None:
        """Use `Listener`."""
        self._listener = listener
        self._machine: Machine | None = None
        self._transport: asyncio.Transport | None = None
        self._viewer: ViewerSocket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_since = 0.0
        self._asked = False
        self.peer: str | None = None
        """The other end's address, if somebody is going to write it down."""
        self.sending: asyncio.Task[None] | None = None
        """What sends the rest of a hit that the socket did not take at once."""

    # -- its life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept, unless there are too many already."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._quiet_since = time.monotonic()
        if self._listener.asks_peers:
            name = transport.get_extra_info("peername")
            self.peer = str(name[0]) if name else None
        if self._listener.accept(self):
            self._watch(self._listener.settings.header_timeout)
        else:
            self.refuse(Overloaded())

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of the viewer before the descriptor's number can be anyone else's."""
        self._transport = None
        self._listener.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._viewer is not None:
            self._viewer.leave()
        if self._machine is not None:
            self._machine.connection_lost(cast("Exception | None", exc))

    def pause_writing(self) -> None:
        """Tell aiohttp that its transport's buffer is full."""
        if self._machine is not None:
            self._machine.pause_writing()

    def resume_writing(self) -> None:
        """Tell aiohttp that its transport's buffer has room."""
        if self._machine is not None:
            self._machine.resume_writing()

    def viewer(self) -> ViewerSocket:
        """The socket below the transport, whose own buffer stays empty. Raises ConnectionError.

        It is a duplicate: uvloop and asyncio refuse to watch a transport's own descriptor.
        """
        if self._viewer is None:
            if self._transport is None:
                raise ConnectionResetError
            under = self._transport.get_extra_info("socket")
            sock = socket.socket(under.family, under.type, under.proto, os.dup(under.fileno()))
            sock.setblocking(False)
            self._viewer = ViewerSocket(sock, self._listener.settings.send_stall_timeout)
        return self._viewer

    def reset(self) -> None:
        """End the connection so that nobody can take what was sent for whole."""
        if self._viewer is not None:
            self._viewer.reset_on_close()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection after what was sent so far."""
        if self._transport is not None:
            self._transport.close()

    def refuse(self, error: FirstviewError) -> None:
        """Answer without having a request, and close."""
        problem = render(error, request_id="-")
        fields = [*problem.fields, ("Connection", "close")]
        if self._transport is not None:
            self._transport.write(headers.head(problem.status, b"", fields) + problem.body)
        self.close()

    @property
    def has_asked(self) -> bool:
        """Whether a whole request has come."""
        return self._asked or self.is_busy

    @property
    def is_busy(self) -> bool:
        """Whether a reply is on its way."""
        return self.sending is not None or (self._machine is not None and self._machine.busy)

    @property
    def is_leaving(self) -> bool:
        """Whether the next reply is to be its last."""
        return self._listener.leaving

    @property
    def is_cut(self) -> bool:
        """Whether the reply that is on its way is cut off, because this process ends."""
        return self._listener.cuts

    def stop(self) -> None:
        """The listener closes: end now, or after the reply that is on its way."""
        if self.sending is not None:
            return
        if self._machine is None or not self._machine.busy:
            self.close()
        else:
            self._machine.close()

    # -- the lanes ---

    def data_received(self, data: bytes) -> None:
        """Answer a plain hit at once; leave everything else to aiohttp."""
        hits, machine = self._listener.hits, self._machine
        if (
            hits is not None
            and (machine is None or machine.at_rest)
            and self.sending is None
            and hits.answer(self, data)
        ):
            return
        if machine is None:
            machine = self._machine = self._listener.machine(self)
            machine.connection_made(cast("asyncio.Transport", self._transport))
        self._feed(machine, data)

    def answered(self, moment: float) -> None:
        """A reply has been sent at a `moment` of the monotonic clock: quiet from here on."""
        self._asked = True
        self._quiet_since = moment

    def go_on(self, sending: asyncio.Task[None]) -> None:
        """Read nothing more until the rest of a hit is sent."""
        self.sending = sending
        if self._transport is not None:
            self._transport.pause_reading()

    def gone_on(self) -> None:
        """Read again: the rest of a hit is sent, or the connection is at its end."""
        self.sending = None
        self.answered(time.monotonic())
        if self._transport is None or self._transport.is_closing():
            return
        if self._listener.closing:
            self.close()
        else:
            self._transport.resume_reading()

    def _feed(self, machine: Machine, data: bytes) -> None:
        waited = machine.in_header
        machine.data_received(data)
        if not machine.in_header:
            self._asked = True
        elif not waited and self._asked:  # another request begins, and may not take for ever
            self._quiet_since = time.monotonic()
            self._watch(self._listener.settings.header_timeout)

    # -- how long it may be quiet ---

    def _watch(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Close what has been quiet for too long; a reply that is on its way has its own limits."""
        self._timer = None
        settings, machine = self._listener.settings, self._machine
        if self.is_busy:
            self._watch(settings.keepalive_timeout)
            return
        in_header = not self._asked or (machine is not None and machine.in_header)
        limit = settings.header_timeout if in_header else settings.keepalive_timeout
        left = self._quiet_since + limit - time.monotonic()
        if left > 0:
            self._watch(left)
            return
        if in_header:
            self._listener.metrics.shed.labels("header_timeout").inc()
        self.close()
