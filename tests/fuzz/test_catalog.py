"""Whatever happens to a generation, in whatever order, its row stays sound."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog import changes, cursors
from proxy.catalog.prompts import normalise
from proxy.catalog.transitions import TRANSITIONS
from proxy.errors import BadRequest, InvalidTransition
from proxy.records import ClipFacts, Generation, Registration, Status

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
URLS = [f"https://{host}.fal.media/{path}.mp4" for host in ("v3", "v3b") for path in "ab"]

urls = st.sampled_from([*URLS, URLS[0] + "?signed"])
moments = st.integers(0, 600).map(lambda minutes: NOON + timedelta(minutes=minutes))
lengths = st.sampled_from([None, 1000, 2000])


def facts_of(url: str | None, length: int) -> ClipFacts:
    etag = sha256(f"{changes.source_path(url)}\n{length}".encode()).hexdigest()[:32]
    return ClipFacts(request_id="a", length=length, etag=etag, last_modified=NOON)


registering = st.builds(
    lambda url, length, model: ("register", url, length, model),
    st.none() | urls,
    lengths,
    st.sampled_from([None, "m"]),
)
events = st.one_of(
    registering,
    st.tuples(st.just("see"), urls, st.sampled_from([1000, 2000])),
    st.tuples(st.just("store"), st.none() | urls, st.sampled_from([1000, 2000]), moments),
    st.tuples(st.just("miss")),
    st.tuples(st.just("refuse"), urls, moments),
    st.tuples(st.just("fail")),
)


def apply(row: Generation | None, event: tuple[Any, ...]) -> Generation | None:
    """Do what `Generations` does with an event; the row as it is then."""
    kind, *rest = event
    if kind == "register":
        item = Registration(request_id="a", fal_url=rest[0], content_length=rest[1], model=rest[2])
        return changes.registered(row, item, cdn_url="/a", now=NOON)[1]
    if kind == "store":
        url, length, at = rest
        stored = changes.stored(
            row, "a", facts_of(url, length), fal_url=url, sha256=None, at=at, cdn_url="/a"
        )
        return stored or row
    if kind == "fail":
        with suppress(InvalidTransition):
            row = changes.failed(row, "a", "why", cdn_url="/a", now=NOON)
    if row is None or kind == "fail":
        return row
    if kind == "see":
        return changes.source_seen(row, rest[0], facts_of(rest[0], rest[1]), None) or row
    return changes.missing(row) if kind == "miss" else changes.refused(row, rest[0], rest[1])


def assert_sound(row: Generation) -> None:
    if row.status is Status.AVAILABLE:
        assert row.fal_url is not None
    if row.status in {Status.PENDING, Status.FAILED}:
        assert row.fal_url is None
    assert (row.mirrored_at is not None) == (row.status is Status.STORED)
    if row.status is Status.STORED:
        assert row.etag is not None
        assert row.content_length is not None
    assert (row.etag is None) == (row.last_modified is None)
    assert (row.refusals > 0) == (row.first_refused_at is not None)
    assert row.error is None or row.status is Status.FAILED


@given(st.lists(events, max_size=25))
def test_any_sequence_of_events_keeps_a_row_sound(sequence: list[tuple[Any, ...]]) -> None:
    row: Generation | None = None
    for event in sequence:
        before, row = row, apply(row, event)
        if row is None:
            continue
        assert_sound(row)
        if before is None:
            continue
        assert row.status in TRANSITIONS[before.status]
        moved = changes.source_path(row.fal_url) != changes.source_path(before.fal_url)
        if before.etag is not None and not moved and event[0] not in {"miss", "store"}:
            assert row.etag == before.etag, "replies already carry the first ETag"
        if event[0] == "register":
            assert row.model in {before.model, "m"}, "what is not said erases nothing"


@given(st.lists(events, max_size=12), registering)
def test_registering_twice_is_registering_once(
    sequence: list[tuple[Any, ...]], said: tuple[Any, ...]
) -> None:
    row: Generation | None = None
    for event in [*sequence, said]:
        row = apply(row, event)
    assert apply(row, said) == row


@given(st.lists(events, max_size=12))
def test_a_fill_of_the_present_url_can_always_be_stored(sequence: list[tuple[Any, ...]]) -> None:
    row: Generation | None = None
    for event in sequence:
        row = apply(row, event)
    if row is not None and row.fal_url is not None:
        row = apply(row, ("store", row.fal_url, 1000, NOON))
        assert row is not None
        assert row.status is Status.STORED


@given(st.text())
def test_the_normal_form_of_a_prompt_is_its_own(prompt: str) -> None:
    assert normalise(normalise(prompt)) == normalise(prompt)


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", fullmatch=True),
)
def test_a_place_in_a_listing_survives_being_written_and_read(
    moment: datetime, request_id: str
) -> None:
    assert cursors.read(cursors.write(moment, request_id)) == (moment, request_id)


@given(st.text(max_size=60))
def test_any_text_is_a_place_in_a_listing_or_a_bad_request(text: str) -> None:
    with suppress(BadRequest):
        cursors.read(text)


def test_sound_is_not_trivial() -> None:
    row = changes.failed(None, "a", "why", cdn_url="/a", now=NOON)
    try:
        assert_sound(replace(row, fal_url=URLS[0]))
    except AssertionError:
        return
    raise AssertionError("the check of soundness checks nothing")
