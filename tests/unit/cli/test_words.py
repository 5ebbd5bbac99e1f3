"""Times, spans and sizes as people write and read them."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from proxy.cli.words import duration, moment, printable, read_moment, size, span
from proxy.errors import SettingsError
from proxy.settings import parse_duration
from tools.reference import commands_page

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("24h", NOW - timedelta(hours=24)),
        ("90", NOW - timedelta(seconds=90)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_moment_or_so_long_ago(text: str, meant: datetime) -> None:
    assert read_moment("--since", text, NOW) == meant


def test_what_the_help_names_as_a_time_is_one() -> None:
    rows = re.findall(r"^\| `(--since|--until)` \| (.+) \|$", commands_page(), re.MULTILINE)
    for option, told in rows:
        examples = re.findall(r"\d[\w-]*(?: ago)?", told)
        assert len(examples) == 2
        for example in examples:
            assert read_moment(option, example, NOW)
    assert len(rows) == 3


def test_no_time_is_none() -> None:
    assert read_moment("--since", None, NOW) is None


@pytest.mark.parametrize("text", ["", "yesterday", "24 hours", "2026-13-01", "9999999999999d"])
def test_what_is_no_time_is_refused_by_the_options_name(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^--since: .* is not a time"):
        read_moment("--since", text, NOW)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0s"),
        (0.4, "0s"),
        (59.6, "1m 00s"),
        (190, "3m 10s"),
        (7500, "2h 05m"),
        (90000, "1d 01h"),
    ],
)
def test_a_span_has_two_units_at_most(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_sizes_and_moments_that_nobody_knows_are_empty() -> None:
    assert (size(None), moment(None)) == ("", "")
    assert (size(12_345_678), moment(NOW)) == ("12.3MB", "2026-11-21 12:00")


def test_a_terminal_is_told_no_commands() -> None:
    assert printable("a\x1b[31mb\nc") == "a [31mb c"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (60, "60s"),
        (90, "90s"),
        (600, "10m"),
        (3600, "1h"),
        (86400, "24h"),
        (14 * 86400, "14d"),
        (14 * 86400 + 1, "1209601s"),
    ],
)
def test_a_duration_is_written_as_settings_take_it(seconds: float, written: str) -> None:
    assert duration(seconds) == written
    assert parse_duration(written) == seconds
