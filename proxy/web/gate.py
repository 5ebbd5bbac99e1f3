"""The gate: who may ask at all, and who may see a gated clip.

Belongs here: what of a request the origin lock and the signed links are asked about, in either
lane, chosen once at the start. Must not know: how a link or a secret is checked, or which clips are
gated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from aiohttp.web_request import BaseRequest

from proxy.clock import Clock
from proxy.delivery.locate import Locator
from proxy.errors import OriginLocked
from proxy.security import origin_lock
from proxy.security.links import PARAMETER, Links
from proxy.security.origin_lock import OriginLock
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.open_files import ServedFile
from proxy.web import plain
from proxy.web.plain import Plain

_ORIGIN: Final = re.compile(
    rb"\n" + re.escape(origin_lock.FIELD.encode()) + rb": ([^\r]*)", re.IGNORECASE
)


class Gate:
    """Asked once per request, in whichever lane."""

    def __init__(self, settings: Settings, locator: Locator, clock: Clock) -> None:
        """Take what is set, and who has the open clips."""
        self._links = Links(settings.keys_of_links, settings.link_life)
        self._has_keys = bool(settings.keys_of_links)
        self._lock = OriginLock(settings.origin_secrets)
        self.is_locked = bool(settings.origin_secrets)
        self.is_gated = settings.gated
        """Whether clips are gated unless their generation says otherwise."""
        self._locator = locator
        self._clock = clock

    def admits(self, request_id: str, query: str) -> bool:
        """Whether the query has a link to this clip that is valid now."""
        if PARAMETER not in query:
            return False
        now = self._clock.now().timestamp()
        return self._links.holds(keys.clip_path(request_id), query, now)

    def check(self, request: BaseRequest) -> None:
        """Raise OriginLocked for a request that did not come through the edge, if it has to."""
        if self.is_locked and not self._lock.admits(request.headers.getall(origin_lock.FIELD, ())):
            raise OriginLocked

    def client(self, request: BaseRequest) -> str:
        """Whose request it is: the edge's word counts only where everything comes through it."""
        claimed = request.headers.getall(origin_lock.CLIENT_FIELD, ())
        return origin_lock.client_address(
            tuple(claimed), request.remote or "-", locked=self.is_locked
        )

    # -- the lane for plain hits: as fast as ever where nothing of this is in use ---

    def parser(self) -> Callable[[bytes], Plain | None]:
        """What reads its requests; None of any that the other lane has to look at."""
        reads = self._read_signed if self._has_keys else plain.parse
        if not self.is_locked:
            return reads
        opens = self._lock.opens

        def read_locked(data: bytes) -> Plain | None:
            given = _ORIGIN.findall(data)
            return reads(data) if len(given) == 1 and opens(given[0].rstrip(b" ")) else None

        return read_locked

    def finder(self) -> Callable[[str], ServedFile | None]:
        """What finds open clips by what `parser` has read."""
        return self._find_signed if self._has_keys else self._locator.hot

    def _read_signed(self, data: bytes) -> Plain | None:
        """As `plain.parse`; a link is appended to the request id."""
        found = plain.signed(data)
        if found is None:
            return plain.parse(data)
        link, rest = found
        asked = plain.parse(rest)
        return None if asked is None else (asked[0], f"{asked[1]}?{link}", asked[2])

    def _find_signed(self, name: str) -> ServedFile | None:
        request_id, mark, link = name.partition("?")
        if mark and self.admits(request_id, link):
            file = self._locator.hot_gated(request_id)
            if file is not None:
                return file
        return self._locator.hot(request_id)
