"""No file and no body crashes the reading of registrations."""

import io
from contextlib import suppress

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.catalog.imports import Kind, Reader, Refused, parse_body
from proxy.catalog.said import KNOWN_NAMES
from proxy.errors import BadRequest
from proxy.records import REQUEST_ID, Registration

_PIECES = b'request_id fal_url , ; " \r\n \n a1 \0 \xff https://fal.media/a { } : [ 1e9'.split(b" ")
_PIECES += [b"\t", b'"id":"x"', b"\xef\xbb\xbf"]

nearly_files = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=5)).map(b"".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def assert_sound(found: Registration) -> None:
    assert REQUEST_ID.fullmatch(found.request_id)
    assert found.fal_url is None or found.fal_url.startswith(("http", "HTTP"))
    assert found.content_length is None or 0 < found.content_length < 2**63
    assert found.width is None or 0 < found.width < 2**31
    assert found.duration is None or 0 < found.duration < float("inf")
    for moment in (found.created_at, found.completed_at):
        assert moment is None or moment.tzinfo is not None
    for text in (found.model, found.prompt):
        assert text is None or "\0" not in text.encode().decode()


@given(nearly_files, st.sampled_from([None, *Kind]))
@example(b'request_id,prompt\na,"open', Kind.CSV)
@example(b"request_id\n" + b"x" * 1_100_000, Kind.CSV)
@example(b"{" * 5000, Kind.JSONL)
def test_any_bytes_are_rows_refusals_or_a_bad_request(data: bytes, kind: Kind | None) -> None:
    reader = Reader(io.BufferedReader(io.BytesIO(data)), kind)
    places = [0]
    with suppress(BadRequest):
        for row in reader:
            if isinstance(row, Refused):
                assert row.reasons
                assert str(row).startswith(f"row {row.row}: ")
                assert row.row > places[-1]
                places.append(row.row)
            else:
                assert_sound(row)


@given(st.dictionaries(st.sampled_from(sorted(KNOWN_NAMES)), values))
def test_any_object_is_a_registration_or_a_list_of_mistakes(body: dict[str, object]) -> None:
    try:
        data = orjson.dumps(body)
    except (TypeError, orjson.JSONEncodeError):
        return  # integers beyond 64 bits and lone surrogates have no JSON here
    with suppress(BadRequest):
        assert_sound(parse_body("a", data))


@given(st.binary())
def test_any_body_is_a_registration_or_a_bad_request(data: bytes) -> None:
    with suppress(BadRequest):
        assert_sound(parse_body("a", data))
