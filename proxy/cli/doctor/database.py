"""The catalog's database: whether it opens, its schema, whether it can be written to, its pace.

Belongs here: the order of questions. Must not know: how a database is connected to, or what the
answers mean (`database_words.py`).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.catalog import addresses, probe, schema
from proxy.catalog.drivers import Limits
from proxy.catalog.engine import Catalog, connect
from proxy.cli.doctor.clocks import judge_skew
from proxy.cli.doctor.data_dir import nearest
from proxy.cli.doctor.database_words import (
    judge_connections,
    judge_error,
    judge_latency,
    judge_schema,
    judge_version,
    kind_of,
)
from proxy.cli.doctor.finding import Mark, Notes, failure, fine, unchecked
from proxy.cli.doctor.running import apart
from proxy.clock import Clock
from proxy.errors import CatalogUnavailable, SettingsError
from proxy.settings import Settings
from proxy.storage import keys

_ASKED: Final = 5
_LIMITS: Final = Limits(connect=5.0, command=5.0, call=8.0, connections=2)


@dataclass(frozen=True, slots=True)
class DatabaseCheck:
    """See `Check`; `workers` is how many processes there are going to be."""

    settings: Settings
    workers: int
    clock: Clock
    area: str = "database"

    async def run(self, notes: Notes) -> None:
        """Open it and ask."""
        configured = self.settings.database_url.get_secret_value()
        url = keys.database_url(configured, self.settings.data_dir)
        notes.trying("open")
        if url.startswith("sqlite:") and not await self._is_there(url, notes):
            return
        try:
            async with _opened(url) as catalog:
                await self._ask(catalog, url, notes)
        except CatalogUnavailable as error:
            notes.add(notes.step, judge_error(error.__cause__))
            notes.add("the rest", unchecked("the database cannot be used"))
        except SettingsError as error:
            notes.add("open", failure(error.detail, "correct FIRSTVIEW_DATABASE_URL"))

    async def _is_there(self, url: str, notes: Notes) -> bool:
        """Whether there is a file; it is not made, because nothing is to be left behind."""
        try:
            path = Path(addresses.sqlite_path(url)).absolute()
        except SettingsError as error:
            notes.add("open", failure(error.detail, "correct FIRSTVIEW_DATABASE_URL"))
            return False
        if await apart(path.is_file):
            return True
        place = await apart(lambda: nearest(path.parent))
        if await apart(lambda: os.access(place, os.W_OK | os.X_OK)):
            notes.add("open", fine(f"{path} is not there yet: `firstview serve` makes it"))
        else:
            mend = "let the user that runs firstview write there, or set FIRSTVIEW_DATABASE_URL"
            notes.add("open", failure(f"{path} cannot be made: {place} is closed to us", mend))
        return False

    async def _ask(self, catalog: Catalog, url: str, notes: Notes) -> None:
        kind = kind_of(url)
        notes.trying("open")
        await catalog.ping()
        notes.add("open", fine(kind))
        notes.trying("schema")
        revision = await schema.current(catalog)
        mark = notes.add("schema", judge_schema(revision, migrates=url.startswith("sqlite:")))
        notes.trying("latency")
        notes.add("latency", judge_latency(await _latency(catalog), kind))
        if not url.startswith("sqlite:"):
            await self._ask_postgres(catalog, notes)
        notes.trying("write")
        if mark is Mark.FAILS or revision is None:
            notes.add("write", unchecked("the tables are not as this firstview needs them"))
            return
        await probe.write_and_undo(catalog, self.clock.now())
        notes.add("write", fine("a row, in a transaction that was undone"))

    async def _ask_postgres(self, catalog: Catalog, notes: Notes) -> None:
        notes.trying("server")
        said = await probe.server(catalog)
        notes.add("version", judge_version(said.version))
        notes.add("connections", judge_connections(said.most, said.used, self.workers))
        notes.add("clock", judge_skew((self.clock.now() - said.now).total_seconds(), "the server"))


async def _latency(catalog: Catalog) -> float:
    """Seconds of a trip to the database, the median of some."""
    taken = []
    for _ in range(_ASKED):
        started = time.perf_counter()
        await catalog.ping()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Catalog]:
    catalog = await connect(url, _LIMITS)
    try:
        yield catalog
    finally:
        await catalog.close()
