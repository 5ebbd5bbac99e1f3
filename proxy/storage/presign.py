"""Presigned URLs, by which bytes travel past botocore.

Belongs here: signing them, with botocore's own signers. Must not know: what is sent over them, or
how often.

A read is what a viewer waits for, and most of what botocore does for its URL is finding the same
endpoint and the same scope again. So these are read off the first URL that it signs, and later
reads go to its signer directly, with the credentials of the moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, quote

from aiobotocore.credentials import AioCredentials
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from proxy.storage.bucket import PRESIGNED_FOR
from proxy.storage.s3_client import mapped_errors

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

_READ_FIELDS: Final = {"Range": "Range", "If-Match": "IfMatch"}
_PROBE: Final = "key"
_PLAIN: Final = {
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
}
"""What signature version 4 puts into a URL. What has more is signed in another way.

docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where one bucket's objects are, and for which region and service requests are signed."""

    address: str
    """The address of an object without its key."""
    region: str
    service: str

    @classmethod
    def of(cls, signed: str, key: str) -> Self | None:
        """Read it off a URL that was signed for this key; None if that tells something else."""
        address, _, query = signed.partition("?")
        fields = parse_qs(query)
        said = fields.get("X-Amz-Credential", [""])[0].rsplit("/", 4)
        if not fields.keys() <= _PLAIN or len(said) != 5 or said[4] != "aws4_request":  # noqa: PLR2004
            return None
        if fields.get("X-Amz-Algorithm") != ["AWS4-HMAC-SHA256"] or not address.endswith(f"/{key}"):
            return None
        return cls(address.removesuffix(key), region=said[2], service=said[3])


class Presigner:
    """Signs for one bucket."""

    def __init__(self, client: S3Client, credentials: AioCredentials | None, bucket: str) -> None:
        """Take the client, and the credentials that it signs with."""
        self._client = client
        self._credentials = credentials
        self._bucket = bucket
        self._scope: Scope | None = None
        self._asked = False

    async def read(self, key: str, headers: Mapping[str, str]) -> str:
        """Sign a GET of an object. `headers`, Range and If-Match alone, have to be sent along.

        Raises BucketRefused, and BucketUnavailable where the credentials cannot be had just now.
        """
        if not self._asked:
            self._scope = Scope.of(await self.sign("get_object", {"Key": _PROBE}, {}, {}), _PROBE)
            self._asked = True
        scope, credentials = self._scope, self._credentials
        if scope is None or credentials is None:
            return await self.sign("get_object", {"Key": key}, _READ_FIELDS, headers)
        with mapped_errors("signing"):
            now = await credentials.get_frozen_credentials()
            request = AWSRequest("GET", scope.address + quote(key, safe="/~"), dict(headers))
            S3SigV4QueryAuth(now, scope.service, scope.region, expires=PRESIGNED_FOR).add_auth(
                request
            )
        return str(request.url)

    async def sign(
        self,
        operation: str,
        params: Mapping[str, Any],
        names: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> str:
        """Sign any request; `names` says which parameter makes botocore sign which field.

        Raises as `read` does.
        """
        signed = {names[name]: value for name, value in headers.items()}
        with mapped_errors("signing"):
            return await self._client.generate_presigned_url(
                operation, {"Bucket": self._bucket, **params, **signed}, ExpiresIn=PRESIGNED_FOR
            )
