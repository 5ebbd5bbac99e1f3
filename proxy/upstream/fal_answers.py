"""What fal's API says of a request, understood.

Belongs here: the forms of its answers, and of models' names in its addresses. Must not know: how
it is asked. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.errors import SourceUnavailable

_MODEL: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*){1,7}")
_LONGEST_MODEL: Final = 256
_PREFIXES: Final = frozenset({"workflows", "comfy"})
_UNNAMED: Final = 2
_LONGEST_REASON: Final = 1000
_MOST_DETAILS: Final = 5
_ERRORS: Final = 400


@dataclass(frozen=True, slots=True)
class Pending:
    """fal is still at it."""


@dataclass(frozen=True, slots=True)
class Output:
    """It succeeded: the model's raw output, as JSON has it."""

    value: object


@dataclass(frozen=True, slots=True)
class Failed:
    """It failed, for good."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """fal does not know the request, or has kept nothing of what came of it."""


Answer = Pending | Output | Failed | Unknown


def is_model(text: str) -> bool:
    """Tell whether this can be the name of a model, as `owner/app` or `owner/app/sub/path`."""
    if len(text) > _LONGEST_MODEL or _MODEL.fullmatch(text) is None:
        return False
    parts = text.split("/")
    return parts[0] not in _PREFIXES or len(parts) > _UNNAMED


def app_of(model: str) -> str:
    """Return the part of a model's name that the queue API's addresses have: owner and app.

    `workflows/` and `comfy/` stay before them. Raises ValueError if it is no model's name.
    """
    if not is_model(model):
        msg = f"not a model's name: {model[:_LONGEST_MODEL]!r}"
        raise ValueError(msg)
    parts = model.split("/")
    return "/".join(parts[: 3 if parts[0] in _PREFIXES else 2])


def read_json(body: bytes) -> object:
    """Return what a body says. Raises SourceUnavailable if it is no JSON."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise SourceUnavailable("fal's API answers with something that is no JSON.") from error
    return value


def read_object(body: bytes) -> dict[str, Any]:
    """Return a body's JSON object. Raises SourceUnavailable if it is none."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise SourceUnavailable("fal's API answers with something else than a JSON object.")
    return value


def read_status(body: bytes) -> Pending | Failed | None:
    """Read the queue API's status; None: it is complete, and its result can be asked for.

    Raises SourceUnavailable.
    """
    said = read_object(body)
    if said.get("status") in {"IN_QUEUE", "IN_PROGRESS"}:
        return Pending()
    if said.get("status") != "COMPLETED":
        raise SourceUnavailable("fal's queue API gives a status that it is not known to have.")
    return Failed(reason_of(said["error"])) if said.get("error") else None


def read_list(body: bytes, request_id: str) -> Answer:
    """Read what the platform API found. Raises SourceUnavailable."""
    items = read_object(body).get("items")
    if not isinstance(items, list):
        raise SourceUnavailable("fal's platform API answers with something else than a list.")
    for item in items:
        if isinstance(item, dict) and item.get("request_id") == request_id:
            return _read_item(item)
    return Unknown()


def _read_item(item: dict[str, Any]) -> Answer:
    """Read one entry; its status, its end and its payloads may be missing."""
    status, output = item.get("status_code"), item.get("json_output")
    if isinstance(status, int) and status >= _ERRORS:
        return Failed(reason_of(output) if output else f"The model answered with {status}.")
    if output is not None:
        return Output(output)
    return Unknown() if item.get("ended_at") or status is not None else Pending()


def reason_of(error: object) -> str:
    """Return what fal says of a failure: a text, `detail`, or a list of `{"loc", "msg"}`."""
    if isinstance(error, dict):
        error = error.get("detail") or error.get("error") or error.get("message")
    if isinstance(error, list):
        texts = [_one_reason(each) for each in error[:_MOST_DETAILS]]
        error = "; ".join(text for text in texts if text)
    text = error if isinstance(error, str) else ""
    return text[:_LONGEST_REASON] or "fal says that the generation failed, but not why."


def _one_reason(detail: object) -> str:
    if not isinstance(detail, dict):
        return detail if isinstance(detail, str) else ""
    where, what = detail.get("loc"), detail.get("msg")
    path = ".".join(str(part) for part in where) if isinstance(where, list) else ""
    return ": ".join(part for part in (path, what) if isinstance(part, str) and part)
