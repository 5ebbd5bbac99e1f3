"""`firstview doctor`: all checks at once, and the report.

Belongs here: which checks there are. Must not know: what any of them tries.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import uvloop

from proxy import settings as settings_module
from proxy.cli.doctor.data_dir import DataDirCheck
from proxy.cli.doctor.database import DatabaseCheck
from proxy.cli.doctor.directory import DirectoryCheck
from proxy.cli.doctor.display import Display
from proxy.cli.doctor.fal import FalCheck
from proxy.cli.doctor.finding import Finding, Mark
from proxy.cli.doctor.machine import MachineCheck, workers_of
from proxy.cli.doctor.public import PublicCheck
from proxy.cli.doctor.report import as_dict, exit_code, print_list
from proxy.cli.doctor.running import Check, run_checks
from proxy.cli.doctor.settings import SettingsCheck
from proxy.cli.exit_codes import WRONG
from proxy.cli.running import log_no_less_than
from proxy.clock import Clock
from proxy.errors import SettingsError
from proxy.mistakes import read_file
from proxy.settings import Settings
from proxy.storage import keys

# ruff: noqa: PLC0415 - botocore costs a process 8 MiB and every start a third of a second


def run(*, url: str | None, as_json: bool) -> int:
    """Run every check and print what was found; returns the exit code.

    Raises SettingsError for a --url that is none.
    """
    if url is not None and urlsplit(url).scheme not in {"http", "https"}:
        raise SettingsError("firstview doctor: --url must start with http:// or https://")
    started = time.monotonic()
    reading = settings_module.read()
    findings = [_mistake(line) for line in reading.mistakes]
    if reading.settings is not None:
        log_no_less_than("critical", reading.settings)
        findings += examine(checks_of(reading.settings, Clock(), url))
    seconds = time.monotonic() - started
    if as_json:
        body = as_dict(findings, seconds)
        print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
    else:
        print_list(findings, seconds)
    sys.stdout.flush()
    return exit_code(findings) if reading.settings is not None else WRONG


def checks_of(settings: Settings, clock: Clock, url: str | None = None) -> list[Check]:
    """Every check that these settings call for, in the order of the report."""
    in_file = read_file(Path(str(settings.model_config.get("env_file")))).values
    workers = workers_of(settings)
    return [
        SettingsCheck(settings, in_file, os.environ),
        DataDirCheck(settings),
        MachineCheck(settings),
        _bucket_check(settings, clock),
        DatabaseCheck(settings, workers, clock),
        FalCheck(settings, clock),
        PublicCheck(settings, clock, url),
    ]


def examine(checks: Sequence[Check]) -> list[Finding]:
    """Run them, with a display where a person watches."""
    with (
        Display([check.area for check in checks]) as display,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(run_checks(checks, told=display.told))


def _bucket_check(settings: Settings, clock: Clock) -> Check:
    url = keys.bucket_url(settings.bucket_url, settings.data_dir)
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from proxy.cli.doctor.s3 import S3Check

        return S3Check(settings, parts.netloc, clock)
    return DirectoryCheck(settings, url)


def _mistake(line: str) -> Finding:
    """A line of `proxy.mistakes`: a name, what is wrong with it, how to mend it."""
    name, _, rest = line.partition(": ")
    if not rest:
        name, _, rest = line.partition(" ")
    return Finding(area="settings", check=name, mark=Mark.FAILS, seen=rest, advice="")
