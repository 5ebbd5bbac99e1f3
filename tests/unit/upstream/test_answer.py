"""What a source's head means."""

import base64
from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict

from proxy.errors import (
    FirstviewError,
    NotAClip,
    SourceBusy,
    SourceChanged,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from proxy.records import BodyHead
from proxy.upstream.answer import Asked, read_head, retry_after
from proxy.upstream.digests import md5_of

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
MD5 = bytes(range(16))
MD5_TEXT = base64.b64encode(MD5).decode()


def head(status: int, fields: dict[str, str], asked: Asked | None = None) -> BodyHead:
    return read_head(status, CIMultiDict(fields), asked or Asked(), max_bytes=1000, now=NOW)


def test_a_whole_clip_is_described_with_all_that_the_source_said() -> None:
    assert head(
        200,
        {
            "Content-Length": "100",
            "content-type": "Video/MP4; codecs=avc1",
            "ETag": '"abc"',
            "Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT",
            "Content-MD5": MD5_TEXT,
        },
    ) == BodyHead(
        start=0,
        stop=100,
        total=100,
        content_type="video/mp4",
        validator='"abc"',
        last_modified=datetime(2026, 10, 21, 7, 28, tzinfo=UTC),
        md5=MD5,
    )


def test_a_body_whose_end_proves_nothing_is_told_from_one_that_ends_properly() -> None:
    """Names peers 2 and 3: no Content-Length, and truncated chunked replies."""
    assert head(200, {}).framed is False
    assert head(200, {"Transfer-Encoding": "chunked", "Content-Length": "7"}) == BodyHead(
        start=0, stop=None, total=None
    )


def test_a_part_is_placed_by_its_content_range() -> None:
    fields = {"Content-Range": "bytes 10-99/100", "Content-Length": "90"}
    placed = head(206, fields, Asked(10))
    assert (placed.start, placed.stop, placed.total, placed.framed) == (10, 100, 100, True)
    suffix = head(206, {"Content-Range": "bytes 95-99/100"}, Asked(-5))
    assert (suffix.start, suffix.stop, suffix.total, suffix.framed) == (95, 100, 100, True)


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"Content-Range": "bytes 0-99/100"}, Asked()),  # nobody asked for a part
        ({"Content-Range": "bytes 0-99/100"}, Asked(10)),
        ({"Content-Range": "bytes 11-99/100"}, Asked(10)),
        ({"Content-Range": "bytes 10-49/100"}, Asked(10)),
        ({"Content-Range": "bytes 10-99/1000"}, Asked(10)),
        ({"Content-Range": "bytes 10-19/100"}, Asked(10, 19)),
        ({"Content-Range": "bytes 10-19/*"}, Asked(10, 20)),
        ({"Content-Range": "bytes ten-19/100"}, Asked(10, 20)),
        ({"Content-Range": "bytes 10-19/100", "Content-Length": "11"}, Asked(10, 20)),
        ({"Content-Range": "bytes 90-99/100"}, Asked(-5)),
        ({"Content-Type": "video/mp4"}, Asked(10)),
        ({"Content-Range": "bytes 10-99/100", "ETag": '"b"'}, Asked(10, None, '"a"')),
        ({"Content-Range": "bytes 10-99/100"}, Asked(0, 5)),
    ],
)
def test_a_part_that_is_not_the_one_asked_for_is_never_taken_for_it(
    fields: dict[str, str], asked: Asked
) -> None:
    """Names peers 5, 34 and 36."""
    with pytest.raises(SourceChanged):
        head(206, fields, asked)


def test_a_whole_clip_in_place_of_a_part_is_described_as_the_whole() -> None:
    """Names peers 5: a resume that is answered 200."""
    whole = head(200, {"Content-Length": "100"}, Asked(10, 20))
    assert (whole.start, whole.stop, whole.total) == (0, 100, 100)


@pytest.mark.parametrize(
    ("kind", "read"),
    [(None, None), ("", None), ("video/mp4", "video/mp4"), ("video/quicktime", "video/quicktime"),
     ("application/octet-stream",) * 2, ("binary/octet-stream",) * 2,
     ("APPLICATION/MP4", "application/mp4"), ("video/mp4;charset=utf-8", "video/mp4")],
)  # fmt: skip
def test_types_that_a_clip_may_have(kind: str | None, read: str | None) -> None:
    fields = {"Content-Length": "10"} | ({} if kind is None else {"Content-Type": kind})
    assert head(200, fields).content_type == read


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Type": "text/html"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/xml"},
        {"Content-Type": "image/png"},
        {"Content-Type": "audio/mp4"},
        {"Content-Type": "multipart/byteranges; boundary=x"},
        {"Content-Type": "mp4"},
        {"Content-Type": "vid\neo"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "identity, br"},
        {"Transfer-Encoding": "gzip, chunked"},
        {"Content-Length": "0"},
        {"Content-Length": "1001"},
    ],
)
def test_what_is_not_a_clip_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(NotAClip):
        head(200, fields)


