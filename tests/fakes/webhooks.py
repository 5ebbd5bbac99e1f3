"""Whoever signs for fal: keys, the document that publishes them, and signed webhooks.

Belongs here: what fal's side of a webhook looks like over the wire. Must not know: what is done
with it here.
"""

import base64
import hashlib
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes import ed25519
from tests.fakes.fal import Behaviour, FakeFal

JWKS_PATH = "/.well-known/jwks.json"
USER_ID = "auth0|65f2a1b0c3d4e5f6a7b8c9d0"


class Signer:
    """One key of fal's; the same `seed` makes the same key.

    Signs with the plain implementation, or with `fast` by a library, for load.
    """

    def __init__(self, seed: int = 0, *, fast: bool = False) -> None:
        self._secret = hashlib.sha256(f"signer {seed}".encode()).digest()
        self._fast = Ed25519PrivateKey.from_private_bytes(self._secret) if fast else None
        self.public = ed25519.public_key(self._secret)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of a signature."""
        if self._fast is not None:
            return self._fast.sign(message)
        return ed25519.sign(self._secret, message)

    def headers(
        self,
        body: bytes,
        *,
        request_id: str = "req-1",
        user_id: str = USER_ID,
        at: float | None = None,
    ) -> dict[str, str]:
        """Return the four fields that sign `body`; `at` is Unix time, now without one."""
        timestamp = str(int(time.time() if at is None else at))
        digest = hashlib.sha256(body).hexdigest()
        message = f"{request_id}\n{user_id}\n{timestamp}\n{digest}".encode()
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": self.sign(message).hex(),
        }

    def jwk(self, *, padded: bool = False) -> dict[str, str]:
        """Return the key as an entry of a key set (RFC 8037 §2)."""
        x = base64.urlsafe_b64encode(self.public).decode()
        x = x if padded else x.rstrip("=")
        return {"kty": "OKP", "crv": "Ed25519", "kid": self.public.hex()[:8], "x": x}

    def jwks(self, *others: "Signer", padded: bool = False) -> bytes:
        """Return the key set that holds this key and others."""
        keys = [signer.jwk(padded=padded) for signer in (self, *others)]
        return json.dumps({"keys": keys}).encode()


def publish(fal: FakeFal, *signers: Signer, padded: bool = False) -> str:
    """Let the fake serve these keys; return the document's URL. Replaces what it served before."""
    first, *others = signers
    how = Behaviour(content_type="application/json", etag="none", last_modified=None)
    return fal.add(JWKS_PATH, first.jwks(*others, padded=padded), how)


def succeeded(request_id: str, payload: object, **more: Any) -> bytes:
    """Return the body of a webhook for a generation that succeeded."""
    return json.dumps(
        {
            "request_id": request_id,
            "gateway_request_id": request_id,
            "status": "OK",
            "error": None,
            "payload": payload,
            **more,
        }
    ).encode()


def video(url: str, **more: Any) -> dict[str, Any]:
    """Return the output of a model that made one video."""
    return {"video": {"url": url, "content_type": "video/mp4", **more}, "seed": 42}


def failed(request_id: str, error: str | None, payload: object = None, **more: Any) -> bytes:
    """Return the body of a webhook for a generation that failed."""
    return json.dumps(
        {
            "request_id": request_id,
            "gateway_request_id": request_id,
            "status": "ERROR",
            "error": error,
            "payload": payload,
            **more,
        }
    ).encode()
