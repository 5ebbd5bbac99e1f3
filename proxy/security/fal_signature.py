"""Whether a webhook was signed by fal, and just now.

Belongs here: the four header fields, the signed message, and the check itself, as fal's
documentation of webhooks describes them. Must not know: where keys come from, HTTP, clips. Pure.

The message is request id, user id, timestamp and the hex SHA-256 of the raw body, a line each,
signed with Ed25519 (RFC 8032) by one of the keys that fal publishes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proxy.errors import BadSignature

_FIELDS: Final = ("Request-Id", "User-Id", "Timestamp", "Signature")
_PREFIX: Final = "X-Fal-Webhook-"
_LONGEST: Final = 512
_VALUE: Final = re.compile(r"[\x20-\x7e]+")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
# In one case throughout, so that no changed bit of a good signature leaves a good signature.
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}|[0-9A-F]{128}")


class UnknownSigner(BadSignature):
    """This webhook is not signed by fal, or not just now."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the fields of a webhook claim; nothing of it is believed yet.

    All are printable ASCII of at most 512 characters, just as they came. `timestamp` is Unix time
    in seconds, `signature` 64 bytes in hex.
    """

    request_id: str
    user_id: str
    timestamp: str
    signature: str

    @classmethod
    def read(cls, fields: Iterable[tuple[str, str]]) -> Self:
        """Take the claims out of a request's header fields; names in any case.

        Raises BadSignature where one of the four is missing, empty, there twice, or cannot be
        what it should be.
        """
        found: dict[str, list[str]] = {(_PREFIX + name).lower(): [] for name in _FIELDS}
        for name, value in fields:
            if (values := found.get(name.lower())) is not None:
                values.append(value)
        claims = cls(*(_only(_PREFIX + name, found[(_PREFIX + name).lower()]) for name in _FIELDS))
        if _TIMESTAMP.fullmatch(claims.timestamp) is None:
            raise BadSignature(f"{_PREFIX}Timestamp must be Unix time in whole seconds")
        if _SIGNATURE.fullmatch(claims.signature) is None:
            raise BadSignature(f"{_PREFIX}Signature must be 64 bytes in hex, 128 digits")
        return claims


def message(claims: Claims, body_sha256: bytes) -> bytes:
    """Return the bytes that are signed; `body_sha256` is the digest of the raw body."""
    lines = (claims.request_id, claims.user_id, claims.timestamp, body_sha256.hex())
    return "\n".join(lines).encode()


def verify(
    keys: Iterable[Ed25519PublicKey],
    claims: Claims,
    body_sha256: bytes,
    now: float,
    tolerance: float,
) -> None:
    """Return if one of `keys` signed these claims and this body, and not long ago.

    `now` is Unix time, `tolerance` seconds to either side of it. Raises BadSignature for another
    time, before any key is tried, and UnknownSigner where no key fits.
    """
    if abs(now - int(claims.timestamp)) > tolerance:
        raise BadSignature(
            f"{_PREFIX}Timestamp is more than {tolerance:g} s away from the time here: the webhook"
            " is old or repeated, or one of the clocks is wrong"
        )
    signature, signed = bytes.fromhex(claims.signature), message(claims, body_sha256)
    for key in keys:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            continue
        return
    raise UnknownSigner("no key that fal publishes has signed this request and this body")


def _only(name: str, values: list[str]) -> str:
    if len(values) != 1 or not values[0]:
        raise BadSignature(f"{name} is {'there more than once' if values[1:] else 'missing'}")
    [value] = values
    if len(value) > _LONGEST or _VALUE.fullmatch(value) is None:
        raise BadSignature(f"{name} is not printable ASCII of at most {_LONGEST} characters")
    return value
