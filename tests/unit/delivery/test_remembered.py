"""Rows that are believed for a while."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from proxy.clock import Clock
from proxy.delivery.remembered import Remembered
from proxy.errors import CatalogUnavailable
from proxy.records import ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics


class Nowhere:
    """A catalog that knows nothing."""

    async def get(self, _request_id: str) -> Generation | None:
        return None

    def at_hand(self, _request_id: str) -> Generation | None:
        return None


def test_who_is_to_ask_again_about_everything_believes_nothing() -> None:
    rows = Remembered(Settings(), Nowhere(), Clock(), Metrics())
    rows.believe("clip", None)
    assert "clip" in rows
    rows.drop_all()
    assert "clip" not in rows


FACTS = ClipFacts(
    request_id="clip", length=10, etag="e", last_modified=datetime(2026, 11, 21, 12, tzinfo=UTC)
)


class Away:
    """A catalog that knows one generation, until it is away."""

    def __init__(self, *, gated: bool | None) -> None:
        noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self.row = Generation(
            request_id="clip", status=Status.AVAILABLE, created_at=noon, gated=gated
        )
        self.is_away = False

    async def get(self, _request_id: str) -> Generation | None:
        if self.is_away:
            raise CatalogUnavailable
        return self.row

    def at_hand(self, _request_id: str) -> Generation | None:
        raise BlockingIOError


async def rows_of(catalog: Away) -> Remembered:
    """What has asked this catalog once, before it went away, and is to ask again."""
    rows = Remembered(Settings(), catalog, Clock(), Metrics())
    assert await rows.ask("clip", 1.0) == (catalog.row, None)
    catalog.is_away = True
    rows.drop("clip")
    return rows


@pytest.mark.parametrize("gated", [True, False, None])
async def test_that_a_clip_was_gated_outlives_what_else_was_believed(gated: bool | None) -> None:
    rows = await rows_of(Away(gated=gated))
    row, outage = await rows.ask("clip", 1.0)
    assert isinstance(outage, CatalogUnavailable)
    assert row is None, "an old row may be of another clip"
    assert rows.is_gated("clip", None, FACTS) is bool(gated)
    rows.believe("clip", None, FACTS)
    assert (rows.shows("clip"), rows.gates("clip")) == (not gated, bool(gated))


async def test_a_clip_that_was_opened_again_is_not_called_gated() -> None:
    catalog = Away(gated=True)
    rows = await rows_of(catalog)
    catalog.is_away, catalog.row = False, Away(gated=False).row
    assert await rows.ask("clip", 1.0) == (catalog.row, None)
    assert not rows.is_gated("clip", catalog.row)
    catalog.is_away = True
    rows.drop("clip")
    assert not rows.is_gated("clip", None, FACTS)


@pytest.mark.parametrize("told", ["of the id", "of too many"])
async def test_a_change_opens_no_clip_before_its_row_is_read(told: str) -> None:
    rows = await rows_of(Away(gated=True))
    rows.changed("clip") if told == "of the id" else rows.drop_all()
    assert rows.is_gated("clip", None, FACTS)


async def test_what_was_gated_when_a_fill_began_later_is_gated_to_whoever_joins_it() -> None:
    began = Away(gated=None).row
    rows = await rows_of(Away(gated=True))
    assert rows.is_gated("clip", began, FACTS)
