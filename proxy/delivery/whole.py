"""Whole: whether an object of the bucket is a clip that is all there, whoever has put it there.

Belongs here: what is believed of an object's own word, and looking at the rest. Must not know: what
becomes of an object that is none, or who asks.
"""

from __future__ import annotations

from proxy.media.boxes import HEADER_BYTES, BoxWalk
from proxy.storage import keys
from proxy.storage.bucket import Bucket, ObjectInfo


async def is_clip(bucket: Bucket, info: ObjectInfo) -> bool:
    """Whether an object is what we wrote, or else a clip that is all there. Raises BucketError.

    What somebody else has begun to write there, and not finished, begins like a clip too; but its
    boxes then say that it should be longer (ISO/IEC 14496-12 §4.2).
    """
    if keys.META_ETAG in info.metadata:
        return True
    walk = BoxWalk(info.size)
    while walk.is_whole is None:
        walk.feed(await _header(bucket, info, walk.at))
    return walk.is_whole


async def _header(bucket: Bucket, info: ObjectInfo, at: int) -> bytes:
    """The header of the box that begins at `at`, in however many pieces it comes."""
    stop = min(at + HEADER_BYTES, info.size)
    stream = await bucket.open(info.key, at, stop, etag=info.etag)
    header = b""
    try:
        while piece := await stream.read():
            header += piece
    finally:
        await stream.close()
    return header
