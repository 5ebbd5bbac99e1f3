"""A catalog that has grown for years answers as fast as a new one, and in no more memory.

By default with 50,000 generations: there it is seen whether every question walks along one index,
and the figures are only said. `make scale` takes a million and holds the figures to what is
promised; run it on a machine that does nothing else.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from blockbuster import BlockBuster
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import cursors
from proxy.catalog.drivers import Limits
from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.search import Search
from proxy.records import Registration, Status
from tests.fixtures.catalog import let_asyncpg_read_its_files

AT_SCALE = "SCALE_ROWS" in os.environ
ROWS = int(os.environ.get("SCALE_ROWS", "50000"))
SLOWEST_MS = 5.0 if AT_SCALE else math.inf
"""The 99th percentile."""
IMPORT_RATE = 5000 if AT_SCALE else 0
"""Rows a second."""
ROUNDS = 10 if AT_SCALE else 1
MOST_GROWTH = 16 * 1024 * 1024
"""Bytes that the process may gain between one round of questions and the next."""

pytestmark = pytest.mark.timeout(900 if AT_SCALE else 240)

START = datetime(2024, 11, 21, tzinfo=UTC)
APART = timedelta(seconds=30)
MIDDLE = START + ROWS // 2 * APART
MODELS = ["fal-ai/kling-video/v2/master", "fal-ai/veo3", "fal-ai/wan/v2.2", "fal-ai/ltx", "luma"]
PROMPTS = max(1, ROWS // 20)

# What is spelt differently: a random id, the number i as a hash, and the i-th moment.
SPELT = {
    "sqlite": {
        "id": "lower(hex(randomblob(16)))",
        "hash": "printf('%064x', {})",
        "moment": f"{int(START.timestamp()) * 10**6} + ({{}}) * 1000000",
    },
    "postgresql": {
        "id": "md5(random()::text || i)",
        "hash": "lpad(to_hex({}), 64, '0')",
        "moment": f"to_timestamp({int(START.timestamp())} + ({{}}))",
    },
}


def filling(dialect: str) -> str:
    """One statement that makes all rows, oldest first: 94 % stored, 3 % available, some of each."""
    spelt = SPELT[dialect]
    models = " ".join(f"WHEN {n} THEN '{model}'" for n, model in enumerate(MODELS))
    moments = [spelt["moment"].format(f"i * 30 + {later}") for later in (0, 90, 95)]
    return f"""
    WITH RECURSIVE numbers(i) AS (
        SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < {ROWS}
    ), named AS (SELECT i, i * 19 % 100 AS dice, {spelt["id"]} AS x FROM numbers)
    INSERT INTO generations (
        request_id, status, model, prompt_hash, fal_url, cdn_url, content_length, content_type,
        etag, sha256, duration, width, height, refusals, created_at, completed_at, mirrored_at
    )
    SELECT
        substr(x, 1, 8) || '-' || substr(x, 9, 4) || '-' || substr(x, 13, 4) || '-' ||
            substr(x, 17, 4) || '-' || substr(x, 21),
        CASE WHEN dice < 94 THEN 'stored' WHEN dice < 97 THEN 'available'
            WHEN dice < 98 THEN 'pending' WHEN dice < 99 THEN 'failed' ELSE 'lost' END,
        CASE i % {len(MODELS)} {models} END,
        {spelt["hash"].format(f"i % {PROMPTS}")},
        'https://v3b.fal.media/files/b/' || x || '/output.mp4',
        'https://cdn.example/videos/' || x || '.mp4',
        8000000 + i, 'video/mp4', x, x || x, 5.04, 1280, 720, 0, {", ".join(moments)}
    FROM named
    """


@dataclass(frozen=True)
class Grown:
    """A catalog with many rows."""

    catalog: Catalog
    dialect: str

    @property
    def search(self) -> Search:
        return Search(self.catalog)

    @property
    def generations(self) -> Generations:
        return Generations(self.catalog, clip_url=str)


@pytest.fixture(params=["sqlite", "postgresql"])
async def grown(
    request: pytest.FixtureRequest, tmp_path: Path, _event_loop_guard: BlockBuster
) -> AsyncIterator[Grown]:
    let_asyncpg_read_its_files(_event_loop_guard)
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    catalog = await open_catalog(url, Limits(command=600, call=600), migrate=True)
    await catalog.write(lambda connection: connection.execute(text(filling(request.param))))
    if request.param == "postgresql":
        # As autovacuum does it, and all of it: reads run outside of any transaction.
        await catalog.read(lambda connection: connection.execute(text("VACUUM ANALYZE")))
    yield Grown(catalog, request.param)
    await catalog.close()


def say(line: str) -> None:
    print(f"  {line}", flush=True)


def questions() -> list[dict[str, Any]]:
    """Every combination of filters, with its first page and a deep one."""
    choices: dict[str, Sequence[Any]] = {
        "status": [None, Status.STORED, Status.LOST],
        "model": [None, MODELS[1]],
        "prefix": ["", "a", "a1b2"],
        "prompt_hash": [None, f"{7:064x}"],
        "since": [None, MIDDLE - timedelta(days=100)],
        "until": [None, MIDDLE + timedelta(days=1)],
        "after": [None, MIDDLE],
    }
    asked = []
    for values in product(*choices.values()):
        wanted = dict(zip(choices, values, strict=True))
        if wanted["after"] is not None:
            wanted["after"] = cursors.write(wanted["after"], (wanted["prefix"] or "a") + "8")
        asked.append(wanted)
    return asked


async def timed(calls: Sequence[Callable[[], Awaitable[object]]]) -> list[float]:
    """How long each took, in milliseconds."""
    took = []
    for call in calls:
        started = time.perf_counter()
        await call()
        took.append((time.perf_counter() - started) * 1000)
    return took


def percentile(ascending: list[float], part: float) -> float:
    return ascending[min(len(ascending) - 1, int(len(ascending) * part))]


def figures(ascending: list[float]) -> str:
    p50, p99 = percentile(ascending, 0.5), percentile(ascending, 0.99)
    count = len(ascending)
    return f"{count} calls, p50 {p50:.2f} ms, p99 {p99:.2f} ms, slowest {ascending[-1]:.2f} ms"


def memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_a_catalog_of_years_answers_at_once_and_in_flat_memory(grown: Grown) -> None:
    say(f"{grown.dialect}, {ROWS:,} rows")
    if grown.dialect == "sqlite":  # PostgreSQL plans by its statistics, not by rules
        await walks_along_one_index_and_sorts_nothing(grown)
    slowest = {
        "search": await searching(grown),
        "get": await getting(grown),
    }
    await counting(grown)
    rate = await registering(grown)
    assert slowest == {name: took for name, took in slowest.items() if took < SLOWEST_MS}
    assert rate > IMPORT_RATE


async def searching(grown: Grown) -> float:
    """The 99th percentile of all questions, in milliseconds."""
    asked = questions()
    calls = [partial(grown.search.find, **wanted) for wanted in asked]
    await timed(calls)  # until the file is warm
    before, worked = memory(), time.process_time()
    rounds = [await timed(calls) for _ in range(ROUNDS)]
    worked, growth = time.process_time() - worked, memory() - before
    took = sorted(duration for durations in rounds for duration in durations)
    say(f"search: {figures(took)}; memory {growth / 2**20:+.1f} MiB")
    say(f"search: {worked / len(took) * 1000:.2f} ms a call of this process's own work")
    medians = [median(durations) for durations in zip(*rounds, strict=True)]
    hardest = asked[medians.index(max(medians))]
    hardest = {name: str(value) for name, value in hardest.items() if value}
    say(f"hardest: {max(medians):.2f} ms for {hardest}")
    assert growth < MOST_GROWTH
    return percentile(took, 0.99)


async def getting(grown: Grown) -> float:
    """The 99th percentile of reads by id, some of them unknown."""
    ids = [
        item.request_id
        for digit in "0123456789abcdef"
        for item in (await grown.search.find(prefix=digit, limit=100)).items
    ]
    calls = [partial(grown.generations.get, name) for name in [*ids, *map(str, range(100))]]
    await timed(calls)
    took = sorted(await timed(calls))
    say(f"get: {figures(took)}")
    return percentile(took, 0.99)


async def counting(grown: Grown) -> None:
    await grown.generations.count_by_status()
    took = sorted(await timed([grown.generations.count_by_status] * 5))
    say(f"count_by_status: {figures(took)}")
    assert await grown.generations.count_by_status() == {
        Status.PENDING: ROWS // 100,
        Status.AVAILABLE: ROWS * 3 // 100,
        Status.STORED: ROWS * 94 // 100,
        Status.FAILED: ROWS // 100,
        Status.LOST: ROWS // 100,
    }


async def registering(grown: Grown) -> float:
    """Rows a second, in the way that files are imported."""
    batches = [
        [
            Registration(
                request_id=os.urandom(16).hex(),
                fal_url=f"https://v3b.fal.media/files/b/{batch}/{n}.mp4",
                model=MODELS[n % len(MODELS)],
                prompt_hash=os.urandom(32).hex(),
                created_at=START + (ROWS + n) * APART,
            )
            for n in range(1000)
        ]
        for batch in range(9)
    ]
    took = await timed([partial(grown.generations.register, some) for some in batches])
    rate = 1000 / (median(took) / 1000)
    say(f"register: {rate:,.0f} rows/s")
    return rate


async def _engine(connection: AsyncConnection) -> Engine:
    return connection.sync_engine


async def walks_along_one_index_and_sorts_nothing(grown: Grown) -> None:
    statements: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements[statement] = parameters

    engine = await grown.catalog.read(_engine)
    event.listen(engine, "before_cursor_execute", note)
    for wanted in questions():
        await grown.search.find(**wanted)
    event.remove(engine, "before_cursor_execute", note)
    assert len(statements) > 50

    async def explain(connection: AsyncConnection) -> list[tuple[str, list[str]]]:
        plans = []
        for statement, parameters in statements.items():
            explaining = f"EXPLAIN QUERY PLAN {statement}"
            steps = (await connection.exec_driver_sql(explaining, parameters)).mappings()
            plans.append((statement, [step["detail"] for step in steps]))
        return plans

    for statement, plan in await grown.catalog.read(explain):
        # A page by id finds its own end, along the same index.
        steps = [step for step in plan if not step.startswith("SCALAR SUBQUERY")]
        assert len(steps) == 1 + len(plan) - len(steps), (statement, plan)
        for step in steps:
            assert re.match(
                r"SEARCH (generations|looked) USING (COVERING )?INDEX"
                r"|SCAN generations USING INDEX generations_by_time",
                step,
            ), (statement, plan)
