"""fal: the keys of its webhooks, the hosts that clips come from, its API with our key, its clock.

Belongs here: asking, and what the answers mean to whoever has the account. Must not know: how fal
is asked.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy.cli.doctor.clocks import judge_date
from proxy.cli.doctor.finding import Notes, Verdict, failure, fine, unchecked, warning
from proxy.clock import Clock
from proxy.errors import FalRefused, SourceError
from proxy.host_patterns import HostPattern
from proxy.security.jwks import BadKeySet, parse_jwks
from proxy.settings import Settings
from proxy.upstream.fal_api import FalApi
from proxy.upstream.fal_jwks import FalJwks

_MODEL: Final = "fal-ai/flux"
"""Any that exists: what is asked for is a request that does not."""
_SHARED: Final = frozenset(
    {"storage.googleapis.com", "s3.amazonaws.com", "amazonaws.com", "blob.core.windows.net"}
    | {"r2.dev", "r2.cloudflarestorage.com", "googleapis.com", "digitaloceanspaces.com"}
)
"""Hosts where everybody keeps files; without a folder, everybody's may be fetched."""


@dataclass(frozen=True, slots=True)
class FalCheck:
    """See `Check`."""

    settings: Settings
    clock: Clock
    area: str = "fal"

    async def run(self, notes: Notes) -> None:
        """Ask for the keys, and for a request that does not exist."""
        for name, verdict in judge_hosts(self.settings):
            notes.add(name, verdict)
        await self._keys(notes)
        await self._api(notes)

    async def _keys(self, notes: Notes) -> None:
        notes.trying("webhook keys")
        try:
            async with FalJwks(self.settings) as published:
                document, date = await published.fetch_dated()
            found = parse_jwks(document)
        except SourceError as error:
            mend = (
                "let this machine reach FIRSTVIEW_FAL_JWKS_URL; until then webhooks are answered"
                " 503, and fal sends them again"
            )
            notes.add("webhook keys", failure(f"{self.settings.fal_jwks_url}: {why(error)}", mend))
            notes.add("clock", unchecked("fal could not be asked"))
        except BadKeySet as error:
            mend = "correct FIRSTVIEW_FAL_JWKS_URL, or unset it"
            notes.add("webhook keys", failure(f"{self.settings.fal_jwks_url}: {error}", mend))
        else:
            noun = "key" if len(found) == 1 else "keys"
            notes.add("webhook keys", fine(f"{len(found)} {noun} that may sign for fal"))
            tolerance = self.settings.webhook_tolerance
            notes.add("clock", judge_date(date, self.clock.now(), "fal", tolerance))

    async def _api(self, notes: Notes) -> None:
        notes.trying("key")
        async with FalApi(self.settings, clock=self.clock) as api:
            if not api.has_key:
                mend = "set FIRSTVIEW_FAL_KEY, so that clips whose webhook was lost are found"
                notes.add("key", unchecked("there is none: fal is never asked for a result", mend))
                return
            try:
                await api.result(_MODEL, str(uuid.uuid4()))
            except FalRefused as error:
                mend = "make a key at fal.ai/dashboard/keys, and set FIRSTVIEW_FAL_KEY to it"
                notes.add("key", failure(error.detail, mend))
            except SourceError as error:
                mend = "let this machine reach FIRSTVIEW_FAL_QUEUE_URL and FIRSTVIEW_FAL_API_URL"
                notes.add("key", failure(why(error), mend))
            else:
                notes.add("key", fine("fal takes it"))


def why(error: SourceError) -> str:
    """Say what the network said of it: its own sentence is for somebody who waits for a clip."""
    if error.__cause__ is None:
        return error.detail
    return str(error.__cause__) or "no answer in time"


def judge_hosts(settings: Settings) -> Iterator[tuple[str, Verdict]]:
    """Judge the list of hosts that clips may be fetched from."""
    patterns = [HostPattern.parse(text) for text in settings.upstream_hosts]
    wide = [pattern for pattern in patterns if _is_wide(pattern)]
    for pattern in wide:
        shown = f"{'*.' if pattern.wildcard else ''}{pattern.host}"
        yield (
            "hosts",
            failure(
                f"{shown} lets anybody's files be fetched through this origin",
                "name the host, or its folder, in FIRSTVIEW_UPSTREAM_HOSTS: fal.media,*.fal.media",
            ),
        )
    if not any(pattern.host == "fal.media" for pattern in patterns):
        yield (
            "hosts",
            warning(
                f"{', '.join(settings.upstream_hosts)}: fal.media, where fal keeps clips, is not"
                " among them",
                "add fal.media,*.fal.media to FIRSTVIEW_UPSTREAM_HOSTS",
            ),
        )
    elif not wide:
        yield "hosts", fine(", ".join(settings.upstream_hosts))


def _is_wide(pattern: HostPattern) -> bool:
    """Whether a pattern covers strangers' files: a whole domain ending, or a shared store."""
    if pattern.prefix:
        return False
    return (pattern.wildcard and "." not in pattern.host) or pattern.host in _SHARED
