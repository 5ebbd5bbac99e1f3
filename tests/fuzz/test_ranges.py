"""Any Range field against a second implementation, written from the RFC's grammar."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import RangeNotSatisfiable
from proxy.web.ranges import content_range, hint, parse
from tests.fuzz import rfc9110_ranges as rfc

LENGTHS = st.integers(0, 40)
BLANKS = st.text(" \t", max_size=2)
SMALL = st.integers(0, 45).map(str)
# Numbers around the places where arithmetic is left out, and far beyond.
HUGE = st.integers(10**17, 10**21).map(str) | st.integers(0, 99).map(lambda n: f"{n}" + "7" * 300)
NUMBERS = st.one_of(SMALL, SMALL, SMALL, HUGE, SMALL.map(lambda digits: "000" + digits))
INT_RANGES = st.builds(lambda first, last: f"{first}-{last}", NUMBERS, NUMBERS | st.just(""))
SUFFIXES = NUMBERS.map(lambda digits: f"-{digits}")
# The digits of other scripts are no DIGIT, and a long s is no "s".
OTHERS = st.sampled_from(
    ["", "", "-", "--1", "1", "1-2-3", "a-b", "1 - 2", "\u0663-", "-\u0664", "+1-2", "1-2;"]
)
UNITS = st.sampled_from(["bytes"] * 8 + ["Bytes", "BYTES", "items", "bytes ", "", "byte\u017f"])


def elements(*kinds: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    padded = st.builds(lambda a, spec, b: a + spec + b, BLANKS, st.one_of(*kinds), BLANKS)
    return st.lists(padded, max_size=6).map(",".join)


def in_a_row(steps: list[tuple[int, int]]) -> list[str]:
    specs, position = [], 1
    for gap, count in steps:
        first = max(0, position + gap)
        position = first + count
        specs.append(f"{first}-{position - 1}")
    return specs


def fields(ranges: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda unit, text: f"{unit}={text}", UNITS, ranges)


WELL_FORMED = fields(elements(INT_RANGES, SUFFIXES))
NEARLY = fields(elements(INT_RANGES, INT_RANGES, SUFFIXES, OTHERS))
# Short ranges in a row that touch, part or overlap: what several ranges are judged by.
ROWS = st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 3)), min_size=2, max_size=18).map(
    lambda steps: "bytes=" + ",".join(in_a_row(steps))
)
BOUNDS = st.builds(
    lambda ranges, blanks: "bytes=" + "0-0,9-9,5-5,"[: ranges * 4] + "," * blanks,
    st.integers(1, 3),
    st.integers(26, 34),
)
# One wrong element is easily hidden by others: here it stands alone.
ALONE = fields(OTHERS | st.sampled_from(["\v0-1", "0-1\xa0", "0-1\r", "0-1\f", "\u20030-1"]))
JUNK = st.text() | st.text("bytes=0123456789-, \t", max_size=40).map(lambda text: f"bytes={text}")


def ours(field: str, length: int) -> rfc.Answer:
    try:
        found = parse(field, length)
    except RangeNotSatisfiable:
        return "unsatisfiable"
    if found is None:
        return "whole"
    return [list(range(one.start, one.stop)) for one in found]


@settings(max_examples=max(800, settings().max_examples))
@given(WELL_FORMED | NEARLY | ROWS | BOUNDS | ALONE | JUNK, LENGTHS)
@example("bytes=-1-11", 10)
@example("bytes=-0", 10)
@example("bytes=5-2,0-1", 10)
@example("bytes=0-9,5-14,12-20", 40)
@example("bytes=0-1,2-3,4-5", 40)
@example("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 32, 2)), 40)
@example("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 34, 2)), 40)
@example("bytes=0-0,0-0", 1)
@example("bytes=0-1," + "9" * 200 + "-" + "8" * 200, 10)
def test_any_range_field_means_what_the_rfc_says(field: str, length: int) -> None:
    """Peers 19 (pulpcore#3052, #3054, #3055): no field is an internal error or a wrong length."""
    assert ours(field, length) == rfc.answer(field, length)


@given(WELL_FORMED | ROWS | JUNK, LENGTHS)
def test_parts_lie_in_the_clip_are_never_empty_and_never_more_than_the_clip(
    field: str, length: int
) -> None:
    """Peers 27 (nginx#988): several ranges returned more bytes than the file."""
    try:
        found = parse(field, length)
    except RangeNotSatisfiable:
        return
    for one in found or ():
        assert 0 <= one.start < one.stop <= length
        assert content_range(one, length) == f"bytes {one.start}-{one.stop - 1}/{length}"
    assert sum(one.length for one in found or ()) <= length


@given(WELL_FORMED | NEARLY | JUNK, st.integers(1, 10**6))
def test_what_is_asked_for_early_is_what_is_sent_in_the_end(field: str, length: int) -> None:
    early = hint(field)
    try:
        found = parse(field, length)
    except RangeNotSatisfiable:
        return
    if early is None or found is None:
        assert early is None or found is not None
        return
    (one,) = found
    if early.suffix is not None:
        assert (one.start, one.stop) == (max(0, length - early.suffix), length)
    else:
        assert one.start == early.first
        assert one.stop == min(length, length if early.last is None else early.last + 1)
