"""Fetching the document in which fal publishes the keys that it signs webhooks with.

Belongs here: one bounded request over https. Must not know: what the document says, or how often
it is wanted.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver

from proxy.errors import SourceUnavailable
from proxy.settings import Settings
from proxy.upstream.border import FOREIGN, translate
from proxy.upstream.session import make_session

LARGEST: Final = 256 * 1024
"""Bytes of the document; fal's own has a few hundred."""

_OK: Final = 200


class FalJwks:
    """Where fal's keys are published. Use as an async context manager, or close it.

    The settings vouch for the address: https, or http where `upstream_allow_insecure` says so.
    """

    def __init__(self, settings: Settings, resolver: AbstractResolver | None = None) -> None:
        """Take the settings; `resolver` replaces the system's name resolution."""
        self._settings = settings
        self._resolver = resolver
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
        """Close the connection, if there is one."""
        if self._session is not None:
            await self._session.close()

    async def fetch(self) -> bytes:
        """Return the document, at most 256 KiB, within `fal_api_timeout`; follows no redirect.

        Raises SourceUnavailable, SourceTimeout, SourceUntrusted.
        """
        if self._session is None:
            self._session = make_session(self._settings, self._resolver)
        try:
            # The session's own clock for the status line is set on the inner of the two.
            async with (
                asyncio.timeout(self._settings.fal_api_timeout),
                asyncio.timeout(None) as first_byte,
                self._session.get(
                    self._settings.fal_jwks_url, allow_redirects=False, trace_request_ctx=first_byte
                ) as response,
            ):
                return await _read(response)
        except FOREIGN as error:
            raise translate(error) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if response.status != _OK:
        raise SourceUnavailable(f"fal's key set was answered with status {response.status}.")
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise SourceUnavailable("fal's key set is larger than any key set.")
    return b"".join(pieces)
