"""Rows that are believed for a while."""

from __future__ import annotations

from proxy.clock import Clock
from proxy.delivery.remembered import Remembered
from proxy.records import Generation
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
