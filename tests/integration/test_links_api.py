"""Links made by the admin API and on the command line, and viewers sent to the bucket itself."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import sign
from proxy.errors import BadRequest, SettingsError
from proxy.settings import Settings
from tests.fakes.fal import make_clip
from tests.fixtures.links import GATED, KEYS, signed
from tests.fixtures.looking import path_of
from tests.fixtures.origin import MakeOrigin, Origin
from tests.fixtures.truth import Truth
from tests.integration.test_admin_api import ask as ask_admin
from tests.integration.test_command_line import firstview
from tests.integration.test_gated_clips import ask, caching

DATA = make_clip(40_000, 8)
LINKS = "/api/v1/links"
VARIABLES = {f"FIRSTVIEW_{name.upper()}": str(value) for name, value in KEYS.items()}


def settings_of(said: dict[str, Any]) -> Settings:
    """Settings of nobody's environment."""
    return Settings(_env_file=None, **said)  # type: ignore[call-arg]


async def post(origin: Origin, **body: Any) -> tuple[int, Any]:
    return await ask_admin(origin, LINKS, "POST", body)


async def fetched(origin: Origin, url: str) -> tuple[int, bytes]:
    """GET a URL as it is written, and as its host answers."""
    path = url.partition("://")[2].partition("/")[2]
    reply = await ask(origin, f"/{path}")
    return reply.status, reply.body


# --- by the admin API ---------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"url_safe": True}, {"key": "old"}, {"life": "2m"}])
async def test_links_are_made_for_several_clips_at_once(
    make_origin: MakeOrigin, more: dict[str, Any]
) -> None:
    origin = await make_origin(**GATED)
    await origin.clip("clip", DATA)
    status, answer = await post(origin, request_ids=["clip", "later"], **more)
    assert status == 200, answer
    assert [link["request_id"] for link in answer["links"]] == ["clip", "later"]
    assert [(await fetched(origin, link["url"]))[0] for link in answer["links"]] == [200, 404]
    assert answer["links"][0]["url"].startswith("http://localhost:8080/videos/clip.mp4?verify=")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "request_ids must be a list of 1 to 1000"),
        ({"request_ids": []}, "request_ids must be a list of 1 to 1000"),
        ({"request_ids": ["a"] * 1001}, "request_ids must be a list of 1 to 1000"),
        ({"request_ids": ["a/b"]}, "request_ids must be a list of request ids"),
        ({"request_ids": ["a"], "life": "2h"}, "between 1 and 3600 seconds"),
        ({"request_ids": ["a"], "life": "soon"}, "life: 'soon' is not a time"),
        ({"request_ids": ["a"], "life": True}, "life must be a time"),
        ({"request_ids": ["a"], "key": "x"}, "there is no key named 'x'"),
        ({"request_ids": ["a"], "key": 1}, "key must be a text"),
        ({"request_ids": ["a"], "kind": "open"}, "kind must be one of signed, presigned"),
        ({"request_ids": ["a"], "kind": "presigned", "life": 5}, "takes neither life"),
        ({"request_ids": ["a"], "lives": 5}, "'lives' is not a field"),
    ],
)
async def test_what_no_link_can_be_made_of_is_said(
    make_origin: MakeOrigin, body: dict[str, Any], said: str
) -> None:
    origin = await make_origin(**KEYS)
    status, answer = await post(origin, **body)
    assert status == 400
    assert said in answer["detail"]


async def test_a_directory_sends_nobody_to_itself(make_origin: MakeOrigin) -> None:
    origin = await make_origin(**KEYS)
    await origin.clip("clip", DATA)
    await origin.get("clip")
    await origin.stored("clip")
    status, answer = await post(origin, request_ids=["clip"], kind="presigned")
    assert (status, "a directory of this machine" in answer["detail"]) == (400, True)


# --- to the bucket ------------------------------------------------------------------------------


async def test_a_presigned_link_is_answered_by_the_bucket(
    make_origin: MakeOrigin, aws_environment: None, truth: Truth
) -> None:
    origin = await make_origin(bucket_url=truth.url)
    await origin.clip("clip", DATA)
    await origin.get("clip")
    await origin.stored("clip")
    status, answer = await post(origin, request_ids=["clip", "nobody"], kind="presigned")
    assert (status, answer["not_stored"]) == (200, ["nobody"])
    [link] = answer["links"]
    async with origin.client.get(link["url"], headers={"Range": "bytes=5-9"}) as response:
        assert (response.status, await response.read()) == (206, DATA[5:10])
        assert response.headers["Content-Type"] == "video/mp4"


async def test_viewers_of_stored_clips_are_sent_to_the_bucket(
    make_origin: MakeOrigin, aws_environment: None, truth: Truth
) -> None:
    origin = await make_origin(bucket_url=truth.url, redirect_stored=True, **GATED)
    await origin.clip("clip", DATA)
    first = await ask(origin, signed("clip"))
    assert (first.status, first.body) == (200, DATA)
    await origin.stored("clip")
    sent = await ask(origin, signed("clip", url_safe=True))
    assert caching(sent) == (302, "no-store")
    assert sent.head.fields["access-control-allow-origin"] == "*"
    address = sent.head.fields["location"]
    assert "X-Amz-Expires=900" in address
    async with origin.client.get(address) as response:
        assert (response.status, await response.read()) == (200, DATA)
    assert (await ask(origin, signed("clip"), "HEAD")).status == 200
    saved = await ask(origin, signed("clip", "download=a"))
    assert (saved.status, saved.body) == (200, DATA)
    assert caching(await ask(origin, path_of("clip"))) == (403, "no-store")


# --- on the command line ------------------------------------------------------------------------


async def test_a_link_of_the_command_line_holds(make_origin: MakeOrigin, tmp_path: Path) -> None:
    origin = await make_origin(**GATED)
    await origin.clip("clip", DATA)
    done = firstview(tmp_path, "sign", "clip", path_of("clip") + "?download=a", **VARIABLES)
    assert done.returncode == 0, done.stderr
    urls = done.stdout.splitlines()
    assert [await fetched(origin, url) for url in urls] == [(200, DATA)] * 2


def test_the_command_line_says_when_a_link_ends(capsys: pytest.CaptureFixture[str]) -> None:
    before = int(time.time())
    wish = sign.Wish(life="15m", key="old", url_safe=True)
    assert sign.run(settings_of(KEYS), ["clip"], wish, as_json=True) == 0
    [link] = json.loads(capsys.readouterr().out)
    assert (link["path"], link["key"]) == (path_of("clip"), "old")
    assert "%" not in link["url"]
    begun = int(link["url"].partition("verify=")[2].partition("-")[0])
    assert before <= begun + 3600 - 900 <= time.time()
    assert datetime.fromisoformat(link["expires_at"]).timestamp() == begun + 3600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a/b",), "'a/b' is no request id"),
        (("clip", "life", "2h"), "between 1 and 3600 seconds"),
        (("clip", "life", "soon"), "--life: 'soon' is not a time"),
        (("clip", "key", "x"), "there is no key named 'x'"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments: tuple[str, ...], said: str) -> None:
    what, *more = arguments
    said_too = dict(zip(more[::2], more[1::2], strict=True))
    wish = sign.Wish(life=said_too.get("life"), key=said_too.get("key"))
    with pytest.raises((SettingsError, BadRequest), match=said):
        sign.run(settings_of(KEYS), [what], wish, as_json=False)
