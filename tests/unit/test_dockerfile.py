"""What the Dockerfile promises: pinned, unprivileged, without a way to compile."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from proxy import __version__
from proxy.settings import Settings, parse_address
from tests.fixtures.dockerfile import BASE_PATH, read

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = read(ROOT / "Dockerfile")
LAST = DOCKERFILE.stages[-1]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run(
        [hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_every_stage_begins_at_the_one_base_which_names_its_version() -> None:
    assert [stage.base for stage in DOCKERFILE.stages] == [
        "${PYTHON_IMAGE}",
        "tools",
        "${PYTHON_IMAGE}",
    ]
    pinned = r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?"
    assert re.fullmatch(pinned, DOCKERFILE.arguments["PYTHON_IMAGE"])


def test_packages_are_installed_by_hash_and_built_nowhere() -> None:
    steps = [one.text for stage in DOCKERFILE.stages for one in stage.all("RUN")]
    installs = [step for step in steps if "requirements/" in step]
    assert len(installs) == 2
    for step in installs:
        assert "--require-hashes" in step
        assert "--only-binary :all:" in step or "--no-build" in step
    assert not [step for step in steps if re.search(r"\b(apt|apt-get|gcc|curl|wget)\b", step)]


def test_the_last_stage_takes_one_folder_and_runs_as_nobody_in_particular() -> None:
    (copied,) = LAST.all("COPY")
    assert copied.words == ["--from=build", "/opt/firstview", "/opt/firstview"]
    user, _, group = LAST.last("USER")[0].partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_container_is_found_where_the_image_says() -> None:
    environment = LAST.environment({"PATH": BASE_PATH})
    named = {name for name in environment if name.startswith("FIRSTVIEW_")}
    assert named <= {f"FIRSTVIEW_{name.upper()}" for name in Settings.model_fields}
    addresses = [environment[name] for name in ("FIRSTVIEW_LISTEN", "FIRSTVIEW_ADMIN_LISTEN")]
    assert LAST.last("EXPOSE") == [str(parse_address(address)[1]) for address in addresses]
    assert {parse_address(address)[0] for address in addresses} == {"0.0.0.0"}
    assert LAST.last("VOLUME") == LAST.last("WORKDIR") == [environment["FIRSTVIEW_DATA_DIR"]]
    assert environment["PATH"].startswith("/opt/firstview/bin:")


def test_the_image_is_labelled_with_this_version() -> None:
    arguments = dict(one.text.partition("=")[::2] for one in LAST.all("ARG"))
    assert arguments["VERSION"] == __version__
    labels = dict(word.partition("=")[::2] for word in LAST.last("LABEL"))
    assert {name.rpartition(".")[0] for name in labels} <= {
        "org.opencontainers.image",
        "org.opencontainers.image.base",
    }
    assert all(labels.values())


def test_the_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored, *rest = (line for line in lines if not line.startswith("#"))
    assert ignored == "*"
    allowed = {line.removeprefix("!") for line in rest if line.startswith("!")}
    copied = {
        source
        for stage in DOCKERFILE.stages[:-1]
        for one in stage.all("COPY")
        for source in one.words[:-1]
    }
    assert allowed == copied
    assert all((ROOT / source).exists() for source in copied)
