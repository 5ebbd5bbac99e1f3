"""What a Range field means, one sentence of the RFC at a time."""

import pytest

from proxy.errors import RangeNotSatisfiable
from proxy.web.ranges import ByteRange, RangeHint, content_range, hint, parse

LENGTH = 1000


def spans(header: str | None, length: int = LENGTH) -> list[tuple[int, int]] | None:
    found = parse(header, length)
    return None if found is None else [(one.start, one.stop) for one in found]


def test_without_a_range_the_whole_clip_is_sent() -> None:
    assert spans(None) is None


def test_one_range_gives_one_part() -> None:
    assert spans("bytes=0-0") == [(0, 1)]
    assert spans("bytes=100-199") == [(100, 200)]


def test_an_open_end_reaches_the_last_byte() -> None:
    """Peers 33 (varnish#1758): an open-ended range was truncated."""
    assert spans("bytes=0-") == [(0, 1000)]
    assert spans("bytes=999-") == [(999, 1000)]
    assert spans("bytes=5-", 3 * 2**40) == [(5, 3 * 2**40)]


@pytest.mark.parametrize("boundary", [2**20, 16 * 2**20, 2**31, 2**32])
def test_a_range_across_any_round_number_stays_one_part(boundary: int) -> None:
    """Peers 26 (nginx#1065): a range across a slice's boundary returned one slice."""
    start, stop = boundary - 10, boundary + 10
    assert spans(f"bytes={start}-{stop - 1}", 2**33) == [(start, stop)]


def test_an_end_past_the_end_is_clipped() -> None:
    """Peers 19 (pulpcore#3055): an end past the end gave a wrong length."""
    found = parse("bytes=990-5000", LENGTH)
    assert found == (ByteRange(990, 1000),)
    assert found[0].length == 10
    assert content_range(found[0], LENGTH) == "bytes 990-999/1000"


def test_a_suffix_is_the_end_of_the_clip() -> None:
    assert spans("bytes=-1") == [(999, 1000)]
    assert spans("bytes=-300") == [(700, 1000)]


@pytest.mark.parametrize("suffix", ["1000", "1001", "9" * 5000])
def test_a_suffix_longer_than_the_clip_is_the_whole_clip(suffix: str) -> None:
    assert spans(f"bytes=-{suffix}") == [(0, 1000)]


