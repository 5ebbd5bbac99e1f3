"""What a viewer is told when something went wrong (RFC 9457).

Belongs here: from an error to a problem document. Must not know: how errors come about. Says
nothing of the inside: no address, no URL of a source, no trace.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from proxy.errors import ClipError, FirstviewError, Overloaded, RequestError
from proxy.web.headers import cors_fields

_TYPE = "urn:firstview:problem:"
# Their details are written for the viewer; all others' may quote addresses and foreign errors.
_SPEAKING = (RequestError, ClipError, Overloaded)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error reply: status, all fields but the per-reply ones, and a JSON body."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes


def render(
    error: BaseException,
    *,
    request_id: str,
    instance: str | None = None,
    cors_origin: str = "*",
    is_private: bool = False,
) -> Problem:
    """Turn an error into the reply that a viewer gets.

    `request_id` is what the viewer may quote to the owner; `instance` the path that was asked
    for, without its query; what `is_private` nobody may keep. What is not a FirstviewError becomes
    a bare 500.
    """
    known = error if isinstance(error, FirstviewError) else FirstviewError()
    members: dict[str, str | int] = {
        "type": f"{_TYPE}{known.slug}",
        "title": known.title,
        "status": known.status,
        "detail": _detail(known),
        "request_id": request_id,
    }
    if instance is not None:
        members["instance"] = instance
    # Escapes all that is not ASCII: half a character in a path must not become a second error.
    body = json.dumps(members, ensure_ascii=True).encode("ascii") + b"\n"
    return Problem(
        status=known.status,
        fields=[
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store" if is_private else known.cache_control),
            *known.headers().items(),
            *cors_fields(cors_origin),
            ("X-Content-Type-Options", "nosniff"),
        ],
        body=body,
    )


def _detail(error: FirstviewError) -> str:
    """Return the error's own sentence where it is fit to be read by anyone, else its class's."""
    if not isinstance(error, _SPEAKING) or "://" in error.detail or "\n" in error.detail:
        return error.title
    return error.detail
