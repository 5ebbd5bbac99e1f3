"""Who gets a line in the access log, and what plain hits pay for theirs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.web.access import Access, Hit, Reply

OK = Reply("x-1", "GET", "/videos/a.mp4", 0.01, status=200, first=0.002)
REFUSED = Reply("x-2", "GET", "/a", 0.01, status=404, error="not-found", detail="no")
FAILED = Reply("x-3", "GET", "/videos/a.mp4", 0.01, status=503)
CUT_OFF = Reply("x-4", "GET", "/videos/a.mp4", 0.01, status=200, ended="viewer-left")
ASKED = (
    b"GET /videos/clip.mp4?from=mail HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9\r\n"
    b"User-Agent: "
    + b"Player " * 40
    + b"\r\ncf-ray: 8f1-FRA\r\nCF-Connecting-IP: 192.0.2.7\r\n\r\n"
)


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


def hit(over: float = 1.0, ended: str | None = None) -> Hit:
    return Hit(1.0, 1.0005, over, ASKED, "x-5", 206, "disk", 10, "127.0.0.1", ended)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("all", ["x-1", "x-2", "x-3", "x-4"]),
        ("errors", ["x-2", "x-3", "x-4"]),
        ("off", []),
    ],
)
def test_who_gets_a_line_is_a_setting(logs: list[EventDict], kind: str, told: list[str]) -> None:
    access = Access(kind)  # type: ignore[arg-type]
    for reply in (OK, REFUSED, FAILED, CUT_OFF):
        access.note(reply)
    assert [entry["exchange"] for entry in logs] == told
    assert {entry["event"] for entry in logs} <= {"request"}


def test_what_failed_is_a_warning_and_what_was_refused_none(logs: list[EventDict]) -> None:
    for reply in (OK, REFUSED, FAILED):
        Access("all").note(reply)
    assert [entry["log_level"] for entry in logs] == ["info", "info", "warning"]


@pytest.mark.parametrize("kind", ["all", "errors", "off"])
def test_a_crash_is_told_once_whatever_is_set(logs: list[EventDict], kind: str) -> None:
    crash = ValueError("x")
    Access(kind).note(FAILED, crash)  # type: ignore[arg-type]
    [entry] = logs
    assert (entry["event"], entry["exc_info"]) == ("request crashed", crash)


def test_a_line_says_what_is_known_and_nothing_else(logs: list[EventDict]) -> None:
    Access("all").note(OK._replace(agent="a" * 500, path="/" * 500))
    [entry] = logs
    assert set(entry) == {
        *("event", "log_level", "exchange", "method", "path", "status", "ttfb_ms", "ms", "agent"),
    }
    assert (entry["ttfb_ms"], entry["ms"]) == (2.0, 10.0)
    assert len(entry["agent"]) < 130
    assert len(entry["path"]) == 200


def test_a_hits_line_is_made_from_its_request(logs: list[EventDict]) -> None:
    access = Access("all", 10)
    now = time.monotonic()
    access.start()
    access.hit(hit()._replace(came=now, first=now + 0.0005, over=now + 0.001))
    access.close()
    [entry] = logs
    assert abs(time.time() - _seconds(entry.pop("timestamp"))) < 60
    assert entry.pop("agent").startswith("Player Player")
    assert entry == {
        "event": "request",
        "log_level": "info",
        "exchange": "x-5",
        "method": "GET",
        "path": "/videos/clip.mp4",
        "request_id": "clip",
        "status": 206,
        "range": "bytes=0-9",
        "bytes": 10,
        "tier": "disk",
        "cache": "hit",
        "ttfb_ms": 0.5,
        "ms": 1.0,
        "client": "127.0.0.1",
        "ray": "8f1-FRA",
    }


def _seconds(written: str) -> float:
    from datetime import datetime  # noqa: PLC0415 - here alone

    return datetime.fromisoformat(written).timestamp()


def test_the_client_is_whom_the_edge_names_only_behind_one(logs: list[EventDict]) -> None:
    for behind_edge in (False, True):
        access = Access("all", 10, behind_edge=behind_edge)
        access.start()
        access.hit(hit())
        access.close()
    assert [entry["client"] for entry in logs] == ["127.0.0.1", "192.0.2.7"]


def test_hits_beyond_the_limit_of_a_second_are_counted(logs: list[EventDict]) -> None:
    access = Access("all", 3)
    access.start()
    for moment in (10.0, 10.1, 10.2, 10.3, 10.9, 11.1, 11.2):
        if access.takes(moment):
            access.hit(hit(moment))
    access.close()
    assert [entry["event"] for entry in logs] == ["request"] * 5 + ["hits without a line"]
    assert logs[-1]["count"] == 2


def test_a_hit_that_was_cut_off_says_how(logs: list[EventDict]) -> None:
    access = Access("errors", 10)
    assert not access.tells_hits
    assert access.tells_breaks
    access.start()
    access.hit(hit(ended="viewer-stalled"))
    access.close()
    assert [entry["ended"] for entry in logs] == ["viewer-stalled"]


def test_hits_are_told_soon_and_none_stays_behind(logs: list[EventDict]) -> None:
    access = Access("all", 1_000_000)
    access.start()
    for burst in range(1, 4):
        for _ in range(500):
            access.hit(hit())
        end = time.monotonic() + 10
        while len(logs) < burst * 500:
            assert time.monotonic() < end
            time.sleep(0.01)
    access.close()
    assert len(logs) == 1500


def test_where_nothing_is_told_there_is_no_thread() -> None:
    access = Access("off", 10)
    access.start()
    assert access._thread is None
    access.close()
