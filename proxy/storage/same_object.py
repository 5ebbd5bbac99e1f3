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
    """Compare by what proves most: SHA-256, MD5, the parts' ETag, and at last our own ETag.

    `headers` are those of the object's HEAD; `parts_etag` is the ETag that our parts would have;
    `md5` computes the whole file's, and is called only if nothing cheaper decides. What cannot be
    proved equal counts as different.
    """
    if found.size != new.size:
        return False
    if keys.META_SHA256 in found.metadata:
        return found.metadata[keys.META_SHA256] == sha256
    theirs = plain_md5(headers)
    if theirs is not None:
        return theirs == await md5()
    if parts_etag is not None and found.etag == parts_etag:
        return True
    ours = new.metadata.get(keys.META_ETAG)
    return ours is not None and found.metadata.get(keys.META_ETAG) == ours
