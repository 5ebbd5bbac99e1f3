"""The origin lock: requests that did not come through the edge are refused.

Belongs here: which fields say that a request came through it, and whose address to believe then.
Must not know: HTTP beyond fields, which addresses of ours are exempt. Pure.

An edge adds a secret field to what it sends on; whoever finds the origin's own address cannot. The
secret rotates: the origin takes the new one and the old one, then the edge sends the new one.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

FIELD: Final = "X-Firstview-Origin"
CLIENT_FIELD: Final = "CF-Connecting-IP"
"""The visitor's address; anybody may send it, so it says something only behind the lock.

developers.cloudflare.com/fundamentals/reference/http-headers/#cf-connecting-ip
"""

_LONGEST: Final = 64
"""Characters of an address that are repeated."""


class OriginLock:
    """Tells by a secret whether a request came through the edge."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """Take the secrets, any of which opens."""
        self._secrets = tuple(secrets)

    def opens(self, given: bytes) -> bool:
        """Whether this is one of the secrets; all are compared, in the same time."""
        right = False
        for secret in self._secrets:
            right |= hmac.compare_digest(secret, given)
        return right

    def admits(self, given: Sequence[str]) -> bool:
        """Whether the values of `FIELD`, as a request has them, are one right value."""
        value = given[0] if len(given) == 1 else ""
        return self.opens(value.encode("utf-8", "replace"))


def client_address(claimed: Sequence[str], peer: str, *, locked: bool) -> str:
    """Whose request it is: what the edge says, once the lock has shown that it is the edge.

    `claimed` are the values of `CLIENT_FIELD`.
    """
    if not locked or len(claimed) != 1 or not claimed[0].isascii():
        return peer
    return claimed[0][:_LONGEST] if claimed[0].isprintable() and claimed[0] else peer
