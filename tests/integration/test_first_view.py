"""The main job: a cold clip plays on first view, and is owned afterwards."""

from __future__ import annotations

from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.origin import Origin

MIB = 1024 * 1024


async def test_a_cold_clip_plays_before_its_source_has_sent_all_of_it(origin: Origin) -> None:
    data = make_clip(4 * MIB, 1)
    await origin.clip("cold", data, Behaviour(rate=4 * MIB))
    async with origin.client.get(origin.url("cold")) as response:
        assert response.status == 200
        first = await response.content.readany()
        [request] = origin.fal.gets(origin.paths["cold"])
        assert request.sent < len(data)
        rest = await response.content.read()
    assert first + rest == data


async def test_the_second_view_does_not_touch_upstream(origin: Origin) -> None:
    data = make_clip(MIB, 2)
    await origin.clip("twice", data)
    _, first = await origin.get("twice")
    row = await origin.stored("twice")
    response, second = await origin.get("twice")
    assert first == second == data
    assert origin.gets("twice") == 1
    assert response.headers["Cache-Status"] == "firstview; hit; detail=bucket"
    assert row.content_length == len(data)
    assert origin.leftovers() == []
