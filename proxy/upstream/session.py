"""The aiohttp session that clips are fetched with, and the guard on where it connects to.

Belongs here: how connections upstream are made, and who closes them. Must not know: what is asked
over them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver

from proxy import __version__
from proxy.settings import Settings
from proxy.upstream.allowlist import is_public

_LONGEST_FIELD = 32 * 1024  # signed redirect targets are long
_DNS_TTL = 30
_IDLE = 30.0

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""What `socket.getaddrinfo` returns, as aiohttp hands it to a socket factory."""


class SessionOwner:
    """Has an aiohttp session, made on first use. An async context manager, or to be closed."""

    def __init__(self, make: Callable[[], aiohttp.ClientSession]) -> None:
        """Take what makes the session; it is called with a running loop, once at most."""
        self._make = make
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; what is being asked or read fails."""
        if self._session is not None:
            await self._session.close()

    def session(self) -> aiohttp.ClientSession:
        """The session."""
        if self._session is None:
            self._session = self._make()
        return self._session


class PrivateAddress(OSError):
    """The name leads to an address that is not public.

    An OSError, because only those let aiohttp go on to the name's next address.
    """


def public_socket(info: AddressInfo) -> socket.socket:
    """Make the socket for one address, or raise PrivateAddress.

    aiohttp calls this with the very address that it connects to next, for literals too
    (`TCPConnector._wrap_create_connection` → `aiohappyeyeballs._connect_sock`), so a name that
    resolves differently from one moment to the next gains nothing.
    """
    family, kind, protocol, _, address = info
    if not is_public(address[0]):
        raise PrivateAddress("not a public address")
    return socket.socket(family, kind, protocol)


def make_session(
    settings: Settings, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """Build the session; needs a running loop. Nothing of it depends on the environment."""
    connector = aiohttp.TCPConnector(
        limit=0,  # the caller counts, so that waiting for a connection is its own kind of wait
        resolver=resolver,
        ttl_dns_cache=_DNS_TTL,
        keepalive_timeout=_IDLE,
        socket_factory=None if settings.upstream_allow_insecure else public_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": f"firstview/{__version__}",
        },
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.upstream_connect_timeout),
        auto_decompress=False,
        trust_env=False,
        # aiohttp stops reading from the socket at twice this figure.
        read_bufsize=max(1, settings.upstream_read_buffer // 2),
        max_line_size=_LONGEST_FIELD,
        max_field_size=_LONGEST_FIELD,
        trace_configs=[_first_byte_clock(settings.upstream_first_byte_timeout)],
    )


def _first_byte_clock(patience: float) -> aiohttp.TraceConfig:
    """Start the wait for the status line only when the request has gone out.

    The request's `trace_request_ctx` is the `asyncio.Timeout` it runs under.
    """

    async def sent(
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _params: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        limit: asyncio.Timeout = context.trace_request_ctx
        limit.reschedule(asyncio.get_running_loop().time() + patience)

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(sent)
    return trace
