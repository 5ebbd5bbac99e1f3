"""What deploy/ names exists in the code, and what its pages link to exists too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import reference

ROOT = Path(__file__).resolve().parents[3]
FILES = [
    path
    for path in sorted((ROOT / "deploy").rglob("*"))
    if path.is_file() and ".terraform" not in path.parts
]


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
