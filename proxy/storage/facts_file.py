"""The small JSON file beside a local clip that says whose bytes those are.

Belongs here: writing it so that it is whole or absent, and reading it without trusting it. Must
not know: which folder it lies in, or what is done with the clip.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from proxy.records import ClipFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFacts:
    """Facts of a whole local clip; the rest only of one that its bucket does not have yet."""

    facts: ClipFacts
    sha256: str | None = None
    fal_url: str | None = None
    prompt_hash: str | None = None


def write_facts(
    path: Path,
    facts: ClipFacts,
    *,
    sha256: str | None = None,
    fal_url: str | None = None,
    prompt_hash: str | None = None,
    durable: bool = False,
) -> None:
    """Replace the file atomically; `durable` waits until the disk has it. Blocks."""
    temporary = path.with_suffix(".json.tmp")
    body = {
        "request_id": facts.request_id,
        "length": facts.length,
        "etag": facts.etag,
        "last_modified": facts.last_modified,
        "model": facts.model,
        "sha256": sha256,
        "fal_url": fal_url,
        "prompt_hash": prompt_hash,
    }
    with temporary.open("wb") as file:
        file.write(orjson.dumps(body))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def read_facts(path: Path) -> StoredFacts | None:
    """Read the file; None if there is none or it is not one of ours. Blocks."""
    try:
        body = orjson.loads(path.read_bytes())
        return StoredFacts(
            facts=ClipFacts(
                request_id=_text(body["request_id"]),
                length=_length(body["length"]),
                etag=_text(body["etag"]),
                last_modified=_time(body["last_modified"]),
                model=_text_or_none(body["model"]),
            ),
            sha256=_text_or_none(body["sha256"]),
            fal_url=_text_or_none(body["fal_url"]),
            prompt_hash=_text_or_none(body.get("prompt_hash")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _length(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise TypeError
    return value


def _time(value: object) -> datetime:
    when = datetime.fromisoformat(_text(value))
    if when.tzinfo is None:
        raise ValueError
    return when
