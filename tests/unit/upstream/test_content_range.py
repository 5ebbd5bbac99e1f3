"""Range and Content-Range."""

import pytest

from proxy.upstream.content_range import (
    ContentRange,
    expected_range,
    parse_content_range,
    range_field,
)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("bytes 0-0/1", ContentRange(0, 1, 1)),
        ("bytes 5-9/10", ContentRange(5, 10, 10)),
        (" Bytes  5-9/100\t", ContentRange(5, 10, 100)),
    ],
)
def test_a_proper_content_range_is_read(value: str, place: ContentRange) -> None:
    assert parse_content_range(value) == place


@pytest.mark.parametrize(
    "value",
    [
        "", "bytes", "bytes */10", "bytes 0-9/*", "bytes 5-4/10", "bytes 5-10/10", "bytes 10-9/10",
        "bytes -5-9/10", "bytes 0-9/10/11", "bytes=0-9/10", "bytes 0-9", "items 0-9/10",
        "bytes 0 - 9/10", "bytes \u0660-9/10", "bytes 0x0-9/10", "bytes 0-9/99999999999999999999",
        "bytes 0-9/10, bytes 0-9/10", "bytes 0-9/10\n",
    ],
)  # fmt: skip
def test_a_content_range_that_contradicts_itself_is_not_read(value: str) -> None:
    """Names peers 34: an invalid Content-Range from upstream must not crash anything."""
    assert parse_content_range(value) is None


@pytest.mark.parametrize(
    ("start", "stop", "field"),
    [
        (0, None, None),
        (0, 1, "bytes=0-0"),
        (7, None, "bytes=7-"),
        (7, 10, "bytes=7-9"),
        (-500, None, "bytes=-500"),
    ],
)
def test_the_range_field_says_what_is_asked(start: int, stop: int | None, field: str) -> None:
    assert range_field(start, stop) == field


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (5, 4), (-5, 10), (0, -1)])
def test_a_range_without_bytes_cannot_be_asked(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="no range"):
        range_field(start, stop)


def test_what_a_right_answer_holds_is_cut_to_the_clip() -> None:
    assert expected_range(0, None, 10) == (0, 10)
    assert expected_range(3, 5, 10) == (3, 5)
    assert expected_range(3, 50, 10) == (3, 10)
    assert expected_range(-4, None, 10) == (6, 10)
    assert expected_range(-40, None, 10) == (0, 10)
