"""A row at hand is the same row that a thread would have read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.dialects.sqlite import dialect

from proxy.catalog import generations as module
from proxy.catalog.at_hand import AtHand
from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.generations import Generations
from proxy.records import ClipFacts, Registration

WHEN = datetime(2026, 10, 21, 7, 28, 0, 123456, tzinfo=UTC)


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    catalog = await open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite")
    yield catalog
    await catalog.close()


@pytest.fixture
async def rows(catalog: Catalog) -> Generations:
    rows = Generations(catalog, clip_url=lambda name: f"/videos/{name}.mp4", keep_prompts=True)
    await rows.register(
        [
            Registration(request_id="told", fal_url="https://v3.fal.media/files/a.mp4"),
            Registration(
                request_id="whole",
                fal_url="https://v3.fal.media/files/b.mp4",
                model="fal-ai/veo3",
                prompt="a fox in the snow ❄",
                duration=5.25,
                width=1280,
                height=720,
                created_at=WHEN,
                completed_at=WHEN,
            ),
            Registration(request_id="pending", model="fal-ai/veo3"),
        ]
    )
    facts = ClipFacts(request_id="whole", length=5000, etag="e" * 32, last_modified=WHEN)
    await rows.note_source("whole", "https://v3.fal.media/files/b.mp4", facts, "video/mp4")
    return rows


@pytest.mark.parametrize("request_id", ["told", "whole", "pending", "nobody"])
async def test_the_row_at_hand_is_the_row_that_a_thread_reads(
    rows: Generations, catalog: Catalog, request_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_hand = rows.at_hand(request_id)

    def not_at_hand(*_: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(catalog, "at_hand", not_at_hand)
    assert await rows.get(request_id) == at_hand
    assert (at_hand is None) == (request_id == "nobody")


async def test_a_row_at_hand_is_never_of_yesterday(rows: Generations) -> None:
    assert rows.at_hand("later") is None
    await rows.register([Registration(request_id="later", model="fal-ai/veo3")])
    assert rows.at_hand("later") is not None


async def test_who_writes_does_not_keep_a_row_from_being_at_hand(
    rows: Generations, tmp_path: Path
) -> None:
    assert rows.at_hand("told") is not None
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert rows.at_hand("told") is not None, "in a WAL a writer keeps no reader away"


async def test_a_file_that_another_has_for_itself_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE generations (request_id TEXT)")
        other.execute("BEGIN EXCLUSIVE")  # without a WAL, nobody reads now
        at_hand = AtHand(str(path), dialect())
        began = time.monotonic()
        with pytest.raises(BlockingIOError):
            at_hand.first(module._ONE, ("told",))
        assert time.monotonic() - began < 4.0  # SQLite itself would wait for five
        at_hand.close()


async def test_a_file_that_is_no_catalog_is_left_to_a_thread(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    path.write_bytes(b"not a database" * 1000)
    at_hand = AtHand(str(path), dialect())
    with pytest.raises(BlockingIOError):
        at_hand.first(module._ONE, ("told",))
    at_hand.close()


async def test_no_row_can_be_written_by_way_of_what_is_at_hand(
    rows: Generations, catalog: Catalog
) -> None:
    assert rows.at_hand("told") is not None
    at_hand = catalog._connections.at_hand  # type: ignore[attr-defined]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        at_hand._connection.execute("DELETE FROM generations")
    assert module._ONE in at_hand._known
