"""What a source's status and fields mean: either a clip's body follows, or an error.

Belongs here: turning a reply's head into a BodyHead, or into the error that fits. Must not know:
how the reply was had, or how its body is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from multidict import MultiMapping

from proxy.errors import (
    NotAClip,
    SourceBusy,
    SourceChanged,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from proxy.http_dates import lenient_http_date
from proxy.records import BodyHead
from proxy.upstream.content_range import expected_range, parse_content_range
from proxy.upstream.digests import md5_of

_LENGTH = re.compile(r"[0-9]{1,19}")
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]*"')
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_VIDEO_TYPES = frozenset(
    {"application/octet-stream", "binary/octet-stream", "application/mp4", "application/x-mp4"}
)
_LONGEST_RETRY = 3600
_OK, _PARTIAL = 200, 206
_REFUSALS = frozenset({403, 404, 410})
_UNSATISFIABLE, _TIMEOUT, _BUSY, _SERVER_ERROR = 416, 408, 429, 500


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: bytes `start` up to `stop`, as `Upstream.open` takes them."""

    start: int = 0
    stop: int | None = None
    validator: str | None = None

    @property
    def partial(self) -> bool:
        """Whether the request carried a `Range`."""
        return self.start != 0 or self.stop is not None


def read_head(
    status: int, fields: MultiMapping[str], asked: Asked, *, max_bytes: int, now: datetime
) -> BodyHead:
    """Turn a reply's head into what its body holds (RFC 9110 §15.3.1, §15.3.7).

    A 200 to a partial request is described as what it is, the whole clip from byte 0: what to do
    with it is the caller's to decide. `max_bytes` bounds the whole clip. Raises SourceRefused,
    SourceBusy, SourceUnavailable, SourceTimeout, NotAClip or SourceChanged.
    """
    if status not in {_OK, _PARTIAL}:
        raise refusal(status, fields, asked, now)
    content_type = _content_type(fields)
    if fields.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise NotAClip("The clip's source answered with an encoded body, which was not asked for.")
    length = _content_length(fields)
    if length == 0:
        raise NotAClip("The clip's source answered with an empty body.")
    validator = strong_tag(fields)
    start, stop, total = (
        _placed(fields, asked, length, validator) if status == _PARTIAL else (0, length, length)
    )
    if total is not None and total > max_bytes:
        raise NotAClip("The clip is larger than this installation accepts.")
    return BodyHead(
        start=start,
        stop=stop,
        total=total,
        content_type=content_type,
        validator=validator,
        last_modified=lenient_http_date(fields.get("Last-Modified")),
        md5=md5_of(fields, whole=status == _OK),
        # Content-Range says how many bytes are right, whatever frames them.
        framed=stop is not None or _chunked(fields),
    )


def refusal(status: int, fields: MultiMapping[str], asked: Asked, now: datetime) -> SourceError:
    """Return the error that a status other than 200 and 206 stands for.

    Only 403, 404 and 410 say something about the clip. All other statuses are the source's own
    trouble and may pass: taken for "gone" they would turn an outage into lost clips.
    """
    if status in _REFUSALS:
        return SourceRefused()
    if status == _UNSATISFIABLE and asked.partial:
        # From the first byte, or for the last ones, only an empty clip has nothing to give.
        if asked.start <= 0:
            return NotAClip("The clip's source says that the clip has no bytes.")
        return SourceChanged("The clip's source says that the clip is shorter than it was.")
    if status == _BUSY:
        wait = retry_after(fields.get("Retry-After"), now)
        later = f" and to try again in {wait} s" if wait else ""
        return SourceBusy(f"The clip's source asks us to slow down{later}.")
    if status == _TIMEOUT:
        return SourceTimeout("The clip's source gave up waiting (408).")
    failing = status >= _SERVER_ERROR
    what = f"is failing ({status})" if failing else f"answered {status}, which makes no sense here"
    return SourceUnavailable(f"The clip's source {what}.")


def strong_tag(fields: MultiMapping[str]) -> str | None:
    """Return the strong entity-tag with its quotes; None for a weak, broken or missing one.

    A weak tag cannot be used in `If-Range` (RFC 9110 §13.1.5), so it is as good as none.
    """
    tag = fields.get("ETag", "").strip()
    return tag if _STRONG_TAG.fullmatch(tag) else None


def retry_after(value: str | None, now: datetime) -> int | None:
    """Read `Retry-After` (RFC 9110 §10.2.3) as seconds from 1 to 3600; None if it is none."""
    if value is None:
        return None
    text = value.strip()
    if _LENGTH.fullmatch(text):
        return max(1, min(int(text), _LONGEST_RETRY))
    when = lenient_http_date(text)
    if when is None:
        return None
    return max(1, min(round((when - now).total_seconds()), _LONGEST_RETRY))


def _content_type(fields: MultiMapping[str]) -> str | None:
    raw = fields.get("Content-Type")
    kind = (raw or "").partition(";")[0].strip().lower()
    if not kind:
        return None
    if kind.startswith("video/") or kind in _VIDEO_TYPES:
        return kind
    name = kind if _MEDIA_TYPE.fullmatch(kind) else "an unreadable type"
    raise NotAClip(f"The clip's source answered with {name}, which is not a video.")


def _chunked(fields: MultiMapping[str]) -> bool:
    codings = ",".join(fields.getall("Transfer-Encoding", [])).strip().lower()
    if codings not in {"", "identity", "chunked"}:
        raise NotAClip("The clip's source answered with an encoded body, which was not asked for.")
    return codings == "chunked"


def _content_length(fields: MultiMapping[str]) -> int | None:
    if _chunked(fields):
        return None  # RFC 9112 §6.3: Transfer-Encoding overrides Content-Length
    values = fields.getall("Content-Length", [])
    if not values:
        return None
    if len(set(values)) != 1 or not _LENGTH.fullmatch(values[0].strip()):
        raise SourceUnavailable("The clip's source announced a length that is not a number.")
    return int(values[0])


def _placed(
    fields: MultiMapping[str], asked: Asked, length: int | None, validator: str | None
) -> tuple[int, int | None, int | None]:
    if not asked.partial:
        raise SourceChanged("The clip's source answered with a part that was not asked for.")
    values = fields.getall("Content-Range", [])
    place = parse_content_range(values[0]) if len(values) == 1 else None
    if place is None:
        raise SourceChanged("The clip's source did not say which part of the clip it sends.")
    if (place.start, place.stop) != expected_range(asked.start, asked.stop, place.total):
        raise SourceChanged("The clip's source sends another part of the clip than was asked for.")
    if length is not None and length != place.stop - place.start:
        raise SourceChanged("The clip's source contradicts itself about the part that it sends.")
    if (asked.validator or "").startswith('"') and validator not in {None, asked.validator}:
        raise SourceChanged("The clip at its source is another one than before.")
    return place.start, place.stop, place.total
