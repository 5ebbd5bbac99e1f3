"""Who may speak to whom, and what the ingress controller is told of clips that stream."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from proxy.settings import Settings, parse_duration
from tests.fixtures.manifests import ALL, REPLICATED, Manifests, Pod, rendered, selects

pytestmark = pytest.mark.needs("kubectl")

CLOUDFLARE_READS_FOR = 125.0
"""Seconds; see docs/cloudflare.md."""
F5 = "nginx.org/"
COMMUNITY = "nginx.ingress.kubernetes.io/"


@pytest.fixture(params=ALL)
def objects(request: pytest.FixtureRequest) -> Manifests:
    return rendered(request.param)


def allowed(objects: Manifests, pod: Pod, direction: str, peer: str, port: int) -> bool:
    """Whether any policy lets the pod speak TCP with `peer`: a namespace, or an IP address."""
    key = "to" if direction == "Egress" else "from"
    for policy in objects.of("NetworkPolicy"):
        spec = policy["spec"]
        if direction in spec["policyTypes"] and selects(spec["podSelector"], pod.labels):
            for rule in spec.get(direction.lower(), []):
                ports = {pod.ports.get(each["port"], each["port"]) for each in rule["ports"]}
                if port in ports and meant(rule.get(key), peer):
                    return True
    return False


def meant(peers: list[dict[str, Any]] | None, peer: str) -> bool:
    """Whether a rule's peers include one; none at all include everybody."""
    if peers is None:
        return True
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        labels = {"kubernetes.io/metadata.name": peer}
        return any(
            selects(each["namespaceSelector"], labels)
            for each in peers
            if "namespaceSelector" in each
        )
    blocks = [each["ipBlock"] for each in peers if "ipBlock" in each]
    return any(
        address in ipaddress.ip_network(block["cidr"])
        and not any(address in ipaddress.ip_network(no) for no in block.get("except", []))
        for block in blocks
    )


def test_policies_hold_for_every_pod_in_both_directions(objects: Manifests) -> None:
    for pod in objects.pods():
        held = [
            set(policy["spec"]["policyTypes"])
            for policy in objects.of("NetworkPolicy")
            if selects(policy["spec"]["podSelector"], pod.labels)
        ]
        assert set().union(*held) == {"Ingress", "Egress"}, pod.owner


def test_clips_are_for_the_ingress_controller_and_figures_for_prometheus(
    objects: Manifests,
) -> None:
    for pod in objects.pods():
        for name, port in pod.ports.items():
            wanted = {"http": {"nginx-ingress", "ingress-nginx"}, "admin": {"monitoring"}}[name]
            for peer in ("nginx-ingress", "ingress-nginx", "monitoring", "default", "10.1.2.3"):
                found = allowed(objects, pod, "Ingress", peer, port)
                assert found == (peer in wanted), (pod.owner, name, peer)


def test_a_single_nodes_own_ingress_controller_gets_through() -> None:
    objects = rendered("single-node")
    origin = objects.pod("origin")
    assert allowed(objects, origin, "Ingress", "kube-system", origin.ports["http"])
    assert not allowed(objects, origin, "Ingress", "kube-system", origin.ports["admin"])
    assert "ingressClassName" not in objects.of("Ingress")[0]["spec"]


def test_pods_reach_names_and_the_internet_and_nothing_private(objects: Manifests) -> None:
    for pod in objects.pods():
        for names in ("kube-system", "169.254.20.10", "169.254.169.254"):
            assert allowed(objects, pod, "Egress", names, 53)
        for public in ("104.16.1.1", "2606:4700::1"):
            assert allowed(objects, pod, "Egress", public, 443)
            assert not allowed(objects, pod, "Egress", public, 80)
        assert not allowed(objects, pod, "Egress", "169.254.169.254", 80)
        for private in ("169.254.169.254", "10.96.0.1", "192.168.1.1", "172.20.0.1", "fd00::1"):
            assert not allowed(objects, pod, "Egress", private, 443), (pod.owner, private)


@pytest.mark.parametrize("overlay", ALL)
def test_only_those_that_have_a_database_elsewhere_may_reach_one(overlay: str) -> None:
    objects = rendered(overlay)
    for pod in objects.pods():
        assert allowed(objects, pod, "Egress", "10.1.2.3", 5432) == (overlay != "single-node")


def told(objects: Manifests, prefix: str) -> dict[str, str]:
    [ingress] = objects.of("Ingress")
    found = ingress["metadata"]["annotations"]
    return {name.removeprefix(prefix): found[name] for name in found if name.startswith(prefix)}


def test_a_clip_has_one_replica_whatever_its_query(objects: Manifests) -> None:
    assert told(objects, F5)["lb-method"] == "hash $uri consistent"
    assert told(objects, COMMUNITY)["upstream-hash-by"] == "$uri"


def test_both_controllers_are_told_the_same(objects: Manifests) -> None:
    ours, theirs = told(objects, F5), told(objects, COMMUNITY)
    for one, other in {
        "proxy-buffering": {"false": "off"},
        "proxy-max-temp-file-size": {},
        "proxy-read-timeout": {},
        "proxy-send-timeout": {},
        "proxy-connect-timeout": {},
    }.items():
        value = ours[one].removesuffix("s") if one.endswith("timeout") else ours[one]
        assert other.get(value, value) == theirs[one], one
    assert ours["client-max-body-size"] == theirs["proxy-body-size"]


def test_the_controller_waits_longer_than_firstview_and_cloudflare_do(objects: Manifests) -> None:
    waits = parse_duration(told(objects, F5)["proxy-read-timeout"])
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert isinstance(waits, float)
    assert waits > CLOUDFLARE_READS_FOR
    assert waits > settings.fill_stall_timeout
    assert waits > settings.upstream_connect_timeout + settings.upstream_first_byte_timeout


def test_a_webhook_of_any_length_is_firstviews_to_refuse(objects: Manifests) -> None:
    most = told(objects, F5)["client-max-body-size"]
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    assert int(most.removesuffix("m")) * 1024 * 1024 > settings.webhook_max_bytes


def test_the_ingress_shows_the_public_addresses_and_no_others(objects: Manifests) -> None:
    [rule] = objects.of("Ingress")[0]["spec"]["rules"]
    paths = {(path["path"], path["pathType"]) for path in rule["http"]["paths"]}
    assert paths == {("/videos/", "Prefix"), ("/webhooks/fal", "Exact"), ("/healthz", "Exact")}


def test_replicas_are_added_fast_and_taken_away_slowly() -> None:
    [scaler] = rendered(REPLICATED[0]).of("HorizontalPodAutoscaler")
    behavior = scaler["spec"]["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    assert up["stabilizationWindowSeconds"] < down["stabilizationWindowSeconds"]
    assert [each["value"] for each in down["policies"]] == [1]
