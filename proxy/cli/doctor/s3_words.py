"""What an S3 store's answers mean to whoever set it up.

Belongs here: judgements of replies. Must not know: how a request is made, or the order of them.
"""

from __future__ import annotations

import hashlib
from typing import Final

from proxy.cli.doctor.clocks import MEND_CLOCK
from proxy.cli.doctor.finding import Verdict, failure, fine, unchecked, warning
from proxy.errors import FirstviewError
from proxy.storage.s3_probe import Reply

_KEYS: Final = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, the role)"
_BAD_KEYS: Final = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "Unauthorized",
}
_ELSEWHERE: Final = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "TemporaryRedirect",
}
_UNSUPPORTED: Final = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation"}


def judge_silence(error: FirstviewError, endpoint: str) -> Verdict:
    """Judge a store that gave no answer, or a client that could not ask."""
    if "credentials" in error.detail:
        return failure(error.detail.partition(":")[0], f"{_KEYS}, or set them")
    return failure(
        error.detail,
        f"check AWS_ENDPOINT_URL_S3 (now {endpoint or 'unset'}), the name's DNS entry, and that a"
        " firewall lets this machine out",
    )


def judge_refusal(reply: Reply, right: str, bucket: str, endpoint: str) -> Verdict:
    """Judge a request that was not done; `right` is what IAM calls the permission for it."""
    why, mend = _refusal(reply, right, bucket, endpoint)
    return failure(f"the store answers {reply.said}{why}", mend)


def _refusal(reply: Reply, right: str, bucket: str, endpoint: str) -> tuple[str, str]:
    """Why, as far as that is not said by status and code, and what to do; the first that fits."""
    code, status = reply.code, reply.status
    meanings = (
        (
            code in _BAD_KEYS or status == 401,  # noqa: PLR2004
            (": it does not take these credentials", f"{_KEYS} for {endpoint}"),
        ),
        (code == "RequestTimeTooSkewed", (": this machine's clock is off", MEND_CLOCK)),
        (
            code == "NoSuchBucket",
            (
                f": there is no bucket {bucket!r} at {endpoint}",
                "create it, or correct FIRSTVIEW_BUCKET_URL or AWS_ENDPOINT_URL_S3",
            ),
        ),
        (
            code in _ELSEWHERE or status in {301, 307},
            (": the bucket is in another region", "set AWS_REGION to its own (auto for R2)"),
        ),
        (
            status == 403,  # noqa: PLR2004
            (
                ": the credentials may not do this",
                f"allow them {right} on {bucket} (R2: a token with Object Read & Write on it)",
            ),
        ),
        (
            code in _UNSUPPORTED or status == 501,  # noqa: PLR2004
            (": this store does not know it", "use a store with the whole S3 API"),
        ),
        (
            status == 404 and (not code or code == "NoSuchKey") and right == "s3:GetObject",  # noqa: PLR2004
            (", though it was just written", "use a store that reads its own writes"),
        ),
        (
            not code,
            (
                f" without saying why: what answers at {endpoint} may be no S3 store",
                "check AWS_ENDPOINT_URL_S3, and HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
            ),
        ),
    )
    busy = ("", "try again; if it stays so, ask whoever runs the store")
    return next((meaning for fits, meaning in meanings if fits), busy)


def judge_second_put(reply: Reply) -> Verdict | None:
    """Judge a conditional write to a key that is taken; None: it was refused for other reasons."""
    if reply.status in {412, 409}:
        return fine(f"a second write is refused ({reply.said})")
    if reply.ok:
        return failure(
            "the store ignores If-None-Match: a second write replaced the first",
            "use a store that knows conditional writes (R2, AWS, Tigris): without them two"
            " processes can overwrite each other's clips",
        )
    return None


def judge_complete(reply: Reply, *, asked: bool) -> Verdict | None:
    """Judge a conditional end of an upload in parts; `asked`: whether serving sends the condition.

    None: it was refused for other reasons than the taken key.
    """
    if reply.status in {412, 409}:
        return fine(f"an upload in parts to a taken key is refused ({reply.said})")
    unknown = reply.code in _UNSUPPORTED or reply.status in {400, 501}
    if not asked and (reply.ok or unknown):
        return fine("this store does not know the condition; firstview looks first instead")
    if reply.ok:
        return warning(
            "the store ignores If-None-Match at the end of an upload in parts",
            "set FIRSTVIEW_BUCKET_CONDITIONAL_COMPLETE=false, so that firstview looks first",
        )
    if unknown:
        return failure(
            f"the store answers {reply.said} to If-None-Match at the end of an upload in parts",
            "set FIRSTVIEW_BUCKET_CONDITIONAL_COMPLETE=false",
        )
    return None


def judge_head(reply: Reply, body: bytes, metadata: dict[str, str]) -> Verdict:
    """Judge what the store says of an object that was just written."""
    length = reply.headers.get("content-length")
    if length != str(len(body)):
        return failure(
            f"the store says {length} bytes of an object of {len(body)}",
            "let no proxy stand between firstview and the store",
        )
    kept = {name.lower(): value for name, value in reply.found.get("Metadata", {}).items()}
    if kept != metadata:
        return failure(
            "the store did not keep the object's metadata",
            "use a store that keeps x-amz-meta- fields: firstview has a clip's ETag there",
        )
    etag = reply.headers.get("etag", "").strip('"')
    if etag != hashlib.md5(body, usedforsecurity=False).hexdigest():
        return fine("size and metadata are right; its ETag is no MD5 (encrypted by a KMS key?)")
    return fine("size, ETag (the MD5) and metadata are right")


def judge_range(reply: Reply, body: bytes, start: int, stop: int) -> Verdict:
    """Judge a read of the bytes from `start` up to `stop`."""
    wanted = f"bytes {start}-{stop - 1}/{len(body)}"
    given = reply.headers.get("content-range", "none")
    mend = "let no proxy stand between firstview and the store, or use another store"
    if reply.status == 200:  # noqa: PLR2004
        return failure("the store ignores Range and sends all of it", mend)
    if given != wanted:
        return failure(f"asked for {wanted!r}, the store's Content-Range says {given!r}", mend)
    if reply.body != body[start:stop]:
        return failure("the store sends other bytes than were written", mend)
    return fine(f"{wanted}, the bytes that were written")


def judge_lifecycle(reply: Reply, endpoint: str) -> Verdict:
    """Judge whether somebody removes uploads that nobody ends."""
    mend = (
        "let a lifecycle rule abort incomplete multipart uploads after 7 days: firstview's sweep"
        " aborts those that it knows of"
    )
    if reply.ok:
        rules = reply.found.get("Rules", [])
        for rule in rules:
            days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
            if days is not None and rule.get("Status") == "Enabled":
                return fine(f"unfinished uploads are aborted after {days} days")
        return warning("no rule removes unfinished uploads, which cost as much as clips", mend)
    if reply.code == "NoSuchLifecycleConfiguration":
        if ".r2.cloudflarestorage.com" in endpoint:
            return fine("R2 aborts unfinished uploads after 7 days")
        return warning("no rule removes unfinished uploads, which cost as much as clips", mend)
    return unchecked(
        f"these credentials may not ask for the bucket's rules ({reply.said})",
        "see in the store's console that unfinished uploads are aborted after some days",
    )
