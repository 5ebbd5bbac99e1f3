"""deploy/systemd/firstview.service: one machine without containers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.cli import exit_codes
from proxy.settings import Settings, parse_duration
from proxy.supervisor import supervisor
from tests.fixtures.programs import require_program

PATH: Final = Path(__file__).resolve().parents[3] / "deploy" / "systemd" / "firstview.service"
EXPOSED_AT_MOST: Final = 15
"""Tenths, as systemd counts: 100 is a service without any bounds."""


class Repeated(dict[str, Any]):
    """What is said twice is kept twice, as systemd does."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def read() -> dict[str, str]:
    parser = RawConfigParser(strict=False, dict_type=Repeated, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign] # its own way to say so
    parser.read_string(PATH.read_text())
    return dict(parser["Service"])


SERVICE: Final = read()


def seconds(text: str) -> float:
    value = parse_duration(text)
    assert isinstance(value, float)
    return value


Analyze = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def analyze(tmp_path: Path) -> Analyze:
    """systemd-analyze on the unit, with a program that is there in place of the one that is not."""
    program = require_program("systemd-analyze")

    def run(
        *arguments: str, change: tuple[str, str] = ("", "")
    ) -> subprocess.CompletedProcess[str]:
        unit = tmp_path / PATH.name
        text = PATH.read_text().replace("/opt/firstview/bin/firstview", "/bin/true")
        unit.write_text(text.replace(*change) if change[0] else text)
        command = [str(program), *arguments, str(unit)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_every_line(analyze: Analyze) -> None:
    done = analyze("verify", "--man=no")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("systemd-analyze")
def test_systemd_would_find_what_is_misspelt(analyze: Analyze) -> None:
    done = analyze("verify", "--man=no", change=("OOMPolicy=", "OOMPolitics="))
    assert "OOMPolitics" in done.stderr


@pytest.mark.needs("systemd-analyze")
def test_the_service_is_exposed_to_little(analyze: Analyze) -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSED_AT_MOST}")
    assert done.returncode == 0, done.stdout


def test_a_reload_replaces_workers_with_what_the_settings_say_now() -> None:
    assert SERVICE["ExecReload"] == "/bin/kill -HUP $MAINPID"
    # `.env` is read there; nothing that systemd sets may hide it.
    assert SERVICE["WorkingDirectory"] == "/etc/firstview"
    assert SERVICE["EnvironmentFile"] == "-/etc/firstview/aws.env"
    aws = (PATH.parents[1] / "aws.env.example").read_text()
    assert "FIRSTVIEW_" not in aws
    assert SERVICE["Environment"].split("=")[0] == "FIRSTVIEW_DATA_DIR"


def test_it_may_write_where_it_is_told_to_and_nowhere_else() -> None:
    assert SERVICE["ProtectSystem"] == "strict"
    state = f"/var/lib/{SERVICE['StateDirectory']}"
    assert SERVICE["Environment"] == f"FIRSTVIEW_DATA_DIR={state}"
    assert "ReadWritePaths" not in SERVICE


def test_it_comes_back_whatever_happens_but_for_a_mistake_in_the_settings() -> None:
    assert SERVICE["Restart"] == "always"
    assert SERVICE["RestartPreventExitStatus"] == str(exit_codes.WRONG)
    assert "StartLimitIntervalSec=0" in PATH.read_text()


def test_viewers_have_the_time_that_they_are_promised_before_anything_is_killed() -> None:
    fields = Settings.model_fields
    wanted = seconds(fields["drain_delay"].default) + seconds(fields["drain_timeout"].default)
    assert seconds(SERVICE["TimeoutStopSec"]) > wanted + supervisor.MARGIN
    assert SERVICE["KillMode"] == "mixed"


def test_descriptors_are_enough_for_connections_and_clips() -> None:
    fields = Settings.model_fields
    wanted = fields["max_connections"].default + fields["open_files"].default
    assert int(SERVICE["LimitNOFILE"]) >= wanted
