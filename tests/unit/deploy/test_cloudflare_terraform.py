"""deploy/cloudflare/: what Terraform would set up, tried on requests as the edge would."""

from __future__ import annotations

import re
from typing import Any

import hcl2
import pytest

from tests.fakes.edge_rules import EdgeRequest, matches
from tests.fixtures.terraform import FILES, FOLDER, SECRET, Module, Plan, Refused, read_values

MODULE = Module()
PAGE = FOLDER.parents[1] / "docs" / "cloudflare.md"
EXAMPLE = FOLDER / "terraform.tfvars.example"
CLIP = "/videos/abc_1.mp4"

# What the provider documents of the resources in use, as far as we use it:
# https://registry.terraform.io/providers/cloudflare/cloudflare/latest/docs/resources/ruleset
RULE = {"ref", "description", "expression", "action", "action_parameters", "enabled"}
RULESET = {"zone_id", "name", "description", "kind", "phase", "rules"}
SWITCH = {"zone_id", "value"}
RESOURCES = {
    "cloudflare_ruleset": RULESET,
    "cloudflare_tiered_cache": SWITCH,
    "cloudflare_argo_tiered_caching": SWITCH,
}
PHASES = {
    "http_request_cache_settings": "set_cache_settings",
    "http_request_firewall_custom": "block",
    "http_request_late_transform": "rewrite",
}
CACHE_SETTINGS: dict[str, Any] = {
    "cache": {True, False},
    "cache_key": {"custom_key": {"query_string": {"exclude": {"all": {True}}}}},
    "edge_ttl": {"mode": {"respect_origin", "bypass_by_default", "override_origin"}},
    "browser_ttl": {"mode": {"respect_origin", "bypass_by_default", "override_origin"}},
    "origin_range_requests": {"mode": {"on", "off", "default"}},
    "respect_strong_etags": {True, False},
}


def everything() -> Plan:
    return MODULE.plan(check_tokens=True, signing_secrets=[SECRET, SECRET[::-1]])


def assert_within(given: Any, known: Any) -> None:
    """Every name is known, at its place, and every value is one of those that there are."""
    if isinstance(known, set):
        assert given in known
        return
    assert set(given) <= set(known)
    for name, value in given.items():
        assert_within(value, known[name])


# -- the files ---


def test_every_file_is_well_formed() -> None:
    for path in [*FILES, EXAMPLE]:  # in one test: the library takes seconds to begin with
        with path.open() as file:
            assert hcl2.load(file), path.name


def test_the_example_says_all_that_is_wanted() -> None:
    values = read_values(EXAMPLE.read_text())
    assert set(values) == set(MODULE.variables())
    MODULE.plan(**{**values, "origin_secret": SECRET})


def test_a_secret_that_is_published_here_is_nobodys() -> None:
    values = read_values(EXAMPLE.read_text())
    with pytest.raises(Refused, match="give origin_secret"):
        MODULE.plan(**values)
    assert values["signing_secrets"] == []


def test_everything_that_is_named_exists_and_everything_that_exists_is_used() -> None:
    declared = {("var", block.labels[0]) for block in MODULE.blocks("variable")}
    declared |= {("local", name) for name in MODULE.locals()}
    resources = {(block.labels[0], block.labels[1]) for block in MODULE.blocks("resource")}
    assert MODULE.references - resources == declared
    assert {kind for kind, _ in resources} == set(RESOURCES)


def test_variables_and_outputs_say_what_they_are_and_hide_what_is_secret() -> None:
    for block in [*MODULE.blocks("variable"), *MODULE.blocks("output")]:
        said = set(block.body.attributes)
        assert "description" in said, block.labels
        secret = "secret" in block.labels[0] or block.labels[0] == "token_expression"
        assert ("sensitive" in said) == secret, block.labels


def test_what_is_asked_for_is_what_the_provider_knows() -> None:
    for (kind, _), made in everything().resources.items():
        for resource in made:
            assert set(resource) == RESOURCES[kind]
    for name in ("cache", "links", "origin"):
        (ruleset,) = everything().resources["cloudflare_ruleset", name]
        assert ruleset["kind"] == "zone"
        for rule in ruleset["rules"]:
            assert set(rule) - {"action_parameters"} == RULE - {"action_parameters"}
            assert rule["enabled"] is True
            assert rule["action"] == PHASES[ruleset["phase"]]
    refs = [
        rule["ref"] for name in ("cache", "links", "origin") for rule in everything().rules(name)
    ]
    assert len(set(refs)) == len(refs)


@pytest.mark.parametrize(
    ("given", "about"),
    [
        ({"zone_id": "example.com"}, "zone id"),
        ({"hostnames": []}, "at least one hostname"),
        ({"hostnames": ["https://cdn.example.com"]}, "without a scheme"),
        ({"hostnames": ['x"} or true or http.host in {"y.z']}, "without a scheme"),
        ({"origin_secret": None}, "give origin_secret"),
        ({"origin_secret": "short"}, "give origin_secret"),
        ({"check_tokens": True}, "at least one signing secret"),
        ({"signing_secrets": ['quote"' + SECRET]}, "signing secret is"),
        ({"signing_secrets": ["two,secrets" + SECRET]}, "signing secret is"),
        ({"gated_path_prefixes": ["/"]}, "/videos/"),
        ({"gated_path_prefixes": []}, "/videos/"),
        ({"link_life": 0.5}, "whole number"),
        ({"tiered_cache": "on"}, "smart"),
        ({"origin_range_requests": "yes"}, "on, off"),
        ({"link_lifetime": 900}, "no variable"),
    ],
)
def test_variables_that_make_no_sense_are_refused(given: dict[str, Any], about: str) -> None:
    with pytest.raises(Refused, match=re.escape(about)):
        MODULE.plan(**given)


