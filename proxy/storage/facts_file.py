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
        facts = ClipFacts(
            request_id=str(body["request_id"]),
            length=int(body["length"]),
            etag=str(body["etag"]),
            last_modified=datetime.fromisoformat(body["last_modified"]),
            model=body["model"],
        )
        return StoredFacts(
            facts=facts,
            sha256=body["sha256"],
            fal_url=body["fal_url"],
            prompt_hash=body.get("prompt_hash"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
