"""An mp4 that was cut says so itself, however its bytes were framed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.media.boxes import TopBoxes
from tests.fakes.fal import make_clip

FTYP = struct.pack(">I4s", 16, b"ftyp") + b"isom\0\0\2\0"


def end_of(data: bytes, piece: int = 1 << 20) -> int | None:
    boxes = TopBoxes()
    for at in range(0, len(data), piece):
        boxes.feed(data[at : at + piece])
    return boxes.end


@given(
    size=st.integers(40, 5000),
    at_end=st.booleans(),
    piece=st.integers(1, 700),
    cut=st.integers(1, 4999),
)
def test_a_whole_clip_ends_with_its_last_box_and_a_cut_one_does_not(
    size: int, at_end: bool, piece: int, cut: int
) -> None:
    data = make_clip(size, moov_at_end=at_end)
    assert end_of(data, piece) == size
    part = data[: min(cut, size - 1)]
    end = end_of(part, piece)
    assert end is not None
    moov_at = size - min(1024, size - 32)
    whole_boxes = {24, moov_at} if at_end else {24, 24 + min(1024, size - 32)}
    assert end > len(part) or end in whole_boxes or len(part) - end < 16


@pytest.mark.parametrize("piece", [1, 3, 8, 15, 16, 17, 1000])
def test_a_box_of_more_than_4_gib_has_its_size_behind_its_name(piece: int) -> None:
    data = FTYP + struct.pack(">I4sQ", 1, b"mdat", 5 << 30) + bytes(100)
    assert end_of(data, piece) == 16 + (5 << 30)


@pytest.mark.parametrize(
    "after",
    [
        struct.pack(">I4s", 0, b"mdat") + bytes(50),  # to the end of the file
        struct.pack(">I4s", 7, b"free") + bytes(50),  # smaller than its own header
        struct.pack(">I4sQ", 1, b"mdat", 15) + bytes(50),
        struct.pack(">I4s", 1 << 31, b"junk") + bytes(50),
        b"\xff" * 50,
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_what_cannot_be_told_is_not_judged(after: bytes, piece: int) -> None:
    assert end_of(FTYP + after, piece) is None
