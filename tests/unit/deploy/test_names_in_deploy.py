"""What deploy/ names exists in the code, and what its pages link to exists too."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tools import reference

ROOT = Path(__file__).resolve().parents[3]
TESTS = ROOT / "tests"
CHECKED_BY = {
    "deploy/.gitignore": "unit/deploy/test_compose.py",
    "deploy/*.env.example": "unit/deploy/test_compose.py",
    "deploy/compose.yaml": "unit/deploy/test_compose.py",
    "deploy/cloudflare/*.tf": "unit/deploy/test_cloudflare_terraform.py",
    "deploy/cloudflare/*.example": "unit/deploy/test_cloudflare_terraform.py",
    "deploy/cloudflare/README.md": "unit/deploy/test_names_in_deploy.py",
    "deploy/grafana/*.json": "acceptance/test_prometheus.py",
    "deploy/prometheus/*.yml": "unit/test_alerts.py",
    "deploy/systemd/*.service": "unit/deploy/test_systemd.py",
}
"""Which tests know what a file is for; here it is about names only."""


def shipped() -> list[Path]:
    """Files of deploy/, without those that an owner has made of them, with their secrets."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "deploy"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in sorted(found.splitlines()) if (ROOT / name).is_file()]


FILES = shipped()


def test_every_file_has_a_test_that_knows_what_it_is_for() -> None:
    for path in FILES:
        name = path.relative_to(ROOT)
        known = {tests for pattern, tests in CHECKED_BY.items() if name.match(pattern)}
        assert known, f"{name} is checked by nobody"
        assert all((TESTS / tests).is_file() for tests in known)
    for pattern in CHECKED_BY:
        assert list(ROOT.glob(pattern)), f"{pattern} is no file any more"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_that_a_file_names_exist(path: Path) -> None:
    known = reference.settings_page()
    for name in set(re.findall(r"\b(?:FIRSTVIEW|AWS)_[A-Z0-9_]*[A-Z0-9]\b", path.read_text())):
        assert f"`{name}`" in known, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_a_file_runs_exist(path: Path) -> None:
    known = reference.commands_page()
    spoken = re.findall(
        r"(?:bin/firstview |CMD, firstview, |docker compose run --rm firstview )(\w+)",
        path.read_text(),
    )
    for command in spoken:
        assert f"## `firstview {command}" in known, command


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".md"], ids=lambda path: path.name
)
def test_links_of_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_pages_that_files_name_exist() -> None:
    for path in FILES:
        for page in re.findall(r"\bdocs/[\w/.-]+\.md\b", path.read_text()):
            assert (ROOT / page).exists(), f"{path.name} names {page}"
