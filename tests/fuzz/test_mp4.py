"""Whatever the bytes are, describing them ends soon, and raises nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.media.mp4 import MAX_INDEX, MAX_READS, describe
from proxy.records import MediaFacts
from tests.fakes.clips import RealClips
from tests.fixtures.boxes import FTYP, box, mdia, moov, mvhd, tkhd, trak

HAND_MADE = [
    FTYP + moov() + box(b"mdat", bytes(500)),
    FTYP + box(b"mdat", bytes(500), long=True) + moov(mvhd(version=1), trak(tkhd(version=1))),
    FTYP + moov(mvhd(), trak(tkhd(0, 0), mdia(b"soun")), trak(tkhd(0, 0, turn=(0, 1, -1, 0)))),
    FTYP + moov(mvhd(), trak(), box(b"mvex", box(b"mehd", bytes(8)), box(b"trex", bytes(24)))),
]
KINDS = [b"moov", b"mvhd", b"trak", b"tkhd", b"mdia", b"hdlr", b"minf", b"stbl", b"stsd", b"mvex"]
KINDS += [b"mehd", b"mdat", b"free", b"ftyp", b"\xff" * 4]


def checked(data: bytes, length: int | None = None) -> MediaFacts | None:
    """Describe, and count what that takes; `length` may lie."""
    reads: list[int] = []
    length = len(data) if length is None else length

    def read(offset: int, size: int) -> bytes:
        assert 0 <= offset <= length
        assert 0 <= size <= min(MAX_INDEX, length - offset)
        reads.append(size)
        assert len(reads) <= MAX_READS
        return data[offset : offset + size]

    found = describe(read, length)
    if found is not None:
        assert found != MediaFacts()
        assert found.duration is None or 0 < found.duration <= 7 * 24 * 3600
        assert (found.width is None) == (found.height is None)
        for side in (found.width, found.height):
            assert side is None or 0 < side <= 65_536
    return found


@given(st.binary(max_size=2000), st.none() | st.integers(0, 1 << 66))
def test_any_bytes(data: bytes, length: int | None) -> None:
    checked(data, length)


sizes = st.sampled_from([0, 1, 7, 8, 9, 15, 16, 17, 1 << 31, (1 << 32) - 1]) | st.integers(0, 3000)


@given(
    st.lists(
        st.tuples(sizes, st.sampled_from(KINDS), st.binary(max_size=40)), min_size=1, max_size=60
    )
)
def test_boxes_whose_sizes_lie(parts: list[tuple[int, bytes, bytes]]) -> None:
    checked(b"".join(size.to_bytes(4, "big") + kind + more for size, kind, more in parts))
    checked(moov(*(size.to_bytes(4, "big") + kind + more for size, kind, more in parts)))


def nested(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    inside = st.lists(children, max_size=5)
    return st.builds(lambda kind, parts: box(kind, *parts), st.sampled_from(KINDS), inside)


trees = st.recursive(
    st.builds(box, st.sampled_from(KINDS), st.binary(max_size=120)), nested, max_leaves=40
)


@given(st.lists(trees, max_size=6))
def test_boxes_in_any_place(boxes: list[bytes]) -> None:
    checked(FTYP + moov(*boxes))


edits = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=12)


@given(st.sampled_from(HAND_MADE), edits, st.none() | st.integers(0, 1500))
def test_a_good_file_with_some_bytes_changed_or_its_end_lost(
    good: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(good)
    for at, value in changes:
        data[at % len(data)] = value
    checked(bytes(data[:cut]))
    checked(bytes(data[:cut]), len(data))


@given(data=st.data(), moov_at_end=st.booleans())
def test_a_real_file_with_its_index_changed(
    data: st.DataObject, moov_at_end: bool, real_clips: RealClips
) -> None:
    real = bytearray(real_clips.get(1, moov_at_end=moov_at_end).read_bytes())
    assert checked(bytes(real)) is not None
    start = real.index(b"moov") - 4
    index = int.from_bytes(real[start : start + 4], "big")
    for at, value in data.draw(edits):
        real[start + at % index] = value
    checked(bytes(real))


def test_the_files_that_are_mutated_say_something_before() -> None:
    assert all(checked(data) is not None for data in HAND_MADE)
    assert checked(moov(*[box(b"trak", box(b"mdia"))] * 5000)) is None
