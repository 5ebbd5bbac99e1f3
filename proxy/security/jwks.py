"""fal's public keys: read from its key set, kept for a while, asked for again when they change.

Belongs here: JSON Web Key Sets (RFC 7517, Ed25519 keys by RFC 8037 §2), and how long keys are
believed. Must not know: how the set is fetched, or what a webhook says.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proxy.clock import Clock
from proxy.errors import FirstviewError, SignersUnknown
from proxy.security import fal_signature
from proxy.security.fal_signature import Claims, UnknownSigner
from proxy.settings import Settings

MOST_KEYS: Final = 64
"""Keys of one set that are used: every forged webhook is tried against all of them."""

# 32 bytes: 43 characters, and one of padding where there is any.
_X: Final = re.compile(r"[A-Za-z0-9_-]{43}=?")

Keys = tuple[Ed25519PublicKey, ...]

log = structlog.get_logger()


class BadKeySet(ValueError):
    """The document is no key set that could be used; the text says why."""


def parse_jwks(document: bytes) -> Keys:
    """Return the Ed25519 keys of a JSON Web Key Set, at most 64; other keys are passed over.

    `x` may be padded or not. Raises BadKeySet if it is no key set, or has no such key.
    """
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise BadKeySet(f"it is not JSON: {error}") from error
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise BadKeySet("it has no array of keys")
    keys = tuple(key for entry in entries if (key := _key(entry)) is not None)[:MOST_KEYS]
    if not keys:
        raise BadKeySet("it has no Ed25519 key")
    return keys


def _key(entry: object) -> Ed25519PublicKey | None:
    if not isinstance(entry, dict) or (entry.get("kty"), entry.get("crv")) != ("OKP", "Ed25519"):
        return None
    x = entry.get("x")
    if not isinstance(x, str) or _X.fullmatch(x) is None:
        return None
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x[:43] + "="))


class Signers:
    """Whoever may sign for fal.

    Keys are asked for when there are none, when they are older than `jwks_max_age`, and when none
    of them fits a signature; never twice within `jwks_refetch_wait`, whoever signs, and never
    twice at once. Keys that cannot be renewed are used further.
    """

    def __init__(
        self, settings: Settings, fetch: Callable[[], Awaitable[bytes]], clock: Clock
    ) -> None:
        """Take how to fetch the key set: it returns the document or raises a FirstviewError."""
        self._fetch = fetch
        self._clock = clock
        self._max_age = settings.jwks_max_age
        self._wait = settings.jwks_refetch_wait
        self._keys: Keys = ()
        self._renewed_at = 0.0
        self._asked_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def verify(
        self, claims: Claims, body_sha256: bytes, *, now: float, tolerance: float
    ) -> None:
        """Return if fal signed this; see `fal_signature.verify`.

        Raises BadSignature, and SignersUnknown while no keys can be had.
        """
        keys = await self._current()
        try:
            fal_signature.verify(keys, claims, body_sha256, now, tolerance)
        except UnknownSigner:
            newer = await self._newer(keys)
            if newer is keys:
                raise
            fal_signature.verify(newer, claims, body_sha256, now, tolerance)

    async def close(self) -> None:
        """Stop a fetch that is still going on."""
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetching

    async def _current(self) -> Keys:
        """The keys, renewed if it is time to."""
        if not self._keys or self._clock.monotonic() - self._renewed_at > self._max_age:
            await self._renew()
        if not self._keys:
            raise SignersUnknown
        return self._keys

    async def _newer(self, keys: Keys) -> Keys:
        """Keys that came after `keys`, or the same ones."""
        if self._keys is keys:
            await self._renew()
        return self._keys

    async def _renew(self) -> None:
        """Ask for the keys, or join whoever asks; return at once if it is too early to ask."""
        now = self._clock.monotonic()
        if self._fetching is None:
            if self._asked_at is not None and now - self._asked_at < self._wait:
                return
            self._asked_at = now
            self._fetching = asyncio.create_task(self._ask(), name="fal's keys")
        # Whoever waits may be a client that hangs up; the others wait on.
        await asyncio.shield(self._fetching)

    async def _ask(self) -> None:
        try:
            keys = parse_jwks(await self._fetch())
        except (FirstviewError, BadKeySet) as error:
            log.warning("fal's keys not renewed", detail=str(error), kept=len(self._keys))
        else:
            self._keys, self._renewed_at = keys, self._clock.monotonic()
            log.info("fal's keys renewed", keys=len(keys))
        finally:
            self._fetching = None
