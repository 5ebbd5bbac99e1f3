"""The catalog keeps the same promises in SQLite and in PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from proxy.catalog.changes import Outcome
from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.prompts import prompt_hash
from proxy.errors import InvalidTransition, UnknownClip
from proxy.records import ClipFacts, Generation, Registration, Status

URL = "https://v3b.fal.media/files/b/one/clip.mp4"
OTHER = "https://v3b.fal.media/files/b/two/clip.mp4"
NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def address(request_id: str) -> str:
    return f"https://cdn.example/videos/{request_id}.mp4"


@pytest.fixture
def generations(catalog: Catalog) -> Generations:
    return Generations(catalog, clip_url=address)


def facts(request_id: str = "a", length: int = 1000, etag: str = "e1") -> ClipFacts:
    return ClipFacts(
        request_id=request_id,
        length=length,
        etag=etag,
        last_modified=NOON.replace(microsecond=0),
        model="fal-ai/veo3",
    )


async def row(generations: Generations, request_id: str = "a") -> Generation:
    found = await generations.get(request_id)
    assert found is not None
    return found


async def put(generations: Generations, *ids: str, url: str | None = URL) -> None:
    await generations.register([Registration(request_id=name, fal_url=url) for name in ids])


# --- registering --------------------------------------------------------------------------------


async def test_an_unknown_id_is_none(generations: Generations) -> None:
    assert await generations.get("nobody") is None


async def test_everything_that_is_said_comes_back(generations: Generations) -> None:
    said = Registration(
        request_id="a",
        fal_url=URL,
        model="fal-ai/veo3",
        prompt_hash="0" * 64,
        content_length=2**40,
        duration=5.25,
        width=1920,
        height=1080,
        gated=True,
        created_at=NOON,
        completed_at=NOON + timedelta(minutes=2),
    )
    assert await generations.register([said]) == [Outcome.CREATED]
    assert await generations.get("a") == Generation(
        request_id="a",
        status=Status.AVAILABLE,
        fal_url=URL,
        cdn_url="https://cdn.example/videos/a.mp4",
        model="fal-ai/veo3",
        prompt_hash="0" * 64,
        content_length=2**40,
        duration=5.25,
        width=1920,
        height=1080,
        gated=True,
        created_at=NOON,
        completed_at=NOON + timedelta(minutes=2),
    )


async def test_times_come_back_in_utc_to_the_microsecond(generations: Generations) -> None:
    east = NOON.astimezone(timezone(timedelta(hours=9)))
    await generations.register([Registration(request_id="a", created_at=east)])
    created_at = (await row(generations)).created_at
    assert created_at == NOON
    assert created_at.utcoffset() == timedelta(0)


async def test_without_a_url_a_generation_is_pending_until_one_comes(
    generations: Generations,
) -> None:
    await put(generations, "a", url=None)
    assert (await row(generations)).status is Status.PENDING
    assert await generations.register([Registration(request_id="a", fal_url=URL)]) == [
        Outcome.UPDATED
    ]
    assert (await row(generations)).status is Status.AVAILABLE


async def test_what_is_not_said_erases_nothing(generations: Generations) -> None:
    await generations.register(
        [Registration(request_id="a", fal_url=URL, model="m", width=3, created_at=NOON)]
    )
    before = await row(generations)
    outcomes = await generations.register([Registration(request_id="a")])
    assert outcomes == [Outcome.UNCHANGED]
    assert await row(generations) == before


async def test_outcomes_come_in_the_order_of_the_items(generations: Generations) -> None:
    await put(generations, "b", "c")
    outcomes = await generations.register(
        [
            Registration(request_id="d"),
            Registration(request_id="c", model="m"),
            Registration(request_id="b", fal_url=OTHER),
            Registration(request_id="a", fal_url=URL),
            Registration(request_id="c"),
            Registration(request_id="d", fal_url=URL),
        ]
    )
    assert outcomes == ["created", "updated", "repointed", "created", "unchanged", "updated"]
    assert (await row(generations, "d")).status is Status.AVAILABLE


async def test_nothing_is_registered_by_nothing(generations: Generations) -> None:
    assert await generations.register([]) == []


async def test_thousands_of_rows_fit_in_one_call(generations: Generations) -> None:
    items = [Registration(request_id=f"r{n}", fal_url=URL) for n in range(7000)]
    assert await generations.register(items) == [Outcome.CREATED] * 7000
    moved = [replace(item, fal_url=OTHER) for item in items]
    assert await generations.register(moved) == [Outcome.REPOINTED] * 7000


async def test_registering_the_same_new_ids_at_once_creates_each_once(
    generations: Generations, database_url: str
) -> None:
    second = await open_catalog(database_url, migrate=True)
    others = Generations(second, clip_url=address)
    ids = [f"r{n}" for n in range(50)]
    try:
        results = await asyncio.gather(
            *(
                source.register(
                    [Registration(request_id=name, fal_url=URL) for name in ids[:: 1 - 2 * (n % 2)]]
                )
                for n, source in enumerate([generations, others] * 4)
            )
        )
    finally:
        await second.close()
    created = [outcome for result in results for outcome in result if outcome == "created"]
    assert len(created) == 50
    assert await generations.count_by_status() == dict.fromkeys(Status, 0) | {"available": 50}


async def test_a_new_host_or_query_keeps_what_is_known(generations: Generations) -> None:
    await put(generations, "a")
    await generations.mark_stored("a", URL, facts(), "f" * 64, NOON)
    moved = URL.replace("v3b.", "v3.") + "?token=1"
    assert await generations.register([Registration(request_id="a", fal_url=moved)]) == [
        Outcome.UPDATED
    ]
    after = await row(generations)
    assert (after.status, after.etag, after.fal_url) == (Status.STORED, "e1", moved)


async def test_a_new_path_drops_what_was_known_of_the_old_bytes(generations: Generations) -> None:
    await put(generations, "a")
    await generations.mark_stored("a", URL, facts(), "f" * 64, NOON)
    repointing = Registration(request_id="a", fal_url=OTHER, content_length=7)
    assert await generations.register([repointing]) == [Outcome.REPOINTED]
    after = await row(generations)
    assert after.status is Status.AVAILABLE
    assert (after.fal_url, after.content_length) == (OTHER, 7)
    assert (after.etag, after.last_modified, after.sha256, after.mirrored_at) == (None,) * 4


async def test_a_length_that_replies_carry_is_not_replaced(generations: Generations) -> None:
    await put(generations, "a")
    await generations.note_source("a", URL, facts(), None)
    await generations.register([Registration(request_id="a", content_length=5)])
    assert (await row(generations)).content_length == 1000


async def test_prompts_are_hashed_and_kept_only_on_request(catalog: Catalog) -> None:
    silent = Generations(catalog, clip_url=address)
    keeping = Generations(catalog, clip_url=address, keep_prompts=True)
    await silent.register([Registration(request_id="a", prompt="a  cat\n")])
    await keeping.register([Registration(request_id="b", prompt="a cat")])
    first, second = await row(silent, "a"), await row(silent, "b")
    assert first.prompt_hash == second.prompt_hash == prompt_hash("a cat")
    assert (first.prompt, second.prompt) == (None, "a cat")


# --- facts and storing --------------------------------------------------------------------------


async def test_the_first_facts_win_and_are_told_to_the_second(generations: Generations) -> None:
    await put(generations, "a")
    later = replace(facts(), last_modified=NOON.replace(microsecond=0) + timedelta(days=1))
    first = await generations.note_source("a", URL, facts(), "application/octet-stream")
    second = await generations.note_source("a", URL, later, "video/mp4")
    assert first == second == replace(facts(), model=None)
    assert (await row(generations)).content_type == "application/octet-stream"


async def test_facts_of_a_former_url_are_not_kept(generations: Generations) -> None:
    await put(generations, "a", url=OTHER)
    assert await generations.note_source("a", URL, facts(), None) is None
    assert (await row(generations)).etag is None


async def test_facts_that_contradict_the_registered_length_are_not_kept(
    generations: Generations,
) -> None:
    await generations.register([Registration(request_id="a", fal_url=URL, content_length=999)])
    assert await generations.note_source("a", URL, facts(), None) is None
    assert (await row(generations)).content_length == 999


async def test_facts_of_an_unknown_id_are_not_kept(generations: Generations) -> None:
    assert await generations.note_source("a", URL, facts(), None) is None
    assert await generations.get("a") is None


async def test_a_filled_clip_is_stored(generations: Generations) -> None:
    await put(generations, "a")
    assert await generations.mark_stored("a", URL + "?signed", facts(), "f" * 64, NOON)
    after = await row(generations)
    assert (after.status, after.sha256, after.mirrored_at) == (Status.STORED, "f" * 64, NOON)
    assert (after.content_length, after.etag) == (1000, "e1")


async def test_a_fill_of_a_former_url_does_not_store(generations: Generations) -> None:
    await put(generations, "a", url=OTHER)
    assert not await generations.mark_stored("a", URL, facts(), None, NOON)
    assert (await row(generations)).status is Status.AVAILABLE


async def test_a_clip_found_in_the_bucket_is_adopted(generations: Generations) -> None:
    assert await generations.mark_stored("a", None, facts(), None, NOON)
    after = await row(generations)
    assert (after.status, after.fal_url, after.created_at) == (Status.STORED, None, NOON)
    assert (after.model, after.cdn_url) == ("fal-ai/veo3", address("a"))


async def test_an_adopted_clip_that_learns_its_url_stays_stored(generations: Generations) -> None:
    await generations.mark_stored("a", None, facts(), None, NOON)
    assert await generations.register([Registration(request_id="a", fal_url=URL)]) == ["updated"]
    assert (await row(generations)).status is Status.STORED


async def test_a_bucket_copy_is_adopted_over_a_url_only_if_it_is_that_clip(
    generations: Generations,
) -> None:
    await put(generations, "a")
    assert not await generations.mark_stored("a", None, facts(), None, NOON)
    await generations.note_source("a", URL, facts(), None)
    assert not await generations.mark_stored("a", None, facts(etag="foreign"), None, NOON)
    assert await generations.mark_stored("a", None, facts(), None, NOON)


async def test_storing_again_keeps_the_first_time(generations: Generations) -> None:
    await generations.mark_stored("a", None, facts(), "f" * 64, NOON)
    await generations.mark_stored("a", None, facts(), None, NOON + timedelta(days=1))
    after = await row(generations)
    assert (after.mirrored_at, after.sha256) == (NOON, "f" * 64)


async def test_a_clip_missing_from_the_bucket_is_fetched_again(generations: Generations) -> None:
    await put(generations, "a")
    await generations.mark_stored("a", URL, facts(), None, NOON)
    assert await generations.note_missing("a") is Status.AVAILABLE
    after = await row(generations)
    assert (after.etag, after.mirrored_at, after.content_length) == (None, None, None)


async def test_missing_says_nothing_of_a_clip_that_is_not_stored(generations: Generations) -> None:
    await put(generations, "a")
    before = await row(generations)
    assert await generations.note_missing("a") is Status.AVAILABLE
    assert await row(generations) == before
    assert await generations.note_missing("nobody") is None


async def test_an_adopted_clip_that_vanished_is_lost(generations: Generations) -> None:
    await generations.mark_stored("a", None, facts(), None, NOON)
    assert await generations.note_missing("a") is Status.LOST


# --- refusals and failures ----------------------------------------------------------------------


async def test_three_refusals_over_an_hour_lose_a_clip(generations: Generations) -> None:
    await put(generations, "a")
    times = [NOON, NOON + timedelta(minutes=59), NOON + timedelta(minutes=60)]
    statuses = [await generations.note_refusal("a", URL, at) for at in times]
    assert statuses == [Status.AVAILABLE, Status.AVAILABLE, Status.LOST]


async def test_many_refusals_within_an_hour_do_not(generations: Generations) -> None:
    await put(generations, "a")
    for minute in range(10):
        await generations.note_refusal("a", URL, NOON + timedelta(minutes=minute))
    after = await row(generations)
    assert (after.status, after.refusals) == (Status.AVAILABLE, 10)
    assert after.first_refused_at == NOON


async def test_refusals_at_once_are_all_counted(generations: Generations) -> None:
    await put(generations, "a")
    await asyncio.gather(*(generations.note_refusal("a", URL, NOON) for _ in range(20)))
    assert (await row(generations)).refusals == 20


async def test_an_answer_ends_a_row_of_refusals(generations: Generations) -> None:
    await put(generations, "a")
    await generations.note_source("a", URL, facts(), None)
    for hour in range(3):
        await generations.note_refusal("a", URL, NOON + timedelta(hours=hour))
    assert (await row(generations)).status is Status.LOST
    await generations.note_source("a", URL, facts(), None)
    after = await row(generations)
    assert (after.status, after.refusals, after.first_refused_at) == (Status.AVAILABLE, 0, None)


async def test_a_refusal_of_a_former_address_does_not_count(generations: Generations) -> None:
    await put(generations, "a")
    await generations.note_refusal("a", URL + "?expired", NOON)
    assert (await row(generations)).refusals == 0


async def test_a_lost_clip_comes_back_with_a_new_address_only(generations: Generations) -> None:
    await put(generations, "a")
    for hour in range(3):
        await generations.note_refusal("a", URL, NOON + timedelta(hours=hour))
    await put(generations, "a")
    assert (await row(generations)).status is Status.LOST
    await put(generations, "a", url=URL + "?signature=new")
    after = await row(generations)
    assert (after.status, after.refusals) == (Status.AVAILABLE, 0)


async def test_a_refusal_of_an_unknown_id_is_an_error(generations: Generations) -> None:
    with pytest.raises(UnknownClip):
        await generations.note_refusal("a", URL, NOON)


async def test_a_failure_is_kept_with_its_reason_until_a_clip_comes(
    generations: Generations,
) -> None:
    await generations.mark_failed("a", "Invalid status code: 422\0")
    failed = await row(generations)
    assert (failed.status, failed.error) == (Status.FAILED, "Invalid status code: 422")
    await put(generations, "a")
    after = await row(generations)
    assert (after.status, after.error) == (Status.AVAILABLE, None)


async def test_a_failure_after_the_clip_undoes_nothing(generations: Generations) -> None:
    await put(generations, "a")
    with pytest.raises(InvalidTransition, match="a is available: it cannot become failed"):
        await generations.mark_failed("a", "late")
    assert (await row(generations)).status is Status.AVAILABLE


# --- counting -----------------------------------------------------------------------------------


async def test_counts_name_every_status(generations: Generations) -> None:
    await put(generations, "a", "b")
    await put(generations, "c", url=None)
    assert await generations.count_by_status() == {
        "pending": 1,
        "available": 2,
        "stored": 0,
        "failed": 0,
        "lost": 0,
    }


# --- opening ------------------------------------------------------------------------------------


async def test_many_openers_at_once_make_one_schema(database_url: str) -> None:
    catalogs = await asyncio.gather(*(open_catalog(database_url, migrate=True) for _ in range(6)))
    for catalog in catalogs:
        await catalog.ping()
        await catalog.close()


async def test_what_was_written_is_there_after_a_restart(database_url: str) -> None:
    catalog = await open_catalog(database_url, migrate=True)
    await put(Generations(catalog, clip_url=address), "a")
    await catalog.close()
    catalog = await open_catalog(database_url, migrate=True)
    assert (await row(Generations(catalog, clip_url=address))).fal_url == URL
    await catalog.close()


async def test_callers_that_give_up_leave_nothing_locked(
    catalog: Catalog, generations: Generations
) -> None:
    await put(generations, "a")
    for delay in range(40):
        task = asyncio.create_task(generations.note_refusal("a", URL, NOON))
        await asyncio.sleep(delay / 10_000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(generations.get("a") for _ in range(20)))
    await asyncio.gather(*catalog._running)
    before = (await row(generations)).refusals
    await generations.note_refusal("a", URL, NOON)
    assert (await row(generations)).refusals == before + 1
    assert asyncio.get_running_loop().time() - started < 5
