"""The owner's API: what was generated, what is still to be done, and having it tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.catalog.job_rows import NewJob
from proxy.catalog.prompts import prompt_hash
from proxy.records import JobKind, Registration
from tests.fakes.fal import make_clip
from tests.fixtures.origin import ADMIN_TOKEN, MakeOrigin, Origin

BEARER = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
URL = "https://fal.media/files/b/none/clip.mp4"
IDLE = {"worker": False}
"""Nobody works on jobs, so that a test can look at them."""


async def ask(
    origin: Origin, path: str, method: str = "GET", body: object = None, **query: str
) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    async with origin.client.request(
        method, origin.admin(path), headers=BEARER, params=query, json=body
    ) as response:
        return response.status, await response.json(content_type=None)


async def found(origin: Origin, **query: str) -> list[str]:
    status, answer = await ask(origin, "/api/v1/generations", **query)
    assert status == 200, answer
    return [item["request_id"] for item in answer["items"]]


# --- generations --------------------------------------------------------------------------------


@pytest.fixture
async def origin(make_origin: MakeOrigin) -> Origin:
    """One whose jobs nobody does, with four generations."""
    origin = await make_origin(**IDLE)
    await origin.app.generations.register(
        [
            Registration(request_id="a1", model="m1", prompt="a cat", created_at=NOON),
            Registration(
                request_id="a2", model="m1", fal_url=URL, created_at=NOON + timedelta(hours=1)
            ),
            Registration(request_id="b1", model="m2", created_at=NOON + timedelta(hours=2)),
            Registration(
                request_id="b2", prompt="a  cat", fal_url=URL, created_at=NOON + timedelta(hours=3)
            ),
        ]
    )
    await origin.app.labour.jobs.file(
        [NewJob(request_id=name, kind=JobKind.MIRROR, created_at=NOON) for name in ("a2", "b2")]
        + [NewJob(request_id="a1", kind=JobKind.RESOLVE, created_at=NOON)]
    )
    return origin


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, ["b2", "b1", "a2", "a1"]),
        ({"status": "pending"}, ["b1", "a1"]),
        ({"model": "m1"}, ["a2", "a1"]),
        ({"model": "m1", "status": "available"}, ["a2"]),
        ({"prefix": "b"}, ["b1", "b2"]),
        ({"prompt": " a cat"}, ["b2", "a1"]),
        ({"prompt_hash": prompt_hash("a cat")}, ["b2", "a1"]),
        ({"since": "2026-11-21T13:00:00Z"}, ["b2", "b1", "a2"]),
        ({"until": "2026-11-21T13:00"}, ["a1"]),
        ({"since": "2026-11-21T14:00+01:00", "until": "2026-11-21T15:00+00:00"}, ["b1", "a2"]),
        ({"status": "", "model": "", "after": "", "limit": ""}, ["b2", "b1", "a2", "a1"]),
        ({"model": "nobody's"}, []),
    ],
)
async def test_generations_are_found_by_what_is_remembered_of_them(
    origin: Origin, query: dict[str, str], ids: list[str]
) -> None:
    assert await found(origin, **query) == ids


async def test_pages_follow_each_other_to_the_last(origin: Origin) -> None:
    seen: list[str] = []
    query: dict[str, str] = {"limit": "3"}
    while True:
        _, answer = await ask(origin, "/api/v1/generations", **query)
        seen += [item["request_id"] for item in answer["items"]]
        if answer["next"] is None:
            break
        assert len(answer["items"]) == 3
        query["after"] = answer["next"]
    assert seen == ["b2", "b1", "a2", "a1"]


async def test_an_item_is_what_its_own_address_answers(origin: Origin) -> None:
    _, answer = await ask(origin, "/api/v1/generations", prefix="a2")
    _, alone = await ask(origin, "/api/v1/generations/a2")
    assert answer["items"] == [alone]
    assert alone["fal_url"] == URL
    assert alone["cdn_url"].endswith("/videos/a2.mp4")
    assert alone["created_at"] == "2026-11-21T13:00:00+00:00"


@pytest.mark.parametrize(
    ("path", "query", "said"),
    [
        ("generations", {"stauts": "lost"}, "'stauts' is not a parameter"),
        ("generations", {"b": "1", "a": "2"}, "'a' is not a parameter; 'b' is not a parameter"),
        ("generations", {"status": "gone"}, "status must be one of pending, available"),
        ("generations", {"limit": "0"}, "limit must be a whole number from 1 to 500"),
        ("generations", {"limit": "501"}, "limit must be"),
        ("generations", {"limit": "²"}, "limit must be"),
        ("generations", {"since": "yesterday"}, "since must be a time"),
        ("generations", {"until": "2026-11-21T14:00:00 01:00"}, "until must be a time"),
        ("generations", {"after": "nowhere"}, "place in a listing"),
        ("generations", {"prefix": "../etc"}, "no request id begins like this"),
        ("generations", {"prompt_hash": "abc"}, "prompt_hash must be"),
        ("generations", {"model": "a\0b"}, "model holds characters"),
        ("jobs", {"state": "done"}, "state must be one of due, waiting, running, dead"),
        ("jobs", {"kind": "upload"}, "kind must be one of mirror, resolve"),
        ("jobs", {"model": "m1"}, "'model' is not a parameter"),
        ("jobs", {"after": "nowhere"}, "place in a listing"),
        ("stats", {"since": "today"}, "'since' is not a parameter"),
    ],
)
async def test_a_question_that_is_misspelt_is_not_answered(
    origin: Origin, path: str, query: dict[str, str], said: str
) -> None:
    status, answer = await ask(origin, f"/api/v1/{path}", **query)
    assert status == 400
    assert said in answer["detail"]


async def test_a_parameter_that_stands_there_twice_is_refused(origin: Origin) -> None:
    status, answer = await ask(origin, "/api/v1/generations?model=m1&model=m2")
    assert (status, answer["detail"]) == (400, "model stands there twice")


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer \udcff"}]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/generations"),
        ("GET", "/api/v1/jobs"),
        ("POST", "/api/v1/jobs/retry"),
        ("GET", "/api/v1/stats"),
        ("GET", "/api/v1/nothing"),
    ],
)
async def test_nothing_is_told_to_whoever_has_not_the_token(
    origin: Origin, method: str, path: str, header: dict[str, str]
) -> None:
    async with origin.client.request(method, origin.admin(path), headers=header) as response:
        assert response.status == 401
        assert response.content_type == "application/problem+json"


# --- jobs ---------------------------------------------------------------------------------------


async def kill(origin: Origin, *ids: str) -> None:
    """Give up these ids' mirror jobs, as a worker does after too many failures."""
    jobs = origin.app.labour.jobs
    claimed = await jobs.claim(JobKind.MIRROR, "test", 100, timedelta(minutes=1))
    for job in claimed:
        if job.request_id in ids:
            assert await jobs.bury(job, "the source says no")
    await jobs.release([job for job in claimed if job.request_id not in ids])


