"""The head of a reply, and values that come from outside."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.message import Message
from email.utils import collapse_rfc2231_value

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from proxy.records import ClipFacts
from proxy.web.headers import (
    ReplyPolicy,
    block,
    cache_status,
    content_disposition,
    exchange_fields,
    head,
    model_slug,
    preflight_fields,
    stable_fields,
)

POLICY = ReplyPolicy(cache_control="public, max-age=31536000, immutable", cors_origin="*")
FACTS = ClipFacts(
    request_id="req-1",
    length=1000,
    etag="0123456789abcdef0123456789abcdef",
    last_modified=datetime(2026, 11, 6, 8, 49, 37, tzinfo=UTC),
    model="fal-ai/wan/v2.7",
)


def read(lines: bytes) -> dict[str, str]:
    pairs = [line.split(": ", 1) for line in lines.decode("ascii").split("\r\n") if line]
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), "a field twice"
    return dict(pairs)


@pytest.mark.parametrize("when", ["2026-12-01 00:00:00Z", "2026-12-01 00:00:01Z"])
def test_a_head_is_the_status_line_the_date_the_block_and_the_rest(when: str) -> None:
    with time_machine.travel(when, tick=False):
        found = head(206, b"ETag: x\r\n", [("Content-Length", "5"), ("X-Request-Id", "r")])
    assert found == (
        b"HTTP/1.1 206 Partial Content\r\n"
        b"Date: Tue, 01 Dec 2026 00:00:0" + when[-2:-1].encode() + b" GMT\r\n"
        b"ETag: x\r\nContent-Length: 5\r\nX-Request-Id: r\r\n\r\n"
    )


def test_status_lines_have_the_names_that_the_rfc_gives_them() -> None:
    assert head(200, b"").startswith(b"HTTP/1.1 200 OK\r\n")
    assert head(304, b"").startswith(b"HTTP/1.1 304 Not Modified\r\n")
    assert head(413, b"").startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert head(416, b"").startswith(b"HTTP/1.1 416 Range Not Satisfiable\r\n")
    assert head(503, b"").startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\r\nSet-Cookie: x", "a\0b", "\n", "ä", "\udce4"])
def test_no_value_can_bring_a_line_of_its_own(bad: str) -> None:
    with pytest.raises(ValueError, match=r"header field|ascii"):
        head(200, b"", [("X-Good", "1"), ("X-Request-Id", bad)])
    with pytest.raises(ValueError, match=r"header field|ascii"):
        block([(bad, "1")])
    with pytest.raises(ValueError, match=r"header field|ascii"):
        stable_fields(ReplyPolicy(cache_control=bad, cors_origin="*"), FACTS)


def test_a_clip_has_these_fields_wherever_it_comes_from() -> None:
    assert read(stable_fields(POLICY, FACTS)) == {
        "ETag": '"0123456789abcdef0123456789abcdef"',
        "Last-Modified": "Fri, 06 Nov 2026 08:49:37 GMT",
        "Accept-Ranges": "bytes",
        "Cache-Control": "public, max-age=31536000, immutable",
        "Cache-Tag": "firstview,req-1,fal-ai-wan-v2.7",
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": (
            "Content-Length, Content-Range, Accept-Ranges, ETag, Last-Modified, "
            "Cache-Status, Server-Timing, X-Request-Id"
        ),
        "Timing-Allow-Origin": "*",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def test_the_block_is_the_same_at_any_moment_and_in_any_zone() -> None:
    tokyo = FACTS.last_modified.astimezone(timezone(timedelta(hours=9)))
    moved = ClipFacts(
        request_id="req-1", length=1000, etag=FACTS.etag, last_modified=tokyo, model=FACTS.model
    )
    with time_machine.travel("2030-01-01 00:00:00Z"):
        assert stable_fields(POLICY, moved) == stable_fields(POLICY, FACTS)


def test_one_origin_varies_and_any_origin_does_not() -> None:
    own = ReplyPolicy(cache_control="private", cors_origin="https://app.example")
    fields = read(stable_fields(own, FACTS))
    assert fields["Access-Control-Allow-Origin"] == "https://app.example"
    assert fields["Timing-Allow-Origin"] == "https://app.example"
    assert fields["Vary"] == "Origin"


@pytest.mark.parametrize("model", [None, ""])
def test_a_clip_without_a_model_has_no_tag_for_it(model: str | None) -> None:
    facts = ClipFacts(
        request_id="req-1", length=1, etag="e", last_modified=FACTS.last_modified, model=model
    )
    assert read(stable_fields(POLICY, facts))["Cache-Tag"] == "firstview,req-1"


def test_a_models_tag_has_only_what_a_tag_may_hold() -> None:
    assert model_slug("fal-ai/wan/v2.7") == "fal-ai-wan-v2.7"
    assert model_slug("Fal-AI/Kling Video,v3_pro") == "fal-ai-kling-video-v3_pro"
    assert model_slug("vidéo\r\nX: y") == "vid-o--x--y"
    assert len(model_slug("x" * 9999)) == 128


def test_a_preflight_allows_what_players_send() -> None:
    fields = read(preflight_fields(POLICY))
    assert fields["Access-Control-Allow-Origin"] == "*"
    assert fields["Access-Control-Allow-Methods"] == fields["Allow"] == "GET, HEAD, OPTIONS"
    assert fields["Access-Control-Max-Age"] == "86400"
    allowed = fields["Access-Control-Allow-Headers"].split(", ")
    assert {"Range", "If-Range", "If-None-Match", "If-Modified-Since"} <= set(allowed)


def test_names_are_written_in_capitals() -> None:
    for name in read(stable_fields(POLICY, FACTS) + b"\r\n") | read(preflight_fields(POLICY)):
        assert re.fullmatch(r"([A-Z][a-z]*-)*[A-Z][a-z]*|ETag", name)


def test_cache_status_says_where_the_bytes_came_from() -> None:
    assert cache_status("disk", hit=True) == "firstview; hit; detail=disk"
    assert (
        cache_status("upstream", hit=False, fwd_status=200, stored=True)
        == "firstview; fwd=uri-miss; fwd-status=200; stored; detail=upstream"
    )
    assert (
        cache_status("flight", hit=False, fwd_status=200, stored=True, collapsed=True)
        == "firstview; fwd=uri-miss; fwd-status=200; stored; collapsed; detail=flight"
    )
    assert cache_status("bucket", hit=False) == "firstview; fwd=uri-miss; detail=bucket"


def test_a_hit_says_nothing_of_forwarding() -> None:
    found = cache_status("disk", hit=True, fwd_status=200, stored=True, collapsed=True)
    assert found == "firstview; hit; detail=disk"


def test_server_timing_is_in_milliseconds() -> None:
    lines = exchange_fields("r-1", 1.5012)
    assert lines == b"Server-Timing: origin;dur=1501.2\r\nX-Request-Id: r-1\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", 'attachment; filename="req-1.mp4"'),
        (" . ", 'attachment; filename="req-1.mp4"'),
        (".mp4", 'attachment; filename="req-1.mp4"'),
        ("..", 'attachment; filename="req-1.mp4"'),
        ("holiday", 'attachment; filename="holiday.mp4"'),
        ("holiday.mp4", 'attachment; filename="holiday.mp4"'),
        ("Holiday.MP4", 'attachment; filename="Holiday.mp4"'),
        ("evil.exe", 'attachment; filename="evil.exe.mp4"'),
        ("../../etc/passwd", 'attachment; filename="etcpasswd.mp4"'),
        ("C:\\dir\\a.mp4", 'attachment; filename="Cdira.mp4"'),
        ('a"; filename="b', 'attachment; filename="a; filename=b.mp4"'),
        ("a\r\nSet-Cookie: x", 'attachment; filename="aSet-Cookie x.mp4"'),
        ("two  words", 'attachment; filename="two words.mp4"'),
        ("né", "attachment; filename=\"ne.mp4\"; filename*=UTF-8''n%C3%A9.mp4"),
        ("视频", "attachment; filename=\"req-1.mp4\"; filename*=UTF-8''%E8%A7%86%E9%A2%91.mp4"),
        ("100%41", "attachment; filename=\"100_41.mp4\"; filename*=UTF-8''100%2541.mp4"),
        ("a\u202e4pm.exe", 'attachment; filename="a4pm.exe.mp4"'),
        ("a\ud800b", 'attachment; filename="ab.mp4"'),
    ],
)
def test_a_download_gets_a_safe_name(name: str, value: str) -> None:
    assert content_disposition(name, "req-1") == value


@given(st.text() | st.text('/\\"\'%.\r\n\0 aé"“mp4', max_size=20))
def test_any_download_name_ends_up_as_one_harmless_file_name(name: str) -> None:
    value = content_disposition(name, "req-1")
    block([("Content-Disposition", value)])  # neither a break nor beyond ASCII
    message = Message()
    message["Content-Disposition"] = value
    shown = message.get_param("filename", header="Content-Disposition")
    assert shown is not None
    chosen = collapse_rfc2231_value(shown)
    assert chosen.endswith(".mp4")
    assert len(chosen) > len(".mp4")
    assert not set(chosen) & set('/\\"\r\n\0')
    assert not chosen.startswith(".")
    assert len(chosen.encode()) <= 204
