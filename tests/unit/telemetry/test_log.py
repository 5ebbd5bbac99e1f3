"""What an entry of the log becomes: JSON for machines, text for people."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxy.settings import Settings
from proxy.telemetry import log as telemetry


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, **changes)  # type: ignore[call-arg]


class Written:
    """A logger, and the lines that it has written."""

    def __init__(self, form: str, secrets: set[str] | None = None, **always: object) -> None:
        self.lines: list[bytes] = []
        self.log = structlog.wrap_logger(
            telemetry.Output(self.lines.append),
            processors=telemetry.processors(form, secrets or set(), always),
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )

    @property
    def last(self) -> Any:
        return json.loads(self.lines[-1])


def crash() -> None:
    raise ValueError("it broke at https://host/file?secret=1")


def test_an_entry_is_one_line_of_json() -> None:
    written = Written("json", worker=1)
    written.log.info("said", number=1, words="a\nb", nothing=None)
    assert written.lines[0].count(b"\n") == 0
    assert written.last.pop("timestamp").endswith("Z")
    assert written.last | {"timestamp": ""} == {
        "event": "said",
        "level": "info",
        "timestamp": "",
        "worker": 1,
        "number": 1,
        "words": "a\\nb",
        "nothing": None,
    }


def test_a_trace_is_in_the_same_line_and_holds_no_secret() -> None:
    written = Written("json")
    try:
        crash()
    except ValueError:
        written.log.exception("crashed")
    assert len(written.lines) == 1
    assert "in crash\n" in written.last["exception"]
    assert "https://host/file?[hidden]" in written.last["exception"]


def test_people_get_text_of_one_line_and_traces_of_several() -> None:
    written = Written("console")
    written.log.warning("said", path="/videos/\x1b[31m.mp4")
    assert b"said" in written.lines[0]
    assert b"\x1b[31m" not in written.lines[0]
    try:
        crash()
    except ValueError:
        written.log.exception("crashed")
    assert b"in crash\n" in written.lines[1]
    assert b"secret=1" not in written.lines[1]


def test_an_entry_that_brings_its_own_time_keeps_it() -> None:
    written = Written("json")
    written.log.info("said", timestamp="2026-01-01T00:00:00Z")
    assert written.last["timestamp"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("form", "is_terminal", "expected"),
    [
        ("auto", True, "console"),
        ("auto", False, "json"),
        ("json", True, "json"),
        ("console", False, "console"),
    ],
)
def test_terminals_get_text_and_all_else_json(
    monkeypatch: pytest.MonkeyPatch, form: str, is_terminal: bool, expected: str
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    assert telemetry.form_of(settings(log_format=form)) == expected


@pytest.mark.parametrize(
    ("is_terminal", "no_color", "coloured"),
    [(True, "", True), (True, "1", False), (False, "", False)],
)
def test_colours_are_for_terminals_whose_owner_likes_them(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, no_color: str, coloured: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    line: Any = {"event": "serving"}
    for step in telemetry.processors("console", set()):
        line = step(None, "info", line)
    assert (b"\x1b[" in line) is coloured


def test_all_that_the_owner_told_in_confidence_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=collector%20key, just-a-key")
    found = telemetry.secrets_of(
        settings(
            admin_token="admin-token",
            fal_key="key-id:key-secret",
            upstream_token="upstream-token",
            database_url="postgresql://someone:pass%40word@db/firstview",
        )
    )
    expected = {"aws-secret", "admin-token", "key-id:key-secret", "key-secret", "upstream-token"}
    assert expected | {"pass%40word", "pass@word", "collector key", "just-a-key"} <= found
    assert "key-id" not in found  # or the name of a key would be hidden in dates and ids


_SCRIPT = """
import logging, sys
import proxy.web.traced
from proxy.settings import Settings
from proxy.telemetry.log import written_aside
with written_aside(Settings(_env_file=None, log_level="WARNING"), worker=3):
    logging.getLogger("aiohttp").info("too quiet")
    wanted = [name for name in sys.modules if name.startswith("opentelemetry")]
    assert not wanted, "an optional extra is imported by who did not ask for it"
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("aiohttp").exception("a library says %s", "verify=abc")
"""


def test_what_libraries_log_becomes_an_entry_as_well() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        capture_output=True,
        check=True,
        cwd=Path(telemetry.__file__).parents[2],
    )
    [line] = done.stderr.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"]) == ("a library says verify=[hidden]", "error")
    assert (said["logger"], said["worker"]) == ("aiohttp", 3)
    assert "ZeroDivisionError" in said["exception"]
