"""The rolling check: sure before it says that a clip is missing, silent when the bucket is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from proxy.errors import BucketRefused, BucketUnavailable
from proxy.jobs.turns import SOON
from proxy.records import Registration
from proxy.storage import keys
from tests.fixtures.origin import wait_for
from tests.fixtures.swept import DATA, LONG_AGO, Stage, facts_of


async def test_clips_that_are_as_they_were_stored_are_counted_and_left_alone(stage: Stage) -> None:
    await stage.own("a", "b")
    assert await stage.checker().check()
    assert stage.counted("checked", "ok") == 2
    assert await stage.status("a") == "stored"
    assert stage.doubted == []


@pytest.mark.parametrize("wrong", ["missing", "wrong-size", "altered"])
async def test_a_clip_that_the_bucket_does_not_hold_is_mirrored_again(
    stage: Stage, wrong: str
) -> None:
    await stage.own("a", "b", "c")
    if wrong == "missing":
        stage.path("b").unlink()
    else:
        stage.path("b").write_bytes(DATA[:-1] + b"x" * (wrong == "altered"))
    await stage.checker().check()
    assert [await stage.status(name) for name in "abc"] == ["stored", "available", "stored"]
    assert await stage.has_job("b")
    assert stage.counted("checked", wrong) == 1
    assert stage.counted("checked", "ok") == 2
    assert stage.counted("lost") == 0
    assert stage.doubted == ["b"]


async def test_a_clip_without_an_address_is_lost(stage: Stage) -> None:
    await stage.own("a", url=False)
    stage.path("a").unlink()
    await stage.checker().check()
    assert await stage.status("a") == "lost"
    assert stage.counted("lost") == 1


async def test_a_file_that_was_only_touched_is_as_good_as_ever(stage: Stage) -> None:
    await stage.own("a")
    stage.path("a").touch()
    await stage.checker().check()
    assert stage.counted("checked", "ok") == 1


async def test_a_disk_that_is_not_mounted_says_nothing_of_any_clip(stage: Stage) -> None:
    await stage.own("a", "b")
    hidden = stage.folder / "hidden"
    (stage.folder / "bucket").rename(hidden)
    (stage.folder / "bucket").mkdir()
    checker = stage.checker()
    with pytest.raises(BucketUnavailable):
        await checker.check()
    assert await stage.status("a") == "stored"
    (stage.folder / "bucket").rmdir()
    hidden.rename(stage.folder / "bucket")
    assert not await checker.check()
    stage.clock.ahead = timedelta(seconds=SOON + 1)
    assert await checker.check()
    assert stage.counted("checked", "ok") == 2


class Hooked:
    """A bucket before whose answers something happens."""

    def __init__(self, stage: Stage, hook: Callable[[str], Awaitable[None]]) -> None:
        self.is_local, self._bucket, self._hook = True, stage.bucket, hook
        self.heads = 0

    async def head(self, key: str) -> Any:
        self.heads += 1
        found = await self._bucket.head(key)
        await self._hook(key)
        return found


async def test_a_bucket_that_lacks_one_clip_after_the_other_is_doubted_not_the_clips(
    stage: Stage,
) -> None:
    """A setting that names another bucket must not make a whole catalog lost."""
    names = [f"clip-{number:02}" for number in range(20)]
    await stage.own(*names, url=False)
    for name in names[:-1]:
        stage.path(name).unlink()
    checker = stage.checker()
    with pytest.raises(BucketRefused, match="FIRSTVIEW_BUCKET_URL"):
        await checker.check()
    assert stage.counted("lost") == 5
    assert await stage.status(names[5]) == "stored"


async def test_a_clip_that_was_stored_anew_meanwhile_is_not_called_missing(stage: Stage) -> None:
    await stage.own("a")
    stage.path("a").unlink()

    async def heal(_key: str) -> None:
        await stage.generations.note_missing("a")
        await stage.commit("a")
        url = "https://fal.media/a.mp4"
        again = datetime.now(UTC)
        assert await stage.generations.mark_stored("a", url, facts_of("a"), None, again)

    await stage.checker(cast("Any", Hooked(stage, heal))).check()
    assert await stage.status("a") == "stored"
    assert stage.doubted == []


async def test_a_clip_that_was_repointed_meanwhile_is_not_called_missing(stage: Stage) -> None:
    await stage.own("a")
    stage.path("a").unlink()

    async def repoint(_key: str) -> None:
        url = "https://fal.media/other.mp4"
        await stage.generations.register([Registration(request_id="a", fal_url=url)])
        facts = facts_of("a", "f" * 32)
        await stage.generations.mark_stored("a", url, facts, None, LONG_AGO)

    bucket = Hooked(stage, repoint)
    await stage.checker(cast("Any", bucket)).check()
    row = await stage.generations.get("a")
    assert row is not None
    assert (row.status, row.etag) == ("stored", "f" * 32)
    assert bucket.heads == 1


async def test_an_object_that_is_there_at_the_second_look_is_there(stage: Stage) -> None:
    await stage.own("a")
    stage.path("a").unlink()

    async def appear(key: str) -> None:
        if await stage.bucket.head(key) is None:
            await stage.commit("a")

    await stage.checker(cast("Any", Hooked(stage, appear))).check()
    assert await stage.status("a") == "stored"
    assert stage.counted("checked", "ok") == 1


async def test_a_check_that_was_cut_off_goes_on_where_it_was(stage: Stage) -> None:
    await stage.own("a", "b", "c")
    looked: list[str] = []

    async def fail_at_b(key: str) -> None:
        looked.append(key)
        if len(looked) == 2:
            raise BucketUnavailable

    checker = stage.checker(cast("Any", Hooked(stage, fail_at_b)))
    with pytest.raises(BucketUnavailable):
        await checker.check()
    stage.clock.ahead = timedelta(seconds=SOON + 1)
    await checker.check()
    assert looked == [keys.clip_key(name) for name in "abbc"]


async def test_a_round_begins_anew_when_sweeps_do(stage: Stage) -> None:
    await stage.own("a")
    checker = stage.checker(sweep_every="1h")
    assert await checker.check()
    assert not await checker.check()
    stage.clock.ahead = timedelta(minutes=61)
    assert await checker.check()
    assert stage.counted("checked", "ok") == 2


async def test_a_minutes_clips_are_spread_over_the_minute(stage: Stage) -> None:
    await stage.own("a", "b", "c", "d")
    began = time.monotonic()
    await stage.checker(check_rate=1200).check()
    assert time.monotonic() - began >= 3 * 0.05


async def test_with_a_rate_of_nothing_nothing_is_looked_at(stage: Stage) -> None:
    await stage.own("a")
    await stage.checker(check_rate=0).run()
    assert stage.counted("checked", "ok") == 0


async def test_checking_goes_on_after_an_outage_of_the_bucket(stage: Stage) -> None:
    await stage.own("a")
    failures = [BucketUnavailable(), BucketUnavailable()]

    async def fail(_key: str) -> None:
        if failures:
            raise failures.pop()

    checker = stage.checker(cast("Any", Hooked(stage, fail)), sweep_every="20ms")
    running = asyncio.create_task(checker.run())

    async def checked() -> bool:
        return stage.counted("checked", "ok") > 0

    await wait_for(checked)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
