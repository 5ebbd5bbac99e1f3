"""Which conditions hold, and in which order they count."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.errors import PreconditionFailed
from proxy.http_dates import parse_http_date
from proxy.records import ClipFacts
from proxy.web.validators import Verdict, entity_tags, evaluate, range_applies

TAG = "0123456789abcdef0123456789abcdef"
MODIFIED = datetime(2026, 11, 6, 8, 49, 37, tzinfo=UTC)
FACTS = ClipFacts(request_id="abc", length=1000, etag=TAG, last_modified=MODIFIED)
EARLIER = "Fri, 06 Nov 2026 08:49:36 GMT"
SAME = "Fri, 06 Nov 2026 08:49:37 GMT"
LATER = "Fri, 06 Nov 2026 08:49:38 GMT"


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with time_machine.travel(datetime(2026, 12, 1, tzinfo=UTC), tick=False):
        yield


def judge(*fields: tuple[str, str], method: str = "GET") -> Verdict | int:
    headers = CIMultiDictProxy(CIMultiDict([(name, value) for name, value in fields]))
    try:
        return evaluate(headers, FACTS, method=method)
    except PreconditionFailed as error:
        return error.status


def test_without_conditions_the_request_goes_on() -> None:
    assert judge() is Verdict.PROCEED
    assert evaluate({}, FACTS, method="GET") is Verdict.PROCEED


@pytest.mark.parametrize("value", [f'"{TAG}"', f'W/"{TAG}"', "*", f'"x", W/"y",, "{TAG}"'])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_client_that_has_the_clip_is_told_so(value: str, method: str) -> None:
    assert judge(("if-none-match", value), method=method) is Verdict.NOT_MODIFIED


@pytest.mark.parametrize("value", ['"other"', f'"{TAG.upper()}"', TAG, "", ",", f'"{TAG}', '"*"'])
def test_a_client_that_has_something_else_gets_the_clip(value: str) -> None:
    assert judge(("If-None-Match", value)) is Verdict.PROCEED


def test_a_method_that_writes_fails_where_a_reading_one_is_not_modified() -> None:
    assert judge(("If-None-Match", "*"), method="PUT") == 412


def test_a_preflight_has_no_conditions() -> None:
    assert judge(("If-Match", '"x"'), method="OPTIONS") is Verdict.PROCEED


def test_if_match_compares_strongly() -> None:
    assert judge(("If-Match", f'"{TAG}"')) is Verdict.PROCEED
    assert judge(("If-Match", f'"a,b", "{TAG}"')) is Verdict.PROCEED
    assert judge(("If-Match", "*")) is Verdict.PROCEED
    assert judge(("If-Match", f'W/"{TAG}"')) == 412
    assert judge(("If-Match", '"other"')) == 412
    assert judge(("If-Match", TAG)) == 412
    assert judge(("If-Match", "")) == 412


def test_a_tag_with_commas_inside_is_one_tag() -> None:
    assert entity_tags('"a,b" ,W/"c,,d","",') == [(False, "a,b"), (True, "c,,d"), (False, "")]


@pytest.mark.parametrize(
    "field", ['"a" "b"', '"a', "a", 'w/"a"', 'W/ "a"', '"a",b', '"a\x7f"', '"a b"', "*"]
)
def test_half_a_list_of_tags_is_none(field: str) -> None:
    assert entity_tags(field) == []


def test_tags_may_hold_bytes_beyond_ascii() -> None:
    assert entity_tags('"ÿ\udce4"') == [(False, "ÿ\udce4")]


def test_a_line_full_of_blanks_takes_no_time() -> None:
    assert entity_tags(" " * 16000 + "x") == []
    assert entity_tags('"a",' + "\t " * 8000 + '"') == []


@given(st.lists(st.tuples(st.booleans(), st.text("!#,;~az*/W-", max_size=5))))
def test_any_list_of_tags_is_read_back(tags: list[tuple[bool, str]]) -> None:
    field = ", ".join(f'{"W/" if weak else ""}"{tag}"' for weak, tag in tags)
    assert entity_tags(field) == tags


@given(st.text())
def test_no_text_in_place_of_tags_or_dates_is_an_error(text: str) -> None:
    entity_tags(text)
    parse_http_date(text)
    range_applies(text, FACTS)


def test_several_lines_of_one_name_are_one_list() -> None:
    assert judge(("If-None-Match", '"x"'), ("If-None-Match", f'"{TAG}"')) is Verdict.NOT_MODIFIED
    assert judge(("If-Match", '"x"'), ("If-Match", f'"{TAG}"')) is Verdict.PROCEED


def test_a_date_given_twice_is_ignored() -> None:
    fields = ("If-Modified-Since", LATER), ("If-Modified-Since", LATER)
    assert judge(*fields) is Verdict.PROCEED


def test_if_modified_since() -> None:
    assert judge(("If-Modified-Since", EARLIER)) is Verdict.PROCEED
    assert judge(("If-Modified-Since", SAME)) is Verdict.NOT_MODIFIED
    assert judge(("If-Modified-Since", LATER), method="HEAD") is Verdict.NOT_MODIFIED
    assert judge(("If-Modified-Since", LATER), method="POST") is Verdict.PROCEED


def test_if_unmodified_since() -> None:
    assert judge(("If-Unmodified-Since", EARLIER)) == 412
    assert judge(("If-Unmodified-Since", SAME)) is Verdict.PROCEED
    assert judge(("If-Unmodified-Since", LATER)) is Verdict.PROCEED


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "yesterday",
        "Fri, 30 Feb 2026 08:49:37 GMT",
        "Fri, 06 Nov 2026 24:00:00 GMT",
        "Fri, 06 Nov 2026 08:49:37 UTC",
        "Fri, 06 Nov 2026 08:49:37 +0000",
        "Fri, 6 Nov 2026 08:49:37 GMT",
        "fri, 06 nov 2026 08:49:37 gmt",
        "2026-11-06T08:49:37Z",
        "Fri, 06 Nov 0000 08:49:37 GMT",
        "Fri, \u0660\u0666 Nov 2026 08:49:37 GMT",
    ],
)
def test_invalid_dates_are_ignored(name: str, value: str) -> None:
    assert parse_http_date(value) is None
    assert judge((name, value)) is Verdict.PROCEED


def test_tags_count_before_dates() -> None:
    """RFC 9110 §13.2.2: a date is ignored beside its tag."""
    assert judge(("If-None-Match", '"x"'), ("If-Modified-Since", LATER)) is Verdict.PROCEED
    assert judge(("If-Match", f'"{TAG}"'), ("If-Unmodified-Since", EARLIER)) is Verdict.PROCEED


def test_a_failed_condition_counts_before_a_copy_that_is_good() -> None:
    assert judge(("If-Match", '"x"'), ("If-None-Match", f'"{TAG}"')) == 412
    assert judge(("If-Unmodified-Since", EARLIER), ("If-None-Match", f'"{TAG}"')) == 412
    assert judge(("If-Match", f'"{TAG}"'), ("If-None-Match", "*")) is Verdict.NOT_MODIFIED


def test_a_range_applies_without_if_range() -> None:
    assert range_applies(None, FACTS)


def test_a_range_applies_to_the_same_strong_tag_only() -> None:
    assert range_applies(f'"{TAG}"', FACTS)
    assert not range_applies('"other"', FACTS)
    assert not range_applies(TAG, FACTS)
    assert not range_applies("*", FACTS)
    assert not range_applies(f'"{TAG}", "x"', FACTS)


def test_a_range_never_applies_to_a_weak_tag() -> None:
    assert not range_applies(f'W/"{TAG}"', FACTS)


def test_a_range_applies_to_exactly_the_date_that_was_sent() -> None:
    assert range_applies(SAME, FACTS)
    assert not range_applies(EARLIER, FACTS)
    assert not range_applies(LATER, FACTS)
    assert not range_applies("", FACTS)
