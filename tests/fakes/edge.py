"""A small Cloudflare in front of a running firstview, with the rules of deploy/cloudflare/.

Belongs here: the order in which the edge does things, its cache, and what it adds and takes away.
Must not know: what any rule is meant for. It asks for whole clips, as the edge does without origin
range requests; tests of a slicing edge are elsewhere.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from tests.fakes.edge_rules import EdgeRequest, matches
from tests.fixtures.terraform import Plan

HOST: Final = "cdn.example.com"
_FOR_THE_EDGE: Final = ("Cloudflare-CDN-Cache-Control", "CDN-Cache-Control", "Cache-Control")
_NOT_FOR_VISITORS: Final = {"cache-tag", "cloudflare-cdn-cache-control"}
_UNSAID: Final = {200: 7200, 404: 180}
"""Seconds for which an answer is kept that says nothing, where a rule leaves that to the edge."""


@dataclass(frozen=True)
class Seen:
    """What a visitor gets. `cache` is cf-cache-status: HIT, MISS, or BLOCKED by a rule."""

    status: int
    fields: dict[str, str]
    body: bytes
    cache: str


@dataclass
class _Kept:
    seen: Seen
    tags: set[str]
    until: float


class Edge:
    """One data centre. `asked` are the requests that went to the origin.

    Its clock goes, so that a link that has ended has ended here too; `ahead` sets it forward.
    """

    def __init__(self, plan: Plan, client: aiohttp.ClientSession, port: int) -> None:
        self.asked: list[str] = []
        self.ahead = 0.0
        self._plan = plan
        self._client = client
        self._port = port
        self._kept: dict[str, _Kept] = {}

    @property
    def now(self) -> float:
        """Unix time."""
        return time.time() + self.ahead

    async def get(self, uri: str, **fields: str) -> Seen:
        """Answer a visitor's GET."""
        request = EdgeRequest(uri, HOST, int(self.now))
        if self._rules("links", request):
            return Seen(403, {}, b"blocked", "BLOCKED")
        settings = {}
        for rule in self._rules("cache", request):
            settings.update(rule["action_parameters"])
        key = _key(uri, settings)
        kept = self._kept.get(key)
        if kept is not None and kept.until > self.now:
            return Seen(kept.seen.status, kept.seen.fields, kept.seen.body, "HIT")
        return await self._fetch(request, key, settings, fields)

    def purge(self, tag: str) -> None:
        """Forget what has the tag; upper and lower case are one."""
        self._kept = {key: kept for key, kept in self._kept.items() if tag.lower() not in kept.tags}

    def _rules(self, name: str, request: EdgeRequest) -> list[dict[str, Any]]:
        rules = self._plan.rules(name)
        return [rule for rule in rules if matches(rule["expression"], request)]

    async def _fetch(
        self, request: EdgeRequest, key: str, settings: dict[str, Any], fields: dict[str, str]
    ) -> Seen:
        sent = {name.replace("_", "-"): value for name, value in fields.items()}
        sent |= {"Host": HOST, "CF-Connecting-IP": "203.0.113.7", "Accept-Encoding": "br, gzip"}
        for rule in self._rules("origin", request):
            for name, change in rule["action_parameters"]["headers"].items():
                assert change["operation"] == "set"
                sent[name] = change["value"]
        self.asked.append(request.uri)
        url = URL(f"http://127.0.0.1:{self._port}{request.uri}", encoded=True)
        async with self._client.get(url, headers=sent, allow_redirects=False) as reply:
            body = await reply.read()
            given = {name.lower(): value for name, value in reply.headers.items()}
        shown = {name: value for name, value in given.items() if name not in _NOT_FOR_VISITORS}
        seen = Seen(reply.status, shown, body, "MISS")
        if (seconds := _lifetime(reply.status, given, settings)) > 0:
            tags = {tag.lower() for tag in given.get("cache-tag", "").split(",")}
            self._kept[key] = _Kept(seen, tags, self.now + seconds)
        return seen


def _key(uri: str, settings: dict[str, Any]) -> str:
    custom = settings.get("cache_key", {}).get("custom_key", {})
    without = custom.get("query_string", {}).get("exclude", {}).get("all", False)
    return uri.partition("?")[0] if without else uri


def _lifetime(status: int, given: dict[str, str], settings: dict[str, Any]) -> int:
    """Seconds for which the edge keeps an answer; 0: not at all."""
    if not settings.get("cache") or "set-cookie" in given:
        return 0
    said = next((given[name.lower()] for name in _FOR_THE_EDGE if name.lower() in given), None)
    if said is None:
        return 0 if settings["edge_ttl"]["mode"] == "bypass_by_default" else _UNSAID.get(status, 0)
    if re.search(r"\b(private|no-store|no-cache)\b", said):
        return 0
    found = re.search(r"\bmax-age=(\d+)", said)
    return int(found[1]) if found else 0
