"""A fake of fal's queue API and platform API, each at an address of its own on loopback.

Belongs here: what fal answers about requests, and what it should not. Must not know: what the code
under test makes of it.
"""

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from aiohttp import web

FOREVER = float("inf")

Where = Literal["status", "result", "platform"]
State = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One answer that is not about any request."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the answer; `FOREVER` never answers."""
    until: asyncio.Event | None = None
    """Answer only when this is set."""
    hang_up: bool = False
    """Close the connection instead of answering."""
    genuine: bool = False
    """After the delay answer as if there were no fault."""


@dataclass(slots=True, kw_only=True)
class Made:
    """One request that was made of fal. `expired`: the queue API has forgotten it."""

    model: str
    state: State = "COMPLETED"
    output: Any = None
    error: str | None = None
    rejected: int | None = None
    """The result's status in place of 200; `output` is its body."""
    expired: bool = False
    archived: bool = True
    """Whether the platform API has its payloads."""
    age: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that the fake has seen; `target` is path and query as they came."""

    where: Where
    target: str
    host: str
    authorization: str | None


class FakeFalApi:
    """Both APIs; an async context manager."""

    def __init__(self, *, key: str = "id:secret") -> None:
        self.key = key
        self.made: dict[str, Made] = {}
        self.asked: list[Asked] = []
        self.open = 0
        """Requests that are being answered."""
        self.most_open = 0
        self._faults: dict[Where, deque[Fault]] = defaultdict(deque)
        self._always: dict[Where, Fault] = {}
        self._runner: web.AppRunner | None = None
        self.queue_url = ""
        self.api_url = ""

    # -- for tests -------------------------------------------------------------------------

    def add(self, request_id: str, model: str, **made: Any) -> Made:
        """Let fal know of a request."""
        self.made[request_id] = Made(model=model, **made)
        return self.made[request_id]

    def fail(self, where: Where, *faults: Fault) -> None:
        """Answer the next requests so, one each; then as before."""
        self._faults[where].extend(faults)

    def always(self, where: Where, fault: Fault | None) -> None:
        """Answer every request so until told otherwise (None)."""
        self._always.pop(where, None)
        if fault is not None:
            self._always[where] = fault

    def targets(self, where: Where | None = None) -> list[str]:
        """Paths and queries so far, in order."""
        return [asked.target for asked in self.asked if where in {None, asked.where}]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/v1/models/requests/by-endpoint", self._platform)
        app.router.add_get("/{app:.+}/requests/{id}/status", self._status)
        app.router.add_get("/{app:.+}/requests/{id}", self._result)
        # A handler that waits must not hold up the end of a test.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        for _ in range(2):
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        queue, api = (address[1] for address in self._runner.addresses)
        self.queue_url, self.api_url = f"http://127.0.0.1:{queue}", f"http://127.0.0.1:{api}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # -- answering -------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return await self._answer("status", request)

    async def _result(self, request: web.Request) -> web.StreamResponse:
        return await self._answer("result", request)

    async def _platform(self, request: web.Request) -> web.StreamResponse:
        return await self._answer("platform", request)

    async def _answer(self, where: Where, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        self.asked.append(Asked(where, request.raw_path, request.host, authorization))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._genuine_or_not(where, request)
        finally:
            self.open -= 1

    async def _genuine_or_not(self, where: Where, request: web.Request) -> web.StreamResponse:
        queue = self._faults[where]
        fault = queue.popleft() if queue else self._always.get(where)
        if fault is not None:
            if fault.until is not None:
                await fault.until.wait()
            await asyncio.sleep(min(fault.delay, 3600.0))
            if fault.hang_up and request.transport is not None:
                request.transport.abort()
            if not fault.genuine:
                return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        if request.headers.get("Authorization") != f"Key {self.key}":
            return web.json_response({"detail": "Cannot access application"}, status=401)
        if where == "platform":
            return self._search(request)
        made = self.made.get(request.match_info["id"])
        if made is None or made.expired or not self._is_app(made, request.match_info["app"]):
            return web.json_response({"detail": "Request not found"}, status=404)
        return self._of_status(made) if where == "status" else self._of_result(made)

    @staticmethod
    def _is_app(made: Made, app: str) -> bool:
        parts = made.model.split("/")
        return app == "/".join(parts[: 3 if parts[0] in {"workflows", "comfy"} else 2])

    @staticmethod
    def _of_status(made: Made) -> web.Response:
        body: dict[str, Any] = {"status": made.state, "response_url": "http://elsewhere.test/"}
        if made.error is not None:
            body["error"] = made.error
        return web.json_response(body, status=200 if made.state == "COMPLETED" else 202)

    @staticmethod
    def _of_result(made: Made) -> web.Response:
        if made.state != "COMPLETED":
            return web.json_response({"detail": "Request is still in progress"}, status=202)
        return web.json_response(made.output, status=made.rejected or 200)

    def _search(self, request: web.Request) -> web.Response:
        """As the platform API does: by model, not further back than `start`, or else a day."""
        made = self.made.get(request.query.get("request_id", ""))
        now = datetime.now(UTC)
        start = request.query.get("start")
        since = datetime.fromisoformat(start) if start else now - timedelta(days=1)
        items = []
        if (
            made is not None
            and made.model == request.query.get("endpoint_id")
            and since <= now - made.age
        ):
            ended = made.state == "COMPLETED"
            item: dict[str, Any] = {
                "request_id": request.query["request_id"],
                "endpoint_id": made.model,
                "sent_at": (now - made.age).isoformat(),
                "started_at": (now - made.age).isoformat(),
                "ended_at": now.isoformat() if ended else None,
                "status_code": (made.rejected or 200) if ended else None,
            }
            if made.archived and request.query.get("expand") == "payloads":
                item["json_output"] = made.output
            items.append(item)
        return web.json_response({"items": items, "next_cursor": None, "has_more": False})