async def test_jobs_are_listed_with_their_states(origin: Origin) -> None:
    status, answer = await ask(origin, "/api/v1/jobs")
    assert status == 200
    states = [(job["request_id"], job["kind"], job["state"]) for job in answer["items"]]
    assert sorted(states) == [
        ("a1", "resolve", "due"),
        ("a2", "mirror", "due"),
        ("b2", "mirror", "due"),
    ]
    await kill(origin, "a2")
    _, answer = await ask(origin, "/api/v1/jobs", state="dead", kind="mirror")
    [dead] = answer["items"]
    assert (dead["request_id"], dead["state"]) == ("a2", "dead")
    assert dead["last_error"] == "the source says no"
    _, answer = await ask(origin, "/api/v1/jobs", state="dead", kind="resolve")
    assert answer == {"items": [], "next": None}


async def test_pages_of_jobs_follow_each_other(origin: Origin) -> None:
    _, whole = await ask(origin, "/api/v1/jobs")
    _, first = await ask(origin, "/api/v1/jobs", limit="1")
    _, rest = await ask(origin, "/api/v1/jobs", after=first["next"])
    assert first["items"] + rest["items"] == whole["items"]


async def test_dead_jobs_are_tried_again_when_told_to(origin: Origin) -> None:
    await kill(origin, "a2", "b2")
    some: dict[str, Any] = {"request_ids": ["a2", "nobody"], "kind": "mirror"}
    assert await ask(origin, "/api/v1/jobs/retry", "POST", some) == (200, {"retried": 1})
    _, answer = await ask(origin, "/api/v1/jobs", state="dead")
    assert [job["request_id"] for job in answer["items"]] == ["b2"]
    others = {"all": True, "kind": "resolve"}
    assert await ask(origin, "/api/v1/jobs/retry", "POST", others) == (200, {"retried": 0})
    assert await ask(origin, "/api/v1/jobs/retry", "POST", {"all": True}) == (200, {"retried": 1})
    _, answer = await ask(origin, "/api/v1/jobs", state="dead")
    assert answer["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"all": False},
        {"all": True, "request_ids": ["a"]},
        {"all": "yes"},
        {"request_ids": "a"},
        {"request_ids": ["a/b"]},
        {"request_ids": [1]},
        {"all": True, "kind": "upload"},
        {"all": True, "kind": ["mirror"]},
        {"all": True, "state": "dead"},
    ],
)
async def test_what_to_try_again_has_to_be_clear(origin: Origin, body: object) -> None:
    await kill(origin, "a2")
    status, answer = await ask(origin, "/api/v1/jobs/retry", "POST", body)
    assert status == 400, answer
    _, answer = await ask(origin, "/api/v1/jobs", state="dead")
    assert len(answer["items"]) == 1


