"""Every body that fal may send becomes a notice; what cannot be understood says so."""

from __future__ import annotations

import json

import pytest

from proxy.errors import BadRequest
from proxy.records import Notice, Registration
from proxy.upstream.allowlist import Policy, check_url
from proxy.web import webhook_body
from tests.fakes.webhooks import failed, succeeded, video

URL = "https://v3b.fal.media/files/b/koala/clip.mp4"
POLICY = Policy.of(("fal.media", "*.fal.media"))


def read(body: bytes | dict[str, object], fallback_id: str = "from-header") -> Notice:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return webhook_body.read(data, fallback_id, lambda url: check_url(url, POLICY))


def failure(body: bytes | dict[str, object]) -> str:
    notice = read(body)
    assert notice.clips == ()
    assert not notice.resolve
    assert notice.failure
    return notice.failure


# -- what fal says ---


def test_a_finished_generation_has_its_clip() -> None:
    assert read(succeeded("req", video(URL, file_size=5, duration=2.5))) == Notice(
        request_id="req",
        clips=(Registration(request_id="req", fal_url=URL, content_length=5, duration=2.5),),
    )


def test_the_bodys_own_id_counts() -> None:
    assert read(succeeded("req", video(URL)), "another").request_id == "req"


def test_a_result_that_cannot_be_sent_has_to_be_asked_for() -> None:
    body = succeeded("req", None, payload_error="Response payload is not JSON serializable")
    assert read(body) == Notice(request_id="req", resolve=True)


def test_a_payload_counts_more_than_its_error() -> None:
    notice = read(succeeded("req", video(URL), payload_error="odd", error="odd"))
    assert [clip.fal_url for clip in notice.clips] == [URL]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            failed(
                "req",
                "Invalid status code: 422",
                {
                    "detail": [
                        {"loc": ["body", "image_url"], "msg": "field required", "type": "missing"},
                        {"loc": ["body", 0], "msg": "too long"},
                    ]
                },
            ),
            (
                "fal reports: Invalid status code: 422; body.image_url: field required;"
                " body.0: too long"
            ),
        ),
        (failed("req", "Out of memory"), "fal reports: Out of memory"),
        (failed("req", "Twice", {"detail": "Twice"}), "fal reports: Twice"),
        (failed("req", None, {"detail": "Blocked"}), "fal reports: Blocked"),
        (failed("req", None, {"detail": {"msg": "Blocked"}}), "fal reports: Blocked"),
        (failed("req", None, {"detail": [{"message": "No"}]}), "fal reports: No"),
        (failed("req", None, payload_error="Not JSON"), "fal reports: Not JSON"),
        (failed("req", "a\nb\0c"), "fal reports: a b c"),
        (failed("req", None), "fal reports a failure and does not say which."),
        (failed("req", "", {"detail": []}), "fal reports a failure and does not say which."),
        (failed("req", None, {"detail": [7, None, {"msg": 7}]}), "fal reports a failure and"),
        (failed("req", None, [{"detail": "x"}]), "fal reports a failure and"),
    ],
)
def test_a_failed_generation_says_why_in_fals_words(body: bytes, reason: str) -> None:
    assert failure(body).startswith(reason)


def test_what_fal_says_of_a_failure_is_bounded() -> None:
    detail = [{"loc": ["x" * 9000] * 9, "msg": "y" * 9000}] * 9
    assert len(failure(failed("req", "z" * 9000, {"detail": detail}))) <= 2000


def test_an_error_with_a_video_is_still_an_error() -> None:
    assert failure(failed("req", "Late", video(URL))) == "fal reports: Late"


# -- what nobody should say ---


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("COMPLETED", "the status 'COMPLETED', not OK or ERROR"),
        ("ok", "the status 'ok'"),
        ("OK ", "the status 'OK '"),
        ("", "the status ''"),
        (None, "no status"),
        (True, "the status True"),
        (["OK"], "the status list"),
        ({"OK": 1}, "the status dict"),
        ("x" * 9000, "the status 'xxx"),
        ("a\nb", r"the status 'a\\nb'"),
    ],
)
def test_an_unknown_status_is_no_clip(status: object, reason: str) -> None:
    body = {"request_id": "req", "status": status, "payload": video(URL)}
    notice = read(body)
    assert notice.request_id == "req"
    assert reason.replace("\\\\", "\\") in str(notice.failure)
    assert len(str(notice.failure)) < 200


def test_a_missing_payload_is_no_clip() -> None:
    assert "null" in failure({"request_id": "req", "status": "OK"})
    assert "null" in failure({"request_id": "req", "status": "OK", "payload_error": ""})
    assert "sync_mode" in failure(succeeded("req", video("data:video/mp4;base64,AAAA")))
    assert "evil.example" in failure(succeeded("req", video("https://evil.example/x.mp4")))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is not JSON"),
        (b"nonsense", "is not JSON"),
        (b'{"request_id": "req"', "is not JSON"),
        (b'{"request_id": NaN}', "is not JSON"),
        (b'{"request_id": "caf\xe9"}', "is not JSON"),
        (b'{"request_id": "\\ud800"}', "is not JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b"\xff\xfe{\0}\0", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a":' * 100_000, "is not JSON"),
        (b"null", "is not a JSON object"),
        (b"[]", "is not a JSON object"),
        (b'[{"request_id": "req"}]', "is not a JSON object"),
        (b'"req"', "is not a JSON object"),
        (b"{}", "has no request_id"),
        (b'{"request_id": null}', "has no request_id"),
        (b'{"request_id": 7}', "has no request id but 7"),
        (b'{"request_id": ["req"]}', "has no request id but list"),
        (b'{"request_id": ""}', "has no request id but ''"),
        (b'{"request_id": "../../etc/passwd"}', "has no request id but '../../etc/passwd'"),
        (b'{"request_id": "a/b"}', "has no request id but 'a/b'"),
        (b'{"request_id": "req\\n"}', "has no request id but"),
        (b'{"request_id": "-x"}', "has no request id but '-x'"),
        (b'{"request_id": "%s"}' % (b"a" * 129), "has no request id but 'aaa"),
        (b'{"request_id": "caf\xc3\xa9"}', "has no request id but"),
    ],
)
def test_a_body_without_an_id_is_written_down_under_the_headers(body: bytes, reason: str) -> None:
    notice = read(body)
    assert notice.request_id == "from-header"
    assert reason in str(notice.failure)
    assert len(str(notice.failure)) < 300
    for unusable in ("", "../x", "a b", "x" * 129, "req\n"):
        with pytest.raises(BadRequest):
            read(body, unusable)


def test_of_a_member_that_is_there_twice_the_last_counts() -> None:
    """RFC 8259 §4 leaves it open; fal signed both, and only one reading is ever made."""
    body = b'{"request_id":"a","request_id":"b","status":"OK","status":"ERROR"}'
    assert read(body).request_id == "b"
    assert read(body).failure


def test_more_than_fal_says_today_is_no_reason_to_refuse() -> None:
    assert read(succeeded("req", video(URL), metrics={"inference_time": 4}, logs=[])).clips
