"""Fetching the document in which fal publishes the keys that it signs webhooks with.

Belongs here: one bounded request over https. Must not know: what the document says, or how often
it is wanted.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from proxy.errors import SourceUnavailable
from proxy.settings import Settings
from proxy.upstream.body import read_small
from proxy.upstream.border import FOREIGN, translate
from proxy.upstream.session import SessionOwner, make_session

LARGEST: Final = 256 * 1024
"""Bytes of the document; fal's own has a few hundred."""

_OK: Final = 200


class FalJwks(SessionOwner):
    """Where fal's keys are published.

    The settings vouch for the address: https, or http where `upstream_allow_insecure` says so.
    """

    def __init__(self, settings: Settings, resolver: AbstractResolver | None = None) -> None:
        """Take the settings; `resolver` replaces the system's name resolution."""
        super().__init__(lambda: make_session(settings, resolver))
        self._settings = settings

    async def fetch(self) -> bytes:
        """Return the document, at most 256 KiB, within `fal_api_timeout`; follows no redirect.

        Raises SourceUnavailable, SourceTimeout, SourceUntrusted.
        """
        document, _ = await self.fetch_dated()
        return document

    async def fetch_dated(self) -> tuple[bytes, str | None]:
        """The same, with the reply's Date field as it came."""
        try:
            # The session's own clock for the status line is set on the inner of the two.
            async with (
                asyncio.timeout(self._settings.fal_api_timeout),
                asyncio.timeout(None) as first_byte,
                self.session().get(
                    self._settings.fal_jwks_url, allow_redirects=False, trace_request_ctx=first_byte
                ) as response,
            ):
                return await _read(response), response.headers.get("Date")
        except FOREIGN as error:
            raise translate(error) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if response.status != _OK:
        raise SourceUnavailable(f"fal's key set was answered with status {response.status}.")
    return await read_small(response, LARGEST, "fal's key set is larger than any key set.")
