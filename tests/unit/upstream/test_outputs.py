"""Wherever a model puts its video, it is found; whatever else it puts there, nothing breaks."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.errors import SourceUntrusted
from proxy.records import REQUEST_ID, Notice, Registration
from proxy.upstream.allowlist import Policy, check_url
from proxy.upstream.outputs import MOST_VIDEOS, NoVideo, Video, find_videos, notice_of, readable

URL = "https://v3b.fal.media/files/b/koala/clip.mp4"
OTHER = "https://v3b.fal.media/files/b/koala/other.mp4"
POLICY = Policy.of(("fal.media", "*.fal.media"))


def check(url: str) -> str:
    return check_url(url, POLICY)


def urls(output: object) -> list[str]:
    return [video.url for video in find_videos(output)]


# -- the forms ---


@pytest.mark.parametrize(
    "output",
    [
        {"video": {"url": URL}},
        {"video": [{"url": URL}]},
        {"video": URL},
        {"video": [URL]},
        {"videos": [{"url": URL}]},
        {"videos": [URL]},
        {"video_url": URL},
        {"video_url": {"url": URL}},
        {"video": None, "videos": [{"url": URL}]},
        {"video": [], "videos": None, "video_url": URL},
        {"video": {"url": f"  {URL}\n"}},
        {"video": [None, {}, {"url": None}, {"url": ""}, {"url": URL}]},
        {"video": {"url": URL}, "videos": [{"url": URL}]},
        {"video": {"url": URL}, "video_url": OTHER},
        {
            "video": {"url": URL},
            "preview_video": {"url": OTHER},
            "mask_video": {"url": OTHER},
            "viz_video": {"url": OTHER},
            "input_video": {"url": OTHER},
        },
    ],
)
def test_the_clip_is_found_in_every_form(output: object) -> None:
    assert urls(output) == [URL]


def test_what_a_model_says_of_its_video_is_kept() -> None:
    said: dict[str, Any] = {
        "url": URL,
        "content_type": "video/mp4",
        "file_name": "clip.mp4",
        "file_size": 8_123_456,
        "duration": 5.04,
        "width": 1280,
        "height": 720,
        "fps": 24,
        "num_frames": 121,
    }
    assert find_videos({"video": said}) == [
        Video(
            url=URL,
            content_type="video/mp4",
            file_size=8_123_456,
            duration=5.04,
            width=1280,
            height=720,
        )
    ]


@pytest.mark.parametrize(
    "value",
    [None, "", "many", "12", 0, -1, 1.5, True, [], {}, 10**400, float("inf"), float("nan")],
)
@pytest.mark.parametrize("name", ["file_size", "width", "height"])
def test_a_malformed_number_is_not_said(name: str, value: object) -> None:
    [video] = find_videos({"video": {"url": URL, name: value}})
    assert getattr(video, name) is None


@pytest.mark.parametrize("value", [None, "5s", 0, -1.0, True, [], 10**400, float("nan")])
def test_a_malformed_duration_is_not_said(value: object) -> None:
    [video] = find_videos({"video": {"url": URL, "duration": value, "content_type": value}})
    assert video == Video(url=URL, content_type="5s" if value == "5s" else None)


def test_whole_numbers_may_be_written_as_fractions() -> None:
    [video] = find_videos({"video": {"url": URL, "file_size": 5.0, "width": 640.0, "duration": 5}})
    assert (video.file_size, video.width, video.duration) == (5, 640, 5.0)


# -- no clip ---


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (None, "is null"),
        ([], "not a JSON object but an array"),
        ([{"url": URL}], "not a JSON object but an array"),
        (URL, "not a JSON object but a text"),
        (7, "not a JSON object but a number"),
        (7.5, "not a JSON object but a number"),
        (True, "not a JSON object but a truth value"),
        ({}, "output is empty"),
        ({"video": None}, "'video' is empty"),
        ({"videos": []}, "'videos' is empty"),
        ({"video_url": ""}, "'video_url' is empty"),
        ({"video": {"url": 7}}, "'video' holds no address"),
        ({"video": {"file_name": "x.mp4"}}, "'video' holds no address"),
        ({"video": 7}, "'video' holds no address"),
        ({"video": [[URL]]}, "'video' holds no address"),
        ({"video": None, "videos": [{}]}, "'videos' holds no address"),
        ({"preview_video": {"url": URL}, "seed": 4}, "it has: preview_video, seed"),
        ({"images": [{"url": URL}]}, "it has: images"),
        ({str(number): 0 for number in range(20)}, "it has: 0, 1, 2, 3, 4, 5, 6, 7, …"),
        ({"video": {"url": "data:video/mp4;base64,AAAA"}}, "sync_mode"),
        ({"video": "DATA:video/mp4;base64,AAAA"}, "sync_mode"),
        ({"videos": ["data:,", URL]}, "sync_mode"),
    ],
)
def test_an_output_without_a_clip_says_what_it_has_instead(output: object, reason: str) -> None:
    with pytest.raises(NoVideo, match=reason) as caught:
        find_videos(output)
    assert len(str(caught.value)) < 400
    assert notice_of("req", output, check) == Notice(request_id="req", failure=str(caught.value))


# -- as a notice ---


def test_the_clip_has_the_requests_id_and_the_others_are_counted() -> None:
    output = {"videos": [{"url": URL, "file_size": 7}, OTHER, URL, f"{OTHER}?again"]}
    assert notice_of("req", output, check) == Notice(
        request_id="req",
        clips=(
            Registration(request_id="req", fal_url=URL, content_length=7),
            Registration(request_id="req_2", fal_url=OTHER),
            Registration(request_id="req_3", fal_url=f"{OTHER}?again"),
        ),
    )


def test_there_are_at_most_16_videos() -> None:
    output = {"videos": [f"{URL}?{number}" for number in range(100)]}
    clips = notice_of("req", output, check).clips
    assert len(clips) == MOST_VIDEOS == 16
    assert clips[-1].request_id == "req_16"


def test_an_id_that_would_be_too_long_is_left_out() -> None:
    output = {"videos": [f"{URL}?{number}" for number in range(16)]}
    ids = [clip.request_id for clip in notice_of("a" * 126, output, check).clips]
    assert ids == ["a" * 126, *(f"{'a' * 126}_{number}" for number in range(2, 10))]
    assert all(REQUEST_ID.fullmatch(name) for name in ids)
    assert len(notice_of("a" * 128, output, check).clips) == 1


def test_a_url_is_kept_as_it_will_be_fetched() -> None:
    notice = notice_of("req", {"video": {"url": "HTTPS://V3B.fal.media.:443/é.mp4#t=1"}}, check)
    assert [clip.fal_url for clip in notice.clips] == ["https://v3b.fal.media/%C3%A9.mp4"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://evil.example/clip.mp4?token=1", "evil.example"),
        ("http://v3b.fal.media/clip.mp4", "v3b.fal.media"),
        ("https://user:secret@v3b.fal.media/clip.mp4", "v3b.fal.media"),
        ("https://127.0.0.1/clip.mp4", "127.0.0.1"),
        ("https://v3b.fal.media@evil.example/clip.mp4", "evil.example"),
        ("file:///etc/passwd", "none"),
        ("//v3b.fal.media/clip.mp4", "v3b.fal.media"),
        ("clip.mp4", "none"),
        ("https://[::1", "none"),
    ],
)
def test_a_foreign_url_is_refused_and_not_forgotten(url: str, host: str) -> None:
    notice = notice_of("req", {"video": {"url": url}}, check)
    assert notice.clips == ()
    assert notice.failure is not None
    assert notice.failure.endswith(f"The address: {url}")
    assert f"Its host is {host};" in notice.failure
    assert "FIRSTVIEW_UPSTREAM_HOSTS" in notice.failure


def test_another_video_with_a_foreign_url_does_not_cost_the_clip() -> None:
    output = {"videos": [URL, "https://evil.example/2.mp4", OTHER]}
    clips = notice_of("req", output, check).clips
    assert [(clip.request_id, clip.fal_url) for clip in clips] == [("req", URL), ("req_3", OTHER)]


@pytest.mark.parametrize("url", ["https://evil.example/\n\0\ud800", "x" * 100_000, "\u2028"])
def test_a_reason_can_be_written_anywhere(url: str) -> None:
    failure = notice_of("req", {"video": {"url": url}}, check).failure
    assert failure is not None
    assert failure.isprintable()
    assert len(failure.encode()) <= 4000


def test_a_reason_is_one_line_of_at_most_2000_characters() -> None:
    assert readable("a\n b\0\t\ud800c") == "a b ?c"
    assert len(readable("é" * 5000)) == 2000


def test_any_other_error_of_the_check_is_not_swallowed() -> None:
    def broken(_url: str) -> str:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        notice_of("req", {"video": URL}, broken)

    def refuses(_url: str) -> str:
        raise SourceUntrusted("No.")

    assert str(notice_of("req", {"video": URL}, refuses).failure).startswith("No. Its host")
