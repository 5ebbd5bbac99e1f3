"""Who a clip is: the same answer from every replica, tier and moment."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from proxy.delivery import identity
from proxy.records import BodyHead, ClipFacts, Generation, Status
from proxy.storage import keys

URL = "https://v3b.fal.media/files/b/panda/clip.mp4"
MADE = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SEEN = datetime(2026, 3, 2, tzinfo=UTC)
ROW = Generation(request_id="id", status=Status.AVAILABLE, fal_url=URL, created_at=MADE, model="m")
HEAD = BodyHead(start=0, stop=10, total=10)
ETAG = identity.etag_of("/files/b/panda/clip.mp4", 10)


def facts(row: Generation = ROW, url: str = URL, head: BodyHead = HEAD) -> ClipFacts:
    return identity.facts_from_source(row, url, head, 10)


def test_the_etag_is_a_hash_of_path_and_length() -> None:
    expected = hashlib.sha256(b"/files/b/panda/clip.mp4\n10").hexdigest()[:32]
    assert facts().etag == ETAG == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://v2.fal.media/files/b/panda/clip.mp4",
        f"{URL}?signature=x",
        f"{URL}#t=5",
        "http://127.0.0.1:9/files/b/panda/clip.mp4",
    ],
)
def test_another_host_or_query_is_the_same_clip(url: str) -> None:
    assert facts(url=url).etag == ETAG


def test_another_path_or_length_is_another_clip() -> None:
    assert facts(url=URL.replace("panda", "koala")).etag != ETAG
    assert identity.facts_from_source(ROW, URL, HEAD, 11).etag != ETAG


def test_last_modified_is_what_was_first_seen_then_the_sources_then_when_it_was_made() -> None:
    known = replace(ROW, etag=ETAG, last_modified=SEEN)
    dated = replace(HEAD, last_modified=SEEN + timedelta(days=1))
    assert facts(known, head=dated).last_modified == SEEN
    assert facts(head=dated).last_modified == SEEN + timedelta(days=1)
    done = replace(ROW, completed_at=SEEN + timedelta(days=2))
    assert facts(done).last_modified == SEEN + timedelta(days=2)
    assert facts().last_modified == MADE.replace(microsecond=0)


def test_what_was_seen_of_another_clip_does_not_count() -> None:
    other = replace(ROW, etag="other", last_modified=SEEN)
    assert facts(other).last_modified == MADE.replace(microsecond=0)


def test_times_have_whole_seconds_in_utc() -> None:
    east = MADE.astimezone(timezone(timedelta(hours=5)))
    assert facts(replace(ROW, created_at=east)).last_modified == datetime(
        2026, 3, 1, 12, tzinfo=UTC
    )


def adopted(row: Generation | None = None, metadata: dict[str, str] | None = None) -> ClipFacts:
    return identity.facts_from_object(
        "id", row, size=10, object_etag="abc", last_modified=SEEN, metadata=metadata or {}
    )


def test_an_object_of_ours_says_who_it_is() -> None:
    mine = facts()
    assert adopted(metadata=identity.metadata_of(mine)) == mine


def test_an_object_of_someone_else_is_adopted_by_the_buckets_etag() -> None:
    assert adopted().etag == identity.etag_of("abc", 10)
    assert adopted().last_modified == SEEN


def test_what_the_catalog_fixed_for_this_length_wins_over_a_foreign_object() -> None:
    row = replace(ROW, etag=ETAG, content_length=10, last_modified=MADE)
    assert adopted(row).etag == ETAG
    assert adopted(row).last_modified == MADE.replace(microsecond=0)
    assert adopted(replace(row, content_length=11)).etag == identity.etag_of("abc", 10)


@pytest.mark.parametrize(
    "time",
    ["", "yesterday", "2026-13-01", "9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00"],
)
def test_metadata_that_makes_no_sense_is_no_time(time: str) -> None:
    assert adopted(metadata={keys.META_LAST_MODIFIED: time}).last_modified == SEEN


def test_a_time_without_a_zone_is_utc() -> None:
    found = adopted(metadata={keys.META_LAST_MODIFIED: "2026-03-05T00:00:00"})
    assert found.last_modified == datetime(2026, 3, 5, tzinfo=UTC)


def test_a_row_has_facts_once_its_source_was_seen() -> None:
    assert identity.facts_from_row(ROW) is None
    row = replace(ROW, etag=ETAG, content_length=10, last_modified=MADE)
    assert identity.facts_from_row(row) == facts()


def test_the_catalog_means_a_clip_by_its_etag_else_by_its_path() -> None:
    mine = facts()
    assert identity.same_clip(ROW, mine)
    assert identity.same_clip(replace(ROW, etag=ETAG), mine)
    assert identity.same_clip(replace(ROW, etag=ETAG, content_length=mine.length), mine)
    assert not identity.same_clip(replace(ROW, etag=ETAG, content_length=mine.length + 1), mine)
    assert not identity.same_clip(replace(ROW, etag="other"), mine)
    assert not identity.same_clip(replace(ROW, fal_url=URL + "x"), mine)
    assert identity.same_clip(replace(ROW, fal_url=None), mine)


@pytest.mark.parametrize("model", ["caf\u00e9", "a\nb", None])
def test_a_model_that_metadata_cannot_hold_is_left_out(model: str | None) -> None:
    metadata = identity.metadata_of(replace(facts(), model=model))
    assert keys.META_MODEL not in metadata
    assert all(value.isascii() and value.isprintable() for value in metadata.values())