async def test_stats_name_every_status_kind_and_state(origin: Origin) -> None:
    await kill(origin, "a2")
    status, answer = await ask(origin, "/api/v1/stats")
    assert status == 200
    assert answer["generations"] == {
        "pending": 2,
        "available": 2,
        "stored": 0,
        "failed": 0,
        "lost": 0,
    }
    assert set(answer["jobs"]) == {"mirror", "resolve"}
    mirror = answer["jobs"]["mirror"]
    assert set(mirror) == {"due", "waiting", "running", "dead", "oldest_due_seconds"}
    assert (mirror["due"], mirror["waiting"], mirror["running"], mirror["dead"]) == (1, 0, 0, 1)
    assert answer["jobs"]["resolve"]["due"] == 1


# --- the worker hears of it at once -------------------------------------------------------------


async def test_a_clip_whose_job_is_tried_again_is_stored_at_once(make_origin: MakeOrigin) -> None:
    origin = await make_origin(worker=True, jobs_poll="1h")
    data = make_clip(200_000, 8)
    await origin.clip("again", data)
    jobs = origin.app.labour.jobs
    await jobs.file([NewJob(request_id="again", kind=JobKind.MIRROR, created_at=NOON)])
    await kill(origin, "again")
    assert (await ask(origin, "/api/v1/jobs/retry", "POST", {"all": True}))[1] == {"retried": 1}
    assert (await origin.stored("again")).content_length == len(data)


async def test_a_url_for_a_clip_that_was_waited_for_is_fetched_at_once(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(worker=True, jobs_poll="1h")
    await origin.app.generations.register([Registration(request_id="put")])
    await origin.app.labour.jobs.file(
        [NewJob(request_id="put", kind=JobKind.RESOLVE, created_at=NOON)]
    )
    data = make_clip(200_000, 7)
    url = origin.fal.add("/files/b/put.mp4", data)
    status, _ = await ask(origin, "/api/v1/generations/put", "PUT", {"fal_url": url})
    assert status == 200
    assert (await origin.stored("put")).content_length == len(data)
