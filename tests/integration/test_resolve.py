"""Asking fal where a clip is: real catalog, a fake of fal's API, both ways in."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.job_rows import NewJob
from proxy.catalog.jobs import Jobs
from proxy.catalog.notices import Notices
from proxy.clock import Clock
from proxy.errors import CatalogUnavailable, FalRefused, Overloaded, SourceUnavailable
from proxy.jobs import resolve as module
from proxy.jobs.resolve import Resolver
from proxy.jobs.verdict import DONE, Outcome
from proxy.jobs.worker import Worker
from proxy.records import Generation, Job, JobKind, Notice, Registration, Status
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.upstream.allowlist import Policy, check_url
from proxy.upstream.fal_api import FalApi
from tests.fakes.fal_api import FOREVER, FakeFalApi, Fault
from tests.fixtures.origin import settings_for, wait_for

MODEL = "fal-ai/veo3"
URL = "https://v3b.fal.media/files/b/x/clip.mp4"
OUTPUT = {"video": {"url": URL, "file_size": 1000, "width": 640, "height": 360}}


class HeldNotices(Notices):
    """The real ones, behind a database that can be away."""

    away = False

    async def take(self, notice: Notice) -> Any:
        if self.away:
            raise CatalogUnavailable
        return await super().take(notice)


@dataclass
class Desk:
    """A resolver and all around it."""

    fal: FakeFalApi
    settings: Settings
    generations: Generations
    notices: HeldNotices
    jobs: Jobs
    resolver: Resolver
    metrics: Metrics

    async def pending(self, name: str = "a", model: str | None = MODEL) -> Generation:
        """Register a generation of which nothing else is known yet."""
        await self.generations.register([Registration(request_id=name, model=model)])
        return await self.row(name)

    async def row(self, name: str = "a") -> Generation:
        found = await self.generations.get(name)
        assert found is not None
        return found

    def job(self, name: str = "a") -> Job:
        now = datetime.now(UTC)
        return Job(request_id=name, kind=JobKind.RESOLVE, created_at=now, due_at=now)

    def resolves(self, outcome: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "firstview_resolves_total", {"outcome": outcome}
        )
        return value or 0.0


Make = Callable[..., Desk]


@pytest.fixture
async def fal() -> AsyncIterator[FakeFalApi]:
    async with FakeFalApi() as fake:
        yield fake


@pytest.fixture
async def make(fal: FakeFalApi, tmp_path: Path) -> AsyncIterator[Make]:
    catalog = await open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite")
    closing: list[Any] = []

    def address(name: str) -> str:
        return f"https://cdn.example/videos/{name}.mp4"

    def build(**changes: Any) -> Desk:
        defaults = {
            "fal_key": fal.key,
            "fal_queue_url": fal.queue_url,
            "fal_api_url": fal.api_url,
            "fal_api_timeout": "5s",
        }
        settings = settings_for(tmp_path, **{**defaults, **changes})
        policy = Policy.of(("fal.media", "*.fal.media"))
        generations = Generations(catalog, clip_url=address)
        notices, metrics = HeldNotices(catalog, clip_url=address), Metrics()
        api = FalApi(settings)
        resolver = Resolver(
            api,
            notices=notices,
            generations=generations,
            check=lambda url: check_url(url, policy),
            settings=settings,
            clock=Clock(),
            metrics=metrics,
        )
        closing.extend([resolver, api, notices])
        return Desk(fal, settings, generations, notices, Jobs(catalog), resolver, metrics)

    yield build
    for part in closing:
        await part.close()
    await catalog.close()


@pytest.fixture
def desk(make: Make) -> Desk:
    return make()


# --- what fal says, told to the catalog ---------------------------------------------------------


async def test_a_clip_that_fal_has_becomes_available_and_gets_its_mirror_job(desk: Desk) -> None:
    await desk.pending()
    desk.fal.add("a", MODEL, output=OUTPUT)
    assert await desk.resolver(desk.job()) == DONE
    row = await desk.row()
    assert (row.status, row.fal_url, row.content_length) == (Status.AVAILABLE, URL, 1000)
    assert await desk.jobs.get("a", JobKind.MIRROR) is not None
    assert desk.resolves("found") == 1


async def test_a_generation_that_failed_is_failed_with_fals_reason(desk: Desk) -> None:
    await desk.pending()
    desk.fal.add("a", MODEL, error="the prompt was refused")
    assert await desk.resolver(desk.job()) == DONE
    row = await desk.row()
    assert (row.status, row.error) == (Status.FAILED, "the prompt was refused")
    assert desk.resolves("failed") == 1


@pytest.mark.parametrize("url", ["https://evil.example/x.mp4", "data:video/mp4;base64,AAAA"])
async def test_an_output_without_an_address_that_may_be_fetched_is_a_failure(
    desk: Desk, url: str
) -> None:
    await desk.pending()
    desk.fal.add("a", MODEL, output={"video": {"url": url}})
    assert await desk.resolver(desk.job()) == DONE
    assert (await desk.row()).status is Status.FAILED
    assert desk.resolves("failed") == 1


async def test_an_address_that_may_be_signed_is_kept_in_the_row_and_out_of_the_log(
    desk: Desk,
) -> None:
    await desk.pending()
    url = "https://storage.example/x.mp4?X-Goog-Signature=s3cret"
    desk.fal.add("a", MODEL, output={"video": {"url": url}})
    with capture_logs() as logs:
        await desk.resolver(desk.job())
    assert "s3cret" in ((await desk.row()).error or "")
    assert any(line["event"] == "fal was asked" for line in logs)
    assert "s3cret" not in str(logs)


# --- as a job -----------------------------------------------------------------------------------


async def test_a_job_waits_for_a_generation_that_is_under_way_at_no_cost(desk: Desk) -> None:
    await desk.pending()
    desk.fal.add("a", MODEL, state="IN_PROGRESS")
    said = await desk.resolver(desk.job())
    assert (said.outcome, said.counted) == (Outcome.POSTPONED, False)
    assert not said.widespread
    assert said.wait == desk.settings.resolve_pause
    assert desk.resolves("pending") == 1


async def test_a_job_that_nobody_can_answer_fails_in_the_end(desk: Desk) -> None:
    await desk.pending()
    said = await desk.resolver(desk.job())
    assert (said.outcome, said.counted) == (Outcome.POSTPONED, True)
    assert "does not know" in (said.error or "")
    assert desk.resolves("unknown") == 1


async def test_a_job_without_a_key_says_what_to_set(make: Make, fal: FakeFalApi) -> None:
    desk = make(fal_key=None)
    await desk.pending()
    said = await desk.resolver(desk.job())
    assert (said.outcome, said.counted) == (Outcome.POSTPONED, True)
    assert "FIRSTVIEW_FAL_KEY" in (said.error or "")
    assert desk.resolves("no-key") == 1
    assert fal.asked == []


@pytest.mark.parametrize("model", [None, "veo3", "../../admin"])
async def test_a_job_without_a_model_says_what_to_register(desk: Desk, model: str | None) -> None:
    await desk.pending(model=model)
    said = await desk.resolver(desk.job())
    assert (said.outcome, said.counted) == (Outcome.POSTPONED, True)
    assert "model" in (said.error or "")
    assert desk.resolves("no-model") == 1
    assert desk.fal.asked == []


async def test_a_job_of_a_clip_that_is_not_pending_has_nothing_to_do(desk: Desk) -> None:
    assert (await desk.resolver(desk.job())).outcome is Outcome.POINTLESS
    await desk.generations.register([Registration(request_id="a", fal_url=URL, model=MODEL)])
    assert (await desk.resolver(desk.job())).outcome is Outcome.POINTLESS
    assert desk.fal.asked == []


async def test_a_job_hears_of_a_key_that_is_refused(desk: Desk) -> None:
    await desk.pending()
    desk.fal.key = "another"
    with pytest.raises(FalRefused):
        await desk.resolver(desk.job())
    again = await desk.resolver(desk.job())  # remembered, not asked again
    assert (again.counted, len(desk.fal.asked)) == (False, 1)
    assert desk.resolves("unavailable") == 1


async def test_what_the_catalog_could_not_be_told_is_asked_for_again(desk: Desk) -> None:
    await desk.pending()
    desk.fal.add("a", MODEL, output=OUTPUT)
    desk.notices.away = True
    with pytest.raises(CatalogUnavailable):
        await desk.resolver(desk.job())
    desk.notices.away = False
    assert await desk.resolver(desk.job()) == DONE
    assert (await desk.row()).status is Status.AVAILABLE


async def test_a_worker_follows_a_generation_to_its_end(make: Make) -> None:
    desk = make(resolve_pause="20ms", jobs_poll="20ms", job_backoff="20ms")
    row = await desk.pending()
    made = desk.fal.add("a", MODEL, state="IN_QUEUE", output=OUTPUT)
    await desk.jobs.file([NewJob(request_id="a", kind=JobKind.RESOLVE, created_at=row.created_at)])
    ended: list[Outcome] = []
    worker = Worker(
        desk.jobs,
        {JobKind.RESOLVE: desk.resolver},
        desk.settings,
        clock=Clock(),
        metrics=desk.metrics,
        owner="w",
        on_done=lambda _job, outcome, _error: ended.append(outcome),
    )
    running = asyncio.create_task(worker.run())

    async def postponed_twice() -> bool:
        return ended.count(Outcome.POSTPONED) > 1

    await wait_for(postponed_twice)
    made.state = "COMPLETED"

    async def available() -> bool:
        return (await desk.row()).status is Status.AVAILABLE and Outcome.DONE in ended

    await wait_for(available)
    await worker.close(1.0)
    await running
    assert await desk.jobs.get("a", JobKind.RESOLVE) is None


# --- for a view ---------------------------------------------------------------------------------


async def test_a_view_of_a_pending_clip_learns_that_it_is_there(desk: Desk) -> None:
    row = await desk.pending()
    desk.fal.add("a", MODEL, output=OUTPUT)
    assert await desk.resolver.resolve(row)
    assert (await desk.row()).fal_url == URL


async def test_a_view_of_a_clip_that_failed_learns_that_too(desk: Desk) -> None:
    row = await desk.pending()
    desk.fal.add("a", MODEL, error="no")
    assert await desk.resolver.resolve(row)
    assert (await desk.row()).status is Status.FAILED


async def test_views_at_once_are_one_question(desk: Desk) -> None:
    row = await desk.pending()
    go = asyncio.Event()
    desk.fal.add("a", MODEL, output=OUTPUT)
    desk.fal.fail("status", Fault(until=go, genuine=True))
    views = [asyncio.create_task(desk.resolver.resolve(row)) for _ in range(20)]
    job = asyncio.create_task(desk.resolver(desk.job()))

    async def asked() -> bool:
        return bool(desk.fal.asked)

    await wait_for(asked)
    go.set()
    assert await asyncio.gather(*views) == [True] * 20
    assert await job == DONE
    assert len(desk.fal.targets("status")) == 1


async def test_a_view_that_leaves_does_not_stop_the_question(desk: Desk) -> None:
    row = await desk.pending()
    go = asyncio.Event()
    desk.fal.add("a", MODEL, output=OUTPUT)
    desk.fal.fail("status", Fault(until=go, genuine=True))
    leaving = asyncio.create_task(desk.resolver.resolve(row))

    async def asked() -> bool:
        return bool(desk.fal.asked)

    await wait_for(asked)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go.set()

    async def available() -> bool:
        return (await desk.row()).status is Status.AVAILABLE

    await wait_for(available)


@pytest.mark.parametrize("known", [True, False])
async def test_fal_is_not_asked_again_for_a_while_for_what_it_did_not_have(
    make: Make, known: bool
) -> None:
    desk = make(resolve_pause="200ms")
    row = await desk.pending()
    if known:
        desk.fal.add("a", MODEL, state="IN_QUEUE", output=OUTPUT)
    began = time.monotonic()
    assert not await desk.resolver.resolve(row)
    asked = len(desk.fal.asked)
    desk.fal.add("a", MODEL, output=OUTPUT)
    assert not await desk.resolver.resolve(row)
    assert (await desk.resolver(desk.job())).outcome is Outcome.POSTPONED
    assert time.monotonic() - began >= 0.2 or len(desk.fal.asked) == asked

    async def resolved() -> bool:
        return await desk.resolver.resolve(row)

    await wait_for(resolved)
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(status=401), Fault(status=429), Fault(body=b"<")]
)
async def test_a_view_never_hears_of_trouble_at_fal(desk: Desk, fault: Fault) -> None:
    row = await desk.pending()
    desk.fal.always("status", fault)
    assert not await desk.resolver.resolve(row)
    assert desk.resolves("unavailable") == 1


async def test_a_view_never_hears_of_a_bug(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    row = await desk.pending()

    async def broken(model: str, request_id: str) -> Any:
        raise KeyError(model, request_id)

    monkeypatch.setattr(desk.resolver._api, "result", broken)
    with capture_logs() as logs:
        assert not await desk.resolver.resolve(row)
    assert [line["log_level"] for line in logs] == ["error"]


async def test_a_view_waits_no_longer_than_the_timeout(make: Make) -> None:
    desk = make(fal_api_timeout="700ms")
    row = await desk.pending()
    # Each of two requests is in time, both together are not.
    desk.fal.add("a", MODEL, output=OUTPUT)
    desk.fal.fail("status", Fault(delay=0.5, genuine=True))
    desk.fal.fail("result", Fault(delay=FOREVER))
    began = time.monotonic()
    assert not await desk.resolver.resolve(row)
    assert time.monotonic() - began < 1.15


@pytest.mark.parametrize("changes", [{"fal_key": None}, {"fal_key": ""}])
async def test_a_view_without_a_key_asks_nobody(make: Make, changes: dict[str, Any]) -> None:
    desk = make(**changes)
    assert not await desk.resolver.resolve(await desk.pending())
    assert desk.fal.asked == []


async def test_a_view_of_a_clip_that_is_not_pending_or_has_no_model_asks_nobody(
    desk: Desk,
) -> None:
    await desk.generations.register([Registration(request_id="b", fal_url=URL, model=MODEL)])
    assert not await desk.resolver.resolve(await desk.row("b"))
    assert not await desk.resolver.resolve(await desk.pending(model=None))
    assert desk.fal.asked == []


async def test_questions_at_once_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_AT_ONCE", 3)
    go = asyncio.Event()
    desk.fal.always("status", Fault(until=go, genuine=True))
    rows = [await desk.pending(f"p{number}") for number in range(4)]
    views = [asyncio.create_task(desk.resolver.resolve(row)) for row in rows[:3]]

    async def all_asked() -> bool:
        return desk.fal.open == 3

    await wait_for(all_asked)
    assert not await desk.resolver.resolve(rows[3])
    with pytest.raises(Overloaded):
        await desk.resolver(desk.job("p3"))
    go.set()
    await asyncio.gather(*views)
    assert desk.fal.most_open == 3


async def test_an_api_that_keeps_failing_is_left_alone(make: Make) -> None:
    desk = make(upstream_breaker_failures=3, upstream_breaker_pause="1h")
    desk.fal.always("status", Fault(status=500))
    for number in range(6):
        row = await desk.pending(f"p{number}")
        assert not await desk.resolver.resolve(row)
    assert len(desk.fal.asked) == 3
    row = await desk.pending("last")
    with pytest.raises(SourceUnavailable):
        await desk.resolver(desk.job("last"))