def test_what_the_page_has_people_import_is_what_there_is() -> None:
    page = (FOLDER / "README.md").read_text()
    written = set(re.findall(r"terraform import '?cloudflare_ruleset\.(\w+)(\[0\])?", page))
    several = {
        block.labels[1]: "[0]" if "count" in block.body.attributes else ""
        for block in MODULE.blocks("resource")
        if block.labels[0] == "cloudflare_ruleset"
    }
    assert written == set(several.items())


# -- the cache ---


def test_the_cache_is_set_up_by_what_the_vendor_knows() -> None:
    for mode in ("on", "off", "default"):
        for rule in MODULE.plan(origin_range_requests=mode).rules("cache"):
            assert_within(rule["action_parameters"], CACHE_SETTINGS)
            assert rule["action_parameters"]["origin_range_requests"] == {"mode": mode}


def kept_under(uri: str, host: str = "cdn.example.com") -> str | None:
    """The key of a request, without scheme and host; None where no rule of ours is for it."""
    request = EdgeRequest(uri, host)
    plan = MODULE.plan(hostnames=["cdn.example.com", "clips.example.com"])
    fitting = [rule for rule in plan.rules("cache") if matches(rule["expression"], request)]
    if not fitting:
        return None
    (rule,) = fitting  # two would both apply, the later one over the earlier
    settings = rule["action_parameters"]
    assert settings["cache"] is True
    return uri.partition("?")[0] if "cache_key" in settings else uri


def test_a_clip_is_one_copy_whatever_its_link_and_its_query() -> None:
    for query in ("", "?verify=1800000000-abc", "?v=2", "?utm_source=x&verify=1-y"):
        assert kept_under(CLIP + query) == CLIP
        assert kept_under(CLIP + query, "clips.example.com") == CLIP


def test_a_name_that_somebody_saves_a_clip_under_is_not_everybodys() -> None:
    for query in ("?download=mine.mp4", "?v=2&download=mine&verify=1-x", "?download"):
        assert kept_under(CLIP + query) == CLIP + query


def test_nothing_but_clips_of_our_hostnames_is_touched() -> None:
    for uri, host in (
        (CLIP, "www.example.com"),
        ("/", "cdn.example.com"),
        ("/webhooks/fal", "cdn.example.com"),
    ):
        assert kept_under(uri, host) is None


def test_the_edge_keeps_what_the_origin_says_and_nothing_that_says_nothing() -> None:
    for rule in MODULE.plan().rules("cache"):
        assert rule["action_parameters"]["edge_ttl"] == {"mode": "bypass_by_default"}
        assert rule["action_parameters"]["browser_ttl"] == {"mode": "respect_origin"}
        assert rule["action_parameters"]["respect_strong_etags"] is True


@pytest.mark.parametrize(
    ("wanted", "tiering", "smart"),
    [
        ("smart", ["on"], ["on"]),
        ("generic", ["on"], ["off"]),
        ("off", ["off"], ["off"]),
        ("leave", [], []),
    ],
)
def test_tiered_cache_is_what_was_asked_for(
    wanted: str, tiering: list[str], smart: list[str]
) -> None:
    made = MODULE.plan(tiered_cache=wanted).resources
    assert [one["value"] for one in made["cloudflare_argo_tiered_caching", "tiered"]] == tiering
    assert [one["value"] for one in made["cloudflare_tiered_cache", "smart"]] == smart


# -- who gets in ---


def test_the_origin_is_told_its_secret_with_every_request() -> None:
    (rule,) = MODULE.plan().rules("origin")
    for uri in (CLIP, "/webhooks/fal", "/healthz"):
        assert matches(rule["expression"], EdgeRequest(uri))
    assert not matches(rule["expression"], EdgeRequest(CLIP, "www.example.com"))
    assert rule["action_parameters"] == {
        "headers": {"X-Firstview-Origin": {"operation": "set", "value": SECRET}}
    }


def test_without_a_lock_nothing_is_told() -> None:
    assert MODULE.plan(lock_origin=False, origin_secret=None).rules("origin") == []


def test_without_gated_clips_no_request_is_refused() -> None:
    plan = MODULE.plan()
    assert plan.rules("links") == []
    assert plan.outputs["ruleset_ids"]["links"] is None


def test_the_outputs_are_what_is_set_up() -> None:
    plan = everything()
    assert plan.outputs["clip_urls"] == ["https://cdn.example.com/videos/<request_id>.mp4"]
    assert plan.outputs["cache_expression"] == plan.rules("cache")[0]["expression"]
    assert plan.outputs["download_expression"] == plan.rules("cache")[1]["expression"]
    assert plan.outputs["token_expression"] == plan.rules("links")[0]["expression"]
    assert all(plan.outputs["ruleset_ids"].values())


# -- the page for those who do it by hand ---


def test_the_rules_that_the_page_gives_are_those_that_terraform_sets_up() -> None:
    plan = MODULE.plan(check_tokens=True, signing_secrets=["<secret>________"])
    ours = {
        rule["expression"] for name in ("cache", "origin", "links") for rule in plan.rules(name)
    }
    written = re.findall(r"^ *(\(http\.host .*\))$", PAGE.read_text(), re.MULTILINE)
    for expression in written:
        assert simplest(expression) in {simplest(own) for own in ours}
    assert len(written) == 2


def simplest(expression: str) -> str:
    """Without the brackets that only several prefixes or secrets need."""
    return re.sub(r"[()]", "", expression).replace("<secret>________", "<secret>")
