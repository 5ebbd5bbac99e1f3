"""No line of the log holds a secret, whoever wrote it; what is none is left as it was."""

from __future__ import annotations

import json
import string
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.telemetry.guard import HIDDEN, Guard

WORDS = st.text(string.ascii_letters + string.digits + " .,:;/-_()[]'\"\n\té→", max_size=40)
# Of characters that no mask and no escape is made of.
SECRETS = st.text("ABCDEFGHJKLMNPQRSTUVWXYZ23456789+/=!$*", min_size=8, max_size=60)
TOKENS = st.text(string.ascii_letters + string.digits + "+/=_-~.", min_size=12, max_size=60)


def guarded(secrets: tuple[str, ...] = (), **entry: Any) -> str:
    """The line that an entry becomes, as JSON has it."""
    return orjson.dumps(Guard(secrets)(None, "info", {"event": "said", **entry})).decode()


@settings(max_examples=40)
@given(secret=SECRETS, before=WORDS, after=WORDS)
def test_a_known_secret_is_hidden_wherever_it_stands(secret: str, before: str, after: str) -> None:
    text = f"{before}{secret}{after}"
    places: tuple[Any, ...] = (
        text,
        [text],
        {"deep": {"deeper": (1, text)}},
        {text: 1},
        ValueError(text),
        text.encode(),
    )
    for place in places:
        line = guarded((secret,), detail=place)
        assert secret not in line
        assert secret not in str(json.loads(line))
    named: dict[str, Any] = {text: "name"}
    assert secret not in guarded((secret,), **named)
    assert quote(secret, safe="") not in guarded((secret,), path=quote(text, safe=""))


@settings(max_examples=40)
@given(
    host=st.text(string.ascii_lowercase + ".-1", min_size=1, max_size=20),
    path=st.text(string.ascii_letters + "/._-1", max_size=30).map("/{}".format),
    secret=TOKENS,
    before=WORDS,
    after=st.sampled_from(["", " was refused", "'", '"}', "\n  File x", ")"]),
)
def test_of_an_address_only_host_and_path_are_told(
    host: str, path: str, secret: str, before: str, after: str
) -> None:
    for address in (
        f"https://{host}{path}?{secret}",
        f"https://{host}{path}?a=1&token={secret}#x",
        f"http://{host}{path}#{secret}",
        f"postgresql://someone:{secret}@{host}{path}",
        f"postgresql+asyncpg://{secret}@{host}{path}?sslmode=require",
    ):
        assume(secret not in f"{host}{path}{before}{after}")
        line = json.loads(guarded(detail=f"{before}{address}{after}"))
        assert secret not in str(line)
        assert f"{host}{path}" in line["detail"]


@settings(max_examples=40)
@given(secret=TOKENS, name=st.sampled_from(["verify", "VERIFY", "X-Amz-Signature", "token", "sig"]))
def test_parameters_that_prove_something_are_hidden(secret: str, name: str) -> None:
    assume(secret not in name)
    for text in (
        f"/videos/clip.mp4?{name}={secret}",
        f"/videos/clip.mp4?a=b&{name}={secret}&c=d",
        f"{name}%3D{secret}",
        f"b'GET /videos/a.mp4?{name}={secret} HTTP/1.1'",
        f'{{"{name}": "{secret}"}}',
    ):
        assert secret not in guarded(path=text), text


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.DEF-123_xyz",
        "Authorization: Key 1234-5678:abcdef0123",
        "b'authorization', b'Bearer abc.DEF-123_xyz'",
        "proxy-authorization: Basic c29tZW9uZTpzb21ldGhpbmc=",
        "{'Authorization': 'abc.DEF-123_xyz'}",
        "Cookie: session=abc.DEF-123_xyz",
        "X-Firstview-Origin: abc.DEF-123_xyz",
        "sent Bearer abc.DEF-123_xyz to nobody",
        "fal takes Key 1234-5678:abcdef0123 in a field",
        "AWS_SECRET_ACCESS_KEY=abc.DEF-123_xyz",
        "FIRSTVIEW_ADMIN_TOKEN=abc.DEF-123_xyz",
    ],
)
def test_credentials_in_running_text_are_hidden(text: str) -> None:
    line = guarded(detail=text)
    assert HIDDEN in line
    for part in ("DEF-123", "abcdef0123", "c29tZW9uZT"):
        assert part not in line


@pytest.mark.parametrize("name", ["token", "admin_token", "password", "Authorization", "fal_key"])
def test_what_is_named_like_a_secret_is_hidden(name: str) -> None:
    entry: dict[str, Any] = {name: "plain"}
    assert "plain" not in guarded(**entry)
    assert "plain" not in guarded(more={name: ["plain"]})


@pytest.mark.parametrize(
    "entry",
    [
        {"range": "bytes=0-1023", "ms": 1.5, "status": 206, "ended": None, "ok": True},
        {"key": "videos/clip.mp4", "keys": 3, "path": "/videos/verify.mp4"},
        {"detail": "the key holds bytes that we did not write"},
        {"detail": "basic authentication is refused; a token is needed"},
        {"agent": "Mozilla/5.0 (compatible; bot; +http://example.org/bot)"},
        {"wrote": ["a", {"b": 1}], "bucket": "s3://clips"},
        {"exception": "Traceback\n  File 'x.py', line 1\nValueError: no"},
    ],
)
def test_what_is_no_secret_is_left_as_it_was(entry: dict[str, Any]) -> None:
    assert json.loads(guarded(("a-secret-of-ours",), **entry)) == {"event": "said", **entry}


@settings(max_examples=50)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_becomes_one_line_that_a_terminal_does_not_obey(text: str, name: str) -> None:
    entry = Guard()(None, "info", {"event": text, f"x{name}": text})
    orjson.dumps(entry)
    assert all(part.isprintable() for item in entry.items() for part in item)


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_short_secrets_are_not_looked_for_in_words(text: str) -> None:
    assert guarded(("a", "", "dev"), event=text) == guarded(event=text)


@pytest.mark.timeout(20)
def test_long_texts_take_no_long_time() -> None:
    for piece in ("://", "a@", "verify=", "authorization: ", "sig", "key a:", "bearer ", "a" * 10):
        Guard(("a-secret-of-ours",)).text(piece * 20_000)
