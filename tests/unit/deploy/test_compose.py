"""deploy/compose.yaml: one machine in containers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from dotenv import dotenv_values

from proxy.settings import Settings, load, parse_duration
from proxy.supervisor import supervisor

DEPLOY: Final = Path(__file__).resolve().parents[3] / "deploy"
PATH: Final = DEPLOY / "compose.yaml"
COMPOSE: Final = yaml.safe_load(PATH.read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
EXAMPLES: Final = sorted(DEPLOY.glob("*.env.example"))
SLOW_DISK: Final = 50 * 1024 * 1024
"""Bytes a second."""


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)


def seconds(text: str) -> float:
    value = parse_duration(text)
    assert isinstance(value, float)
    return value


def test_it_is_a_compose_file_by_the_specification() -> None:
    done = check(PATH)
    assert done.returncode == 0, done.stdout


def test_the_specification_finds_what_is_misspelt(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(PATH.read_text().replace("stop_grace_period", "stop_grace_time", 1))
    done = check(wrong)
    assert done.returncode != 0
    assert "stop_grace_time" in done.stdout


def test_what_services_refer_to_is_declared() -> None:
    for service in SERVICES.values():
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        for name, value in service.get("environment", {}).items():
            if str(value).startswith("/run/secrets/"):
                assert name.endswith("_FILE")
                assert Path(value).name in service["secrets"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not set(service) & {"privileged", "cap_add", "network_mode", "pid", "devices"}
    limits = service["deploy"]["resources"]["limits"]
    assert {"memory", "pids"} <= set(limits)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_watched_restarted_and_does_not_fill_the_disk(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert seconds(service["healthcheck"]["timeout"]) <= seconds(service["healthcheck"]["interval"])
    assert service["restart"] == "unless-stopped"
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert "stop_grace_period" in service


def test_a_container_that_starts_slowly_is_not_taken_for_a_sick_one() -> None:
    # What waited for the bucket is read before anything else, up to all of the disk's budget.
    kept = load(_env_file=DEPLOY / "firstview.env.example").cache_max_bytes
    image = (DEPLOY.parent / "Dockerfile").read_text()
    (of_the_image,) = re.findall(r"--start-period=(\w+)", image)
    for patience in (SERVICES["firstview"]["healthcheck"]["start_period"], of_the_image):
        assert seconds(patience) > kept / SLOW_DISK


def test_images_of_others_are_of_a_named_version() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            assert re.fullmatch(r"\$\{[A-Z_]+:-[\w./-]+:\d[\w.-]+\}", service["image"]), name


def test_no_port_is_open_to_anybody_else() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_all_that_firstview_writes_goes_to_a_volume() -> None:
    service = SERVICES["firstview"]
    kept = [volume.split(":")[1] for volume in service["volumes"]]
    assert service["environment"]["FIRSTVIEW_DATA_DIR"] in kept


def test_viewers_have_the_time_that_they_are_promised_before_anything_is_killed() -> None:
    fields = Settings.model_fields
    wanted = seconds(fields["drain_delay"].default) + seconds(fields["drain_timeout"].default)
    grace = seconds(SERVICES["firstview"]["stop_grace_period"])
    assert grace > wanted + supervisor.MARGIN
    tunnel = SERVICES["cloudflared"]
    assert seconds(tunnel["stop_grace_period"]) > seconds(
        tunnel["environment"]["TUNNEL_GRACE_PERIOD"]
    )


def test_the_database_is_there_for_those_who_ask_and_reaches_nothing() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["postgres"]
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert SERVICES["firstview"]["depends_on"]["postgres"]["required"] is False


def test_the_examples_are_settings_that_firstview_starts_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # no .env of anybody
    for path in EXAMPLES:
        for name, value in dotenv_values(path).items():
            monkeypatch.setenv(name, value or "")
    for name, value in SERVICES["firstview"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.public_url == "https://cdn.example.com"
    assert settings.bucket_url == "s3://my-clips"
    assert str(settings.data_dir) == "/var/lib/firstview"


def test_the_examples_open_no_port_to_anybody_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As systemd's unit uses them: nothing else says where to listen.
    monkeypatch.chdir(tmp_path)
    settings = load(_env_file=DEPLOY / "firstview.env.example")
    assert settings.listen_address[0] == settings.admin_address[0] == "127.0.0.1"


def test_what_an_owner_fills_in_is_kept_out_of_the_repository() -> None:
    filled = [path.name.removesuffix(".example") for path in EXAMPLES]
    filled += [
        "secrets/tunnel_token",
        "cloudflare/terraform.tfvars",
        "cloudflare/terraform.tfstate",
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *filled],
        cwd=DEPLOY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == filled


def test_what_it_reads_has_an_example_or_is_a_secret() -> None:
    examples = {path.name.removesuffix(".example") for path in EXAMPLES}
    assert {file["path"] for file in SERVICES["firstview"]["env_file"]} == examples
    assert all(Path(secret["file"]).parts[0] == "secrets" for secret in COMPOSE["secrets"].values())


def test_the_volume_is_where_the_image_writes_and_the_ports_are_its_own() -> None:
    image = (DEPLOY.parent / "Dockerfile").read_text()
    service = SERVICES["firstview"]
    assert f"VOLUME {service['environment']['FIRSTVIEW_DATA_DIR']}\n" in image
    (exposed,) = re.findall(r"^EXPOSE (.+)$", image, re.MULTILINE)
    assert [port.split(":")[-1] for port in service["ports"]] == exposed.split()
