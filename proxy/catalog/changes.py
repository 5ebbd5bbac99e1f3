"""What each event does to a generation: from the row as it is to the row as it will be.

Belongs here: every rule about re-pointing, first facts, refusals and failures, as pure functions.
Must not know: any database; `generations.py` reads the row, locks it, and writes the result.

What holds for every row, before and after each of them:
- `available` and `lost` have a fal URL; `pending` and `failed` have none;
- `stored`, and nothing else, has `mirrored_at`, and it has an ETag and a length;
- an ETag and a Last-Modified come together;
- `first_refused_at` is set exactly while refusals are counted;
- `error` is set only while `failed`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, overload
from urllib.parse import urlsplit

from proxy.catalog import transitions
from proxy.records import (
    CLIP_CONTENT_TYPE,
    ClipFacts,
    Generation,
    MediaFacts,
    Registration,
    Status,
)

REFUSALS_UNTIL_LOST: Final = 3
REFUSED_FOR_UNTIL_LOST: Final = timedelta(hours=1)
MAX_REASON: Final = 2000
"""Characters of a failure's reason that are kept."""

_SAID: Final = (
    "model",
    "prompt_hash",
    "prompt",
    "duration",
    "width",
    "height",
    "gated",
    "created_at",
    "completed_at",
)
_NO_FACTS: Final[dict[str, Any]] = {
    "content_length": None,
    "content_type": None,
    "etag": None,
    "last_modified": None,
    "sha256": None,
    "mirrored_at": None,
}
_NO_REFUSALS: Final[dict[str, Any]] = {"refusals": 0, "first_refused_at": None}


class Outcome(StrEnum):
    """What a registration did to the catalog."""

    CREATED = "created"
    UPDATED = "updated"
    REPOINTED = "repointed"
    UNCHANGED = "unchanged"


@overload
def source_path(url: str) -> str: ...
@overload
def source_path(url: None) -> None: ...
def source_path(url: str | None) -> str | None:
    """What names the bytes behind a fal URL: its path. Hosts and signatures come and go."""
    return None if url is None else urlsplit(url).path


def same_source(one: Generation, other: Generation) -> bool:
    """Whether two rows of an id can mean the same bytes: neither names another source."""
    paths = {source_path(row.fal_url) for row in (one, other) if row.fal_url is not None}
    return len(paths) < 2  # noqa: PLR2004


def registered(
    before: Generation | None, item: Registration, *, cdn_url: str, now: datetime
) -> tuple[Outcome, Generation]:
    """Take in what an application, a file or a webhook said; None in it erases nothing.

    Another path in `fal_url` re-points the id: all that was known of the old bytes is dropped.
    A length is taken only until a source's own is known, because replies already carry that one.
    """
    if before is None:
        return Outcome.CREATED, _new(item, cdn_url=cdn_url, now=now)
    changes = {name: value for name in _SAID if (value := getattr(item, name)) is not None}
    changes["cdn_url"] = cdn_url
    if item.content_length is not None and before.etag is None:
        changes["content_length"] = item.content_length
    outcome = Outcome.UPDATED
    if item.fal_url is not None and item.fal_url != before.fal_url:
        known, said = source_path(before.fal_url), source_path(item.fal_url)
        changes |= {"fal_url": item.fal_url, **_NO_REFUSALS}
        if known is not None and known != said:
            outcome = Outcome.REPOINTED
            changes |= {**_NO_FACTS, "content_length": item.content_length}
        if outcome is Outcome.REPOINTED or before.status is not Status.STORED:
            # A clip adopted from the bucket that now learns its URL stays stored.
            changes |= {"status": Status.AVAILABLE, "error": None}
    after = _changed(before, **changes)
    return (Outcome.UNCHANGED if after == before else outcome), after


def _new(item: Registration, *, cdn_url: str, now: datetime) -> Generation:
    said = {name: getattr(item, name) for name in _SAID}
    said["created_at"] = item.created_at or now
    return Generation(
        request_id=item.request_id,
        status=Status.AVAILABLE if item.fal_url is not None else Status.PENDING,
        fal_url=item.fal_url,
        cdn_url=cdn_url,
        content_length=item.content_length,
        **said,
    )


