"""One link, two gates: what firstview signs, the rule of deploy/cloudflare/ lets through."""

from __future__ import annotations

import re
from typing import Any

import pytest

from proxy.secret_lists import named_keys
from proxy.security.links import PARAMETER, Links
from proxy.security.origin_lock import FIELD, OriginLock
from proxy.settings import Settings, parse_duration
from tests.fakes.edge_rules import EdgeRequest, matches
from tests.fixtures.terraform import Module

MODULE = Module()
NOW = 1_800_000_000
LIFE = 86_400
CLIP = "/videos/abc_1.mp4"
NEW, OLD = "n" * 16 + "+/=&?'<>", "0123456789abcdef"
LINKS = Links(named_keys(f"new:{NEW},old:{OLD}"), LIFE)


def refused(uri: str, *, now: int = NOW, host: str = "cdn.example.com", **given: Any) -> bool:
    plan = MODULE.plan(check_tokens=True, signing_secrets=[NEW, OLD], **given)
    (rule,) = plan.rules("links")
    return matches(rule["expression"], EdgeRequest(uri, host, now))


@pytest.mark.parametrize("key", ["new", "old"])
@pytest.mark.parametrize("path", [CLIP, f"{CLIP}?download=a.mp4", f"{CLIP}?t=1&u=2"])
def test_a_link_that_firstview_signs_passes_both_gates(key: str, path: str) -> None:
    for life in (1, 900, LIFE):
        link = LINKS.sign(path, NOW, life=life, key=key)
        before, _, query = link.path.partition("?")
        assert not refused(link.path, now=NOW + life - 1)
        assert LINKS.holds(before, query, NOW + life - 1)
        assert refused(link.path, now=NOW + life)
        assert not LINKS.holds(before, query, NOW + life)


def test_who_has_no_link_for_this_very_clip_is_refused() -> None:
    link = LINKS.sign(CLIP, NOW).path
    token = link.partition("?")[2]
    stranger = Links(named_keys("x:" + "z" * 16), LIFE).sign(CLIP, NOW).path
    for uri in (
        CLIP,
        f"{CLIP}?{PARAMETER}=",
        f"/videos/other.mp4?{token}",
        f"{CLIP}?a=b&{token}",
        f"{link}&a=b",
        link[:-4],
        stranger,
    ):
        assert refused(uri), uri


def test_nothing_but_what_is_gated_is_refused() -> None:
    assert not refused("/webhooks/fal")
    assert not refused("/healthz")
    assert not refused(CLIP, host="www.example.com")
    assert not refused(CLIP, gated_path_prefixes=["/videos/vip-"])
    assert refused("/videos/vip-1.mp4", gated_path_prefixes=["/videos/x", "/videos/vip-"])


def test_the_rule_knows_how_long_the_parameters_name_is() -> None:
    (rule,) = MODULE.plan(check_tokens=True, signing_secrets=[NEW, OLD]).rules("links")
    separators = re.findall(r"timestamp\.sec, (\d+)\)", rule["expression"])
    assert separators == [str(len(f"?{PARAMETER}="))] * 2


def test_links_live_as_long_at_the_edge_as_at_the_origin_if_nobody_says_otherwise() -> None:
    life = parse_duration(Settings.model_fields["link_life"].default)
    assert MODULE.variables()["link_life"]["default"] == life


def test_the_secret_that_the_edge_sends_opens_the_lock() -> None:
    (rule,) = MODULE.plan().rules("origin")
    ((name, field),) = rule["action_parameters"]["headers"].items()
    assert name == FIELD
    assert OriginLock([field["value"].encode()]).admits([field["value"]])
