"""Every overlay is what Kubernetes takes, of this release, and without a secret."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from proxy.settings import Settings
from tests.fixtures.manifests import ALL, K8S, OVERLAYS, ROOT, Manifest, rendered

pytestmark = pytest.mark.needs("kubectl")

VERSIONS = ["1.27", "1.37"]
FOREIGN = {"ServiceMonitor"}
"""Kinds that Kubernetes has no schema of."""


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version: str) -> None:
    checked: list[Manifest] = []
    for overlay in ALL:
        for each in rendered(overlay).objects:
            if each["kind"] not in FOREIGN and each not in checked:
                kubernetes_validate.validate(each, version, strict=True)
                checked.append(each)
    assert len(checked) > len(OVERLAYS)


def test_a_field_that_does_not_exist_is_found_out() -> None:
    service = rendered("r2").named("Service", "firstview")
    wrong = service | {"spec": service["spec"] | {"selektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_versions_are_those_of_the_guide() -> None:
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    assert f"checked against the schemas of {' and '.join(VERSIONS)}" in guide.replace("\n", " ")


@pytest.mark.parametrize("overlay", ALL)
def test_everything_lies_in_one_namespace(overlay: str) -> None:
    objects = rendered(overlay)
    [namespace] = objects.of("Namespace")
    for each in objects.objects:
        if each is not namespace:
            assert each["metadata"].get("namespace") == namespace["metadata"]["name"], each


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_of_this_release(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {pod.container["image"] for pod in rendered(overlay).pods()}
    assert images == {f"ghcr.io/OWNER/firstview:{version}"}


@pytest.mark.parametrize("overlay", ALL)
def test_no_secret_is_written_down(overlay: str) -> None:
    secret = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FIRSTVIEW_FAL_KEY"}
    for name, field in Settings.model_fields.items():
        if SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ())):
            secret.add(f"FIRSTVIEW_{name.upper()}")
    objects = rendered(overlay)
    assert not objects.of("Secret")
    for each in objects.of("ConfigMap"):
        assert not secret & each["data"].keys()
    for pod in objects.pods():
        for variable in pod.container.get("env", []):
            assert variable["name"] not in secret or "secretKeyRef" in variable["valueFrom"]


def test_every_file_is_part_of_an_overlay_or_a_component_that_is_tested() -> None:
    used = set()
    for folder in [*(K8S / "overlays").iterdir(), *(K8S / "components").iterdir()]:
        used |= files_of(folder)
    assert used == {path for path in K8S.rglob("*") if path.is_file()}


def files_of(folder: Path) -> set[Path]:
    """The files that a kustomization is made of, with those that it builds upon."""
    file = folder / "kustomization.yaml"
    said: dict[str, Any] = yaml.safe_load(file.read_text())
    names = [*said.get("resources", []), *said.get("components", [])]
    names += [patch["path"] for patch in said.get("patches", [])]
    names += [name for each in said.get("configMapGenerator", []) for name in each["envs"]]
    found = {file}
    for name in names:
        path = (folder / name).resolve()
        found |= files_of(path) if path.is_dir() else {path}
    return found
