"""What each error means for the job that it ended."""

import pytest

from proxy import errors
from proxy.jobs import verdict
from proxy.jobs.verdict import Outcome
from proxy.upstream.breaker import HostResting


@pytest.mark.parametrize("kind", [errors.UnknownClip, errors.ClipFailed, errors.ClipGone])
def test_a_clip_that_cannot_be_had_leaves_nothing_to_do(kind: type[errors.ClipError]) -> None:
    assert verdict.of(kind()).outcome is Outcome.POINTLESS


@pytest.mark.parametrize("kind", [errors.SourceUntrusted, errors.ObjectConflict])
def test_what_only_a_person_can_mend_is_dead_at_once(kind: type[errors.FirstviewError]) -> None:
    said = verdict.of(kind("because"))
    assert (said.outcome, said.error) == (Outcome.DEAD, f"{kind.slug}: because")


@pytest.mark.parametrize(
    "error",
    [
        HostResting(wait=3.0),
        errors.StillKept(),
        errors.BucketUnavailable(),
        errors.BucketRefused(),
        errors.CatalogUnavailable(),
        errors.Overloaded(),
        errors.FalRefused(),
    ],
    ids=lambda error: error.slug,
)
def test_trouble_that_is_everybodys_does_not_count(error: errors.FirstviewError) -> None:
    said = verdict.of(error)
    assert (said.outcome, said.counted, said.widespread) == (Outcome.POSTPONED, False, True)


@pytest.mark.parametrize(
    "kind",
    [
        errors.SourceUnavailable,
        errors.SourceTimeout,
        errors.SourceBusy,
        errors.SourceChanged,
        errors.CorruptClip,
        errors.NotAClip,
        errors.InvalidTransition,
        errors.FirstviewError,
    ],
)
def test_trouble_of_the_clips_own_counts(kind: type[errors.FirstviewError]) -> None:
    said = verdict.of(kind())
    assert (said.outcome, said.counted, said.widespread) == (Outcome.POSTPONED, True, False)


@pytest.mark.parametrize("kind", [errors.SourceRefused, errors.DiskExhausted])
def test_what_another_limit_ends_or_nothing_is_asked_for_in_its_own_time(
    kind: type[errors.FirstviewError],
) -> None:
    said = verdict.of(kind())
    assert (said.outcome, said.counted, said.widespread) == (Outcome.POSTPONED, False, False)


def test_what_an_error_asks_for_is_the_least_wait() -> None:
    assert verdict.of(HostResting(wait=3.5)).wait == 3.5
    assert verdict.of(errors.Overloaded()).wait == 2.0
    assert verdict.of(errors.NotAClip()).wait == 0.0


def test_a_crash_is_tried_again_and_counts() -> None:
    said = verdict.of_crash(KeyError("x"))
    assert (said.outcome, said.counted) == (Outcome.POSTPONED, True)
    assert said.error == "crashed: KeyError: 'x'"
