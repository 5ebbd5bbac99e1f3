"""One object on its way into an S3 bucket, in one request or in parts.

    advance   parts that are whole are sent
    commit    the rest is sent; then one conditional request makes all of it visible
    abort     whatever the store still keeps of it is removed

A refused condition is no verdict. A reply that got lost, or another replica, leaves the same
bytes under the key, so 412, 409 and NoSuchUpload all mean: look, and compare.

Belongs here: the order of calls that makes an upload whole or nothing. Must not know: HTTP.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from proxy.errors import BucketUnavailable, FirstviewError, ObjectConflict, ObjectMissing
from proxy.http_dates import lenient_http_date
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import NewObject, ObjectInfo
from proxy.storage.disk_threads import Disk
from proxy.storage.file_slice import FileSlice
from proxy.storage.http import plain_md5
from proxy.storage.multipart import Multipart
from proxy.storage.parts import Parts, part_size
from proxy.storage.retrying import with_retries
from proxy.storage.s3_calls import S3Calls, SentPart
from proxy.storage.s3_errors import LostRace, UploadGone
from proxy.storage.same_object import multipart_etag, same_object

RESTARTS = 3
"""Times that one commit sends everything, if the store drops the upload meanwhile."""


class Restart(BucketUnavailable):
    """The bucket dropped the upload; it has to be sent again."""


class S3Upload:
    """See `Upload`. Memory used: one chunk of `file_slice.CHUNK` for each request on its way."""

    def __init__(
        self, calls: S3Calls, new: NewObject, path: Path, settings: Settings, disk: Disk
    ) -> None:
        """Take what to write, and from where; nothing is sent yet."""
        self._calls = calls
        self._new = new
        self._path = path
        self._disk = disk
        self._single = new.size <= settings.single_put_max
        self._multipart = Multipart(calls, new)
        each = part_size(new.size, settings.part_size)
        self._parts = Parts(new.size, each, settings.upload_parts, self._send_part)
        self._committed: ObjectInfo | None = None

    async def advance(self, written: int) -> None:
        """See `Upload.advance`: begins to send, and raises what failed since it was last called."""
        if self._single:
            return
        await self._parts.raise_failure()
        # The last part is commit's: nothing is complete in the bucket before it is verified.
        self._parts.start(min(written, self._new.size - 1))

    async def commit(self, sha256: str) -> ObjectInfo:
        """See `Upload.commit`. With `replaces`, a key that is free by now is a conflict as well."""
        if self._committed is None:
            once = self._put if self._single else self._complete
            self._committed = await with_retries(
                functools.partial(once, sha256),
                RESTARTS,
                on=Restart,
                again=self._calls.again("restart"),
            )
            await self._drop()
        return self._committed

    async def abort(self) -> bool:
        """See `Upload.abort`. Parts may land late, so the store is asked whether all is gone."""
        return await self._drop()

    async def _put(self, sha256: str) -> ObjectInfo:
        body = self._slice(0, self._new.size)
        md5 = await body.md5()
        try:
            reply = await self._calls.put(self._new, body, md5, sha256)
        except (ObjectConflict, ObjectMissing, BucketUnavailable) as error:
            return await self._settle(sha256, error)
        etag = reply.get("ETag", "").strip('"')
        if plain_md5(reply) != md5:
            return await self._measured(etag, md5)
        metadata = {**self._new.metadata, keys.META_SHA256: sha256}
        return self._written(etag, metadata, lenient_http_date(reply.get("Date")))

    async def _complete(self, sha256: str) -> ObjectInfo:
        self._parts.start(self._new.size)
        try:
            parts = await self._parts.wait()
        except UploadGone as error:
            return await self._settle(sha256, error)
        try:
            if not self._calls.conditional_complete:
                await self._look_first()
            upload_id = await self._multipart.upload_id()
            etag = await self._calls.complete(self._new, upload_id, parts)
        except (ObjectConflict, ObjectMissing, BucketUnavailable) as error:
            return await self._settle(sha256, error)
        self._multipart.completed()
        if etag != multipart_etag([part.md5 for part in parts]):
            return await self._measured(etag, None)
        return self._written(etag, self._new.metadata, None)

    async def _look_first(self) -> None:
        """Ask what the condition would have: R2 documents none when completing an upload."""
        found = await self._calls.head(self._new.key)
        if (None if found is None else found[0].etag) != self._new.replaces:
            raise ObjectConflict

    async def _send_part(self, number: int, offset: int, size: int) -> SentPart:
        upload_id = await self._multipart.upload_id()
        body = self._slice(offset, size)
        return await self._calls.send_part(self._new.key, upload_id, number, body)

    async def _settle(self, sha256: str, error: FirstviewError) -> ObjectInfo:
        """After a refusal or a lost reply: success if the key holds our bytes, else an error."""
        found = await self._calls.head(self._new.key)
        if found is not None and await self._is_ours(*found, sha256):
            return found[0]
        as_expected = (None if found is None else found[0].etag) == self._new.replaces
        if isinstance(error, (LostRace, UploadGone)) and as_expected:
            await self._drop()
            raise Restart(error.detail) from error
        if isinstance(error, (ObjectConflict, ObjectMissing)) and as_expected:
            raise BucketUnavailable("the key changed while it was being written") from error
        if isinstance(error, (ObjectConflict, ObjectMissing, LostRace, UploadGone)):
            raise ObjectConflict from error
        raise error

    async def _is_ours(self, info: ObjectInfo, headers: Mapping[str, str], sha256: str) -> bool:
        md5s = [] if self._single else self._parts.md5s()
        parts_etag = multipart_etag(md5s) if md5s else None
        whole = self._slice(0, self._new.size)
        return await same_object(
            self._new, info, headers, sha256=sha256, parts_etag=parts_etag, md5=whole.md5
        )

    async def _measured(self, etag: str, md5: bytes | None) -> ObjectInfo:
        """What the bucket says of our object where the reply to our write proved nothing.

        Some stores encrypt, and then the ETag is no MD5 though it looks like one; where nothing
        is encrypted, another MD5 or size is another object, and is removed.
        """
        found = await self._calls.head(self._new.key)
        if found is None:
            raise BucketUnavailable("the bucket does not hold the object that it took")
        info, headers = found
        theirs = None if headers["x-amz-server-side-encryption"] else plain_md5(headers)
        if info.size == self._new.size and (md5 is None or theirs in {None, md5}):
            return info
        if info.etag == etag:
            await self._calls.delete(self._new.key)
        raise BucketUnavailable("the bucket stored something other than it was sent")

    def _written(self, etag: str, metadata: Mapping[str, str], date: datetime | None) -> ObjectInfo:
        return ObjectInfo(
            key=self._new.key,
            size=self._new.size,
            etag=etag,
            last_modified=date or datetime.now(UTC).replace(microsecond=0),
            content_type=self._new.content_type,
            metadata=metadata,
        )

    async def _drop(self) -> bool:
        await self._parts.drop()
        return await self._multipart.drop()

    def _slice(self, offset: int, size: int) -> FileSlice:
        return FileSlice(self._path, offset, size, self._disk)
