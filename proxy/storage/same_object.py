"""Whether what the bucket holds is what we were about to write.

Asked when a conditional write is refused: a lost reply, or another replica with the same clip,
looks exactly like a stranger's object until the two are compared.

Belongs here: that comparison, and ETags of multipart objects. Must not know: how either was read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from proxy.storage import keys
from proxy.storage.bucket import NewObject, ObjectInfo
from proxy.storage.http import plain_md5


def multipart_etag(md5s: Sequence[bytes]) -> str:
    """The ETag that S3 gives to parts with these MD5s: MD5 of the MD5s, and how many."""
    digest = hashlib.md5(b"".join(md5s), usedforsecurity=False).hexdigest()
    return f"{digest}-{len(md5s)}"


async def same_object(
    new: NewObject,
    found: ObjectInfo,
    headers: Mapping[str, str],
    *,
    sha256: str,
    parts_etag: str | None,
    md5: Callable[[], Awaitable[bytes]],
) -> bool:
    """Compare by what the store itself has measured; what was written beside the bytes comes last.

    `headers` are those of the object's HEAD; `parts_etag` is the ETag that our parts would have;
    `md5` computes the whole file's. As many parts with another ETag are other bytes, unless a KMS
    key hides them. What cannot be proved equal counts as different: at worst, an object of ours is
    written once more.
    """
    if found.size != new.size:
        return False
    said = found.metadata.get(keys.META_SHA256)
    if said not in {None, sha256}:
        return False
    theirs = plain_md5(headers)
    if theirs is not None:
        return theirs == await md5()
    if parts_etag is not None and found.etag == parts_etag:
        return True
    hidden = "kms" in headers.get("x-amz-server-side-encryption", "")
    if parts_etag is not None and not hidden and _count(found.etag) == _count(parts_etag):
        return False
    ours = new.metadata.get(keys.META_ETAG)
    return said is not None or (ours is not None and found.metadata.get(keys.META_ETAG) == ours)


def _count(etag: str) -> str:
    """How many parts an ETag speaks of, "" if it speaks of none."""
    return etag.rpartition("-")[2] if "-" in etag else ""
