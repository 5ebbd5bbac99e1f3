"""fal's API: what became of a request, by its id and its model.

Belongs here: the two addresses that know, their answers, and the key, which goes to no third one.
Must not know: what is in an output (`outputs.py`), who asks, or when it is asked again.

    queue API ─▶ status ─▶ result ─▶ the answer
        └── does not know it (any more) ─▶ platform API ─▶ the answer
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from proxy import __version__
from proxy.clock import Clock
from proxy.errors import FalRefused, SourceTimeout, SourceUnavailable
from proxy.records import REQUEST_ID
from proxy.settings import Settings
from proxy.upstream.body import read_small
from proxy.upstream.border import FOREIGN
from proxy.upstream.breaker import Breakers, HostResting, Rules
from proxy.upstream.fal_answers import (
    Answer,
    Failed,
    Output,
    Pending,
    Unknown,
    app_of,
    read_json,
    read_list,
    read_status,
    reason_of,
)
from proxy.upstream.session import SessionOwner

MAX_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of the largest answer that is read."""

_SEARCHED: Final = timedelta(days=89)
"""How far back the platform API is searched; it keeps 90 days, and looks at one without `start`."""
_RESULT_TRIES: Final = 3
"""The result of a request that is COMPLETED may time out at fal's gateway (504): ask again."""
_RESULT_WAIT: Final = 0.2
_LONGEST_REST: Final = 300.0
_DEFAULT_REST: Final = 5.0

_ACCEPTED: Final = 202
_UNAUTHORIZED: Final = frozenset({401, 403})
_TOO_MANY: Final = 429
_REQUEST_TIMEOUT: Final = 408
_GATEWAY_TIMEOUT: Final = 504
_REJECTED: Final = frozenset({400, 422})
_CLIENT_ERRORS: Final = range(400, 500)
_REDIRECTS: Final = range(300, 400)
_SERVER_ERROR: Final = 500


