"""Pods may do no more than they must, live long enough to drain, and have room to keep clips."""

from __future__ import annotations

import re

import pytest
from pydantic import ByteSize, TypeAdapter

from proxy.settings import Settings, load
from tests.fixtures.manifests import ALL, K8S, REPLICATED, Manifests, Pod, rendered

pytestmark = pytest.mark.needs("kubectl")

MOST_OF_A_VOLUME = 0.9
"""A file system needs some of it for itself."""
AFTER_THE_DRAIN = 20.0
"""Seconds for what is left when replies and fills have ended, or have been cut off; see
docs/operations.md."""
SLOW_DISK = 50 * 1024 * 1024
"""Bytes a second of a volume that is read from its start to its end."""


@pytest.fixture(params=ALL)
def objects(request: pytest.FixtureRequest) -> Manifests:
    return rendered(request.param)


def told(objects: Manifests, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> Settings:
    with monkeypatch.context() as patch:
        for name, value in objects.environment(pod).items():
            if value is not None:
                patch.setenv(name, value)
        return load(_env_file=None)


def test_pods_meet_the_restricted_profile(objects: Manifests) -> None:
    [namespace] = objects.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in objects.pods():
        assert not pod.spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["runAsUser"] > 0
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for volume in pod.spec.get("volumes", []):
            assert volume.keys() - {"name"} <= {"emptyDir", "persistentVolumeClaim"}


def test_nothing_but_the_data_directory_can_be_written_to(
    objects: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(told(objects, objects.pod("origin"), monkeypatch).data_dir)
    for pod in objects.pods():
        assert [mount["mountPath"] for mount in pod.container["volumeMounts"]] == [data]


def test_nobody_can_speak_to_kubernetes_and_kubernetes_adds_no_settings(
    objects: Manifests,
) -> None:
    for pod in objects.pods():
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False


def test_pods_are_killed_only_when_draining_has_had_its_time(
    objects: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in objects.pods():
        if pod.ports:
            settings = told(objects, pod, monkeypatch)
            needed = settings.drain_delay + settings.drain_timeout + AFTER_THE_DRAIN
            assert pod.spec["terminationGracePeriodSeconds"] > needed, pod.owner


def test_an_origin_goes_on_accepting_until_the_ingress_controller_has_heard(
    objects: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(objects, objects.pod("origin"), monkeypatch).drain_delay >= 5.0


def test_the_supervisor_gets_to_replace_a_worker_before_the_kubelet_ends_them_all(
    objects: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in objects.pods():
        if pod.ports:
            probe = pod.container["livenessProbe"]
            patience = probe["periodSeconds"] * (probe["failureThreshold"] - 1)
            assert patience > told(objects, pod, monkeypatch).worker_timeout


def test_a_pod_may_start_for_as_long_as_it_takes_to_prove_all_that_it_may_have_kept(
    objects: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in objects.pods():
        if pod.ports:
            probe = pod.container["startupProbe"]
            patience = probe["periodSeconds"] * probe["failureThreshold"]
            kept = told(objects, pod, monkeypatch).cache_max_bytes
            assert patience > kept / SLOW_DISK, pod.owner


def test_every_container_says_what_it_needs(objects: Manifests) -> None:
    for pod in objects.pods():
        resources = pod.container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert resources["limits"].keys() == {"memory"}
        assert size(resources["limits"]["memory"]) >= size(resources["requests"]["memory"])


def test_a_volume_has_room_for_the_disk_budget_and_the_reserve(
    objects: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    [origin] = objects.of("StatefulSet")
    volumes = {"origin": origin["spec"]["volumeClaimTemplates"][0]}
    for claim in objects.of("PersistentVolumeClaim"):
        volumes[claim["metadata"]["labels"]["app.kubernetes.io/component"]] = claim
    for component, claim in volumes.items():
        settings = told(objects, objects.pod(component), monkeypatch)
        room = size(claim["spec"]["resources"]["requests"]["storage"]) * MOST_OF_A_VOLUME
        assert settings.cache_max_bytes + settings.disk_reserve <= room, component


def test_a_replica_that_goes_leaves_its_disk_behind(objects: Manifests) -> None:
    [origin] = objects.of("StatefulSet")
    kept = origin["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}


@pytest.mark.parametrize("overlay", REPLICATED)
def test_replicas_share_a_catalog_and_a_bucket_and_leave_jobs_to_the_worker(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = rendered(overlay)
    for component in ("origin", "worker", "migrate"):
        assert "FIRSTVIEW_DATABASE_URL" in objects.environment(objects.pod(component))
    for component in ("origin", "worker"):
        settings = told(objects, objects.pod(component), monkeypatch)
        assert settings.bucket_url.startswith("s3://")
    assert not told(objects, objects.pod("origin"), monkeypatch).worker
    assert objects.pod("origin").container["args"] == ["serve"]
    assert objects.pod("worker").container["args"] == ["worker"]
    assert objects.pod("migrate").container["args"] == ["catalog", "migrate"]


def test_a_volume_is_never_wanted_by_two_workers_at_once() -> None:
    [worker] = rendered(REPLICATED[0]).of("Deployment")
    assert worker["spec"]["strategy"] == {"type": "Recreate"}
    assert worker["spec"]["replicas"] == 1


def test_a_single_node_has_one_replica_that_does_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = rendered("single-node")
    [pod] = objects.pods()
    [origin] = objects.of("StatefulSet")
    settings = told(objects, pod, monkeypatch)
    assert origin["spec"]["replicas"] == 1
    assert settings.worker
    assert not settings.database_url.get_secret_value()
    assert not settings.bucket_url
    assert not objects.of("HorizontalPodAutoscaler")


def test_pods_run_as_the_images_user_and_keep_what_the_image_keeps() -> None:
    dockerfile = (K8S.parent / "Dockerfile").read_text()
    [user, group] = re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)[-1]
    [data] = re.findall(r"^VOLUME (\S+)$", dockerfile, re.MULTILINE)
    assert 'ENTRYPOINT ["firstview"]' in dockerfile
    for pod in rendered(REPLICATED[0]).pods():
        context = pod.spec["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
        assert pod.container["volumeMounts"][0]["mountPath"] == data


def size(quantity: str) -> int:
    """Bytes of one of Kubernetes' quantities, such as 20Gi."""
    return int(TypeAdapter(ByteSize).validate_python(f"{quantity}B"))
