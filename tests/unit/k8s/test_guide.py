"""What docs/kubernetes.md tells people to write works."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from proxy.settings import Settings, parse_duration
from tests.fixtures.manifests import K8S, ROOT, Manifests, kustomized

pytestmark = pytest.mark.needs("kubectl")

GUIDE = (ROOT / "docs" / "kubernetes.md").read_text()
PATCHED = {"ConfigMap", "Ingress", "ServiceAccount"}
"""Kinds that the examples change; the rest is as in the overlays."""
CLOUDFLARE_KEEPS = 900.0
"""Seconds that Cloudflare keeps an idle connection; see docs/cloudflare.md."""


def example(name: str) -> str:
    """The block of YAML below a mark in the guide."""
    [found] = re.findall(rf"<!-- example: {name} -->\n```yaml\n(.*?)```", GUIDE, re.DOTALL)
    return str(found)


def written(name: str, folder: Path) -> Manifests:
    """What kustomize makes of an example, as if its folder lay beside k8s/."""
    beside = os.path.relpath(K8S, folder.resolve())
    (folder / "kustomization.yaml").write_text(example(name).replace("../k8s", beside))
    return kustomized(folder)


@pytest.mark.parametrize("name", ["replicas", "role"])
def test_an_owners_folder_is_valid(name: str, tmp_path: Path) -> None:
    for each in written(name, tmp_path).objects:
        if each["kind"] in PATCHED:
            kubernetes_validate.validate(each, "1.37", strict=True)


def test_an_owners_folder_changes_what_it_says(tmp_path: Path) -> None:
    objects = written("replicas", tmp_path)
    origin = objects.pod("origin")
    assert origin.container["image"] == "ghcr.io/you/firstview:0.1.0"
    found = objects.environment(origin)
    assert found["FIRSTVIEW_BUCKET_URL"] == "s3://your-clips"
    assert found["FIRSTVIEW_WORKER"] == "false", "what the overlay says is kept"
    [ingress] = objects.of("Ingress")
    host = ingress["spec"]["rules"][0]["host"]
    assert found["FIRSTVIEW_PUBLIC_URL"] == f"https://{host}" == "https://clips.your-app.com"
    assert ingress["spec"]["tls"][0]["hosts"] == [host]
    assert len(objects.of("ConfigMap")) == 1
    [monitor] = objects.of("ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert {each["metadata"].get("namespace", "firstview") for each in objects.objects} == {
        "firstview"
    }


def test_a_role_needs_no_keys(tmp_path: Path) -> None:
    objects = written("role", tmp_path)
    [account] = objects.of("ServiceAccount")
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
    for component in ("origin", "worker"):
        optional = {
            each["name"]: each["valueFrom"]["secretKeyRef"].get("optional")
            for each in objects.pod(component).container["env"]
            if "valueFrom" in each
        }
        assert optional["AWS_ACCESS_KEY_ID"]
        assert optional["AWS_SECRET_ACCESS_KEY"]


def test_every_controller_keeps_connections_for_longer_than_cloudflare_and_no_longer_than_we() -> (
    None
):
    controllers: list[dict[str, Any]] = list(yaml.safe_load_all(example("controllers")))
    assert len(controllers) == 2
    ours = Settings(_env_file=None).keepalive_timeout  # type: ignore[call-arg]
    for each in controllers:
        config = each["controller"]["config"]
        config = config.get("entries", config)
        [keeps] = [config[name] for name in ("keepalive-timeout", "keep-alive") if name in config]
        kept = parse_duration(keeps)
        assert isinstance(kept, float)
        assert CLOUDFLARE_KEEPS < kept <= ours


def test_every_overlay_and_component_is_in_the_guide() -> None:
    for overlay in (K8S / "overlays").iterdir():
        assert f"| `{overlay.name}` |" in GUIDE
    for component in (K8S / "components").iterdir():
        assert f"| `k8s/components/{component.name}` |" in GUIDE


def test_objects_that_the_guide_names_exist() -> None:
    objects = kustomized(K8S / "overlays" / "r2")
    kinds = {each.lower(): each for each in ("StatefulSet", "Deployment", "Job")}
    kinds["deploy"] = "Deployment"
    found = re.findall(rf"\b({'|'.join(kinds)})[/ ](firstview[a-z-]*)", GUIDE)
    assert {kinds[kind] for kind, _ in found} == set(kinds.values())
    for kind, name in found:
        objects.named(kinds[kind], name)
    [origin] = objects.of("StatefulSet")
    [claim] = origin["spec"]["volumeClaimTemplates"]
    pods = set(re.findall(r"\bpod/([a-z0-9-]+)", GUIDE))
    assert pods == {f"{origin['metadata']['name']}-0"}
    assert set(re.findall(r"\bpvc/([a-z0-9-]+)", GUIDE)) == {
        f"{claim['metadata']['name']}-{pod}" for pod in pods
    }
    for name in re.findall(r"(?:policy|policies) `(firstview-[a-z]+)`", GUIDE):
        objects.named("NetworkPolicy", name)


def test_the_alerts_become_a_rule_of_the_operators() -> None:
    [script] = re.findall(r"```sh\n(\{\n.*?\n\}) \| kubectl apply -f -\n```", GUIDE, re.DOTALL)
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, check=True)
    rule = yaml.safe_load(done.stdout)
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert rule.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert rule["spec"] == alerts
    assert rule["metadata"]["labels"] == {"release": "kube-prometheus-stack"}
    assert alerts["groups"]
