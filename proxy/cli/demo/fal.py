"""A small stand-in for fal itself: its keys, its webhooks, and the API that knows of every result.

Belongs here: what fal says of a generation, signed as fal signs. Must not know: who asked for it,
what a clip's bytes are, or what becomes of a webhook. Its counterpart that misbehaves is for tests
only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import time
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.cli.demo.clips import DemoClip

KEY: Final = "demo"
"""The key that its API takes."""
JWKS_PATH: Final = "/.well-known/jwks.json"
QUEUE_PATH: Final = "/queue"

_USER: Final = "demo-user"
_TRIES: Final = 5
_TRY_AFTER: Final = 1.0
_TIMEOUT: Final = 15.0
"""Seconds for which fal waits for an answer, too."""


class DemoFal:
    """Generations by request id: those that are under way, and those that are finished."""

    def __init__(self, *, address: str, webhook_url: str) -> None:
        """Take its own address, where the clips are too, and where webhooks go."""
        self._address = address
        self._webhook_url = webhook_url
        self._key = Ed25519PrivateKey.generate()
        self._finished: dict[str, DemoClip | None] = {}

    def url_of(self, clip: DemoClip) -> str:
        """Where a clip lies."""
        return self._address + clip.fal_path

    def add_routes(self, app: web.Application) -> None:
        """Answer for the keys and the queue API."""
        app.router.add_get(JWKS_PATH, self._keys)
        app.router.add_get(QUEUE_PATH + "/{app:.+}/requests/{id}/status", self._status)
        app.router.add_get(QUEUE_PATH + "/{app:.+}/requests/{id}", self._result)

    def begin(self, clip: DemoClip) -> None:
        """A generation is under way."""
        self._finished[clip.request_id] = None

    def finish(self, clip: DemoClip) -> None:
        """A generation is finished."""
        self._finished[clip.request_id] = clip

    # -- webhooks ---

    async def report(self, clip: DemoClip) -> bool:
        """Post the webhook of a finished generation, again until it is taken; False if never."""
        body = orjson.dumps(
            {
                "request_id": clip.request_id,
                "gateway_request_id": clip.request_id,
                "status": "OK",
                "error": None,
                "payload": self._output(clip),
            }
        )
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as client:
            for attempt in range(_TRIES):
                await asyncio.sleep(_TRY_AFTER * attempt)
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    headers = self._signed(clip.request_id, body)
                    async with client.post(
                        self._webhook_url, data=body, headers=headers
                    ) as response:
                        if response.ok:
                            return True
        return False

    def _output(self, clip: DemoClip) -> dict[str, Any]:
        return {
            "video": {
                "url": self.url_of(clip),
                "content_type": "video/mp4",
                "file_name": "output.mp4",
                "file_size": len(clip.data),
            },
            "seed": 42,
        }

    def _signed(self, request_id: str, body: bytes) -> dict[str, str]:
        """The four fields: the signature is over request, user, time and the body's SHA-256."""
        timestamp = str(int(time.time()))
        lines = (request_id, _USER, timestamp, hashlib.sha256(body).hexdigest())
        return {
            "Content-Type": "application/json",
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": _USER,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": self._key.sign("\n".join(lines).encode()).hex(),
        }

    async def _keys(self, _request: web.Request) -> web.Response:
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64.urlsafe_b64encode(public).decode().rstrip("=")
        return web.json_response({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]})

    # -- the queue API ---

    async def _status(self, request: web.Request) -> web.Response:
        if self._asked_for(request) is None:
            return web.json_response({"status": "IN_PROGRESS"}, status=202)
        return web.json_response({"status": "COMPLETED"})

    async def _result(self, request: web.Request) -> web.Response:
        clip = self._asked_for(request)
        if clip is None:
            return web.json_response({"detail": "Request is still in progress"}, status=202)
        return web.json_response(self._output(clip))

    def _asked_for(self, request: web.Request) -> DemoClip | None:
        """The clip that is asked for, None while it is being made."""
        if request.headers.get("Authorization") != f"Key {KEY}":
            raise web.HTTPUnauthorized
        request_id = request.match_info["id"]
        if request_id not in self._finished:
            raise web.HTTPNotFound
        return self._finished[request_id]
