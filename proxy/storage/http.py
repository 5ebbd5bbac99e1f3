"""Bytes to and from an S3 store by presigned URLs, and the border for aiohttp's errors.

Belongs here: one PUT, one GET, their timeouts, and what an HTTP reply says of a body. Must not
know: who signed the URL, buckets, retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Literal

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from proxy.errors import BucketRefused, BucketUnavailable, FirstviewError
from proxy.http_dates import lenient_http_date
from proxy.inflow import Inflow, Parsed, inflow_of
from proxy.records import BodyHead
from proxy.settings import Settings
from proxy.storage.file_slice import FileSlice
from proxy.storage.s3_errors import error_code, status_error

Headers = CIMultiDictProxy[str]

READ_BUFFER = 1024 * 1024
_ERROR_BYTES = 8192
_METADATA = "x-amz-meta-"
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_UNSIGNED = ("Content-Type", "Accept", "Accept-Encoding", "User-Agent")
"""What aiohttp would add of its own to requests whose headers are signed."""

_ERRORS: tuple[tuple[type[BaseException], type[FirstviewError]], ...] = (
    (aiohttp.InvalidURL, BucketRefused),
    (aiohttp.ClientConnectorCertificateError, BucketRefused),
    (aiohttp.ServerFingerprintMismatch, BucketRefused),
    (aiohttp.ClientError, BucketUnavailable),
    (aiohttp.http.HttpProcessingError, BucketUnavailable),
    (TimeoutError, BucketUnavailable),
    (OSError, BucketUnavailable),
)
"""aiohttp's errors to ours; the first that fits."""


def error_kind(error: type[BaseException]) -> type[FirstviewError] | None:
    """Which of our errors one of aiohttp's becomes; None if it is not one of aiohttp's."""
    return next((ours for theirs, ours in _ERRORS if issubclass(error, theirs)), None)


@contextlib.contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn aiohttp's errors, timeouts and broken connections into the bucket's."""
    try:
        yield
    except Exception as error:
        kind = error_kind(type(error))
        if kind is None:
            raise
        # The URL stays out of it: a presigned one is a key to the bucket.
        raise kind(f"the bucket cannot be reached: {_without_url(error)}") from error


def new_session() -> aiohttp.ClientSession:
    """Make a session fit for large bodies, for a process that has none to share."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
        auto_decompress=False,
        read_bufsize=READ_BUFFER,
    )


class HttpClient:
    """Puts and gets by presigned URL; every wait has an end."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: Settings,
        tls: ssl.SSLContext | Literal[True] = True,
    ) -> None:
        """Take the session, which stays the caller's, the bucket's timeouts, and whom to trust."""
        self._session = session
        self._tls = tls
        self.stall = settings.bucket_timeout
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=settings.bucket_connect_timeout, sock_read=self.stall
        )

    async def put(self, url: str, headers: Mapping[str, str], body: FileSlice) -> Headers:
        """Send a slice of a file; return the reply's header. Raises what `status_error` says."""
        async with self._within_stall() as deadline:

            async def chunks() -> AsyncIterator[bytes]:
                async for chunk in body.chunks():
                    deadline.move()
                    yield chunk

            async with self._session.put(
                URL(url, encoded=True),
                data=chunks(),
                headers={**headers, "Content-Length": str(body.size)},
                timeout=self._timeout,
                ssl=self._tls,
                allow_redirects=False,
                skip_auto_headers=_UNSIGNED,
            ) as reply:
                await _refuse_failure(reply, "a write", writes=True)
                return reply.headers

    async def get(self, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Ask for a body; the caller closes it. Raises what `status_error` says."""
        with mapped_errors():
            reply = await self._session.get(
                URL(url, encoded=True),
                headers={**headers, "Accept-Encoding": "identity"},
                timeout=self._timeout,
                ssl=self._tls,
                allow_redirects=False,
                read_bufsize=READ_BUFFER,
                auto_decompress=False,
                skip_auto_headers=_UNSIGNED,
            )
            try:
                await _refuse_failure(reply, "a read", writes=False)
            except BaseException:
                reply.close()
                raise
            return reply

    @contextlib.asynccontextmanager
    async def _within_stall(self) -> AsyncIterator[Deadline]:
        """Bound the time between chunks: aiohttp's own timeouts do not watch a body being sent."""
        with mapped_errors():
            async with asyncio.timeout(None) as timeout:
                deadline = Deadline(timeout, self.stall + (self._timeout.sock_connect or 0))
                try:
                    yield deadline
                finally:
                    deadline.end()


class Deadline:
    """A point in time that moves on with every chunk."""

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        """Start the clock."""
        self._timeout: asyncio.Timeout | None = timeout
        self._seconds = seconds
        self.move()

    def move(self) -> None:
        """Begin the wait anew; nothing happens once it has ended."""
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)

    def end(self) -> None:
        """Stop: the task that sends the body may live a moment longer than the request."""
        self._timeout = None


