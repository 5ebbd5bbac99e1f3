"""What a viewer learns of an error, and what not."""

import json
from typing import Any

import pytest

from proxy import errors
from proxy.web.headers import head
from proxy.web.problems import Problem, render

SECRET = "GET https://v3.fal.media/files/x.mp4?token=s3cret from 10.0.0.7 failed\nTraceback"


def every(kind: type[errors.FirstviewError]) -> list[type[errors.FirstviewError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in every(child))]


def make(kind: type[errors.FirstviewError], detail: str | None) -> errors.FirstviewError:
    if issubclass(kind, errors.MethodNotAllowed):
        return kind("GET, HEAD", detail)
    if issubclass(kind, errors.RangeNotSatisfiable):
        return kind(1000, detail)
    return kind(detail)


def members(problem: Problem) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(problem.body)
    return found


def test_an_error_is_a_problem_document() -> None:
    problem = render(errors.UnknownClip(), request_id="r1", instance="/videos/x.mp4")
    assert problem.status == 404
    assert members(problem) == {
        "type": "urn:firstview:problem:unknown-clip",
        "title": "No clip with this id is known.",
        "status": 404,
        "detail": "No clip with this id is known.",
        "request_id": "r1",
        "instance": "/videos/x.mp4",
    }
    fields = dict(problem.fields)
    assert fields["Content-Type"] == "application/problem+json"
    assert fields["Content-Length"] == str(len(problem.body))
    assert fields["Cache-Control"] == "no-store"
    assert fields["Access-Control-Allow-Origin"] == "*"
    assert fields["X-Content-Type-Options"] == "nosniff"


def test_without_an_instance_there_is_none() -> None:
    assert "instance" not in members(render(errors.UnknownClip(), request_id="r1"))


def test_a_sentence_meant_for_the_viewer_reaches_the_viewer() -> None:
    problem = render(errors.BadRequest("verify is not a timestamp"), request_id="r1")
    assert members(problem)["title"] == "The request cannot be understood."
    assert members(problem)["detail"] == "verify is not a timestamp"


@pytest.mark.parametrize("kind", every(errors.FirstviewError))
def test_no_error_tells_what_is_inside(kind: type[errors.FirstviewError]) -> None:
    problem = render(make(kind, SECRET), request_id="r1")
    text = repr(problem)
    for part in ("fal.media", "10.0.0.7", "s3cret", "Traceback"):
        assert part not in text


def test_a_sources_own_words_never_reach_the_viewer() -> None:
    for kind in every(errors.SourceError) + every(errors.BucketError) + every(errors.CatalogError):
        problem = render(make(kind, "v3.fal.media said no"), request_id="r1")
        assert members(problem)["detail"] == members(problem)["title"]


@pytest.mark.parametrize("kind", every(errors.FirstviewError))
def test_every_error_keeps_its_own_status(kind: type[errors.FirstviewError]) -> None:
    """Peers 29 (nginx-s3-gateway): 416, 412, 429 and 5xx all became 404."""
    error = make(kind, None)
    problem = render(error, request_id="r1")
    fields = dict(problem.fields)
    assert problem.status == members(problem)["status"] == kind.status
    assert members(problem)["type"] == f"urn:firstview:problem:{kind.slug}"
    assert fields["Cache-Control"] == kind.cache_control
    assert error.headers().items() <= fields.items()
    assert len(fields) == len(problem.fields), "a field twice"
    head(problem.status, b"", problem.fields)


@pytest.mark.parametrize("error", [RuntimeError(SECRET), KeyError("10.0.0.7"), MemoryError()])
def test_any_other_exception_is_a_bare_500(error: Exception) -> None:
    problem = render(error, request_id="r1", instance="/videos/x.mp4")
    assert problem.status == 500
    assert members(problem)["type"] == "urn:firstview:problem:internal"
    assert members(problem)["detail"] == "Something went wrong inside firstview."
    assert dict(problem.fields)["Cache-Control"] == "no-store"


def test_a_part_of_a_clip_that_is_gone_may_be_remembered_for_a_minute_only() -> None:
    fields = dict(render(errors.ClipGone(), request_id="r1").fields)
    assert fields["Cache-Control"] == "public, max-age=60"


def test_a_range_without_bytes_names_the_clips_length() -> None:
    fields = dict(render(errors.RangeNotSatisfiable(1000), request_id="r1").fields)
    assert fields["Content-Range"] == "bytes */1000"


def test_a_page_of_the_owners_origin_may_read_the_error() -> None:
    fields = dict(
        render(errors.UnknownClip(), request_id="r1", cors_origin="https://app.example").fields
    )
    assert fields["Access-Control-Allow-Origin"] == "https://app.example"
    assert fields["Vary"] == "Origin"


def test_a_path_that_is_not_text_is_no_second_error() -> None:
    problem = render(errors.RouteNotFound(), request_id="r1", instance="/\udce4ü")
    assert members(problem)["instance"] == "/\udce4ü"
