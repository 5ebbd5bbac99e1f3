"""What a process that ended had begun, of a clip that another machine has stored since."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.delivery import aftermath
from proxy.delivery.spool import Spool
from proxy.records import BodyHead, ClipFacts
from proxy.storage import keys
from tests.fakes.fal import make_clip
from tests.fixtures.origin import MakeOrigin, Origin, wait_for

DATA = make_clip(100_000)
HEAD = BodyHead(start=0, stop=len(DATA), total=len(DATA), validator='"tag"')


@pytest.fixture
async def origin(make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch) -> Origin:
    monkeypatch.setattr(aftermath, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(aftermath, "_QUIET_FOR", 0.0)
    return await make_origin()


async def begin(origin: Origin, request_id: str, facts: ClipFacts) -> Path:
    """Leave half of a clip, as a process does that is killed."""
    path = keys.spool_path(origin.app.places.spool_dir, request_id, "its source")
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.claim(path, executor)
        spool.announce(facts.length)
        spool.describe(facts, HEAD)
        await spool.append(DATA[:50_000])
        spool.release()
    return path


async def facts_of(origin: Origin, request_id: str) -> ClipFacts:
    row = await origin.row(request_id)
    assert row is not None
    assert row.etag is not None
    assert row.last_modified is not None
    return ClipFacts(
        request_id=request_id,
        length=len(DATA),
        etag=row.etag,
        last_modified=row.last_modified,
    )


async def test_it_is_cleared_away(origin: Origin) -> None:
    await origin.clip("clip", DATA)
    await origin.get("clip")
    await origin.stored("clip")
    path = await begin(origin, "clip", await facts_of(origin, "clip"))

    async def gone() -> bool:
        return origin.leftovers() == []

    await wait_for(gone)
    assert not path.exists()
    _, body = await origin.get("clip")
    assert body == DATA


async def test_what_nobody_has_stored_is_kept_to_be_gone_on_with(origin: Origin) -> None:
    for name in ("stored", "not"):
        await origin.clip(name, DATA)
    await origin.get("stored")
    await origin.stored("stored")
    facts = await facts_of(origin, "stored")
    kept = await begin(origin, "not", facts)
    gone = await begin(origin, "stored", facts)

    async def is_gone() -> bool:
        return not gone.exists()

    await wait_for(is_gone)  # in the same look
    assert kept.stat().st_size == 50_000
