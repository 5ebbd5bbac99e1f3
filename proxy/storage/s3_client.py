"""The S3 client: how it is made, and the border for botocore's errors.

Belongs here: configuration of aiobotocore. Must not know: which calls are made with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession, get_session
from botocore import exceptions as boto
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError

from proxy.errors import BucketRefused, BucketUnavailable, FirstviewError, SettingsError
from proxy.settings import Settings
from proxy.storage import http
from proxy.storage.s3_errors import status_error

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

POOL = 256
_VIRTUAL_HOSTED = (".storage.dev", ".tigris.dev")
"""Tigris wants the bucket's name in the host; every other custom endpoint takes it in the path."""

_CALLED: Final = {"s3", "sts", "sso", "sso-oidc", "portal.sso", "oidc", "signin"}
"""The bucket, and where credentials for it may come from."""

_UNAVAILABLE: tuple[type[Exception], ...] = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ChecksumError,
    boto.FlexibleChecksumError,
    # The service that hands out credentials, not the bucket, is out of reach.
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.TokenRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
    ResponseParserError,
)


_REFUSED = (
    boto.BotoCoreError,
    boto.ClientError,
    boto.MissingServiceIdError,
    boto.UndefinedModelAttributeError,
)


def error_kind(error: type[BaseException]) -> type[FirstviewError] | None:
    """Which of our errors one of botocore's becomes; None if it is not one of botocore's.

    A ClientError's meaning depends on its status and code; see `s3_errors.status_error`.
    """
    if issubclass(error, _UNAVAILABLE):
        return BucketUnavailable
    # Whatever else botocore complains of, someone has to change something.
    return BucketRefused if issubclass(error, _REFUSED) else None


@contextlib.contextmanager
def mapped_errors(doing: str, *, writes: bool = False) -> Iterator[None]:
    """Turn botocore's errors, and aiohttp's that it lets through, into the bucket's."""
    try:
        with http.mapped_errors():
            yield
    except boto.ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        code = error.response.get("Error", {}).get("Code", "")
        # A HEAD has no body; botocore then puts the status where the code would be.
        raise status_error(status, "" if code.isdigit() else code, doing, writes=writes) from error
    except boto.NoCredentialsError as error:
        raise BucketRefused(
            "there are no credentials for the bucket: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        ) from error
    except Exception as error:
        kind = error_kind(type(error))
        if kind is None:
            raise
        raise kind(f"the bucket failed at {doing}: {error}") from error


class _Lean(Loader):
    """botocore's data without the endpoints of 400 services that nobody here calls: 4 MiB."""

    def load_data_with_path(self, name: str) -> tuple[dict[str, Any], str]:
        found: tuple[dict[str, Any], str] = super().load_data_with_path(name)
        if name == "endpoints":
            for partition in found[0]["partitions"]:
                services = partition["services"]
                partition["services"] = {key: services[key] for key in _CALLED & services.keys()}
        return found


class Opened(NamedTuple):
    """A client, the credentials that it signs with, which refresh themselves, and whom it trusts.

    `tls` is what AWS_CA_BUNDLE names, or True for the system's own.
    """

    client: S3Client
    credentials: AioCredentials | None
    tls: ssl.SSLContext | Literal[True]


@contextlib.asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[Opened]:
    """Make the one long-lived client. Endpoint and credentials come as with every AWS tool.

    Raises BucketError, ValueError for an endpoint that is no URL, SettingsError for a file of
    certificates that is none.
    """
    session = get_session()
    with mapped_errors("being opened"):
        # Reads the files in ~/.aws, once and in a thread.
        tls = await asyncio.to_thread(_prepare, session)
        async with _create(session, settings, None) as client:
            host = urlsplit(client.meta.endpoint_url).hostname or ""
            if not host.endswith(_VIRTUAL_HOSTED):
                yield Opened(client, await session.get_credentials(), tls)
                return
        async with _create(session, settings, "virtual") as client:
            yield Opened(client, await session.get_credentials(), tls)


def _prepare(session: AioSession) -> ssl.SSLContext | Literal[True]:
    """Read all that the client and whoever sends beside it need to know; blocks."""
    places = (session.get_config_variable("data_path") or "").split(os.pathsep)
    paths = [str(Path(os.path.expandvars(place)).expanduser()) for place in places if place]
    session.register_component("data_loader", _Lean(extra_search_paths=paths))
    bundle = session.get_config_variable("ca_bundle")
    if not bundle:
        return True
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise SettingsError(f"AWS_CA_BUNDLE: {bundle!r} holds no certificates: {error}") from error


def _create(
    session: AioSession, settings: Settings, addressing: Literal["virtual"] | None
) -> contextlib.AbstractAsyncContextManager[S3Client]:
    config = AioConfig(
        # Custom endpoints otherwise get presigned URLs of version 2.
        signature_version="s3v4",
        # R2 refuses the trailers that botocore sends by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=POOL,
        connect_timeout=settings.bucket_connect_timeout,
        read_timeout=settings.bucket_timeout,
        retries={"mode": "standard", "total_max_attempts": settings.bucket_attempts},
        # botocore reads megabytes of JSON when a client is made: in threads, not on the loop.
        warm_up_loader_caches=True,
        s3=None if addressing is None else {"addressing_style": addressing},
    )
    # Every other tool reads AWS_REGION; botocore knows AWS_DEFAULT_REGION alone.
    region = os.environ.get("AWS_REGION") or None
    return session.create_client("s3", region_name=region, config=config)
