"""Mirror jobs: what the corridor's answers mean for them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from proxy.catalog.job_rows import NewJob
from proxy.errors import ClipNotReady, FirstviewError, SourceRefused, StillKept
from proxy.jobs.mirror import MirrorHandler
from proxy.jobs.verdict import DONE, Outcome
from proxy.records import Generation, Job, JobKind, Status

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
EARLIER = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Corridor:
    def __init__(self, error: FirstviewError | None = None) -> None:
        self.error = error
        self.mirrored: list[str] = []

    async def mirror(self, request_id: str) -> None:
        self.mirrored.append(request_id)
        if self.error is not None:
            raise self.error


class Rows:
    def __init__(self, row: Generation | None = None) -> None:
        self.row = row

    async def get(self, request_id: str) -> Generation | None:
        return self.row


class Filing:
    def __init__(self) -> None:
        self.filed: list[NewJob] = []

    async def file(self, new: Sequence[NewJob], *, revive: bool = False) -> int:
        assert not revive
        self.filed.extend(new)
        return len(new)


def job(*, asked: bool = False) -> Job:
    return Job(request_id="a", kind=JobKind.MIRROR, asked=asked, created_at=NOON, due_at=NOON)


def row(model: str | None, status: Status = Status.PENDING) -> Generation:
    return Generation(request_id="a", status=status, model=model, created_at=EARLIER)


async def test_a_clip_that_was_mirrored_is_done() -> None:
    corridor, filing = Corridor(), Filing()
    assert await MirrorHandler(corridor, Rows(), filing)(job()) == DONE
    assert (corridor.mirrored, filing.filed) == (["a"], [])


@pytest.mark.parametrize("error", [SourceRefused(), StillKept()])
async def test_what_the_corridor_raises_is_for_the_worker_to_judge(error: FirstviewError) -> None:
    with pytest.raises(type(error)):
        await MirrorHandler(Corridor(error), Rows(), Filing())(job())


@pytest.mark.parametrize("asked", [True, False])
async def test_a_clip_without_address_is_asked_for_where_its_model_is_known(asked: bool) -> None:
    filing = Filing()
    handler = MirrorHandler(Corridor(ClipNotReady()), Rows(row("fal-ai/veo3")), filing)
    said = await handler(job(asked=asked))
    assert said.outcome is Outcome.POINTLESS
    asking = NewJob(request_id="a", kind=JobKind.RESOLVE, asked=asked, created_at=EARLIER)
    assert filing.filed == [asking]


@pytest.mark.parametrize("known", [row(None), None])
async def test_a_clip_without_address_and_model_waits_for_somebody_to_say_more(
    known: Generation | None,
) -> None:
    filing = Filing()
    said = await MirrorHandler(Corridor(ClipNotReady()), Rows(known), filing)(job())
    assert (said.outcome, filing.filed) == (Outcome.POINTLESS, [])
    assert "model" in (said.error or "")


async def test_a_clip_that_got_its_address_meanwhile_is_mirrored_at_the_next_try() -> None:
    rows = Rows(row("fal-ai/veo3", Status.AVAILABLE))
    said = await MirrorHandler(Corridor(ClipNotReady()), rows, Filing())(job())
    assert (said.outcome, said.counted) == (Outcome.POSTPONED, False)
