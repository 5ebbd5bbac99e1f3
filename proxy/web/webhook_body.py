"""What a webhook's body says: from the bytes that fal signed to a notice.

Belongs here: fal's envelope (`request_id`, `status`, `payload`, `error`, `payload_error`). Must
not know: signatures, HTTP, what becomes of a notice. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from proxy.errors import BadRequest
from proxy.records import REQUEST_ID, Notice
from proxy.upstream.outputs import Check, notice_of, readable

_LONGEST_SHOWN: Final = 60
_LONGEST_MESSAGE: Final = 300
_MOST_MESSAGES: Final = 5


def read(body: bytes, fallback_id: str, check: Check) -> Notice:
    """Turn a webhook's raw body into a notice; `fallback_id` is the id in the header.

    What cannot be understood becomes a failure that says why, under the body's id or else the
    header's. `check` is that of `outputs.notice_of`. Raises BadRequest where neither is a request
    id, because there is nothing to write down then.
    """
    envelope = _envelope(body)
    if isinstance(envelope, str):
        reason = envelope
    else:
        named = envelope.get("request_id")
        if isinstance(named, str) and REQUEST_ID.fullmatch(named):
            return _understand(envelope, named, check)
        what = "has no request_id" if named is None else f"has no request id but {_shown(named)}"
        reason = f"The webhook's body {what}."
    if REQUEST_ID.fullmatch(fallback_id) is None:
        raise BadRequest("neither the webhook's body nor its header has a request id")
    return Notice(request_id=fallback_id, failure=readable(reason))


def _envelope(body: bytes) -> dict[str, Any] | str:
    """Return the JSON object, or why there is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return f"The webhook's body is not JSON: {error}."
    return found if isinstance(found, dict) else "The webhook's body is not a JSON object."


def _understand(envelope: dict[str, Any], request_id: str, check: Check) -> Notice:
    status, payload = envelope.get("status"), envelope.get("payload")
    if status == "OK" and payload is None and envelope.get("payload_error"):
        return Notice(request_id=request_id, resolve=True)
    if status == "OK":
        return notice_of(request_id, payload, check)
    if status == "ERROR":
        return Notice(request_id=request_id, failure=readable(_error(envelope)))
    said = "no status" if status is None else f"the status {_shown(status)}"
    return Notice(request_id=request_id, failure=f"The webhook has {said}, not OK or ERROR.")


# --- what fal says of a failure -----------------------------------------------------------------


def _error(envelope: dict[str, Any]) -> str:
    """Put fal's own words about a failed generation together, the general ones first."""
    payload = envelope.get("payload")
    detail = payload.get("detail") if isinstance(payload, dict) else None
    said: dict[str, None] = {}
    for text in (
        *_messages(envelope.get("error")),
        *_messages(envelope.get("payload_error")),
        *_messages(detail),
    ):
        said[text[:_LONGEST_MESSAGE]] = None
    words = "; ".join(list(said)[:_MOST_MESSAGES])
    return f"fal reports: {words}" if words else "fal reports a failure and does not say which."


def _messages(said: object) -> Iterator[str]:
    """Texts as they are; of objects `msg` or `message`, with the field that it is about."""
    for item in said[:_MOST_MESSAGES] if isinstance(said, list) else [said]:
        if isinstance(item, str) and item.strip():
            yield item.strip()
        elif isinstance(item, dict):
            text = item.get("msg") or item.get("message")
            if isinstance(text, str) and text.strip():
                yield f"{_place(item.get('loc'))}{text.strip()}"


def _place(loc: object) -> str:
    """`["body", "image_url"]`, as validation errors have it, is `body.image_url: `."""
    if not isinstance(loc, list):
        return ""
    parts = [str(part)[:_LONGEST_SHOWN] for part in loc if isinstance(part, str | int)]
    return f"{'.'.join(parts[:_MOST_MESSAGES])}: " if parts else ""


def _shown(value: object) -> str:
    # Only texts and numbers are spelt out: a whole document is no name for anything.
    text = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return readable(text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…")
