"""What one object says of another, of the settings or of firstview's own addresses is true."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.settings import Settings, load
from tests.fixtures.manifests import ALL, MONITORED, REPLICATED, ROOT, Manifests, Pod, rendered
from tools import reference

pytestmark = pytest.mark.needs("kubectl")

SECRET = "firstview-secrets"
VALUES = {
    "FIRSTVIEW_DATABASE_URL": "postgresql://firstview@db/firstview",
    "FIRSTVIEW_SIGNING_KEYS": "2026:0123456789abcdef0123456789abcdef",
}
"""What a Secret holds, where it has to be of a certain form."""


def settings_of(objects: Manifests, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What firstview makes of the pod's environment."""
    for name, value in objects.environment(pod).items():
        monkeypatch.setenv(name, VALUES.get(name, "fedcba9876543210") if value is None else value)
    return load(_env_file=None)


@pytest.fixture(params=ALL)
def objects(request: pytest.FixtureRequest) -> Manifests:
    return rendered(request.param)


def test_settings_that_pods_get_exist(objects: Manifests) -> None:
    known = reference.settings_page()
    for pod in objects.pods():
        for name in objects.environment(pod):
            assert f"`{name}`" in known, f"{pod.owner} is given {name}"


def test_firstview_takes_the_settings_of_every_pod(
    objects: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in objects.pods():
        with monkeypatch.context() as patch:
            settings_of(objects, pod, patch)


def test_ports_are_those_that_firstview_listens_on(
    objects: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = objects.pod("origin")
    settings = settings_of(objects, origin, monkeypatch)
    assert settings.listen_address == ("0.0.0.0", origin.ports["http"])
    for pod in objects.pods():
        if pod.ports:
            assert settings.admin_address == ("0.0.0.0", pod.ports["admin"])


def test_every_probe_asks_the_admin_listener(objects: Manifests) -> None:
    for pod in objects.pods():
        probes = {key: value for key, value in pod.container.items() if key.endswith("Probe")}
        if "admin" in pod.ports:
            assert probes.keys() == {"startupProbe", "livenessProbe", "readinessProbe"}
        for probe in probes.values():
            assert probe["httpGet"]["port"] == "admin"


def test_controllers_select_their_own_pods_and_no_others(objects: Manifests) -> None:
    for each in [*objects.of("StatefulSet"), *objects.of("Deployment")]:
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert objects.selected(each["spec"]["selector"]) == {labels["app.kubernetes.io/component"]}


def test_services_lead_to_ports_of_the_pods_that_they_select(objects: Manifests) -> None:
    wanted = {"firstview": "origin", "firstview-admin": "origin"}
    if objects.of("Deployment"):
        wanted["firstview-worker-admin"] = "worker"
    services = {each["metadata"]["name"]: each["spec"] for each in objects.of("Service")}
    assert services.keys() == wanted.keys()
    for name, component in wanted.items():
        assert objects.selected(services[name]["selector"]) == {component}
        for port in services[name]["ports"]:
            assert port["targetPort"] in objects.pod(component).ports


def test_replicas_have_names_in_a_headless_service(objects: Manifests) -> None:
    [origin] = objects.of("StatefulSet")
    service = objects.named("Service", origin["spec"]["serviceName"])
    assert service["spec"]["clusterIP"] == "None"
    assert objects.selected(service["spec"]["selector"]) == {"origin"}


def test_the_ingress_leads_to_a_port_of_the_service(objects: Manifests) -> None:
    [ingress] = objects.of("Ingress")
    [rule] = ingress["spec"]["rules"]
    assert rule["host"] in ingress["spec"]["tls"][0]["hosts"]
    data = objects.environment(objects.pod("origin"))
    assert data["FIRSTVIEW_PUBLIC_URL"] == f"https://{rule['host']}"
    for path in rule["http"]["paths"]:
        target = path["backend"]["service"]
        ports = objects.named("Service", target["name"])["spec"]["ports"]
        assert target["port"]["name"] in {port["name"] for port in ports}


def test_accounts_and_volumes_that_pods_name_exist(objects: Manifests) -> None:
    for pod in objects.pods():
        objects.named("ServiceAccount", pod.spec["serviceAccountName"])
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                objects.named("PersistentVolumeClaim", claim["claimName"])
        if pod.owner.startswith("StatefulSet/"):
            [owner] = objects.of("StatefulSet")
            volumes |= {each["metadata"]["name"]: each for each in claims(owner)}
        assert volumes.keys() == {mount["name"] for mount in pod.container["volumeMounts"]}


def claims(stateful_set: dict[str, Any]) -> list[dict[str, Any]]:
    return list(stateful_set["spec"].get("volumeClaimTemplates", []))


def test_secrets_that_pods_need_are_in_the_guide(objects: Manifests) -> None:
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    for pod in objects.pods():
        for variable in pod.container.get("env", []):
            if "valueFrom" in variable:
                source = variable["valueFrom"]["secretKeyRef"]
                assert source["name"] == SECRET
                assert source["key"] == variable["name"]
                assert f"--from-literal={source['key']}=" in guide
    assert f"kubectl create secret generic {SECRET} " in guide.replace("\\\n", " ")
    [ingress] = objects.of("Ingress")
    for entry in ingress["spec"]["tls"]:
        assert f"kubectl create secret tls {entry['secretName']} " in guide.replace("\\\n", " ")


@pytest.mark.parametrize("overlay", REPLICATED)
def test_what_scales_and_guards_replicas_means_the_origin(overlay: str) -> None:
    objects = rendered(overlay)
    [scaler] = objects.of("HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert "replicas" not in objects.named(target["kind"], target["name"])["spec"]
    assert scaler["spec"]["minReplicas"] >= 2
    requests = objects.pod("origin").container["resources"]["requests"]
    assert scaler["spec"]["metrics"][0]["resource"]["name"] in requests
    [budget] = objects.of("PodDisruptionBudget")
    assert objects.selected(budget["spec"]["selector"]) == {"origin"}
    spread = objects.pod("origin").spec["topologySpreadConstraints"]
    assert len(spread) == 2
    for each in spread:
        assert objects.selected(each["labelSelector"]) == {"origin"}


def test_prometheus_is_told_of_every_admin_listener() -> None:
    objects = rendered(MONITORED)
    [monitor] = objects.of("ServiceMonitor")
    seen: set[str] = set()
    for service in objects.of("Service"):
        if (
            monitor["spec"]["selector"]["matchLabels"].items()
            <= service["metadata"]["labels"].items()
        ):
            ports = {port["name"] for port in service["spec"]["ports"]}
            assert {each["port"] for each in monitor["spec"]["endpoints"]} <= ports
            seen |= objects.selected(service["spec"]["selector"])
            assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "firstview"
    assert seen == {
        pod.labels["app.kubernetes.io/component"] for pod in objects.pods() if pod.ports
    }
