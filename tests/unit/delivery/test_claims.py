"""Whose fill a clip is, where what another process has brought in is not what is meant here."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from proxy.clock import Clock
from proxy.delivery.claims import Claims
from proxy.delivery.flights import Flight
from proxy.records import BodyHead, ClipFacts
from proxy.storage.open_files import OpenFile
from proxy.telemetry.metrics import Metrics
from tests.fixtures.origin import settings_for
from tests.unit.delivery.test_body import DATA, Scripted, stream

HEAD = BodyHead(start=0, stop=5000, total=5000)


class Near:
    """A whole clip has come into the last place just before the lock was taken."""

    def __init__(self, path: Path, facts: ClipFacts) -> None:
        self._path, self._facts = path, facts
        self.doubted: list[str] = []

    def seems_here(self, _: str) -> bool:
        return True

    async def open(self, *_: object) -> OpenFile:
        return OpenFile(os.open(self._path, os.O_RDONLY), self._facts, "disk")

    def doubt(self, request_id: str) -> None:
        self.doubted.append(request_id)


async def _claimed(tmp_path: Path, facts: ClipFacts) -> tuple[Flight, Near, bool]:
    """Claim a clip that is near with these facts; whether it has to be filled."""
    (tmp_path / "near").write_bytes(DATA)
    near = Near(tmp_path / "near", facts)
    with ThreadPoolExecutor(1) as executor:
        claims = Claims(
            settings_for(tmp_path),
            spool_dir=tmp_path,
            near=cast("Any", near),
            owner=cast("Any", None),
            executor=executor,
            clock=Clock(),
            metrics=Metrics(),
        )
        flight = Flight("clip", (Scripted([stream()]),), by_range=False)
        claim = await claims.take(flight)
        if claim is not None:
            await claim.close()
        flight.drop()
    return flight, near, claim is not None


async def test_what_has_arrived_meanwhile_is_not_fetched_again(tmp_path: Path) -> None:
    meant = Scripted([]).facts(HEAD, 5000)
    flight, near, filled = await _claimed(tmp_path, meant)
    assert (filled, near.doubted) == (False, [])
    assert flight.facts == meant


async def test_another_clip_that_has_arrived_meanwhile_under_the_id_is_not_served(
    tmp_path: Path,
) -> None:
    meant = Scripted([]).facts(HEAD, 5000)
    flight, near, filled = await _claimed(tmp_path, replace(meant, etag="0" * 32))
    assert (filled, near.doubted) == (True, ["clip"])
    assert flight.facts is None
