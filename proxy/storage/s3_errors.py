"""What an S3 store's refusals mean, whichever library they came through.

Belongs here: statuses and error codes, and the errors that they become. Must not know: how a
request is made. Codes: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.

    412                     a write: TakenKey · a read: SourceChanged
    409                     a write: LostRace, another write was quicker
    416                     CorruptClip, we believed the object to be longer
    404 NoSuchUpload        UploadGone
    404                     NoSuchBucket: BucketRefused · else ObjectMissing
    429, 503 SlowDown       BucketBusy, which is waited out for a second at least
    408, 5xx but 501        BucketUnavailable
    400 RequestTimeout,
        BadDigest, …        BucketUnavailable: the bytes got lost on the way
    everything else         BucketRefused, also a redirect: the bucket is elsewhere

A store answers 403 for a missing object to whoever may not list the bucket. That stays
BucketRefused: taken for "missing", expired credentials would make every owned clip look lost.
`S3Bucket.check` says so at start.
"""

from __future__ import annotations

import re

from proxy.errors import (
    BucketRefused,
    BucketUnavailable,
    CorruptClip,
    FirstviewError,
    ObjectConflict,
    ObjectMissing,
    SourceChanged,
)

_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,64})\s*</Code>")
_BUSY_CODES = {"SlowDown", "TooManyRequests", "ServiceUnavailable", "Throttling"}
_LOST_ON_THE_WAY = {"RequestTimeout", "BadDigest", "IncompleteBody", "InternalError"}


class BucketBusy(BucketUnavailable):
    """The owned bucket asks us to slow down."""


class TakenKey(ObjectConflict):
    """The owned bucket holds something under this key already."""


class LostRace(BucketUnavailable):
    """Another write to the same key was quicker."""


class UploadGone(BucketUnavailable):
    """The multipart upload is no longer there: completed, or aborted by someone else."""


def error_code(body: bytes) -> str:
    """Read the code out of an error reply's XML; "" if there is none (a HEAD has no body)."""
    found = _CODE.search(body)
    return found[1].decode() if found else ""


def status_error(status: int, code: str, doing: str, *, writes: bool) -> FirstviewError:
    """Say what a status of 300 or more means. `doing` names the request, for the detail."""
    detail = f"the bucket answered {status} {code}".rstrip() + f" to {doing}"
    by_status: dict[int, type[FirstviewError]] = {
        404: ObjectMissing,
        408: BucketUnavailable,
        409: LostRace if writes else BucketUnavailable,
        412: TakenKey if writes else SourceChanged,
        416: CorruptClip,
        429: BucketBusy,
        501: BucketRefused,
    }
    kind: type[FirstviewError]
    if code == "NoSuchUpload":
        kind = UploadGone
    elif code == "NoSuchBucket":
        kind = BucketRefused
    elif code in _BUSY_CODES:
        kind = BucketBusy
    elif code in _LOST_ON_THE_WAY:
        kind = BucketUnavailable
    else:
        kind = by_status.get(status, BucketUnavailable if status >= 500 else BucketRefused)  # noqa: PLR2004
    return kind(detail)
