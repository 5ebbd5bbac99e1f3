"""How many of fal's webhooks a second one process takes in, and how fast it answers.

Belongs here: what is signed, sent and counted. Must not know: how servers are started.

Every webhook is of a clip of its own and signed in advance. Its answer, 200, means that the
generation and its job are on the disk; that they are is looked up at the end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import postgres
from bench.plan import Options, Setup
from bench.results import Finding, Mark, Outcome
from bench.senders import Answers, send_all
from bench.servers import Alone, alone
from proxy.catalog.engine import open_catalog
from proxy.catalog.jobs import Jobs

NAMES = ("webhooks",)
CONNECTIONS = 32
RATES = {"SQLite": 500.0, "PostgreSQL": 1000.0}
"""Webhooks a second that have to be reached; the answers' time is judged at half of that."""
JWKS = "jwks.json"
_SLOWEST = Mark(50.0, at_least=False)
_EXPECTED = b'{"result":"accepted"}'
_USER = "auth0|bench"


class Signer:
    """fal's side: one key, the document that publishes it, and webhooks signed with it."""

    def __init__(self) -> None:
        """Make a key."""
        self._key = Ed25519PrivateKey.generate()

    def jwks(self) -> bytes:
        """The key set that fal would publish (RFC 8037 §2)."""
        public = self._key.public_key().public_bytes_raw()
        x = base64.urlsafe_b64encode(public).decode().rstrip("=")
        return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).encode()

    def request(self, request_id: str) -> bytes:
        """The request of one clip's webhook, head and body, signed as of now."""
        url = f"http://127.0.0.1:1/files/b/{request_id}/output.mp4"
        video = {"url": url, "content_type": "video/mp4", "file_size": 8_388_608}
        said = {
            "request_id": request_id,
            "gateway_request_id": request_id,
            "status": "OK",
            "error": None,
            "payload": {"video": video, "seed": 42},
        }
        body, now = json.dumps(said).encode(), int(time.time())
        digest = hashlib.sha256(body).hexdigest()
        signature = self._key.sign(f"{request_id}\n{_USER}\n{now}\n{digest}".encode()).hex()
        head = (
            "POST /webhooks/fal HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"X-Fal-Webhook-Request-Id: {request_id}\r\nX-Fal-Webhook-User-Id: {_USER}\r\n"
            f"X-Fal-Webhook-Timestamp: {now}\r\nX-Fal-Webhook-Signature: {signature}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(slots=True)
class _Found:
    """All turns of one database."""

    flat_out: list[Answers] = field(default_factory=list)
    at_half: list[Answers] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    sent: int = 0


def run(_: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """One process on each database. Its PostgreSQL shares the core of the load."""
    signer, origins = Signer(), {}
    where = postgres.programs()
    with contextlib.ExitStack() as stack:
        databases = {"SQLite": ""}
        if where is not None:
            cluster = postgres.cluster(where, setup.cores.upstream)
            databases["PostgreSQL"] = stack.enter_context(cluster)
        for name, database in databases.items():
            place = setup.home / name
            (place / "files").mkdir(parents=True)
            (place / "files" / JWKS).write_bytes(signer.jwks())
            settings = {"FIRSTVIEW_WORKER": "false", "FIRSTVIEW_DATABASE_URL": database}
            origins[name] = stack.enter_context(alone(place, setup.cores, settings))
        yield from _measure(origins, signer, setup.options)
    if where is None:
        print("not measured: PostgreSQL is not installed", file=sys.stderr)


def _measure(origins: dict[str, Alone], signer: Signer, options: Options) -> list[Outcome]:
    """Let each database take its turn, so many rounds; one short unmeasured turn comes first."""
    found = {name: _Found() for name in origins}
    for turn in range(options.rounds + 1):
        for name, origin in origins.items():
            _turn(name, origin, signer, found[name], turn=turn, seconds=options.seconds)
    return [
        outcome
        for name, origin in origins.items()
        for outcome in _outcomes(name, found[name], _missing(origin, found[name].sent))
    ]


def _turn(
    name: str, origin: Alone, signer: Signer, found: _Found, *, turn: int, seconds: int
) -> None:
    """As many as come, then half as many as have to be reached."""
    rate = RATES[name]
    many = int(rate * (seconds if turn else 0.5))
    few = int(rate / 2 * seconds) if turn else 1
    for count, pace in ((many, None), (few, rate / 2)):
        requests = [signer.request(f"hook-{found.sent + number}") for number in range(count)]
        found.sent += count
        cpu = origin.firstview.cpu()
        answers = send_all(
            origin.firstview.port,
            requests,
            connections=CONNECTIONS,
            expected=_EXPECTED,
            rate=pace,
        )
        if turn and pace is None:
            found.flat_out.append(answers)
            found.cpu.append((origin.firstview.cpu() - cpu) / count * 1e6)
        elif turn:
            found.at_half.append(answers)


def _missing(origin: Alone, sent: int) -> int:
    """Webhooks without a row and a job, whatever they were answered."""

    async def count() -> int:
        catalog = await open_catalog(origin.database)
        try:
            return sum((await Jobs(catalog).count()).by_state.values())
        finally:
            await catalog.close()

    return sent - asyncio.run(count())


def _outcomes(name: str, found: _Found, missing: int) -> list[Outcome]:
    wrong = sum(len(one.wrong) for one in (*found.flat_out, *found.at_half)) + missing
    rates = tuple(len(one.times) / one.seconds for one in found.flat_out)
    fast = Outcome(
        f"webhooks-{name.lower()}",
        f"signed webhooks, as many as come, {CONNECTIONS} connections, {name}",
        findings=[
            Finding("webhooks a second", rates, mark=Mark(RATES[name], at_least=True)),
            *_milliseconds(found.flat_out, None),
            Finding("CPU of each", tuple(found.cpu), "us"),
        ],
        failed=wrong,
    )
    fast.notes.append(f"{found.sent} webhooks, {missing} without a job in the catalog")
    slow = Outcome(
        f"webhooks-{name.lower()}-answer",
        f"the same at {RATES[name] / 2:.0f} a second: from when one was due to the answer",
        findings=_milliseconds(found.at_half, _SLOWEST),
        failed=wrong,
    )
    return [fast, slow]


def _milliseconds(turns: list[Answers], mark: Mark | None) -> list[Finding]:
    return [
        Finding("p50", tuple(one.percentile(0.5) * 1e3 for one in turns), "ms"),
        Finding("p99", tuple(one.percentile(0.99) * 1e3 for one in turns), "ms", mark),
        Finding("slowest", tuple(one.times[-1] * 1e3 for one in turns), "ms"),
    ]