class FalApi(SessionOwner):
    """Asks fal."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        """Take the addresses and the key."""
        super().__init__(_make_session)
        self._settings = settings
        self._clock = clock or Clock()
        self._breakers = Breakers(
            Rules(
                failures=settings.upstream_breaker_failures, pause=settings.upstream_breaker_pause
            )
        )

    @property
    def has_key(self) -> bool:
        """Whether there is a key; without one nothing can be asked."""
        key = self._settings.fal_key
        return key is not None and key.get_secret_value().strip() != ""

    async def result(self, model: str, request_id: str) -> Answer:
        """Say what became of a request.

        Raises FalRefused (no key, or not one that fal takes), SourceTimeout, SourceUnavailable
        (also for an answer that makes no sense), HostResting (it keeps failing, or asks us to slow
        down; `wait` says for how long), ValueError for a model or an id that cannot be one.
        """
        if REQUEST_ID.fullmatch(request_id) is None:
            msg = "not a request id"
            raise ValueError(msg)
        base = self._settings.fal_queue_url.rstrip("/")
        app = "/".join(quote(part, safe="") for part in app_of(model).split("/"))
        of_request = f"{base}/{app}/requests/{quote(request_id, safe='')}"
        answer = await self._ask_queue(of_request)
        if isinstance(answer, Unknown):
            answer = await self._ask_platform(model, request_id)
        return answer

    # -- the queue API ---

    async def _ask_queue(self, of_request: str) -> Answer:
        status, body = await self._get(f"{of_request}/status")
        if status in _CLIENT_ERRORS:
            return Unknown()
        return read_status(body) or await self._ask_result(of_request)

    async def _ask_result(self, of_request: str) -> Answer:
        status, body = await self._get(of_request, may_time_out=True)
        for _ in range(_RESULT_TRIES - 1):
            if status != _GATEWAY_TIMEOUT:
                break
            await asyncio.sleep(_RESULT_WAIT)
            status, body = await self._get(of_request, may_time_out=True)
        if status == _GATEWAY_TIMEOUT:
            raise SourceTimeout("fal has a result, but did not give it in time.")
        if status == _ACCEPTED:
            return Pending()
        if status in _REJECTED:
            return Failed(reason_of(read_json(body)))
        if status in _CLIENT_ERRORS:
            return Unknown()
        return Output(read_json(body))

    # -- the platform API ---

    async def _ask_platform(self, model: str, request_id: str) -> Answer:
        since = (self._clock.now() - _SEARCHED).strftime("%Y-%m-%dT%H:%M:%SZ")
        query = urlencode(
            {
                "endpoint_id": model,
                "request_id": request_id,
                "start": since,
                "expand": "payloads",
            }
        )
        base = self._settings.fal_api_url.rstrip("/")
        status, body = await self._get(f"{base}/v1/models/requests/by-endpoint?{query}")
        if status in _CLIENT_ERRORS:
            return Unknown()
        return read_list(body, request_id)

    # -- asking ---

    async def _get(self, url: str, *, may_time_out: bool = False) -> tuple[int, bytes]:
        """Ask one of the two hosts, if its breaker lets us; return a 2xx or a 4xx and its body.

        With `may_time_out` also a 504, which then says nothing about the host.
        """
        host = urlsplit(url).netloc.lower()
        try:
            permit = self._breakers.admit(host, self._clock.monotonic())
        except HostResting as error:
            msg = "fal's API has failed repeatedly and is left alone for a moment."
            raise HostResting(msg, wait=error.wait) from None
        ok: bool | None = None
        try:
            status, rest, body = await self._request(url)
            late = may_time_out and status == _GATEWAY_TIMEOUT
            ok = None if late else status < _SERVER_ERROR
        except (SourceUnavailable, SourceTimeout):
            ok = False
            raise
        finally:
            permit.settle(self._clock.monotonic(), ok=ok)
        if not late:
            _refuse(status, rest)
        return status, body

    async def _request(self, url: str) -> tuple[int, str | None, bytes]:
        """Return status, Retry-After and body. No redirect is followed, or the key would go too."""
        key = self._settings.fal_key
        if key is None or not self.has_key:
            raise FalRefused("fal's API cannot be asked without a key: set FIRSTVIEW_FAL_KEY.")
        fields = {"Authorization": f"Key {key.get_secret_value().strip()}"}
        try:
            async with (
                asyncio.timeout(self._settings.fal_api_timeout),
                self.session().get(
                    URL(url, encoded=True), headers=fields, allow_redirects=False
                ) as response,
            ):
                body = await read_small(
                    response, MAX_ANSWER, "fal's API answers with more than 8 MiB."
                )
                return response.status, response.headers.get("Retry-After"), body
        except TimeoutError as error:
            raise SourceTimeout("fal's API did not answer in time.") from error
        except FOREIGN as error:
            if isinstance(error, ValueError) and not isinstance(error, OSError):
                raise FalRefused(
                    "fal's API cannot be asked: check FIRSTVIEW_FAL_KEY, FIRSTVIEW_FAL_QUEUE_URL"
                    " and FIRSTVIEW_FAL_API_URL."
                ) from None  # what was wrong with a field may quote it
            raise SourceUnavailable("fal's API cannot be reached, or breaks off.") from error


def _make_session() -> aiohttp.ClientSession:
    """A session that carries nothing from one answer to the next request, or from outside."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"firstview/{__version__}",
        },
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),  # every request has a limit of its own
        auto_decompress=False,
        trust_env=False,
    )


def _refuse(status: int, rest: str | None) -> None:
    """Raise what a status means that is an answer to nothing."""
    if status in _UNAUTHORIZED:
        raise FalRefused(
            f"fal's API refuses the key ({status}): check FIRSTVIEW_FAL_KEY, what it may do, and"
            " the account that it belongs to."
        )
    if status == _TOO_MANY:
        raise HostResting("fal's API asks us to slow down.", wait=_seconds(rest))
    if status in {_GATEWAY_TIMEOUT, _REQUEST_TIMEOUT}:
        raise SourceTimeout("fal's API did not have the answer in time.")
    if status in _REDIRECTS:
        raise SourceUnavailable("fal's API redirects; that is not followed, because of the key.")
    if status >= _SERVER_ERROR:
        raise SourceUnavailable(f"fal's API fails ({status}).")


def _seconds(rest: str | None) -> float:
    """Read Retry-After (RFC 9110 §10.2.3) in seconds; a date is not worth the trouble."""
    if rest is None or not rest.isascii() or not rest.isdigit():
        return _DEFAULT_REST
    return min(float(rest[:9]), _LONGEST_REST)
