"""What is made of the public address's replies."""

from __future__ import annotations

import pytest

from proxy.cli.doctor.asking import Answer
from proxy.cli.doctor.finding import Mark
from proxy.cli.doctor.public_words import (
    judge_address,
    judge_cache_rule,
    judge_caching,
    judge_front,
    judge_gate,
    judge_head,
    judge_health,
    judge_link,
    judge_lock,
    judge_range,
    judge_redirect,
)

CLIP = {"etag": '"tag"', "accept-ranges": "bytes", "content-length": "100"}
HEAD = Answer(200, CLIP)
PART = Answer(206, {"etag": '"tag"', "content-range": "bytes 0-0/100"}, b"x")


@pytest.mark.parametrize(
    ("url", "mark"),
    [
        ("https://cdn.example.com", Mark.OK),
        ("http://cdn.example.com", Mark.WARNING),
        ("http://localhost:8080", Mark.WARNING),
        ("https://192.168.1.2", Mark.WARNING),
        ("https://[::1]:8080", Mark.WARNING),
    ],
)
def test_an_address_is_one_that_everybody_reaches(url: str, mark: Mark) -> None:
    assert judge_address(url).mark is mark


def test_health_is_firstviews_own_answer() -> None:
    assert judge_health(Answer(200, body=b"ok\n"), "http://x").mark is Mark.OK
    for answer in (Answer(200, body=b"<html>"), Answer(530), Answer(0, problem="refused")):
        verdict = judge_health(answer, "http://x")
        assert verdict.mark is Mark.FAILS
        assert "FIRSTVIEW_PUBLIC_URL" in verdict.advice


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"etag": 'W/"tag"'}, "strong ETag"),
        ({"etag": "tag"}, "strong ETag"),
        ({"accept-ranges": ""}, "Accept-Ranges"),
        ({"content-length": ""}, "Content-Length"),
        ({"content-encoding": "br"}, "untouched body"),
    ],
)
def test_a_clips_head_has_what_players_need(change: dict[str, str], lacks: str) -> None:
    assert judge_head(HEAD).mark is Mark.OK
    verdict = judge_head(Answer(200, CLIP | change))
    assert verdict.mark is Mark.FAILS
    assert lacks in verdict.seen


@pytest.mark.parametrize(
    ("status", "mark"), [(403, Mark.FAILS), (404, Mark.FAILS), (0, Mark.FAILS), (302, Mark.WARNING)]
)
def test_a_clip_that_is_not_answered_with_200(status: int, mark: Mark) -> None:
    for verdict in (judge_head(Answer(status)), judge_range(Answer(status), HEAD)):
        assert verdict.mark is mark
        assert verdict.advice


def test_a_range_is_of_the_same_clip() -> None:
    assert judge_range(PART, HEAD).mark is Mark.OK
    assert "seek" in judge_range(Answer(200, CLIP), HEAD).advice
    other = Answer(206, {"etag": '"other"', "content-range": "bytes 0-0/90"}, b"x")
    assert "purge" in judge_range(other, HEAD).advice


@pytest.mark.parametrize(
    ("said", "mark"),
    [
        ("public, max-age=31536000, immutable", Mark.OK),
        ("private, max-age=60", Mark.WARNING),
        ("public, max-age=0", Mark.WARNING),
        ("", Mark.WARNING),
    ],
)
def test_clips_may_be_kept(said: str, mark: Mark) -> None:
    assert judge_caching(Answer(200, {"cache-control": said}), gated=False).mark is mark


def test_cloudflare_is_known_by_its_ray() -> None:
    assert "abc-FRA" in judge_front(Answer(200, {"cf-ray": "abc-FRA"})).seen
    assert judge_front(Answer(200)).mark is Mark.UNCHECKED


@pytest.mark.parametrize(
    ("status", "with_query", "mark", "said"),
    [
        ("HIT", "HIT", Mark.OK, "HIT"),
        ("HIT", "MISS", Mark.WARNING, "query"),
        ("DYNAMIC", "DYNAMIC", Mark.FAILS, "eligible"),
        ("BYPASS", "BYPASS", Mark.FAILS, "bypass"),
        ("MISS", "MISS", Mark.WARNING, "ask again"),
        ("", "", Mark.FAILS, "eligible"),
    ],
)
def test_what_a_cache_rule_misses_is_named(
    status: str, with_query: str, mark: Mark, said: str
) -> None:
    verdict = judge_cache_rule(
        Answer(206, {"cf-cache-status": status}), Answer(206, {"cf-cache-status": with_query})
    )
    assert verdict.mark is mark
    assert said in f"{verdict.seen} {verdict.advice}"


def test_an_origin_that_answers_without_the_edges_secret_is_pointed_out() -> None:
    assert judge_lock(Answer(403), "it").mark is Mark.OK
    assert judge_lock(Answer(404), "it").mark is Mark.WARNING
    assert judge_lock(Answer(0, problem="refused"), "it").mark is Mark.UNCHECKED


def test_a_link_that_was_just_signed_shows_the_clip() -> None:
    assert judge_link(PART).mark is Mark.OK
    assert "FIRSTVIEW_LINK_LIFE" in judge_link(Answer(403)).advice
    assert judge_link(Answer(404)).mark is Mark.FAILS


def test_a_gate_refuses_whoever_has_no_link() -> None:
    refused, kept = Answer(403), Answer(206, {"cf-cache-status": "HIT"})
    assert judge_gate(refused, refused).mark is Mark.OK
    assert "FIRSTVIEW_GATED" in judge_gate(refused, PART).advice
    assert "something else" in judge_gate(PART, refused).seen
    assert "token rule" in judge_gate(refused, kept).advice


def test_a_redirect_is_fine_where_it_is_meant() -> None:
    there = Answer(302, {"location": "https://bucket.example/x?y"})
    assert "bucket.example" in judge_redirect(there).seen
    assert judge_redirect(Answer(404)).mark is Mark.FAILS
