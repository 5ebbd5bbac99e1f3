"""What the demo says on the terminal of what happened."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import structlog
from rich.text import Text

from proxy.cli.demo.clips import CLIPS
from proxy.cli.demo.story import Story

PLAYER = {"method": "GET", "client": "127.0.0.1", "agent": "Mozilla/5.0", "tier": "upstream"}


def told(entry: dict[str, Any]) -> str:
    lines: list[Text] = []
    story = Story(CLIPS, speed="1 MiB/s", tell=lines.append)
    with contextlib.suppress(structlog.DropEvent):
        story(None, "info", {"event": "request", "level": "info", **PLAYER, **entry})
    [line] = lines
    return line.plain.strip()


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            {
                "path": f"/videos/{CLIPS[1].request_id}.mp4",
                "request_id": CLIPS[1].request_id,
                "status": 206,
                "bytes": 41942,
                "ended": "viewer-left",
            },
            "the player has enough of ink for now · 41.9 kB sent",
        ),
        ({"path": "/nothing", "status": 404, "error": "not-found"}, "GET /nothing · 404 not-found"),
        ({"path": "/videos/x.mp4", "ended": "viewer-left"}, "GET /videos/x.mp4 · viewer-left"),
    ],
)
def test_a_request_that_was_cut_off_or_refused_is_told_in_a_few_words(
    entry: dict[str, Any], line: str
) -> None:
    assert told(entry) == line
