"""One request to our own addresses, as a viewer makes it.

Belongs here: asking, in bounded time, and why nobody answered. Must not know: what is asked for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from proxy import __version__

_LONGEST: Final = 10.0
"""Seconds of one request."""
_MOST: Final = 64 * 1024
"""Bytes of a body that are read; a cache that ignores ranges may send a whole clip."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply; header names in lower case, of each the first. Status 0: nobody answered."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    problem: str = ""
    """Why nobody answered."""

    def field(self, name: str) -> str:
        """A field's value, "" if there is none."""
        return self.headers.get(name, "")


class Viewer:
    """Asks for paths below one address."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        """Take the address, and a session that stays the caller's."""
        self.base = base.rstrip("/")
        self._session = session

    async def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make one request; no redirect is followed, and nothing is raised."""
        try:
            async with self._session.request(
                method,
                URL(self.base + path, encoded=True),
                headers=headers,
                allow_redirects=False,
            ) as reply:
                fields: dict[str, str] = {}
                for name, value in reply.headers.items():
                    fields.setdefault(name.lower(), value)
                body = await reply.content.read(_MOST)
                return Answer(reply.status, fields, body)
        except aiohttp.ClientConnectorCertificateError as error:
            return Answer(0, problem=f"its certificate is not good: {error.certificate_error}")
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno or 0  # the loop's own words repeat the address
            why = os.strerror(number) if number > 0 else error.strerror or error.os_error
            return Answer(0, problem=f"{error.host}:{error.port}: {why}")
        except TimeoutError:
            return Answer(0, problem=f"no answer within {_LONGEST:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(0, problem=f"{type(error).__name__}: {error}")


@contextlib.asynccontextmanager
async def viewer(base: str) -> AsyncIterator[Viewer]:
    """A viewer with connections of its own."""
    async with aiohttp.ClientSession(
        headers={"User-Agent": f"firstview-doctor/{__version__}", "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=_LONGEST),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        yield Viewer(base, session)