@pytest.mark.parametrize(
    "header",
    [
        "bytes=1000-",
        "bytes=1000-2000",
        "bytes=-0",
        "bytes=-000",
        "bytes=5-4",
        "bytes=0-1,5-4",
        "bytes=1000-,2000-,-0",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_a_range_without_a_byte_in_the_clip_is_not_satisfiable(header: str) -> None:
    """Peers 19 (pulpcore#3054): a start past the end was streamed."""
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse(header, LENGTH)
    assert caught.value.headers() == {"Content-Range": "bytes */1000"}


@pytest.mark.parametrize(
    "header",
    [
        "bytes=-1-11",
        "bytes=--1",
        "bytes=-",
        "bytes=",
        "bytes=,",
        "bytes",
        "",
        "=0-1",
        "bytes 0-1",
        "bytes =0-1",
        "bytes=0",
        "bytes=a-b",
        "bytes=0x1-2",
        "bytes=1 - 2",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=0-1;2-3",
        "bytes=0-1,x",
        "bytes=0-1,bytes=2-3",
        "bytes=\u0660-\u0669",
        "bytes=\u00b2-",
        "bytes=\u0661-",
        "bytes=-\u0661",
        "byte\u017f=0-1",
        "bytes=0-1\n",
        "items=0-1",
        "seconds=1-2",
        "bytes=0\x00-1",
    ],
)
def test_what_is_no_set_of_byte_ranges_is_ignored(header: str) -> None:
    """Peers 19 (pulpcore#3052): `bytes=-1-11` was answered with a 500."""
    assert spans(header) is None
    assert hint(header) is None


def test_the_unit_is_case_insensitive() -> None:
    assert spans("Bytes=0-1") == spans("BYTES=0-1") == [(0, 2)]


def test_leading_zeros_change_nothing() -> None:
    assert spans("bytes=0000-" + "0" * 5000 + "9") == [(0, 10)]
    assert spans("bytes=010-0020") == [(10, 21)]


def test_blanks_and_empty_elements_of_the_list_are_let_through() -> None:
    assert spans("bytes=, 0-1 ,\t,5-6\t,") == [(0, 2), (5, 7)]
    assert spans("bytes=0-1" + "," * 31) == [(0, 2)]


def test_thousands_of_empty_elements_are_not() -> None:
    assert spans("bytes=0-1" + "," * 32) is None
    assert spans("bytes=0-1" + "," * 16000) is None


def test_numbers_of_thousands_of_digits_are_understood() -> None:
    most = "9" * 16000
    assert spans(f"bytes=1-{most}") == [(1, 1000)]
    with pytest.raises(RangeNotSatisfiable):
        parse(f"bytes={most}-{most}", LENGTH)
    assert spans(f"bytes=0-1,{most}-{most}") == [(0, 2)]


def test_several_ranges_come_in_the_order_asked_for() -> None:
    assert spans("bytes=500-599,0-99,-10") == [(500, 600), (0, 100), (990, 1000)]


def test_of_several_ranges_those_past_the_end_are_left_out() -> None:
    assert spans("bytes=2000-,0-9,-0,20-29") == [(0, 10), (20, 30)]
    assert spans("bytes=2000-,0-9") == [(0, 10)]


def test_more_ranges_than_allowed_get_the_whole_clip() -> None:
    sixteen = ",".join(f"{n}-{n}" for n in range(0, 32, 2))
    assert len(spans(f"bytes={sixteen}") or ()) == 16
    assert spans(f"bytes={sixteen},40-40") is None
    assert parse("bytes=0-0,2-2,4-4", LENGTH, max_ranges=2) is None


def test_ranges_of_more_bytes_than_the_clip_get_the_whole_clip() -> None:
    """Peers 27 (nginx#988): several ranges returned more bytes than the file."""
    assert spans("bytes=0-,0-") is None
    assert spans("bytes=0-599,500-999") is None
    assert spans("bytes=0-500,500-999") is None
    assert spans("bytes=0-499,500-999") == [(0, 500), (500, 1000)]
    assert spans("bytes=0-299,300-599,600-899") == [(0, 300), (300, 600), (600, 900)]


def test_two_overlapping_ranges_are_served_and_three_are_not() -> None:
    assert spans("bytes=0-9,5-14") == [(0, 10), (5, 15)]
    assert spans("bytes=0-9,5-14,12-20") is None
    assert spans("bytes=0-9,5-14,100-199") == [(0, 10), (5, 15), (100, 200)]
    assert spans("bytes=0-9,10-19,20-29") == [(0, 10), (10, 20), (20, 30)]


def test_an_empty_clip_satisfies_no_range() -> None:
    for header in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        with pytest.raises(RangeNotSatisfiable):
            parse(header, 0)


def test_before_the_length_is_known_one_range_can_be_asked_for() -> None:
    assert hint("bytes=100-199") == RangeHint(first=100, last=199)
    assert hint("bytes=100-") == RangeHint(first=100)
    assert hint("bytes=-65536") == RangeHint(suffix=65536)
    assert hint("bytes=0-0") == RangeHint(first=0, last=0)


def test_before_the_length_is_known_nothing_else_is_asked_for() -> None:
    for header in (None, "bytes=0-1,5-6", "bytes=5-4", "bytes=-0", "bytes=x", "items=0-1"):
        assert hint(header) is None


def test_no_absurd_number_is_asked_of_a_source() -> None:
    most = "9" * 5000
    assert hint(f"bytes={most}-") is None
    assert hint(f"bytes=-{most}") is None
    assert hint(f"bytes=7-{most}") == RangeHint(first=7)
