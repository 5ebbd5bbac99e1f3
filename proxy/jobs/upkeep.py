"""Upkeep: what is done for this machine's disk, as often as there are sweeps.

Belongs here: which cached files are nobody's clip any more, and trying again what is kept. Must not
know: how files are removed, or how a clip is stored.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

import structlog

from proxy.catalog.sweeping import Sweeping
from proxy.clock import Clock
from proxy.delivery import identity
from proxy.errors import FirstviewError
from proxy.records import ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.storage.disk_cache import DiskCache
from proxy.telemetry.metrics import Metrics

AT_ONCE: Final = 500
"""Files that the catalog is asked about at once."""
_FIRST: Final = 60.0
"""Seconds after the start within which the first one is made."""
_PARTS: Final = 24
"""Rounds in which all cached files are looked at once. What is forgotten on this machine is gone at
once; this is for ids that another one has re-pointed, and that nobody has asked for since."""
_UNMADE: Final = {Status.PENDING, Status.FAILED}

log = structlog.get_logger()


class Upkeep:
    """Looks after local files. `retry_kept` makes clips that wait for the bucket due."""

    def __init__(
        self,
        sweeping: Sweeping,
        disk: DiskCache,
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
        retry_kept: Callable[[], None],
    ) -> None:
        """Take the catalog and the disk."""
        self._sweeping = sweeping
        self._disk = disk
        self._every = settings.sweep_every
        self._clock = clock
        self._metrics = metrics
        self._retry_kept = retry_kept

    async def run(self) -> None:
        """Keep up, for ever; not all processes at the same moment."""
        await asyncio.sleep(self._clock.jitter(min(_FIRST, self._every)))
        for part in itertools.cycle(range(_PARTS)):
            self._retry_kept()
            try:
                await self.disown(part, _PARTS)
            except FirstviewError as error:
                log.info("upkeep is put off", error=error.slug, detail=error.detail)
            except Exception:
                log.exception("upkeep crashed")
            await asyncio.sleep(self._every * 0.75 + self._clock.jitter(self._every / 2))

    async def disown(self, part: int = 0, of: int = 1) -> int:
        """Remove cached files that are not what their ids mean by now; return how many.

        Looks at every `of`-th folder, from `part` on. Raises CatalogUnavailable.
        """
        removed = 0
        async for batch in self._disk.batches(AT_ONCE, part, of):
            rows = await self._sweeping.meanings([facts.request_id for facts in batch])
            for facts in batch:
                row = rows.get(facts.request_id)
                if row is not None and not _means(row, facts):
                    removed += await self._disk.disown(facts)
        if removed:
            self._metrics.disowned.inc(removed)
            log.info("files that are nobody's clip any more were removed", count=removed)
        return removed


def _means(row: Generation, facts: ClipFacts) -> bool:
    """Whether a file is the clip of its row; a lost clip's may be the last copy, and stays."""
    return row.status not in _UNMADE and identity.same_clip(row, facts)
