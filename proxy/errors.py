"""Every error that firstview raises on purpose, drawn as one tree.

Belongs here: what went wrong, in the words of whoever has to act on it, with the HTTP status
that a viewer sees and whether trying again can help. Must not know: any library. Foreign
exceptions are mapped to these at one border each: aiohttp in `upstream/border.py` and
`storage/http.py`, botocore in `storage/s3_client.py`, SQLAlchemy in `catalog/engine.py`, the
operating system in `delivery/spool.py`, `storage/disk_threads.py` and `app/data_dir.py`.

    FirstviewError                     500
    ├── RequestError                   the request itself is wrong; nothing was looked up
    │   ├── InvalidRequestId           404
    │   ├── RouteNotFound              404
    │   ├── MethodNotAllowed           405 + Allow
    │   ├── PreconditionFailed         412
    │   ├── RangeNotSatisfiable        416 + Content-Range
    │   ├── BadRequest                 400
    │   ├── HeaderTooLarge             431
    │   ├── RequestTimeout             408
    │   ├── BodyTooLarge               413
    │   ├── Unauthorized               401
    │   ├── LinkRefused                403
    │   ├── OriginLocked               403
    │   └── BadSignature               401  (a webhook that fal did not sign, or not now)
    ├── ClipError                      the clip cannot be had, and that is a fact about the clip
    │   ├── UnknownClip                404
    │   ├── ClipNotReady               404 + Retry-After
    │   ├── ClipFailed                 410
    │   └── ClipGone                   410, max-age=60
    ├── SourceError                    whoever has the bytes did not give them
    │   ├── SourceRefused              410  (403, 404 or 410 at the source)
    │   ├── SourceUnavailable          502  (5xx, refused, reset, unresolvable)
    │   │   └── HostResting            503 + Retry-After  (in `upstream/breaker.py`)
    │   ├── SourceBusy                 503 + Retry-After  (429)
    │   ├── SourceTimeout              504
    │   ├── SourceUntrusted            502  (off the allow-list, http, a private address)
    │   ├── NotAClip                   502  (HTML, JSON, empty, too large, no `ftyp`)
    │   ├── SourceChanged              502  (another validator, length or start when resuming)
    │   ├── CorruptClip                502  (length or digest disagree)
    │   └── FalRefused                 503  (fal's API does not take our key)
    ├── BucketError                    503
    │   ├── BucketUnavailable          503, retryable
    │   ├── BucketRefused              503, credentials, policy or configuration
    │   ├── StillKept                  503, the clip is safe here, the bucket or catalog away
    │   ├── ObjectMissing              404
    │   └── ObjectConflict             409, the key holds other bytes
    ├── CatalogError                   503
    │   ├── CatalogUnavailable         503, retryable
    │   ├── SchemaOutdated             503, until somebody migrates it
    │   ├── InvalidTransition          409
    │   └── LeaseLost                  409, the job is somebody else's by now
    ├── SignersUnknown                 503 + Retry-After  (fal's public keys cannot be had)
    ├── Overloaded                     503 + Retry-After
    ├── DiskExhausted                  no viewer's: the clip is streamed through; a job waits
    ├── ViewerLeft                     never leaves `send`: there is nobody to tell
    ├── ViewerStalled                  never leaves `send`: the connection is reset
    ├── DataDirUnusable                at start: no folder, no right to write to it, no room
    ├── WorkerFailed                   at start: a process of several ended, or does not answer
    └── SettingsError                  at start, every mistake listed at once
"""

from __future__ import annotations

import errno
import os
from typing import ClassVar


