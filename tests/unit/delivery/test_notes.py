"""Notes to the catalog: in order for each clip, beside everything, and never fatal."""

from __future__ import annotations

import asyncio

from proxy.delivery.notes import Notes
from proxy.errors import CatalogUnavailable


async def test_the_notes_of_one_clip_keep_their_order_and_others_do_not_wait() -> None:
    notes, written, slow = Notes(), [], asyncio.Event()

    async def missing() -> None:
        await slow.wait()
        written.append("missing")

    async def stored() -> None:
        written.append("stored")

    async def other() -> None:
        written.append("other")
        slow.set()

    notes.add("a", missing)
    notes.add("a", stored)
    notes.add("b", other)
    await notes.settled("a")
    assert written == ["other", "missing", "stored"]
    await notes.settled("a")  # nothing is left to wait for


async def test_a_lost_note_and_a_crashed_one_keep_nobody_from_writing() -> None:
    notes, written = Notes(), []

    async def lost() -> None:
        raise CatalogUnavailable

    async def crashed() -> None:
        raise ZeroDivisionError

    async def fine() -> None:
        written.append("fine")

    for write in (lost, crashed, fine):
        notes.add("a", write)
    await notes.close(5)
    assert written == ["fine"]


async def test_closing_waits_no_longer_than_it_is_told() -> None:
    notes = Notes()

    async def forever() -> None:
        await asyncio.Event().wait()

    notes.add("a", forever)
    notes.add("a", forever)
    await notes.close(0.01)
    await notes.close(0.01)
