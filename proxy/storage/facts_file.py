"""The small JSON file beside a local clip that says whose bytes those are.

Belongs here: writing it so that it is whole or absent, and reading it without trusting it. Must
not know: which folder it lies in, or what is done with the clip.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from proxy.records import BodyHead, ClipFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What it takes to go on with a clip that another process had begun.

    `inode` and `boot` say of which file this is said, and since when; `head` is what the source
    said of the whole clip.
    """

    inode: int
    boot: str
    head: BodyHead


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFacts:
    """Facts of a local clip. The rest only of one that its bucket does not have yet.

    Without `sha256` it is not known to be whole.
    """

    facts: ClipFacts
    sha256: str | None = None
    fal_url: str | None = None
    prompt_hash: str | None = None
    growth: Growth | None = None


def write_facts(
    path: Path,
    facts: ClipFacts,
    *,
    sha256: str | None = None,
    fal_url: str | None = None,
    prompt_hash: str | None = None,
    growth: Growth | None = None,
    durable: bool = False,
) -> None:
    """Replace the file atomically; `durable` waits until the disk has it. Blocks."""
    temporary = path.with_suffix(".json.tmp")
    body = {
        **facts_to(facts),
        "sha256": sha256,
        "fal_url": fal_url,
        "prompt_hash": prompt_hash,
        "growth": None if growth is None else _grown(growth),
    }
    _write(temporary, orjson.dumps(body), durable=durable)
    temporary.replace(path)


def _write(path: Path, data: bytes, *, durable: bool) -> None:
    """By bare system calls: a clip's first byte waits for this, and for each turn of a thread."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        while data:
            data = data[os.write(fd, data) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_facts(path: Path) -> StoredFacts | None:
    """Read the file; None if there is none or it is not one of ours. Blocks."""
    try:
        body = orjson.loads(path.read_bytes())
        return StoredFacts(
            facts=facts_of(body),
            sha256=_text_or_none(body["sha256"]),
            fal_url=_text_or_none(body["fal_url"]),
            prompt_hash=_text_or_none(body.get("prompt_hash")),
            growth=_growth(body.get("growth"), _length(body["length"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _grown(growth: Growth) -> dict[str, Any]:
    head = growth.head
    return {
        "inode": growth.inode,
        "boot": growth.boot,
        "validator": head.validator,
        "last_modified": head.last_modified,
        "md5": None if head.md5 is None else head.md5.hex(),
        "metadata": head.metadata,
    }


def _growth(body: Any, length: int) -> Growth | None:  # noqa: ANN401 - any JSON there is
    if body is None:
        return None
    md5, when, metadata = body["md5"], body["last_modified"], body["metadata"]
    head = BodyHead(
        start=0,
        stop=length,
        total=length,
        validator=_text_or_none(body["validator"]),
        last_modified=None if when is None else _time(when),
        md5=None if md5 is None else bytes.fromhex(_text(md5)),
        metadata=None if metadata is None else {_text(k): _said(v) for k, v in metadata.items()},
    )
    return Growth(inode=_length(body["inode"]), boot=_text(body["boot"]), head=head)


def _said(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def facts_to(facts: ClipFacts) -> dict[str, object]:
    """A clip's facts as they are written down."""
    return {
        "request_id": facts.request_id,
        "length": facts.length,
        "etag": facts.etag,
        "last_modified": facts.last_modified,
        "model": facts.model,
        "gated": facts.gated,
    }


def facts_of(body: Mapping[str, object]) -> ClipFacts:
    """Facts that were written down; raises ValueError, KeyError or TypeError if they are none."""
    return ClipFacts(
        request_id=_text(body["request_id"]),
        length=_length(body["length"]),
        etag=_text(body["etag"]),
        last_modified=_time(body["last_modified"]),
        model=_text_or_none(body["model"]),
        gated=_flag_or_none(body.get("gated")),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _flag_or_none(value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError
    return value


def _length(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise TypeError
    return value


def _time(value: object) -> datetime:
    when = datetime.fromisoformat(_text(value))
    if when.tzinfo is None:
        raise ValueError
    return when
