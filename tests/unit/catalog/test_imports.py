"""Files of registrations are read as their authors meant them, or refused in their words."""

import io
from datetime import UTC, datetime

import pytest

from proxy.catalog.imports import MAX_LINE, Kind, Reader, Refused, kind_of, parse_body
from proxy.catalog.said import Check
from proxy.errors import BadRequest, SourceUntrusted
from proxy.records import Registration

NOT_AN_ID = "must be 1 to 128 letters, digits, - and _, beginning with a letter or digit, not"
URL = "https://v3b.fal.media/files/b/x/clip.mp4"


def reader(data: bytes, kind: Kind | None = None, check: Check | None = None) -> Reader:
    return Reader(io.BufferedReader(io.BytesIO(data)), kind, check)


def read(data: bytes, kind: Kind | None = None) -> list[Registration | str]:
    rows = reader(data, kind)
    return [str(row) if isinstance(row, Refused) else row for row in rows]


def test_every_column_is_taken() -> None:
    data = (
        "request_id,fal_url,model,prompt,file_size,duration,width,height,gated,"
        "created_at,completed_at\n"
        f'a,{URL},fal-ai/veo3,"two\nlines, ""quoted""",12,5.5,1920,1080,yes,'
        "2026-11-21T10:00:00+09:00,2026-11-21\n"
    )
    assert read(data.encode()) == [
        Registration(
            request_id="a",
            fal_url=URL,
            model="fal-ai/veo3",
            prompt='two\nlines, "quoted"',
            content_length=12,
            duration=5.5,
            width=1920,
            height=1080,
            gated=True,
            created_at=datetime(2026, 11, 21, 1, tzinfo=UTC),
            completed_at=datetime(2026, 11, 21, tzinfo=UTC),
        )
    ]


@pytest.mark.parametrize(
    "header", ["id,url", "Request ID,video_url", '"request_id","fal-url"', "REQUEST_ID\tURL"]
)
def test_columns_have_several_names(header: str) -> None:
    delimiter = "\t" if "\t" in header else ","
    assert read(f"{header}\nabc{delimiter}{URL}\n".encode()) == [
        Registration(request_id="abc", fal_url=URL)
    ]


def test_the_own_name_of_a_field_wins_unless_it_says_nothing() -> None:
    data = f"id,request_id,url\n1,abc,{URL}\n2,,{URL}\n"
    found = read(data.encode())
    assert [row.request_id for row in found if isinstance(row, Registration)] == ["abc", "2"]


def test_spreadsheets_of_any_kind_are_read() -> None:
    data = b"\xef\xbb\xbfrequest_id;fal_url\r\na;\r\n\r\n;\r\nb;\r\n"
    assert read(data) == [Registration(request_id="a"), Registration(request_id="b")]


def test_a_refused_row_is_named_by_its_place_and_its_neighbours_are_kept() -> None:
    data = (
        "request_id,fal_url,file_size\n"
        "a,,\n"
        f",{URL},\n"
        "../b,ftp://x/y,-1\n"
        '"c\n",,\n'
        'd,"data:video/mp4;base64,AAAA",\n'
        'e,"x"y,\n'
        "f,,\n"
    )
    found = read(data.encode())
    assert [row for row in found if isinstance(row, str)] == [
        "row 3: request_id is missing",
        (
            f"row 4: request_id {NOT_AN_ID} '../b';"
            " fal_url must be an https address with a path, not 'ftp://x/y';"
            " file_size must be a positive whole number of bytes, not '-1'"
        ),
        "row 6: fal_url is a data: URI, as sync_mode returns it; give the clip's https address",
        "row 7: not CSV: ',' expected after '\"'; is a quote left open?",
    ]
    assert [row.request_id for row in found if isinstance(row, Registration)] == ["a", "c", "f"]


def test_an_open_quote_is_refused_and_what_follows_is_read() -> None:
    assert read(b'request_id,prompt\na,"open\n') == [
        "row 2: not CSV: unexpected end of data; is a quote left open?"
    ]
    swallowed = b"x" * 1000 + b"\n"
    found = read(b'request_id,prompt\na,"open\n' + swallowed * 200 + b"b,fine\n")
    assert found[-1] == Registration(request_id="b", prompt="fine")


def test_a_row_with_more_values_than_columns_is_refused() -> None:
    assert read(b"request_id,model\na,b,c\n") == ["row 2: 3 values, but the header names 2 columns"]


def test_lines_that_are_no_text_or_too_long_are_refused_alone() -> None:
    huge = b"b," + b"x" * (3 * MAX_LINE)
    data = b"request_id,model\n\xff,m\n" + huge + b"\nc,m\n"
    assert read(data) == [
        "row 2: is not UTF-8 text",
        f"row 3: is longer than {MAX_LINE} bytes",
        Registration(request_id="c", model="m"),
    ]