def test_a_part_of_a_clip_that_is_too_large_is_refused() -> None:
    with pytest.raises(NotAClip):
        head(206, {"Content-Range": "bytes 10-19/1001"}, Asked(10, 20))


@pytest.mark.parametrize(
    ("status", "asked", "error"),
    [
        (403, Asked(), SourceRefused),
        (404, Asked(), SourceRefused),
        (410, Asked(), SourceRefused),
        (416, Asked(5), SourceChanged),
        (416, Asked(-5), NotAClip),
        (416, Asked(0, 5), NotAClip),
        (416, Asked(), SourceUnavailable),
        (429, Asked(), SourceBusy),
        (408, Asked(), SourceTimeout),
        (400, Asked(), SourceUnavailable),
        (401, Asked(), SourceUnavailable),
        (412, Asked(), SourceUnavailable),
        (451, Asked(), SourceUnavailable),
        (204, Asked(), SourceUnavailable),
        (304, Asked(), SourceUnavailable),
        (500, Asked(), SourceUnavailable),
        (503, Asked(), SourceUnavailable),
        (599, Asked(), SourceUnavailable),
        (999, Asked(), SourceUnavailable),
    ],
)
def test_only_403_404_and_410_say_that_the_clip_is_gone(
    status: int, asked: Asked, error: type[FirstviewError]
) -> None:
    """Names peers 29: 416, 412, 429 and 5xx all became 404, so an outage looked like "gone"."""
    with pytest.raises(FirstviewError) as caught:
        head(status, {"Content-Type": "text/html", "Content-Length": "0"}, asked)
    assert type(caught.value) is error


def test_a_busy_source_is_quoted_on_when_to_come_back() -> None:
    with pytest.raises(SourceBusy, match="in 7 s"):
        head(429, {"Retry-After": "7"})
    with pytest.raises(SourceBusy, match=r"slow down\.$"):
        head(429, {"Retry-After": "soon"})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("", None), ("-1", None), ("0", 1), (" 30 ", 30), ("99999", 3600),
        ("Fri, 20 Nov 2026 12:00:30 GMT", 30), ("Fri, 20 Nov 2026 11:00:00 GMT", 1),
        ("\u0661\u0662", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str | None, seconds: int) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize("tag", ['W/"a"', "a", '"a', '"a"b"', "", '"é"', '"a b"'])
def test_a_weak_or_broken_entity_tag_is_none(tag: str) -> None:
    assert head(200, {"ETag": tag}).validator is None


def test_a_length_that_is_no_number_is_the_source_failing() -> None:
    for value in ("ten", "-1", "1 2", "\u0663"):
        with pytest.raises(SourceUnavailable):
            head(200, {"Content-Length": value})
    twice = CIMultiDict([("Content-Length", "10"), ("Content-Length", "11")])
    with pytest.raises(SourceUnavailable):
        read_head(200, twice, Asked(), max_bytes=1000, now=NOW)


@pytest.mark.parametrize(
    "field",
    [
        ("Content-MD5", MD5_TEXT),
        ("Repr-Digest", f"sha-256=:AAAA:, md5=:{MD5_TEXT}:"),
        ("Digest", f"sha-256=AAAA,md5={MD5_TEXT}"),
        ("Digest", f"MD5={MD5_TEXT}"),
        ("x-goog-hash", f"crc32c=AAAAAA==,md5={MD5_TEXT}"),
    ],
)
def test_an_md5_is_found_wherever_sources_put_it(field: tuple[str, str]) -> None:
    assert md5_of(CIMultiDict([field]), whole=True) == MD5


def test_only_googles_md5_is_believed_of_a_part() -> None:
    fields = CIMultiDict({"Content-MD5": MD5_TEXT, "Digest": f"md5={MD5_TEXT}"})
    assert md5_of(fields, whole=False) is None
    fields.extend([("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-hash", f"md5={MD5_TEXT}")])
    assert md5_of(fields, whole=False) == MD5


@pytest.mark.parametrize(
    "field",
    [
        ("Content-MD5", "not base64"),
        ("Content-MD5", "AAAA"),
        ("Content-MD5", MD5.hex()),
        ("Repr-Digest", f"md5={MD5_TEXT}"),
        ("Digest", f"notmd5={MD5_TEXT}"),
        ("x-goog-hash", "md5=AAAA"),
    ],
)
def test_an_md5_that_is_not_well_formed_is_none(field: tuple[str, str]) -> None:
    assert md5_of(CIMultiDict([field]), whole=True) is None
