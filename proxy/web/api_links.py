"""`POST /api/v1/links`: addresses of clips that work for a while.

Belongs here: what this address takes and answers. Must not know: who may ask (`admin.py`), or how
anything is signed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from aiohttp import web

from proxy.catalog.generations import Generations
from proxy.clock import Clock
from proxy.errors import BadRequest
from proxy.records import Status
from proxy.security.links import Links
from proxy.storage import keys
from proxy.storage.bucket import PRESIGNED_FOR
from proxy.web import api_requests
from proxy.web.api_requests import Body

MOST: Final = 1000
"""Links in one answer."""
_FIELDS: Final = frozenset({"request_ids", "kind", "life", "key", "url_safe"})


class LinkKind(StrEnum):
    """What a link is to: `signed` to this origin and its edge, `presigned` to the bucket itself."""

    SIGNED = "signed"
    PRESIGNED = "presigned"


@dataclass(frozen=True, slots=True)
class _Made:
    request_id: str
    url: str
    expires_at: datetime


class LinksApi:
    """Links, for whoever decides who may see a clip."""

    def __init__(
        self,
        *,
        links: Links,
        public_url: str,
        presign: Callable[[str], Awaitable[str | None]],
        generations: Generations,
        clock: Clock,
    ) -> None:
        """Take both signers; `presign` gives None where there is nobody to ask but us."""
        self._links = links
        self._public = public_url.rstrip("/")
        self._presign = presign
        self._generations = generations
        self._clock = clock

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the address."""
        router.add_post("/api/v1/links", self._make)

    async def _make(self, request: web.Request) -> web.Response:
        body = Body(await api_requests.body(request), _FIELDS)
        ids = body.ids("request_ids")
        if not ids or len(ids) > MOST:
            raise BadRequest(f"request_ids must be a list of 1 to {MOST} request ids")
        kind = body.word("kind", LinkKind) or LinkKind.SIGNED
        if kind is LinkKind.PRESIGNED:
            return api_requests.answer(await self._presigned(ids, body))
        life, key = body.seconds("life"), body.text("key")
        url_safe, now = body.flag("url_safe"), int(self._clock.now().timestamp())
        made = []
        for name in ids:
            link = self._links.sign(
                keys.clip_path(name), now, life=life, key=key, url_safe=url_safe
            )
            ends = datetime.fromtimestamp(link.expires, UTC)
            made.append(_Made(name, self._public + link.path, ends))
        return api_requests.answer({"links": made, "not_stored": []})

    async def _presigned(self, ids: list[str], body: Body) -> dict[str, Any]:
        """URLs of the bucket; a clip that it does not have is named instead."""
        if any(body.says(name) for name in ("life", "key", "url_safe")):
            raise BadRequest(
                f"a presigned link takes neither life, key nor url_safe: it is good for"
                f" {PRESIGNED_FOR} seconds, and the bucket's own key signs it"
            )
        made, lacking = [], []
        for name in ids:
            row = await self._generations.get(name)
            if row is None or row.status is not Status.STORED:
                lacking.append(name)
                continue
            url = await self._presign(keys.clip_key(name))
            if url is None:
                raise BadRequest(
                    "The bucket is a directory of this machine: nobody can be sent to it"
                )
            ends = self._clock.now() + timedelta(seconds=PRESIGNED_FOR)
            made.append(_Made(name, url, ends.replace(microsecond=0)))
        return {"links": made, "not_stored": lacking}
