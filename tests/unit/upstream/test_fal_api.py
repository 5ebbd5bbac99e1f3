"""Asking fal what became of a request: every form of answer, and where the key goes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxy.errors import FalRefused, FirstviewError, SourceTimeout, SourceUnavailable
from proxy.upstream.breaker import HostResting
from proxy.upstream.fal_answers import Failed, Output, Pending, Unknown, app_of, is_model
from proxy.upstream.fal_api import MAX_ANSWER, FalApi
from tests.fakes.fal_api import FOREVER, FakeFalApi, Fault
from tests.fixtures.origin import settings_for

MODEL = "fal-ai/kling-video/v2/master/text-to-video"
ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
OUTPUT = {"video": {"url": "https://v3b.fal.media/files/b/x/clip.mp4"}}

Make = Callable[..., FalApi]


@pytest.fixture
async def fal() -> AsyncIterator[FakeFalApi]:
    async with FakeFalApi() as fake:
        yield fake


@pytest.fixture
async def make(fal: FakeFalApi, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[FalApi] = []

    def build(**changes: Any) -> FalApi:
        defaults = {
            "fal_key": fal.key,
            "fal_queue_url": fal.queue_url,
            "fal_api_url": fal.api_url,
            "fal_api_timeout": "5s",
        }
        made.append(FalApi(settings_for(tmp_path, **{**defaults, **changes})))
        return made[-1]

    yield build
    for api in made:
        await api.close()


@pytest.fixture
def api(make: Make) -> FalApi:
    return make()


# --- the queue API ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["IN_QUEUE", "IN_PROGRESS"])
async def test_a_request_that_is_not_done_is_pending(
    fal: FakeFalApi, api: FalApi, state: str
) -> None:
    fal.add(ID, MODEL, state=state)
    assert await api.result(MODEL, ID) == Pending()
    assert fal.targets() == [f"/fal-ai/kling-video/requests/{ID}/status"]


async def test_a_request_that_is_done_gives_its_raw_output(fal: FakeFalApi, api: FalApi) -> None:
    fal.add(ID, MODEL, output=OUTPUT)
    assert await api.result(MODEL, ID) == Output(OUTPUT)
    assert fal.targets() == [
        f"/fal-ai/kling-video/requests/{ID}/status",
        f"/fal-ai/kling-video/requests/{ID}",
    ]


async def test_a_failure_is_complete_and_says_why(fal: FakeFalApi, api: FalApi) -> None:
    fal.add(ID, MODEL, error="Invalid status code: 422")
    assert await api.result(MODEL, ID) == Failed("Invalid status code: 422")


async def test_a_result_that_is_a_refusal_is_a_failure_with_its_details(
    fal: FakeFalApi, api: FalApi
) -> None:
    details = [
        {"loc": ["body", "prompt"], "msg": "content policy", "type": "x"},
        {"loc": ["body", "image_url"], "msg": "cannot be read", "type": "y"},
    ]
    fal.add(ID, MODEL, rejected=422, output={"detail": details})
    answer = await api.result(MODEL, ID)
    assert answer == Failed("body.prompt: content policy; body.image_url: cannot be read")


@pytest.mark.parametrize("output", [{}, {"detail": 5}, {"detail": [7, {}]}, [], "x"])
async def test_a_failure_without_words_is_still_a_failure(
    fal: FakeFalApi, api: FalApi, output: object
) -> None:
    fal.add(ID, MODEL, rejected=422, output=output)
    answer = await api.result(MODEL, ID)
    assert isinstance(answer, Failed)
    assert answer.reason


async def test_a_result_that_times_out_at_the_gateway_is_asked_for_again(
    fal: FakeFalApi, api: FalApi
) -> None:
    fal.add(ID, MODEL, output=OUTPUT)
    fal.fail("result", Fault(status=504), Fault(status=504))
    assert await api.result(MODEL, ID) == Output(OUTPUT)


async def test_a_result_that_keeps_timing_out_is_left_for_later_and_blames_no_host(
    fal: FakeFalApi, make: Make
) -> None:
    api = make(upstream_breaker_failures=1)
    fal.add(ID, MODEL, output=OUTPUT)
    fal.always("result", Fault(status=504))
    with pytest.raises(SourceTimeout):
        await api.result(MODEL, ID)
    assert len(fal.targets("result")) == 3
    fal.always("result", None)
    assert await api.result(MODEL, ID) == Output(OUTPUT)


@pytest.mark.parametrize(
    ("model", "app"),
    [
        ("fal-ai/veo3", "fal-ai/veo3"),
        ("fal-ai/veo3/fast/image-to-video", "fal-ai/veo3"),
        ("workflows/acme/my-flow", "workflows/acme/my-flow"),
        ("workflows/acme/my-flow/sub", "workflows/acme/my-flow"),
        ("comfy/acme/my-flow", "comfy/acme/my-flow"),
    ],
)
async def test_the_address_has_owner_and_app_only(
    fal: FakeFalApi, api: FalApi, model: str, app: str
) -> None:
    fal.add(ID, model, output=OUTPUT)
    assert await api.result(model, ID) == Output(OUTPUT)
    assert fal.targets()[0] == f"/{app}/requests/{ID}/status"


NOT_MODELS = [
    "",
    "veo3",
    "fal-ai/",
    "/veo3",
    "fal-ai//veo3",
    "fal-ai/../admin",
    "./veo3",
    "fal-ai/veo3?x=y",
    "fal-ai/veo3#x",
    "fal-ai/veo 3",
    "fal-ai/veo3\n",
    "fal-ai/ve%2fo3",
    "fäl-ai/veo3",
    "workflows/acme",
    "a/" + "b" * 300,
    "https://evil.test/x",
]


@pytest.mark.parametrize("model", NOT_MODELS)
async def test_what_is_no_model_is_never_asked_about(
    fal: FakeFalApi, api: FalApi, model: str
) -> None:
    assert not is_model(model)
    with pytest.raises(ValueError, match="model"):
        app_of(model)
    with pytest.raises(ValueError, match="model"):
        await api.result(model, ID)
    assert fal.asked == []


@pytest.mark.parametrize("request_id", ["", "../x", "a/b", "a?b", "a\n", "x" * 129])
async def test_what_is_no_request_id_is_never_asked_about(
    fal: FakeFalApi, api: FalApi, request_id: str
) -> None:
    with pytest.raises(ValueError, match="request id"):
        await api.result(MODEL, request_id)
    assert fal.asked == []


# --- the platform API ---------------------------------------------------------------------------


@pytest.mark.parametrize("age", [timedelta(minutes=5), timedelta(days=80)])
async def test_what_the_queue_has_forgotten_is_searched_for_up_to_89_days_back(
    fal: FakeFalApi, api: FalApi, age: timedelta
) -> None:
    fal.add(ID, MODEL, output=OUTPUT, expired=True, age=age)
    assert await api.result(MODEL, ID) == Output(OUTPUT)
    assert [asked.where for asked in fal.asked] == ["status", "platform"]


async def test_a_result_that_expires_after_its_status_was_read_is_searched_for(
    fal: FakeFalApi, api: FalApi
) -> None:
    fal.add(ID, MODEL, output=OUTPUT)
    fal.fail("result", Fault(status=410))
    assert await api.result(MODEL, ID) == Output(OUTPUT)


async def test_a_failure_that_is_only_archived_is_a_failure(fal: FakeFalApi, api: FalApi) -> None:
    fal.add(ID, MODEL, rejected=422, output={"detail": "no cats"}, expired=True)
    assert await api.result(MODEL, ID) == Failed("no cats")


async def test_a_failure_that_was_archived_without_payload_is_a_failure(
    fal: FakeFalApi, api: FalApi
) -> None:
    fal.add(ID, MODEL, rejected=500, expired=True, archived=False)
    assert await api.result(MODEL, ID) == Failed("The model answered with 500.")


async def test_a_request_that_is_archived_without_an_end_is_pending(
    fal: FakeFalApi, api: FalApi
) -> None:
    fal.add(ID, MODEL, state="IN_PROGRESS", expired=True)
    assert await api.result(MODEL, ID) == Pending()


@pytest.mark.parametrize("known", [True, False])
async def test_what_nobody_has_kept_is_unknown(fal: FakeFalApi, api: FalApi, known: bool) -> None:
    if known:
        fal.add(ID, MODEL, output=OUTPUT, expired=True, archived=False)
    assert await api.result(MODEL, ID) == Unknown()


async def test_another_requests_entry_is_not_taken_for_this_one(
    fal: FakeFalApi, api: FalApi
) -> None:
    item = {"request_id": "other", "status_code": 200, "json_output": OUTPUT}
    fal.always("platform", Fault(body=json.dumps({"items": [None, item]}).encode()))
    assert await api.result(MODEL, ID) == Unknown()


async def test_an_id_that_the_platform_api_cannot_read_is_unknown(
    fal: FakeFalApi, api: FalApi
) -> None:
    fal.always("platform", Fault(status=400, body=b'{"detail": "not a UUID"}'))
    assert await api.result(MODEL, "my-own_id") == Unknown()


# --- the key ------------------------------------------------------------------------------------


async def test_the_key_goes_to_both_apis(fal: FakeFalApi, api: FalApi) -> None:
    fal.add(ID, MODEL, output=OUTPUT, expired=True)
    await api.result(MODEL, ID)
    assert {asked.authorization for asked in fal.asked} == {f"Key {fal.key}"}
    assert {f"http://{asked.host}" for asked in fal.asked} == {fal.queue_url, fal.api_url}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["status", "result", "platform"])
async def test_the_key_is_never_sent_along_a_redirect(
    fal: FakeFalApi, api: FalApi, where: Any, status: int
) -> None:
    async with FakeFalApi() as elsewhere:
        fal.add(ID, MODEL, output=OUTPUT, expired=where == "platform")
        for target in (elsewhere.queue_url, fal.queue_url):
            location = f"{target}/fal-ai/kling-video/requests/{ID}"
            fal.fail(where, Fault(status=status, headers={"Location": location}))
            before = len(fal.asked)
            with pytest.raises(SourceUnavailable, match="redirect"):
                await api.result(MODEL, ID)
            assert fal.asked[-1].where == where
            assert len(fal.asked) - before == (1 if where == "status" else 2)
        assert elsewhere.asked == []


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("where", ["status", "result", "platform"])
async def test_a_key_that_is_refused_is_named_by_its_setting_and_not_shown(
    fal: FakeFalApi, api: FalApi, where: Any, status: int
) -> None:
    fal.add(ID, MODEL, output=OUTPUT, expired=where == "platform")
    fal.always(where, Fault(status=status))
    with pytest.raises(FalRefused, match="FIRSTVIEW_FAL_KEY") as caught:
        await api.result(MODEL, ID)
    assert fal.key not in repr(caught.value)


@pytest.mark.parametrize("key", [None, "", "  "])
async def test_without_a_key_nobody_is_asked(fal: FakeFalApi, make: Make, key: str | None) -> None:
    api = make(fal_key=key)
    assert not api.has_key
    with pytest.raises(FalRefused, match="FIRSTVIEW_FAL_KEY"):
        await api.result(MODEL, ID)
    assert fal.asked == []


async def test_a_newline_at_the_end_of_a_key_is_no_part_of_it(fal: FakeFalApi, make: Make) -> None:
    fal.add(ID, MODEL, output=OUTPUT)
    assert await make(fal_key=f"{fal.key}\n").result(MODEL, ID) == Output(OUTPUT)


async def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    fal: FakeFalApi, make: Make
) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(FalRefused) as caught:
        await make(fal_key="id:sec\r\nret").result(MODEL, ID)
    assert "ret" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert "sec" not in repr(logs)
    assert fal.asked == []


# --- trouble ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=500), SourceUnavailable),
        (Fault(status=503), SourceUnavailable),
        (Fault(status=504), SourceTimeout),
        (Fault(status=408), SourceTimeout),
        (Fault(status=429), HostResting),
        (Fault(hang_up=True), SourceUnavailable),
        (Fault(body=b"<html>"), SourceUnavailable),
        (Fault(body=b""), SourceUnavailable),
        (Fault(body=b"[]"), SourceUnavailable),
        (Fault(body=b'{"status": "PONDERING"}'), SourceUnavailable),
        (Fault(body=b"[" * 100_000), SourceUnavailable),
        (Fault(body=b"\xff\xfe"), SourceUnavailable),
        (Fault(body=b" " * (MAX_ANSWER + 1)), SourceUnavailable),
    ],
    ids=lambda value: None if isinstance(value, type) else repr(value)[:60],
)
async def test_an_answer_that_is_none_is_an_error_of_ours(
    fal: FakeFalApi, api: FalApi, fault: Fault, error: type[FirstviewError]
) -> None:
    fal.add(ID, MODEL, output=OUTPUT)
    # aiohttp itself asks once more when a connection ends without an answer.
    fal.fail("status", *[fault] * (2 if fault.hang_up else 1))
    with pytest.raises(error) as caught:
        await api.result(MODEL, ID)
    assert "fal" in caught.value.detail
    assert caught.value.retryable
    assert await api.result(MODEL, ID) == Output(OUTPUT)


@pytest.mark.parametrize("body", [b"{}", b'{"items": {}}', b"[]"])
async def test_a_list_that_is_none_is_an_error_of_ours(
    fal: FakeFalApi, api: FalApi, body: bytes
) -> None:
    fal.always("platform", Fault(body=body))
    with pytest.raises(SourceUnavailable):
        await api.result(MODEL, ID)


async def test_a_request_to_slow_down_says_for_how_long(fal: FakeFalApi, api: FalApi) -> None:
    waits = []
    for said in ("17", "99999999999", "soon", "Fri, 31 Dec 1999 23:59:59 GMT"):
        fal.fail("status", Fault(status=429, headers={"Retry-After": said}))
        with pytest.raises(HostResting) as caught:
            await api.result(MODEL, ID)
        waits.append(caught.value.wait)
    assert waits == [17.0, 300.0, 5.0, 5.0]


async def test_an_api_that_hangs_is_left_after_the_timeout(fal: FakeFalApi, make: Make) -> None:
    fal.always("status", Fault(delay=FOREVER))
    with pytest.raises(SourceTimeout):
        await make(fal_api_timeout="100ms").result(MODEL, ID)


async def test_an_address_where_nobody_listens_is_unavailable(make: Make) -> None:
    with pytest.raises(SourceUnavailable):
        await make(fal_queue_url="http://127.0.0.1:1").result(MODEL, ID)


async def test_an_address_that_is_none_is_named_by_its_setting(make: Make) -> None:
    with pytest.raises(FalRefused, match="FIRSTVIEW_FAL_QUEUE_URL"):
        await make(fal_queue_url="http://").result(MODEL, ID)


async def test_an_api_that_keeps_failing_is_left_alone_and_the_other_is_not(
    fal: FakeFalApi, make: Make
) -> None:
    api = make(upstream_breaker_failures=2, upstream_breaker_pause="1h")
    fal.add(ID, MODEL, output=OUTPUT, expired=True)
    fal.always("platform", Fault(status=500))
    for _ in range(2):
        with pytest.raises(SourceUnavailable):
            await api.result(MODEL, ID)
    with pytest.raises(HostResting, match="fal's API") as caught:
        await api.result(MODEL, ID)
    assert caught.value.wait == pytest.approx(3600, abs=10)
    assert (len(fal.targets("platform")), len(fal.targets("status"))) == (2, 3)


async def test_an_api_is_asked_again_after_its_rest(fal: FakeFalApi, make: Make) -> None:
    api = make(upstream_breaker_failures=1, upstream_breaker_pause="400ms")
    fal.add(ID, MODEL, output=OUTPUT)
    fal.fail("status", Fault(status=500))
    with pytest.raises(SourceUnavailable):
        await api.result(MODEL, ID)
    with pytest.raises(HostResting):
        await api.result(MODEL, ID)
    await asyncio.sleep(0.42)  # the pause itself
    assert await api.result(MODEL, ID) == Output(OUTPUT)
