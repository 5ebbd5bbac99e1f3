"""The calls that are made to an S3 store, one method each.

Control calls go through botocore, with its retries. Bytes go by URLs that are presigned here for
each attempt, so that refreshed credentials are used at once, and that carry in their signature
exactly the fields that are sent along.

Belongs here: requests and what their replies say. Must not know: in which order an upload makes
them.
"""

from __future__ import annotations

import asyncio
import base64
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from prometheus_client import Counter

from proxy.errors import ObjectMissing
from proxy.http_dates import lenient_http_date
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import NewObject, ObjectInfo
from proxy.storage.file_slice import FileSlice
from proxy.storage.http import Headers, HttpClient, HttpStream, body_head
from proxy.storage.presign import Presigner
from proxy.storage.retrying import with_retries
from proxy.storage.s3_client import mapped_errors
from proxy.storage.s3_errors import BucketBusy, UploadGone

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

T = TypeVar("T")
_R2 = ".r2.cloudflarestorage.com"


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A multipart upload that is neither completed nor aborted."""

    key: str
    upload_id: str
    initiated: datetime


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part that the store has: its number from 1, the store's ETag, and its MD5."""

    number: int
    etag: str
    md5: bytes


class S3Calls:
    """One bucket of one store."""

    def __init__(
        self,
        client: S3Client,
        signer: Presigner,
        http: HttpClient,
        bucket: str,
        settings: Settings,
        *,
        retries: Counter | None = None,
    ) -> None:
        """Take the clients for control and for bytes, which stay the caller's."""
        self._client = client
        self._signer = signer
        self._http = http
        self._bucket = bucket
        self._attempts = settings.bucket_attempts
        self._retries = retries
        self._sending = asyncio.Semaphore(settings.max_uploads)
        self.endpoint = client.meta.endpoint_url
        self.conditional_complete = conditional_complete(self.endpoint, settings)

    def again(self, call: str) -> Counter | None:
        """What counts the calls of this kind that are made again, if anything does."""
        return None if self._retries is None else self._retries.labels(call)

    async def head(self, key: str) -> tuple[ObjectInfo, Mapping[str, str]] | None:
        """What the store says of an object, and the reply's header; None if there is none."""
        try:
            ask = functools.partial(self._client.head_object, Bucket=self._bucket, Key=key)
            found = await self._ask("a look at an object", ask)
        except ObjectMissing:
            return None
        info = ObjectInfo(
            key=key,
            size=found["ContentLength"],
            etag=found["ETag"].strip('"'),
            last_modified=found["LastModified"].astimezone(UTC),
            content_type=found.get("ContentType"),
            metadata={name.lower(): value for name, value in found["Metadata"].items()},
        )
        encryption = found.get("ServerSideEncryption", "")
        return info, {"ETag": found["ETag"], "x-amz-server-side-encryption": encryption}

    async def get(self, key: str, start: int, stop: int | None, etag: str | None) -> HttpStream:
        """Open an object's body; see `Bucket.open`, and `status_error` for what it raises."""
        headers = {} if etag is None else {"If-Match": f'"{etag}"'}
        if start > 0 or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"

        async def once() -> HttpStream:
            url = await self._signer.read(key, headers)
            reply = await self._http.get(url, headers)
            try:
                return HttpStream(reply, body_head(reply, start, stop), self._http.stall)
            except BaseException:
                reply.close()
                raise

        return await with_retries(once, self._attempts, again=self.again("get"))

    async def presigned(self, key: str) -> str:
        """Sign a GET of an object for others; see `Presigner.read`."""
        return await self._signer.read(key, {})

    async def put(self, new: NewObject, body: FileSlice, md5: bytes, sha256: str) -> Headers:
        """Write a whole object on its condition. Raises TakenKey, ObjectMissing (`replaces`), …."""
        from_headers = {
            "Content-MD5": "ContentMD5",
            "Content-Type": "ContentType",
            "If-None-Match": "IfNoneMatch",
            "If-Match": "IfMatch",
        }
        metadata = {**new.metadata, keys.META_SHA256: sha256}
        headers = {"Content-MD5": _base64(md5), "Content-Type": new.content_type}
        headers |= _condition(new)
        params: dict[str, Any] = {"Key": new.key, "Metadata": metadata}

        async def once() -> Headers:
            url = await self._signer.sign("put_object", params, from_headers, headers)
            fields = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
            return await self._http.put(url, headers | fields, body)

        async with self._sending:
            return await with_retries(once, self._attempts, again=self.again("put"))

    async def send_part(self, key: str, upload_id: str, number: int, body: FileSlice) -> SentPart:
        """Send one part. Raises UploadGone, BucketUnavailable, BucketRefused."""
        params = {"Key": key, "UploadId": upload_id, "PartNumber": number}
        async with self._sending:
            md5 = await body.md5()
            headers = {"Content-MD5": _base64(md5)}

            async def once() -> Headers:
                url = await self._signer.sign(
                    "upload_part", params, {"Content-MD5": "ContentMD5"}, headers
                )
                return await self._http.put(url, headers, body)

            reply = await with_retries(once, self._attempts, again=self.again("part"))
        return SentPart(number, reply.get("ETag", f'"{md5.hex()}"'), md5)

    async def begin(self, new: NewObject) -> tuple[str, bool]:
        """Begin a multipart upload: its id, and whether an earlier try may have begun another."""
        ask = functools.partial(
            self._client.create_multipart_upload,
            Bucket=self._bucket,
            Key=new.key,
            ContentType=new.content_type,
            Metadata=new.metadata,
        )
        begun = await self._ask("the beginning of an upload", ask, writes=True)
        return begun["UploadId"], begun["ResponseMetadata"]["RetryAttempts"] > 0

    async def complete(self, new: NewObject, upload_id: str, parts: list[SentPart]) -> str:
        """Make the parts an object, on its condition where the store knows one; return its ETag."""
        names = {"If-None-Match": "IfNoneMatch", "If-Match": "IfMatch"}
        asked = _condition(new) if self.conditional_complete else {}
        condition: dict[str, Any] = {names[name]: value for name, value in asked.items()}
        listed: list[CompletedPartTypeDef] = [
            {"PartNumber": part.number, "ETag": part.etag} for part in parts
        ]
        ask = functools.partial(
            self._client.complete_multipart_upload,
            Bucket=self._bucket,
            Key=new.key,
            UploadId=upload_id,
            MultipartUpload={"Parts": listed},
            **condition,
        )
        done = await self._ask("the end of an upload", ask, writes=True)
        return done.get("ETag", "").strip('"')

    async def abort(self, key: str, upload_id: str) -> None:
        """Abort a multipart upload; parts on their way may still land. No error if it is gone."""
        try:
            ask = functools.partial(
                self._client.abort_multipart_upload,
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
            )
            await self._ask("the abort of an upload", ask, writes=True)
        except (UploadGone, ObjectMissing):
            return

    async def is_open(self, key: str, upload_id: str) -> bool:
        """Whether a multipart upload still takes up room."""
        try:
            ask = functools.partial(
                self._client.list_parts,
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MaxParts=1,
            )
            await self._ask("a look at an upload", ask)
        except (UploadGone, ObjectMissing):
            return False
        return True

    async def open_uploads(self, prefix: str) -> AsyncIterator[tuple[OpenUpload, datetime]]:
        """Every multipart upload below a prefix, with the store's own time of the reply."""
        pages = self._client.get_paginator("list_multipart_uploads")
        with mapped_errors("the list of uploads"):
            async for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                sent = page["ResponseMetadata"]["HTTPHeaders"].get("date")
                # The field has whole seconds; what is in the list was begun before this one ended.
                now = (lenient_http_date(sent) or datetime.now(UTC)) + timedelta(seconds=1)
                for upload in page.get("Uploads", []):
                    yield OpenUpload(upload["Key"], upload["UploadId"], upload["Initiated"]), now

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object below a prefix, in key order, without types and metadata."""
        pages = self._client.get_paginator("list_objects_v2")
        with mapped_errors("the list of objects"):
            async for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for found in page.get("Contents", []):
                    yield ObjectInfo(
                        key=found["Key"],
                        size=found["Size"],
                        etag=found["ETag"].strip('"'),
                        last_modified=found["LastModified"].astimezone(UTC).replace(microsecond=0),
                    )

    async def delete(self, key: str) -> None:
        """Remove an object; no error if there is none."""
        ask = functools.partial(self._client.delete_object, Bucket=self._bucket, Key=key)
        await self._ask("the removal of an object", ask, writes=True)

    async def may_list(self) -> None:
        """Ask for one name: proves the bucket, the credentials and the right to list."""
        ask = functools.partial(self._client.list_objects_v2, Bucket=self._bucket, MaxKeys=1)
        await self._ask("a listing", ask)

    async def _ask(self, doing: str, ask: Callable[[], Awaitable[T]], *, writes: bool = False) -> T:
        """Make a control call. botocore retries all but R2's 429, which is waited out here."""
        again = self.again("control")

        async def once() -> T:
            with mapped_errors(doing, writes=writes):
                said = await ask()
            if again is not None and isinstance(said, dict):
                again.inc(said.get("ResponseMetadata", {}).get("RetryAttempts", 0))
            return said

        return await with_retries(once, self._attempts, on=BucketBusy, again=again)


def conditional_complete(endpoint: str, settings: Settings) -> bool:
    """Whether the condition is sent when the upload of parts is completed."""
    host = urlsplit(endpoint).hostname or ""
    asked = settings.bucket_conditional_complete
    return not host.endswith(_R2) if asked is None else asked


def _condition(new: NewObject) -> dict[str, str]:
    if new.replaces is None:
        return {"If-None-Match": "*"}
    return {"If-Match": f'"{new.replaces}"'}


def _base64(md5: bytes) -> str:
    return base64.b64encode(md5).decode()