def source_seen(
    before: Generation, fal_url: str, facts: ClipFacts, content_type: str | None
) -> Generation | None:
    """Keep the first facts that the source gave; any answer ends a row of refusals.

    Returns None, and nothing may change, when the id points elsewhere by now, or when a length
    was registered and the source's is another one: a fill must be able to fail on that.
    """
    if source_path(fal_url) != source_path(before.fal_url):
        return None
    if before.etag is None and before.content_length not in {None, facts.length}:
        return None
    changes = dict(_NO_REFUSALS)
    if before.etag is None:
        changes |= {
            "content_length": facts.length,
            "content_type": content_type,
            "etag": facts.etag,
            "last_modified": facts.last_modified,
        }
    if before.status is Status.LOST:
        changes["status"] = Status.AVAILABLE
    return _changed(before, **changes)


def stored(
    before: Generation | None,
    request_id: str,
    facts: ClipFacts,
    *,
    fal_url: str | None,
    sha256: str | None,
    at: datetime,
    cdn_url: str,
) -> Generation | None:
    """Take in that the bucket holds the clip, verified, since `at`.

    Returns None when the id points elsewhere by now: those bytes are no longer its clip. A row
    without a URL points nowhere else, and the same ETag is the same path and length.
    """
    if before is None:
        before = Generation(
            request_id=request_id, status=Status.PENDING, cdn_url=cdn_url, created_at=at
        )
    elif not _still_means(before, fal_url, facts):
        return None
    again = before.status is Status.STORED and before.etag == facts.etag
    return _changed(
        before,
        status=Status.STORED,
        fal_url=before.fal_url or fal_url,
        model=before.model or facts.model,
        gated=facts.gated if before.gated is None else before.gated,
        content_length=facts.length,
        content_type=before.content_type or CLIP_CONTENT_TYPE,
        etag=facts.etag,
        last_modified=facts.last_modified,
        sha256=sha256 or (before.sha256 if again else None),
        mirrored_at=before.mirrored_at if again else at,
        error=None,
        **_NO_REFUSALS,
    )


def measured(before: Generation, media: MediaFacts | None) -> Generation:
    """Take in what the clip says of itself, where nobody said it before."""
    if media is None:
        return before
    return replace(
        before,
        duration=media.duration if before.duration is None else before.duration,
        width=media.width if before.width is None else before.width,
        height=media.height if before.height is None else before.height,
    )


def _still_means(row: Generation, fal_url: str | None, facts: ClipFacts) -> bool:
    if row.fal_url is None or (row.etag is not None and row.etag == facts.etag):
        return True
    return source_path(fal_url) == source_path(row.fal_url)


def missing(before: Generation) -> Generation:
    """Take in that the bucket does not hold a clip that was called stored.

    Its facts go too: they may be those of an object that was never the source's. A source that
    still has the clip gives the same ETag again, since that follows from path and length.
    """
    if before.status is not Status.STORED:
        return before
    status = Status.LOST if before.fal_url is None else Status.AVAILABLE
    return _changed(before, status=status, **_NO_FACTS)


def refused(before: Generation, fal_url: str, at: datetime) -> Generation:
    """Count a 403, 404 or 410 of the source; `lost` after three of them over an hour or more.

    A refusal of an older URL says nothing of the present one: its signature may have run out.
    """
    if before.status not in {Status.AVAILABLE, Status.LOST} or before.fal_url != fal_url:
        return before
    since = at if before.first_refused_at is None else min(at, before.first_refused_at)
    refusals = before.refusals + 1
    gone = refusals >= REFUSALS_UNTIL_LOST and at - since >= REFUSED_FOR_UNTIL_LOST
    status = Status.LOST if gone else before.status
    return _changed(before, status=status, refusals=refusals, first_refused_at=since)


def failed(
    before: Generation | None, request_id: str, reason: str, *, cdn_url: str, now: datetime
) -> Generation:
    """Take in that there will never be a clip.

    Raises InvalidTransition when there is one already.
    """
    if before is None:
        before = Generation(
            request_id=request_id, status=Status.PENDING, cdn_url=cdn_url, created_at=now
        )
    # PostgreSQL takes no NUL in a text.
    reason = reason.replace("\0", "")[:MAX_REASON]
    return _changed(before, status=Status.FAILED, error=reason)


def _changed(before: Generation, **changes: Any) -> Generation:  # noqa: ANN401 - any column's type
    after = replace(before, **changes)
    transitions.check(before.request_id, before.status, after.status)
    return after
