"""A reply with several ranges, byte for byte."""

from email.parser import BytesParser
from email.policy import HTTP

from hypothesis import given
from hypothesis import strategies as st

from proxy.web.multipart import Multipart, compose
from proxy.web.ranges import ByteRange


def body_of(multipart: Multipart, clip: bytes) -> bytes:
    return b"".join(
        clip[segment.start : segment.stop] if isinstance(segment, ByteRange) else segment
        for segment in multipart.segments
    )


def test_the_body_reads_as_the_rfc_shows_it() -> None:
    ranges = (ByteRange(1, 3), ByteRange(5, 10))
    multipart = compose(ranges, length=10, content_type="video/mp4", boundary="THIS")
    assert multipart.content_type == "multipart/byteranges; boundary=THIS"
    assert body_of(multipart, b"0123456789") == (
        b"--THIS\r\nContent-Type: video/mp4\r\nContent-Range: bytes 1-2/10\r\n\r\n12"
        b"\r\n--THIS\r\nContent-Type: video/mp4\r\nContent-Range: bytes 5-9/10\r\n\r\n56789"
        b"\r\n--THIS--\r\n"
    )


CLIPS = st.binary(min_size=1, max_size=200)


@given(CLIPS, st.data())
def test_any_parts_are_read_back_by_another_parser(clip: bytes, data: st.DataObject) -> None:
    """Peers 27 (nginx#988): the length announced is the length sent, whatever the ranges."""
    bounds = st.tuples(st.integers(0, len(clip)), st.integers(0, len(clip)))
    pairs = st.lists(bounds.filter(lambda pair: pair[0] < pair[1]), min_size=1, max_size=16)
    ranges = [ByteRange(start, stop) for start, stop in data.draw(pairs)]
    multipart = compose(ranges, length=len(clip), content_type="video/mp4")
    body = body_of(multipart, clip)
    assert len(body) == multipart.content_length

    boundary = multipart.content_type.partition("boundary=")[2].encode()
    preamble, *parts, epilogue = (b"\r\n" + body).split(b"\r\n--" + boundary)
    assert (preamble, epilogue) == (b"", b"--\r\n")
    assert len(parts) == len(ranges)
    for found, part in zip(ranges, parts, strict=True):
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = BytesParser(policy=HTTP).parsebytes(head + b"\r\n\r\n", headersonly=True)
        assert fields["Content-Type"] == "video/mp4"
        assert fields["Content-Range"] == f"bytes {found.start}-{found.stop - 1}/{len(clip)}"
        assert content == clip[found.start : found.stop]


def test_no_two_replies_share_a_boundary_that_a_clip_could_be_made_to_hold() -> None:
    ranges = (ByteRange(0, 1), ByteRange(2, 3))
    one, other = (compose(ranges, length=9, content_type="video/mp4") for _ in range(2))
    assert one.content_type != other.content_type
    assert one.content_length == other.content_length
