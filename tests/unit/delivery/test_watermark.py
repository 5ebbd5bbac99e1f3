"""How far a growing clip may be read, and what ends it."""

from __future__ import annotations

import pytest

from proxy.delivery.watermark import Watermark
from proxy.errors import CorruptClip, DiskExhausted, FirstviewError, SourceUnavailable


def grown(length: int | None, written: int) -> Watermark:
    mark = Watermark()
    if length is not None:
        mark.announce(length)
    mark.advance(written)
    return mark


def test_nothing_is_readable_before_the_length_is_known() -> None:
    assert grown(None, 10).readable == 0


def test_the_last_byte_is_withheld_until_the_clip_is_verified() -> None:
    mark = grown(10, 10)
    assert (mark.readable, mark.ended) == (9, False)
    mark.verify()
    assert (mark.readable, mark.ended) == (10, True)


def test_a_clip_of_one_byte_is_withheld_too() -> None:
    mark = grown(1, 1)
    assert mark.readable == 0
    mark.verify()
    assert mark.readable == 1


@pytest.mark.parametrize("error", [SourceUnavailable(), DiskExhausted()])
def test_a_failure_takes_nothing_back(error: FirstviewError) -> None:
    mark = grown(10, 6)
    mark.fail(error)
    assert (mark.readable, mark.ended, mark.failure) == (6, True, error)


def test_wrong_bytes_are_taken_back() -> None:
    mark = grown(10, 10)
    mark.fail(CorruptClip())
    assert mark.readable == 0


def test_the_first_failure_counts_and_none_after_verification() -> None:
    mark, first = grown(10, 6), SourceUnavailable()
    mark.fail(first)
    mark.fail(CorruptClip())
    assert mark.failure is first
    whole = grown(10, 10)
    whole.verify()
    whole.fail(CorruptClip())
    assert whole.failure is None
    assert whole.readable == 10


def test_less_than_the_whole_is_never_verified() -> None:
    for mark in (grown(10, 9), grown(None, 10), Watermark()):
        with pytest.raises(CorruptClip):
            mark.verify()
        assert not mark.verified
    failed = grown(10, 10)
    failed.fail(SourceUnavailable())
    with pytest.raises(CorruptClip):
        failed.verify()


def test_more_than_announced_is_refused() -> None:
    mark = grown(10, 8)
    with pytest.raises(CorruptClip):
        mark.advance(3)
    assert mark.written == 8
    with pytest.raises(CorruptClip):
        grown(None, 10).announce(9)


def test_a_length_is_announced_once_and_is_never_nothing() -> None:
    mark = grown(10, 0)
    mark.announce(10)
    with pytest.raises(CorruptClip):
        mark.announce(11)
    for length in (0, -1):
        with pytest.raises(CorruptClip):
            Watermark().announce(length)


def test_bytes_after_the_end_are_refused() -> None:
    mark = grown(10, 10)
    mark.verify()
    with pytest.raises(CorruptClip):
        mark.advance(0)
