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
from proxy.cli.doctor.asking import Viewer, viewer
from proxy.cli.doctor.clocks import judge_date
from proxy.cli.doctor.finding import Mark, Notes, unchecked
from proxy.cli.doctor.public_words import (
    judge_address,
    judge_cache_rule,
    judge_caching,
    judge_front,
    judge_gate,
    judge_head,
    judge_health,
    judge_link,
    judge_lock,
    judge_range,
    judge_redirect,
)
from proxy.cli.doctor.running import apart
from proxy.clock import Clock
from proxy.errors import CatalogError, SettingsError
from proxy.records import Generation, Status
from proxy.security.links import Links
from proxy.settings import Settings
from proxy.storage import keys

_LIMITS: Final = Limits(connect=3.0, command=3.0, call=5.0, connections=1)
_MINUTE: Final = 60
_FORBIDDEN: Final = 403
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
        if self.settings.origin_secrets:
            await self._lock(notes)
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
        gated = self.settings.gated if clip.gated is None else clip.gated
        bare = keys.clip_path(clip.request_id)
        path = self._signed(bare) if gated else bare
        head = await asking.ask(path, "HEAD")
        if self.settings.origin_secrets and head.status == _FORBIDDEN and not head.field("cf-ray"):
            mend = "give --url the address that viewers use, behind the edge"
            seen = f"{asking.base} refuses what did not come through the edge, as it should"
            notes.add("a clip", unchecked(seen, mend))
            return
        is_refused = gated and head.status == _FORBIDDEN
        if notes.add("a clip", judge_link(head) if is_refused else judge_head(head)) is not Mark.OK:
            return
        notes.trying("a range")
        answer = await asking.ask(path, headers=_FIRST_BYTE)
        redirects = self.settings.redirect_stored
        notes.add("a range", judge_redirect(answer) if redirects else judge_range(answer, head))
        notes.add("caching", judge_caching(head, gated=gated))
        if self.settings.keys_of_links:
            await self._links(asking, bare, notes, gated=gated)
        if head.field("cf-ray") and (not gated or self.settings.edge_checks_links):
            other = f"{bare}?doctor={secrets.token_hex(4)}"
            await self._edge(asking, notes, path, self._signed(other) if gated else other)

    def _signed(self, path: str) -> str:
        """A path with a link that is good for a minute."""
        links = Links(self.settings.keys_of_links, self.settings.link_life)
        now = int(self.clock.now().timestamp())
        return links.sign(path, now, life=min(_MINUTE, links.life)).path

    async def _links(self, asking: Viewer, path: str, notes: Notes, *, gated: bool) -> None:
        """Ask with a good link, with one for another path, and with none."""
        notes.trying("signed link")
        token = self._signed(f"{path}x").rpartition("?")[2]
        good = await asking.ask(self._signed(path), headers=_FIRST_BYTE)
        wrong = await asking.ask(f"{path}?{token}", headers=_FIRST_BYTE)
        none = await asking.ask(path, headers=_FIRST_BYTE)
        notes.add("signed link", judge_link(good))
        if gated:
            notes.add("without a link", judge_gate(wrong, none))

    async def _lock(self, notes: Notes) -> None:
        """Ask the process behind our own listener without the edge's secret."""
        notes.trying("origin lock")
        host, port = self.settings.listen_address
        if port == 0:
            notes.add("origin lock", unchecked("FIRSTVIEW_LISTEN has no port that could be asked"))
            return
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not bound
        where = f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"
        async with viewer(where) as direct:
            answer = await direct.ask(keys.clip_path("firstview-doctor"))
        notes.add("origin lock", judge_lock(answer, where))

    @staticmethod
    async def _edge(asking: Viewer, notes: Notes, path: str, with_query: str) -> None:
        """Ask once more for what was asked for already, and for the same with another query."""
        notes.trying("cache rule")
        second = await asking.ask(path, headers=_FIRST_BYTE)
        other = await asking.ask(with_query, headers=_FIRST_BYTE)
        notes.add("cache rule", judge_cache_rule(second, other))

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