def test_json_lines_are_read_with_their_types() -> None:
    data = (
        b'{"request_id":"a","width":3,"duration":2,"nested":{"x":1}}\n'
        b"\n"
        b'{"id":"b","width":true}\n'
        b'{"id":7}\n'
        b"[1]\n"
        b'{"id":"c"\n'
        b'{"id":"d","fal_url":["x"],"prompt":"\\u0000"}\n'
    )
    assert read(data) == [
        Registration(request_id="a", width=3, duration=2.0),
        "row 3: width must be a positive whole number of pixels, not True",
        f"row 4: id {NOT_AN_ID} 7",
        "row 5: must be a JSON object",
        "row 6: not JSON: unexpected end of data: line 2 column 1 (char 10)",
        "row 7: fal_url must be text, not ['x']; prompt holds characters that no text may have",
    ]


def test_columns_that_mean_nothing_are_reported_once() -> None:
    rows = reader(b'{"id":"a","status":"x"}\n{"id":"b","status":"y","cost":1}\n')
    assert len(list(rows)) == 2
    assert list(rows.ignored) == ["status", "cost"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xfer\x00e\x00", "UTF-16"),
        (b'[{"request_id":"a"}]', "JSON array"),
        (b"[\n{}", "JSON array"),
        (b"name,fal_url\na,b\n", "one of them request_id"),
        (b'"open\n', "header is not CSV"),
        (b"\xe9t\xe9\n", "header is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        list(reader(data))


def test_an_empty_file_has_no_rows() -> None:
    assert read(b"") == []


def test_urls_are_checked_by_whoever_knows_which_hosts_are_allowed() -> None:
    def check(_: str) -> None:
        raise SourceUntrusted

    [row] = reader(f"id,video_url\na,{URL}\n".encode(), check=check)
    assert str(row) == "row 2: video_url: The clip's source is not on the list of allowed hosts."


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.CSV", "csv"),
        ("a.tsv", "csv"),
        ("a.ndjson", "jsonl"),
        ("a.jsonl.txt", "jsonl"),
        ("a", None),
    ],
)
def test_the_ending_of_a_name_tells_the_kind(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    "field",
    [
        '"created_at":"yesterday"',
        '"created_at":"0001-01-01T00:00:00+14:00"',
        '"created_at":1700000000',
        '"created_at":"1969-12-31T23:59:59Z"',
        '"completed_at":"9999-12-31T23:59:59Z"',  # and its source's expiry after any calendar's end
        '"duration":"nan"',
        '"duration":-1',
        '"file_size":1e300',
        '"file_size":9223372036854775808',
        '"width":1.5',
        '"prompt_hash":"abc"',
        '"model":"two\\nlines"',
        '"model":{}',
        '"fal_url":"https://fal.media"',
        '"fal_url":"https://fal.media/a b"',
        '"fal_url":"//fal.media/a"',
        '"fal_url":"https://[/a"',
        '"fal_url":"DATA:video/mp4,"',
    ],
)
def test_a_value_that_makes_no_sense_is_refused(field: str) -> None:
    with pytest.raises(BadRequest, match=field.split('"')[1]):
        parse_body("a", f"{{{field}}}".encode())


# --- bodies -------------------------------------------------------------------------------------


def test_a_body_registers_the_id_of_its_address() -> None:
    body = f'{{"fal_url":"{URL}","file_size":5,"prompt_hash":"{"A" * 64}"}}'.encode()
    assert parse_body("a", body) == Registration(
        request_id="a", fal_url=URL, content_length=5, prompt_hash="a" * 64
    )
    assert parse_body("a", b"{}") == Registration(request_id="a")


def test_what_was_read_can_be_written_back() -> None:
    body = b'{"request_id":"a","status":"stored","etag":"x","mirrored_at":null,"model":"m"}'
    assert parse_body("a", body) == Registration(request_id="a", model="m")


def test_a_body_is_refused_with_all_its_mistakes() -> None:
    body = b'{"fal_ulr":"x","request_id":"b","width":-1,"height":"x"}'
    with pytest.raises(BadRequest) as refused:
        parse_body("a", body)
    assert refused.value.detail == (
        "'fal_ulr' is not a field; request_id is not the one in the address;"
        " width must be a positive whole number of pixels, not -1;"
        " height must be a positive whole number of pixels, not 'x'"
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"x"', b"{", b"\xff", b'{"request_id":[]}'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_body("a", body)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("true", True), ('"No"', False), ("0", False), ("1", True), ("false", False), ("null", None)],
)
def test_who_may_see_a_clip_is_said_in_any_usual_way(said: str, meant: bool | None) -> None:
    assert parse_body("a", b'{"gated": %s}' % said.encode()).gated is meant


@pytest.mark.parametrize("said", ["2", '"maybe"', "[]", "1.5"])
def test_a_guess_at_who_may_see_a_clip_is_refused(said: str) -> None:
    with pytest.raises(BadRequest, match="gated must be true or false"):
        parse_body("a", b'{"gated": %s}' % said.encode())
