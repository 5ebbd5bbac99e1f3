"""The file beside a local clip: whole or absent, and never trusted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.records import ClipFacts
from proxy.storage.facts_file import StoredFacts, read_facts, write_facts

FACTS = ClipFacts(
    request_id="clip",
    length=5_000_000_000,
    etag="0" * 32,
    last_modified=datetime(2026, 10, 21, 7, 28, tzinfo=UTC),
    model="fal-ai/veo3",
    gated=True,
)


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_written_is_read_again(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "clip.json"
    write_facts(path, FACTS, sha256="ab", fal_url="https://x/y", prompt_hash="cd", durable=durable)
    assert read_facts(path) == StoredFacts(
        facts=FACTS, sha256="ab", fal_url="https://x/y", prompt_hash="cd"
    )
    assert [found.name for found in tmp_path.iterdir()] == ["clip.json"]


def test_writing_again_replaces_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "clip.json"
    write_facts(path, FACTS, sha256="ab", fal_url="https://x/y")
    write_facts(path, FACTS)
    assert read_facts(path) == StoredFacts(facts=FACTS)


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert read_facts(tmp_path / "clip.json") is None


GOOD: dict[str, Any] = {
    "request_id": "clip",
    "length": 10,
    "etag": "0" * 32,
    "last_modified": "2026-10-21T07:28:00+00:00",
    "model": None,
    "sha256": None,
    "fal_url": None,
    "prompt_hash": None,
}


WRONG: list[dict[str, Any]] = [
    {"gated": "yes"},
    {"length": "10"},
    {"length": 0},
    {"length": -1},
    {"length": True},
    {"length": 1.5},
    {"request_id": ""},
    {"request_id": 7},
    {"etag": None},
    {"etag": ["x"]},
    {"last_modified": "yesterday"},
    {"last_modified": "2026-10-21T07:28:00"},
    {"last_modified": 1},
    {"model": 5},
    {"sha256": {}},
    {"fal_url": 1},
]
NOT_OURS = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"request_id": "clip"}']


@pytest.mark.parametrize("body", [*NOT_OURS, *(orjson.dumps(GOOD | wrong) for wrong in WRONG)])
def test_a_file_that_is_not_ours_says_nothing(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "clip.json"
    path.write_bytes(body)
    assert read_facts(path) is None
    path.write_bytes(orjson.dumps(GOOD))
    assert read_facts(path) is not None
