"""The public address: firstview behind it, a stored clip through it, and what stands in front.

Belongs here: which clip is asked for, and the order of questions. Must not know: what the replies
mean (`public_words.py`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.catalog import addresses, schema
from proxy.catalog.drivers import Limits
from proxy.catalog.engine import connect
from proxy.catalog.search import Search
from proxy.cli.doctor.asking import Answer, Viewer, viewer
from proxy.cli.doctor.clocks import judge_date
from proxy.cli.doctor.finding import Mark, Notes, unchecked
from proxy.cli.doctor.public_words import (
    judge_address,
    judge_cache_rule,
    judge_caching,
    judge_front,
    judge_head,
    judge_health,
    judge_range,
)
from proxy.cli.doctor.running import apart
from proxy.clock import Clock
from proxy.errors import CatalogError, SettingsError
from proxy.records import Generation, Status
from proxy.settings import Settings
from proxy.storage import keys

_LIMITS: Final = Limits(connect=3.0, command=3.0, call=5.0, connections=1)
_FIRST_BYTE: Final = {"Range": "bytes=0-0"}


@dataclass(frozen=True, slots=True)
class PublicCheck:
    """See `Check`; `url` is asked in place of the setting."""

    settings: Settings
    clock: Clock
    url: str | None = None
    area: str = "public address"

    async def run(self, notes: Notes) -> None:
        """Ask there as a viewer would."""
        base = (self.url or self.settings.public_url).rstrip("/")
        chosen = self.url is not None or "public_url" in self.settings.model_fields_set
        if chosen:
            notes.add("address", judge_address(base))
        async with viewer(base) as asking:
            notes.trying("health")
            health = await asking.ask("/healthz")
            if health.status == 0 and not chosen:
                mend = "start `firstview serve`, then run this again; or set FIRSTVIEW_PUBLIC_URL"
                notes.add("health", unchecked(f"nobody answers at {base}", mend))
                return
            if notes.add("health", judge_health(health, base)) is Mark.FAILS:
                notes.add("a clip", unchecked("firstview is not reached"))
                return
            now = self.clock.now()
            notes.add("clock", judge_date(health.headers.get("date"), now, "what answers there"))
            notes.add("front", judge_front(health))
            await self._clip(asking, notes)

    async def _clip(self, asking: Viewer, notes: Notes) -> None:
        notes.trying("a clip")
        clip = await self._stored()
        if clip is None:
            mend = "run this again once a clip is stored: `firstview mirror ID` brings one in"
            notes.add("a clip", unchecked("the catalog has no stored clip to ask for", mend))
            return
        path = keys.clip_path(clip.request_id)
        head = await asking.ask(path, "HEAD")
        if notes.add("a clip", judge_head(head)) is not Mark.OK:
            return
        notes.trying("a range")
        answer = await asking.ask(path, headers=_FIRST_BYTE)
        notes.add("a range", judge_range(answer, head))
        notes.add("caching", judge_caching(head, gated=False))
        if head.field("cf-ray"):
            await self._edge(asking, path, notes)

    async def _edge(self, asking: Viewer, path: str, notes: Notes) -> None:
        notes.trying("cache rule")
        second = await asking.ask(path, headers=_FIRST_BYTE)
        with_query = await self._with_query(asking, path)
        notes.add("cache rule", judge_cache_rule(second, with_query))

    @staticmethod
    async def _with_query(asking: Viewer, path: str) -> Answer:
        return await asking.ask(f"{path}?doctor={secrets.token_hex(4)}", headers=_FIRST_BYTE)

    async def _stored(self) -> Generation | None:
        """The newest clip that is stored; None if there is none, or the catalog cannot be asked."""
        configured = self.settings.database_url.get_secret_value()
        url = keys.database_url(configured, self.settings.data_dir)
        try:
            if url.startswith("sqlite:"):
                path = Path(addresses.sqlite_path(url))
                if not await apart(path.is_file):  # it would be made
                    return None
            catalog = await connect(url, _LIMITS)
            try:
                if schema.is_behind(await schema.current(catalog)):
                    return None
                page = await Search(catalog).find(status=Status.STORED, limit=1)
            finally:
                await catalog.close()
        except (CatalogError, SettingsError):
            return None
        return page.items[0] if page.items else None