class FirstviewError(Exception):
    """Something went wrong inside firstview."""

    status: ClassVar[int] = 500
    """HTTP status of the reply, if a viewer is waiting for one."""
    slug: ClassVar[str] = "internal"
    """Last segment of the problem document's `type`; stable for ever."""
    retryable: ClassVar[bool] = False
    """Whether the same attempt may succeed later without anyone changing anything."""
    cache_control: ClassVar[str] = "no-store"
    """Cache-Control of the error reply."""
    retry_after: ClassVar[int | None] = None
    """Seconds for the Retry-After field, if any."""

    def __init__(self, detail: str | None = None) -> None:
        """Take the sentence a person reads; the class's docstring is the default."""
        self.detail = detail or self.title
        super().__init__(self.detail)

    @property
    def title(self) -> str:
        """The class's own sentence: the same for every occurrence (RFC 9457 §3.1.3)."""
        return (type(self).__doc__ or type(self).__name__).strip().partition("\n")[0]

    def headers(self) -> dict[str, str]:
        """Fields that this error adds to its reply."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


# --- the request ------------------------------------------------------------------------------


class RequestError(FirstviewError):
    """The request cannot be understood."""

    status = 400
    slug = "bad-request"


class InvalidRequestId(RequestError):
    """This is not a request id."""

    status = 404
    slug = "invalid-request-id"


class RouteNotFound(RequestError):
    """There is nothing at this address."""

    status = 404
    slug = "not-found"


class MethodNotAllowed(RequestError):
    """This address does not answer to that method."""

    status = 405
    slug = "method-not-allowed"

    def __init__(self, allow: str, detail: str | None = None) -> None:
        """Take the methods that are allowed, as the Allow field wants them."""
        super().__init__(detail)
        self.allow = allow

    def headers(self) -> dict[str, str]:
        """RFC 9110 §15.5.6: a 405 must carry Allow."""
        return {"Allow": self.allow}


class PreconditionFailed(RequestError):
    """The clip does not meet the condition in the request."""

    status = 412
    slug = "precondition-failed"


class RangeNotSatisfiable(RequestError):
    """No byte of the clip lies in the requested range."""

    status = 416
    slug = "range-not-satisfiable"

    def __init__(self, length: int, detail: str | None = None) -> None:
        """Take the clip's length in bytes."""
        super().__init__(detail)
        self.length = length

    def headers(self) -> dict[str, str]:
        """RFC 9110 §15.5.17: a 416 should carry the current length."""
        return {"Content-Range": f"bytes */{self.length}"}


class BadRequest(RequestError):
    """The request cannot be understood."""


class HeaderTooLarge(RequestError):
    """The request's line or header is larger than allowed."""

    status = 431
    slug = "header-too-large"


class RequestTimeout(RequestError):
    """The request's body took too long to arrive."""

    status = 408
    slug = "request-timeout"
    retryable = True


class BodyTooLarge(RequestError):
    """The request's body is larger than allowed."""

    status = 413
    slug = "body-too-large"


class Unauthorized(RequestError):
    """This address needs a valid token."""

    status = 401
    slug = "unauthorized"

    def headers(self) -> dict[str, str]:
        """RFC 9110 §15.5.2: a 401 must carry WWW-Authenticate."""
        return {"WWW-Authenticate": 'Bearer realm="firstview"'}


class LinkRefused(RequestError):
    """This clip needs a signed link, and this one is not valid, or not any more."""

    status = 403
    slug = "link-refused"


class OriginLocked(RequestError):
    """This origin answers only to requests that come through its edge."""

    status = 403
    slug = "origin-locked"


class BadSignature(RequestError):
    """This webhook is not signed by fal, or not just now."""

    status = 401
    slug = "bad-signature"

    def headers(self) -> dict[str, str]:
        """RFC 9110 §15.5.2: a 401 must carry WWW-Authenticate."""
        return {"WWW-Authenticate": 'Signature realm="fal"'}


# --- the clip ---------------------------------------------------------------------------------


class ClipError(FirstviewError):
    """The clip cannot be had."""

    status = 404
    slug = "clip-unavailable"


class UnknownClip(ClipError):
    """No clip with this id is known."""

    slug = "unknown-clip"


class ClipNotReady(ClipError):
    """The clip is still being generated."""

    slug = "clip-not-ready"
    retryable = True
    retry_after = 5


class ClipFailed(ClipError):
    """The generation of this clip failed; there will never be a clip."""

    status = 410
    slug = "clip-failed"


class ClipGone(ClipError):
    """The clip is no longer at its source and was not stored before it went."""

    status = 410
    slug = "clip-gone"
    cache_control = "public, max-age=60"


# --- the source -------------------------------------------------------------------------------


class SourceError(FirstviewError):
    """The clip's source did not deliver it."""

    status = 502
    slug = "source-error"


class SourceRefused(SourceError):
    """The clip is no longer at its source and was not stored before it went."""

    status = 410
    slug = "clip-gone"
    cache_control = "public, max-age=60"


class SourceUnavailable(SourceError):
    """The clip's source cannot be reached or is failing."""

    slug = "source-unavailable"
    retryable = True


