"""Streaming fetches from fal.media: every answer checked, every wait bounded.

Belongs here: requests, redirects, and what is remembered of hosts. Must not know: what a clip is
called, where its bytes go, or when a broken fetch is resumed.
"""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from cachetools import TTLCache
from prometheus_client import Counter
from yarl import URL

from proxy.clock import Clock
from proxy.errors import (
    Overloaded,
    SourceTimeout,
    SourceUnavailable,
)
from proxy.records import BodyHead, ByteStream
from proxy.settings import Settings
from proxy.upstream.allowlist import Policy, check_redirect, check_url
from proxy.upstream.answer import Asked, read_head
from proxy.upstream.body import UpstreamBody
from proxy.upstream.border import FOREIGN, translate
from proxy.upstream.breaker import Breakers, Rules, State
from proxy.upstream.content_range import range_field
from proxy.upstream.session import SessionOwner, make_session

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEAD_REFUSED = frozenset({400, 403, 405, 501})
_OK, _PARTIAL, _SERVER_ERROR = 200, 206, 500
_MOST_HOSTS = 1024
_RANGES_FORGOTTEN_AFTER = 600.0


class Upstream(SessionOwner):
    """Fetches clips from the hosts that the settings allow."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        resolver: AbstractResolver | None = None,
        shed: Counter | None = None,
    ) -> None:
        """Take the settings; `resolver` replaces the system's name resolution.

        `shed` counts whom no connection is left for.

        Raises SettingsError for a host on the list that is none.
        """
        super().__init__(lambda: make_session(settings, resolver))
        self._settings = settings
        self._policy = Policy.of(settings.upstream_hosts, insecure=settings.upstream_allow_insecure)
        self._clock = clock or Clock()
        self._shed = shed
        self._slots = asyncio.Semaphore(settings.upstream_max_connections)
        self._breakers = Breakers(
            Rules(
                failures=settings.upstream_breaker_failures, pause=settings.upstream_breaker_pause
            )
        )
        self._ranges_ignored: TTLCache[str, bool] = TTLCache(
            _MOST_HOSTS, _RANGES_FORGOTTEN_AFTER, timer=self._clock.monotonic
        )

    async def open(
        self, url: str, start: int = 0, stop: int | None = None, *, validator: str | None = None
    ) -> ByteStream:
        """Ask for bytes `start` up to `stop` (exclusive) of a clip; all of them by default.

        A negative `start` asks for that many last bytes and takes no `stop`. With `validator`, a
        strong entity-tag in its quotes, the part is asked for only if the clip still is the same
        (`If-Range`, RFC 9110 §13.1.5). The head says what the body really holds: a source may
        answer a range with the whole clip, from byte 0.

        Raises SourceUntrusted (off the list, or a private address), SourceRefused (403, 404,
        410), SourceBusy (429), SourceTimeout, SourceUnavailable, HostResting (its host keeps
        failing), NotAClip (wrong type, empty, encoded or too large), SourceChanged (not the part
        that was asked for), Overloaded (no connection left), and ValueError for a range without
        bytes.
        """
        asked = Asked(start, stop, validator)
        fields = _range_fields(asked)
        await self._take_slot()
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._follow("GET", url, fields)
            self._note_ranges(url, response, asked)
            head = self._head_of(response, asked)
        except BaseException:
            if response is not None:
                response.close()
            self._slots.release()
            raise
        return UpstreamBody(head, response, self._settings.upstream_stall_timeout, self._slots)

    async def head_info(self, url: str) -> BodyHead:
        """Ask for a clip's head alone; no byte of a body is read.

        Sends HEAD, and where that is refused or does not tell the length, GET for the first byte.
        The head describes the whole clip. Raises what `open` raises.
        """
        await self._take_slot()
        try:
            response = await self._follow("HEAD", url, {})
            with closing(response):
                length = response.headers.get("Content-Length", "0")
                told = response.status == _OK and length.strip("0 ") != ""
                if told or response.status not in _HEAD_REFUSED | {_OK, _PARTIAL}:
                    return self._head_of(response, Asked())
        finally:
            self._slots.release()
        body = await self.open(url, 0, 1)
        await body.close()
        head = body.head
        return BodyHead(
            start=0,
            stop=head.total,
            total=head.total,
            content_type=head.content_type,
            validator=head.validator,
            last_modified=head.last_modified,
            md5=head.md5,
            framed=head.framed,
        )

    def breakers(self) -> dict[str, State]:
        """Of the hosts that were asked last, which are left alone."""
        return self._breakers.states(self._clock.monotonic())

    def supports_ranges(self, url: str) -> bool:
        """Tell whether the URL's host is worth asking for a range: not seen to ignore one."""
        return _host_of(url) not in self._ranges_ignored

    def _head_of(self, response: aiohttp.ClientResponse, asked: Asked) -> BodyHead:
        return read_head(
            response.status,
            response.headers,
            asked,
            max_bytes=self._settings.max_clip_bytes,
            now=self._clock.now(),
        )

    def _note_ranges(self, url: str, response: aiohttp.ClientResponse, asked: Asked) -> None:
        # With a validator, 200 is also the right answer about a clip that changed.
        if not asked.partial:
            return
        if response.status == _PARTIAL:
            self._ranges_ignored.pop(_host_of(url), None)
        elif response.status == _OK and asked.validator in {None, response.headers.get("ETag")}:
            self._ranges_ignored[_host_of(url)] = True

    async def _take_slot(self) -> None:
        try:
            async with asyncio.timeout(self._settings.upstream_connect_timeout):
                await self._slots.acquire()
        except TimeoutError:
            if self._shed is not None:
                self._shed.inc()
            raise Overloaded("All connections to the clips' source are in use.") from None

    async def _follow(
        self, method: str, url: str, fields: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """Send the request, and again wherever an allowed redirect leads."""
        here = check_url(url, self._policy)
        token, at_home = self._settings.upstream_token, _host_of(here)
        for _ in range(self._settings.upstream_max_redirects + 1):
            sent = dict(fields)
            if token is not None and _host_of(here) == at_home:
                sent["Authorization"] = f"Bearer {token.get_secret_value()}"
            response = await self._send(method, here, sent)
            if response.status not in _REDIRECTS:
                return response
            response.close()
            location = response.headers.get("Location", "")
            if not location:
                raise SourceUnavailable("The clip's source redirects, but not to anywhere.")
            here = check_redirect(here, location, self._policy)
        raise SourceUnavailable("The clip's source redirects without end.")

    async def _send(self, method: str, url: str, fields: dict[str, str]) -> aiohttp.ClientResponse:
        """Send one request, if the host's breaker lets it, and tell the breaker how it went."""
        permit = self._breakers.admit(_host_of(url), self._clock.monotonic())
        ok: bool | None = None
        try:
            response = await self._request(method, url, fields)
            ok = response.status < _SERVER_ERROR
        except (SourceUnavailable, SourceTimeout):
            ok = False
            raise
        finally:
            permit.settle(self._clock.monotonic(), ok=ok)
        return response

    async def _request(
        self, method: str, url: str, fields: dict[str, str]
    ) -> aiohttp.ClientResponse:
        try:
            # Without an end until the request has been sent: connecting has a limit of its own.
            async with asyncio.timeout(None) as limit:
                return await self.session().request(
                    method,
                    URL(url, encoded=True),
                    headers=fields,
                    allow_redirects=False,
                    trace_request_ctx=limit,
                )
        except FOREIGN as error:
            raise translate(error) from error


def _range_fields(asked: Asked) -> dict[str, str]:
    value = range_field(asked.start, asked.stop)
    if value is None:
        return {}
    fields = {"Range": value}
    if asked.validator is not None:
        fields["If-Range"] = asked.validator
    return fields


def _host_of(url: str) -> str:
    """Return host and port as the URL has them, in lower case; "" where there are none."""
    with suppress(ValueError):
        return urlsplit(url).netloc.lower()
    return ""
