"""What a report says, to people and to programs."""

from __future__ import annotations

import orjson

from proxy.telemetry.health import Finding, Report, State

WELL = Finding("catalog")
WORSE = Finding("bucket", State.DEGRADED, "away")
WORST = Finding("process", State.FAILING, "draining")


def test_only_what_fails_makes_a_report_bad() -> None:
    found = [Report("ready", parts) for parts in ((WELL,), (WELL, WORSE), (WELL, WORSE, WORST))]
    assert [(one.is_good, one.title) for one in found] == [
        (True, "ready"),
        (True, "ready, degraded"),
        (False, "not ready"),
    ]


def test_all_reasons_are_given_at_once_the_worst_first() -> None:
    report = Report("ready", (WELL, WORSE, WORST))
    assert report.as_text().splitlines() == [
        "not ready",
        "process: failing, draining",
        "bucket: degraded, away",
        "catalog: ok",
    ]
    assert orjson.loads(report.as_json()) == {
        "ok": False,
        "verdict": "not ready",
        "parts": {
            "process": {"state": "failing", "detail": "draining"},
            "bucket": {"state": "degraded", "detail": "away"},
            "catalog": {"state": "ok", "detail": ""},
        },
    }
