"""Whatever comes as a webhook or as a key set, only the declared errors come out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest, BadSignature, SourceUntrusted
from proxy.records import REQUEST_ID, Notice
from proxy.security.fal_signature import Claims, verify
from proxy.security.jwks import BadKeySet, parse_jwks
from proxy.upstream.allowlist import Policy, check_url
from proxy.upstream.outputs import MOST_VIDEOS, NoVideo, find_videos, notice_of
from proxy.web import webhook_body
from tests.fakes.webhooks import Signer

POLICY = Policy.of(("fal.media", "*.fal.media"))
URL = "https://v3b.fal.media/files/b/koala/clip.mp4"
SIGNER = Signer(1)


def check(url: str) -> str:
    return check_url(url, POLICY)


any_text = st.text(st.characters(codec=None), max_size=40)  # half characters too
addresses = st.one_of(
    st.just(URL),
    st.integers(0, 3).map(lambda number: f"{URL}?{number}"),
    st.sampled_from(
        [
            "data:video/mp4;base64,AA",
            "http://fal.media/x",
            "https://evil.example/x",
            "https://[",
            "",
        ]
    ),
    any_text,
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), addresses, st.just(10**400)
)
names = st.sampled_from(
    [
        *(
            "url",
            "video",
            "videos",
            "video_url",
            "preview_video",
            "payload",
            "detail",
            "msg",
            "loc",
        ),
        *("file_size", "duration", "width", "height", "content_type", "request_id", "status"),
        *("error", "payload_error", "keys", "kty", "crv", "x"),
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(names, any_text), inner, max_size=5)
    ),
    max_leaves=20,
)
ids = st.one_of(
    st.sampled_from(["req-1", "a" * 127, "a" * 128, "a" * 129, "../x", "a/b", "", "-a", "a\n"]),
    any_text,
)


def sound(notice: Notice) -> None:
    """What every notice promises, whatever it was made of."""
    assert REQUEST_ID.fullmatch(notice.request_id)
    assert bool(notice.clips) + (notice.failure is not None) + notice.resolve == 1
    assert len(notice.clips) <= MOST_VIDEOS
    named = [clip.request_id for clip in notice.clips]
    assert len(set(named)) == len(named)
    assert named[:1] in ([], [notice.request_id])
    for clip in notice.clips:
        assert REQUEST_ID.fullmatch(clip.request_id)
        assert clip.fal_url is not None
        assert check(clip.fal_url) == clip.fal_url
        assert clip.content_length is None or 0 < clip.content_length < 2**63
        assert clip.duration is None or 0 < clip.duration < float("inf")
        for pixels in (clip.width, clip.height):
            assert pixels is None or 0 < pixels < 2**31
    if notice.failure is not None:
        assert notice.failure.isprintable()
        assert 0 < len(notice.failure) <= 2000
        notice.failure.encode()


@given(values)
def test_any_output_is_a_notice(output: object) -> None:
    try:
        videos = find_videos(output)
    except NoVideo:
        videos = []
    assert len(videos) <= MOST_VIDEOS
    sound(notice_of("req-1", output, check))


@given(st.binary(max_size=200), ids)
def test_any_bytes_are_a_notice_or_a_bad_request(body: bytes, fallback: str) -> None:
    _read(body, fallback)


@given(st.one_of(values, st.dictionaries(names, values)), ids)
def test_any_json_is_a_notice_or_a_bad_request(value: object, fallback: str) -> None:
    _read(json.dumps(value).encode("utf-8", "surrogatepass"), fallback)


@given(
    st.fixed_dictionaries(
        {"request_id": ids, "status": st.sampled_from(["OK", "ERROR", "COMPLETED", None])},
        optional={"payload": values, "error": values, "payload_error": values},
    ),
    ids,
)
def test_anything_in_fals_envelope_is_a_notice_or_a_bad_request(
    envelope: dict[str, Any], fallback: str
) -> None:
    _read(json.dumps(envelope).encode(), fallback)


def _read(body: bytes, fallback: str) -> None:
    try:
        notice = webhook_body.read(body, fallback, check)
    except BadRequest:
        assert REQUEST_ID.fullmatch(fallback) is None
    else:
        sound(notice)


field_names = st.sampled_from([*SIGNER.headers(b""), "x-fal-webhook-signature", "Host", ""])
field_values = st.one_of(
    st.sampled_from([*SIGNER.headers(b"", at=1_800_000_000).values(), "", "0", "9" * 12]), any_text
)


@given(st.lists(st.tuples(field_names, field_values), max_size=8))
def test_any_fields_are_claims_or_a_bad_signature(fields: list[tuple[str, str]]) -> None:
    try:
        claims = Claims.read(fields)
    except BadSignature:
        return
    keys = [Ed25519PublicKey.from_public_bytes(SIGNER.public)]
    with pytest.raises(BadSignature):  # of another body
        verify(keys, claims, bytes(32), 1_800_000_000, 300.0)


@given(st.one_of(st.binary(max_size=200), values.map(lambda value: json.dumps(value).encode())))
def test_any_document_is_a_key_set_or_none(document: bytes) -> None:
    with pytest.raises(BadKeySet):
        parse_jwks(document)


@given(st.lists(st.one_of(values, st.binary(min_size=30, max_size=34))))
def test_any_keys_among_others_are_found(entries: list[Any]) -> None:
    expected = []
    for number, entry in enumerate(entries):
        if isinstance(entry, bytes):
            x = base64.urlsafe_b64encode(entry).decode()
            entries[number] = {"kty": "OKP", "crv": "Ed25519", "x": x}
            expected += [entry] * (len(entry) == 32)
    document = json.dumps({"keys": entries}).encode()
    if not expected:
        with pytest.raises(BadKeySet):
            parse_jwks(document)
        return
    try:
        keys = parse_jwks(document)
    except BadKeySet as error:
        assert "JSON" in str(error)  # noqa: PT017 - what Python writes and JSON does not have
        return
    assert [key.public_bytes_raw() for key in keys] == expected


@given(addresses)
def test_what_the_check_lets_through_it_lets_through_again(url: str) -> None:
    try:
        spelt = check(url)
    except SourceUntrusted:
        return
    assert check(spelt) == spelt
