"""Each call that serving makes to an S3 store, made once, with whatever the store answers.

For `firstview doctor`: what elsewhere is an error is an answer here, with its status, its code and
its header, so that it can be said which right is missing.

Belongs here: requests as `s3_calls.py` and `presign.py` make them, without retries or conclusions.
Must not know: what an answer means, or in which order they are made.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
from botocore.exceptions import ClientError
from yarl import URL

from proxy.errors import BucketRefused
from proxy.settings import Settings
from proxy.storage import http
from proxy.storage.presign import Presigner
from proxy.storage.s3_client import Opened, mapped_errors, open_client
from proxy.storage.s3_errors import error_code

_LONGEST = 10.0
"""Seconds of one request."""
_UNSIGNED = ("Content-Type", "Accept", "Accept-Encoding", "User-Agent")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the store answered: header names in lower case; `found` is what botocore read of it."""

    status: int
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110 §15.3

    @property
    def said(self) -> str:
        """Status and code, for people."""
        return f"{self.status} {self.code}".rstrip()


class S3Probe:
    """One bucket. Each method raises BucketUnavailable or BucketRefused where nobody answered."""

    def __init__(self, opened: Opened, session: aiohttp.ClientSession, bucket: str) -> None:
        """Take the clients, which stay the caller's."""
        self._client = opened.client
        self._signer = Presigner(opened.client, opened.credentials, bucket)
        self._tls = opened.tls
        self._session = session
        self._bucket = bucket
        self.endpoint = opened.client.meta.endpoint_url
        self.region = opened.client.meta.region_name

    async def list(self, prefix: str = "", most: int = 1) -> Reply:
        """Ask for keys; see `keys_of`."""
        return await self._ask(
            lambda: self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=most)
        )

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> Reply:
        """Write an object if the key is free, by a presigned URL as clips are."""
        names = {
            "Content-MD5": "ContentMD5",
            "Content-Type": "ContentType",
            "If-None-Match": "IfNoneMatch",
        }
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        headers = {
            "Content-MD5": base64.b64encode(md5).decode(),
            "Content-Type": "application/octet-stream",
            "If-None-Match": "*",
        }
        params = {"Key": key, "Metadata": dict(metadata)}
        url = await self._signer.sign("put_object", params, names, headers)
        sent = headers | {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        return await self._send("PUT", url, sent, body)

    async def head(self, key: str) -> Reply:
        """Look at an object."""
        return await self._ask(lambda: self._client.head_object(Bucket=self._bucket, Key=key))

    async def read(self, key: str, start: int, stop: int) -> Reply:
        """Read bytes `start` up to `stop` by a URL that is signed for just these, as fills do."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        return await self._send("GET", await self._signer.read(key, headers), headers, None)

    async def share(self, key: str) -> Reply:
        """Read an object by a presigned URL that anybody may use, with a range of their own."""
        url = await self._signer.read(key, {})
        return await self._send("GET", url, {"Range": "bytes=0-0"}, None)

    async def delete(self, key: str) -> Reply:
        """Remove an object."""
        return await self._ask(lambda: self._client.delete_object(Bucket=self._bucket, Key=key))

    async def begin(self, key: str) -> Reply:
        """Begin an upload in parts; `found["UploadId"]` is its name."""
        return await self._ask(
            lambda: self._client.create_multipart_upload(Bucket=self._bucket, Key=key)
        )

    async def send_part(self, key: str, upload: str, body: bytes) -> Reply:
        """Send the only part of an upload."""
        params = {"Key": key, "UploadId": upload, "PartNumber": 1}
        return await self._send(
            "PUT", await self._signer.sign("upload_part", params, {}, {}), {}, body
        )

    async def uploads(self, prefix: str) -> Reply:
        """Ask which uploads are open."""
        return await self._ask(
            lambda: self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix)
        )

    async def parts(self, key: str, upload: str) -> Reply:
        """Ask which parts an upload has."""
        return await self._ask(
            lambda: self._client.list_parts(Bucket=self._bucket, Key=key, UploadId=upload)
        )

    async def complete(self, key: str, upload: str, etag: str) -> Reply:
        """Make the only part an object if the key is free."""
        return await self._ask(
            lambda: self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]},
                IfNoneMatch="*",
            )
        )

    async def abort(self, key: str, upload: str) -> Reply:
        """Drop an upload."""
        return await self._ask(
            lambda: self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload
            )
        )

    async def lifecycle(self) -> Reply:
        """Ask for the bucket's rules; `found["Rules"]`."""
        return await self._ask(
            lambda: self._client.get_bucket_lifecycle_configuration(Bucket=self._bucket)
        )

    async def _ask(self, ask: Callable[[], Awaitable[Any]]) -> Reply:
        """Make a control call."""
        with mapped_errors("a check"):
            try:
                found: Mapping[str, Any] = await ask()
            except ClientError as error:
                found = error.response
        meta = found.get("ResponseMetadata", {})
        code = str(found.get("Error", {}).get("Code", ""))
        return Reply(
            status=meta.get("HTTPStatusCode", 500),
            code="" if code.isdigit() else code,
            headers={name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()},
            found=found,
        )

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        """Send a request to a presigned URL, with nothing in its header that is not signed."""
        with http.mapped_errors():
            async with self._session.request(
                method,
                URL(url, encoded=True),
                data=body,
                headers=headers,
                ssl=self._tls,
                allow_redirects=False,
                skip_auto_headers=_UNSIGNED,
                timeout=aiohttp.ClientTimeout(total=_LONGEST),
            ) as reply:
                read = await reply.read()
                return Reply(
                    status=reply.status,
                    code=error_code(read) if reply.status >= 300 else "",  # noqa: PLR2004
                    headers={name.lower(): value for name, value in reply.headers.items()},
                    body=read,
                )


def keys_of(reply: Reply) -> list[tuple[str, datetime]]:
    """Keys of a listing, and when each was written."""
    return [(each["Key"], each["LastModified"]) for each in reply.found.get("Contents", [])]


@contextlib.asynccontextmanager
async def open_probe(bucket: str, settings: Settings) -> AsyncIterator[S3Probe]:
    """Make the clients as `S3Bucket` does, but impatient: two tries of a few seconds.

    Raises BucketRefused if what is configured makes no client, SettingsError for certificates that
    are none.
    """
    hasty = settings.model_copy(
        update={
            "bucket_attempts": min(2, settings.bucket_attempts),
            "bucket_connect_timeout": min(3.0, settings.bucket_connect_timeout),
            "bucket_timeout": min(_LONGEST, settings.bucket_timeout),
        }
    )
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(http.new_session())
        try:
            opened = await stack.enter_async_context(open_client(hasty))
        except ValueError as error:  # botocore's word for an endpoint that is no URL
            raise BucketRefused(f"no S3 client can be made: {error}") from error
        yield S3Probe(opened, session, bucket)
