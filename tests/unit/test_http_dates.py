"""Dates as HTTP writes them: what is sent, and what is understood."""

import locale
from datetime import UTC, datetime

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from proxy.http_dates import http_date, lenient_http_date, parse_http_date


def test_dates_do_not_follow_the_locale() -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            moment = datetime(2026, 5, 5, tzinfo=UTC)
            assert http_date(moment) == "Tue, 05 May 2026 00:00:00 GMT"
    finally:
        locale.setlocale(locale.LC_TIME, before)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        http_date(datetime(2026, 5, 5))  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_all_three_formats_of_dates_are_read(text: str) -> None:
    assert parse_http_date(text) == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


@time_machine.travel(datetime(2026, 12, 1, tzinfo=UTC), tick=False)
def test_a_year_of_two_digits_lies_at_most_fifty_years_ahead() -> None:
    assert parse_http_date("Friday, 06-Nov-76 08:49:37 GMT") == datetime(
        2076, 11, 6, 8, 49, 37, tzinfo=UTC
    )
    assert parse_http_date("Sunday, 06-Nov-77 08:49:37 GMT") == datetime(
        1977, 11, 6, 8, 49, 37, tzinfo=UTC
    )


def test_a_leap_second_is_a_date() -> None:
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == datetime(
        2016, 12, 31, 23, 59, 59, tzinfo=UTC
    )


@given(st.integers(-30_000_000_000, 250_000_000_000))
def test_every_date_that_is_sent_is_read_back(second: int) -> None:
    moment = datetime.fromtimestamp(second, UTC)
    assert parse_http_date(http_date(moment)) == moment


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "0", "Wed, 99 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 27:28:00 GMT"],
)
def test_a_broken_date_is_none(value: str) -> None:
    assert lenient_http_date(value) is None


def test_dates_come_as_utc_with_whole_seconds() -> None:
    expected = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
    assert lenient_http_date("Wed, 21 Oct 2026 07:28:00 GMT") == expected
    assert lenient_http_date("Wed, 21 Oct 2026 09:28:00 +0200") == expected
    assert lenient_http_date("Wed, 21 Oct 2026 07:28:00") == expected