class SourceBusy(SourceError):
    """The clip's source asks us to slow down."""

    status = 503
    slug = "source-busy"
    retryable = True
    retry_after = 5


class SourceTimeout(SourceError):
    """The clip's source did not answer in time."""

    status = 504
    slug = "source-timeout"
    retryable = True


class SourceUntrusted(SourceError):
    """The clip's source is not on the list of allowed hosts."""

    slug = "source-untrusted"


class NotAClip(SourceError):
    """The clip's source answered with something that is not a video."""

    slug = "not-a-clip"


class SourceChanged(SourceError):
    """The clip's source changed while it was being read."""

    slug = "source-changed"


class CorruptClip(SourceError):
    """The clip's source delivered bytes that do not match its own description."""

    slug = "corrupt-clip"


class FalRefused(SourceError):
    """fal's API refuses us: check FIRSTVIEW_FAL_KEY."""

    status = 503
    slug = "fal-refused"


# --- the bucket -------------------------------------------------------------------------------


class BucketError(FirstviewError):
    """The owned bucket failed."""

    status = 503
    slug = "bucket-error"
    retry_after: ClassVar[int | None] = 5


class BucketUnavailable(BucketError):
    """The owned bucket cannot be reached or is failing."""

    slug = "bucket-unavailable"
    retryable = True


class BucketRefused(BucketError):
    """The owned bucket refused the request: check its credentials, policy and name."""

    slug = "bucket-refused"


class StillKept(BucketError):
    """The clip is whole on the local disk, and waits for the bucket or the catalog."""

    slug = "still-kept"
    retryable = True


class ObjectMissing(BucketError):
    """The owned bucket has no such object."""

    status = 404
    slug = "object-missing"
    retry_after = None


class ObjectConflict(BucketError):
    """The owned bucket already holds other bytes under this key."""

    status = 409
    slug = "object-conflict"
    retry_after = None


# --- the catalog ------------------------------------------------------------------------------


class CatalogError(FirstviewError):
    """The catalog failed."""

    status = 503
    slug = "catalog-error"
    retry_after: ClassVar[int | None] = 5


class CatalogUnavailable(CatalogError):
    """The catalog cannot be reached."""

    slug = "catalog-unavailable"
    retryable = True


class SchemaOutdated(CatalogError):
    """The catalog's schema is older than this firstview: run `firstview catalog migrate`."""

    slug = "schema-outdated"
    retry_after = None


class InvalidTransition(CatalogError):
    """A generation cannot go from its present status to that one."""

    status = 409
    slug = "invalid-transition"
    retry_after = None


class LeaseLost(CatalogError):
    """The job's lease has run out: somebody else does it by now."""

    status = 409
    slug = "lease-lost"
    retry_after = None


# --- ourselves --------------------------------------------------------------------------------


class SignersUnknown(FirstviewError):
    """fal's public keys cannot be had, so its signature cannot be checked; try again shortly."""

    status = 503
    slug = "signers-unknown"
    retryable = True
    retry_after = 10


class Overloaded(FirstviewError):
    """firstview is at one of its limits; try again shortly."""

    status = 503
    slug = "overloaded"
    retryable = True
    retry_after = 2


class DiskExhausted(FirstviewError):
    """There is no room on the local disk for this clip."""

    slug = "disk-exhausted"


class ViewerLeft(FirstviewError):
    """The viewer closed the connection."""

    slug = "viewer-left"


class ViewerStalled(FirstviewError):
    """The viewer stopped reading for too long."""

    slug = "viewer-stalled"


class DataDirUnusable(FirstviewError):
    """The data directory cannot be used."""

    slug = "data-dir-unusable"
    retryable = True


class WorkerFailed(FirstviewError):
    """A worker process could not start."""

    slug = "worker-failed"
    retryable = True


class SettingsError(FirstviewError):
    """The settings are not usable."""

    slug = "settings"


def cannot_listen(setting: str, address: str, error: OSError) -> SettingsError:
    """Say in one sentence which address cannot be had: mostly it is another process's."""
    number = error.errno or 0
    why = os.strerror(number) if number > 0 else error.strerror  # names that are not found
    hint = "; every process needs one of its own" if number == errno.EADDRINUSE else ""
    return SettingsError(f"{setting}: cannot listen on {address}: {why}{hint}")
