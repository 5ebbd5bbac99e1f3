"""No foreign exception crosses the border of the storage: every class is mapped to one of ours."""

import asyncio
import inspect
import ssl

import aiohttp
import pytest
from botocore import exceptions as boto

from proxy.errors import (
    BucketError,
    BucketRefused,
    BucketUnavailable,
    CorruptClip,
    FirstviewError,
    ObjectConflict,
    ObjectMissing,
    SourceChanged,
)
from proxy.storage import http, s3_client
from proxy.storage.s3_errors import BucketBusy, LostRace, UploadGone, error_code, status_error


def classes_of(module: object) -> list[type[BaseException]]:
    return [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and not issubclass(found, Warning)
    ]


@pytest.mark.parametrize("error", classes_of(boto))
def test_every_error_of_botocore_is_mapped(error: type[BaseException]) -> None:
    kind = s3_client.error_kind(error)
    assert kind is not None
    assert issubclass(kind, BucketError)


@pytest.mark.parametrize(
    "error",
    [
        error
        for error in classes_of(aiohttp)
        # Nothing here opens a web socket.
        if error.__module__.startswith("aiohttp.client") and not error.__name__.startswith("WS")
    ],
)
def test_every_error_of_aiohttps_client_is_mapped(error: type[BaseException]) -> None:
    kind = http.error_kind(error)
    assert kind is not None
    assert issubclass(kind, BucketError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto.EndpointConnectionError, BucketUnavailable),
        (boto.ConnectTimeoutError, BucketUnavailable),
        (boto.ReadTimeoutError, BucketUnavailable),
        (boto.ConnectionClosedError, BucketUnavailable),
        (boto.CredentialRetrievalError, BucketUnavailable),
        (boto.NoCredentialsError, BucketRefused),
        (boto.PartialCredentialsError, BucketRefused),
        (boto.ProfileNotFound, BucketRefused),
        (boto.InvalidRegionError, BucketRefused),
        (boto.ParamValidationError, BucketRefused),
    ],
)
def test_what_can_pass_by_itself_is_retryable_and_what_cannot_is_not(
    error: type[BaseException], kind: type[FirstviewError]
) -> None:
    assert s3_client.error_kind(error) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ServerDisconnectedError, BucketUnavailable),
        (aiohttp.ClientPayloadError, BucketUnavailable),
        (aiohttp.SocketTimeoutError, BucketUnavailable),
        (aiohttp.ClientConnectorDNSError, BucketUnavailable),
        (aiohttp.InvalidURL, BucketRefused),
        (TimeoutError, BucketUnavailable),
        (ConnectionResetError, BucketUnavailable),
        (ssl.SSLError, BucketUnavailable),
    ],
)
def test_a_broken_connection_is_retryable(
    error: type[BaseException], kind: type[FirstviewError]
) -> None:
    assert http.error_kind(error) is kind


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
def test_a_mistake_of_our_own_is_not_blamed_on_the_bucket(error: type[BaseException]) -> None:
    assert http.error_kind(error) is None
    assert s3_client.error_kind(error) is None
    with pytest.raises(error), s3_client.mapped_errors("a test"):
        raise error


def test_a_presigned_url_stays_out_of_the_error() -> None:
    secret = "https://bucket.example/clip?X-Amz-Signature=secret"
    with pytest.raises(BucketRefused) as refused, http.mapped_errors():
        raise aiohttp.InvalidURL(secret)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "code", "writes", "kind"),
    [
        (412, "PreconditionFailed", True, ObjectConflict),
        (412, "PreconditionFailed", False, SourceChanged),
        (409, "ConditionalRequestConflict", True, LostRace),
        (404, "NoSuchKey", False, ObjectMissing),
        (404, "", False, ObjectMissing),
        (404, "NoSuchUpload", True, UploadGone),
        (404, "NoSuchBucket", True, BucketRefused),
        (416, "InvalidRange", False, CorruptClip),
        (429, "TooManyRequests", True, BucketBusy),
        (503, "SlowDown", True, BucketBusy),
        (500, "InternalError", True, BucketUnavailable),
        (599, "", True, BucketUnavailable),
        (400, "RequestTimeout", True, BucketUnavailable),
        (400, "BadDigest", True, BucketUnavailable),
        (400, "InvalidPart", True, BucketRefused),
        (401, "", True, BucketRefused),
        (403, "SignatureDoesNotMatch", True, BucketRefused),
        (501, "NotImplemented", True, BucketRefused),
        (307, "TemporaryRedirect", True, BucketRefused),
    ],
)
def test_each_status_means_one_thing(
    status: int, code: str, writes: bool, kind: type[FirstviewError]
) -> None:
    """Peers 29: 416, 412, 429 and 5xx are not 404."""
    error = status_error(status, code, "a test", writes=writes)
    assert isinstance(error, kind)
    assert str(status) in error.detail


def test_an_error_code_is_read_from_whatever_comes() -> None:
    assert error_code(b"<?xml?><Error><Code>SlowDown</Code></Error>") == "SlowDown"
    for nonsense in (b"", b"<html>", b"<Code></Code>", b"\xff<Code>\xff</Code>"):
        assert error_code(nonsense) == ""