async def _refuse_failure(reply: aiohttp.ClientResponse, doing: str, *, writes: bool) -> None:
    if reply.status >= 300:  # noqa: PLR2004
        code = error_code(await reply.content.read(_ERROR_BYTES))
        raise status_error(reply.status, code, doing, writes=writes)


def plain_md5(headers: Mapping[str, str]) -> bytes | None:
    """The MD5 that an ETag is; None for multipart objects and where a KMS key encrypts.

    docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html, "ETag".
    """
    found = _MD5.fullmatch(headers.get("ETag", ""))
    if found is None or "kms" in headers.get("x-amz-server-side-encryption", ""):
        return None
    return bytes.fromhex(found[1])


def body_head(reply: aiohttp.ClientResponse, start: int, stop: int | None) -> BodyHead:
    """What a reply says of its body, bytes `start` up to `stop` having been asked for.

    A 200 is the whole, whatever was asked. Raises BucketUnavailable for a 206 that is not what
    was asked for, or contradicts itself.
    """
    headers = reply.headers
    length = total = reply.content_length
    first, end = 0, length
    if reply.status == 206:  # noqa: PLR2004
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None:
            raise BucketUnavailable("the bucket sent a range without saying which")
        first, end, total = int(found[1]), int(found[2]) + 1, int(found[3])
        wanted = total if stop is None else min(stop, total)
        if (first, end) != (start, wanted) or length not in {None, end - first}:
            raise BucketUnavailable("the bucket sent another range than it was asked for")
    return BodyHead(
        start=first,
        stop=end,
        total=total,
        content_type=headers.get("Content-Type"),
        validator=headers.get("ETag"),
        last_modified=lenient_http_date(headers.get("Last-Modified")),
        md5=plain_md5(headers),
        framed=length is not None or "Transfer-Encoding" in headers,
        metadata={
            name.lower().removeprefix(_METADATA): value
            for name, value in headers.items()
            if name.lower().startswith(_METADATA)
        },
    )


class HttpStream:
    """The body of a reply; see `ByteStream`."""

    def __init__(self, reply: aiohttp.ClientResponse, head: BodyHead, stall: float) -> None:
        """Take over an open reply; `stall` is the longest wait for more of it, in seconds."""
        self.head = head
        self._stall = stall
        self._reply = reply
        self._left = None if head.stop is None else head.stop - head.start
        self._inflow: Inflow | Parsed | None = None

    async def read(self) -> bytes:
        """See `ByteStream.read`; BucketUnavailable for a short body, a reset or a stall."""
        with mapped_errors():
            chunk = await self._reply.content.readany()
        self._count(len(chunk))
        return chunk

    async def offer(self, buffer: memoryview) -> None:
        """See `DirectStream.offer`; not to be mixed with `read`. Raises as `read` does."""
        if self._inflow is None:
            self._inflow = inflow_of(self._reply, self._left)
        with mapped_errors():
            async with asyncio.timeout(self._stall):
                await self._inflow.offer(buffer)

    def take(self) -> int:
        """See `DirectStream.take`. Raises BucketUnavailable as `read` does."""
        count = 0 if self._inflow is None else self._inflow.take()
        self._count(count)
        return count

    def _count(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
            if (not count and self._left > 0) or self._left < 0:
                raise BucketUnavailable("the bucket's body has not the length it announced")

    async def close(self) -> None:
        """Let go of the connection, which is kept if the body was read to its end."""
        if self._reply.content.at_eof():
            self._reply.release()
        else:
            self._reply.close()


def _without_url(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{type(error).__name__}: {error.host}:{error.port} {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__
