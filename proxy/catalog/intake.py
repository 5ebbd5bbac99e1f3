"""Registrations on their way into rows: one transaction that takes in any number of them.

Belongs here: what new rows need, and the rows of one transaction as they were and as they will be.
Must not know: who reports what. The rules are in `changes.py` and `errands.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import changes, rows
from proxy.catalog.changes import Outcome
from proxy.catalog.errands import Errands
from proxy.catalog.job_rows import Key
from proxy.catalog.prompts import prompt_hash
from proxy.records import Generation, Registration


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What new rows need: clips' public addresses, whether prompts are kept, when sources expire.

    `clip_url` gives a clip's canonical public address. Prompts are hashed always.
    """

    clip_url: Callable[[str], str]
    keep_prompts: bool = False
    expires_after: timedelta | None = None

    def prepared(self, item: Registration) -> Registration:
        """Hash the prompt, outside of any transaction, and drop it unless the owner wants it."""
        if item.prompt is None:
            return item
        kept = item.prompt if self.keep_prompts else None
        return replace(item, prompt_hash=prompt_hash(item.prompt), prompt=kept)


class Taking:
    """One transaction's rows: as they were locked, and what has become of them so far."""

    def __init__(self, intake: Intake, before: dict[str, Generation], now: datetime) -> None:
        """Take the locked rows; an id that is not among them is unknown."""
        self.errands = Errands(intake.expires_after)
        self.now = now
        self._intake = intake
        self._before = before
        self._after = dict(before)
        self._registered: dict[str, bool] = {}

    def row(self, request_id: str) -> Generation | None:
        """The row as it is by now."""
        return self._after.get(request_id)

    def register(self, item: Registration) -> Outcome:
        """Take in a prepared registration."""
        name = item.request_id
        outcome, self._after[name] = changes.registered(
            self.row(name), item, cdn_url=self._intake.clip_url(name), now=self.now
        )
        repointed = outcome is Outcome.REPOINTED or self._registered.get(name, False)
        self._registered[name] = repointed
        return outcome

    def fail(self, request_id: str, reason: str) -> bool:
        """Take in that there will be no clip; say whether that is news.

        Raises InvalidTransition when there is one already.
        """
        before, address = self.row(request_id), self._intake.clip_url(request_id)
        after = changes.failed(before, request_id, reason, cdn_url=address, now=self.now)
        self._after[request_id] = after
        self.errands.failed(before, after)
        return after != before

    async def write(self, connection: AsyncConnection) -> set[Key]:
        """Write rows and jobs; return the newly filed jobs. Raises `rows.Raced`."""
        await rows.write(connection, self._before, self._after)
        for name, repointed in self._registered.items():
            before, after = self._before.get(name), self._after[name]
            self.errands.registered(before, after, repointed=repointed)
        return await self.errands.run(connection, self.now)
